"""`raystream state`: looks into savepoints and checkpoints, without starting anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from raystream.cli.attend import say
from raystream.cli.jobs import json_option
from raystream.cli.listing import print_as_json
from raystream.cli.progress import short_size
from raystream.cli.state_check import check
from raystream.cli.terminal import StatusLine, status_line

if TYPE_CHECKING:
    from raystream.savepoint import Savepoint

KEYS_SHOWN_DEFAULT = 10

snapshot_argument = click.argument("snapshot", metavar="SNAPSHOT")


@click.group("state", short_help="Look into savepoints and checkpoints.")
def state() -> None:
    """Look into the state in a savepoint or checkpoint, whichever backend wrote it.

    SNAPSHOT is its directory, or the _metadata in it. Nothing is unpickled, and the program is not needed
    (but for `check`).
    """


state.add_command(check)


@contextmanager
def opened(path: str) -> Iterator["Savepoint"]:
    """Open a snapshot; how far long work is is told on standard error."""
    from raystream.savepoint import open as open_savepoint

    with status_line() as line, open_savepoint(path, progress=_Shown(line)) as savepoint:
        yield savepoint


class _Shown:
    """Shows how far long work is: on a terminal all the time, else once when there is much of it."""

    ANNOUNCED_BYTES_MIN = 64 << 20
    STEP_BYTES = 1 << 20
    """Less than this is not worth another look."""

    def __init__(self, line: StatusLine | None) -> None:
        self._line = line
        self._announced: set[str] = set()
        self._shown_bytes = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        if self._line is not None:
            if abs(done - self._shown_bytes) >= self.STEP_BYTES or done == total:
                self._shown_bytes = done
                self._line.show(f"{what} the snapshot: {short_size(done)} of {short_size(total)}")
        elif total >= self.ANNOUNCED_BYTES_MIN and what not in self._announced:
            self._announced.add(what)
            say(f"{what} the snapshot, {short_size(total)}")


@state.command("ls", short_help="List operators and their states.")
@snapshot_argument
@click.option(
    "--no-sizes", is_flag=True,
    help="Do not read state to count it and to find the largest keys; shows what the indexes say.",
)  # fmt: skip
@json_option
def ls(snapshot: str, no_sizes: bool, as_json: bool) -> None:
    """List operators and their states: kind, type, entries, bytes, key groups, and the ten largest keys.

    A canonical savepoint says all of this in its indexes. The keys of others have to be read, and the files
    of incremental checkpoints copied, unless --no-sizes is given.
    """
    from raystream.cli.state_listing import listing, print_listing

    with opened(snapshot) as savepoint:
        found = listing(savepoint, sizes=not no_sizes)
    if as_json:
        print_as_json(found)
    else:
        print_listing(found)


@state.command("get", short_help="Show the state of one key.")
@snapshot_argument
@click.argument("uid", metavar="UID")
@click.argument("name", metavar="STATE")
@click.argument("key", metavar="KEY")
@click.option(
    "--literal", is_flag=True,
    help="KEY is written as `ls` shows keys: 42, ('a', 1), b'\\x00', UUID('...'); by default it is text.",
)  # fmt: skip
@json_option
def get(snapshot: str, uid: str, name: str, key: str, *, literal: bool, as_json: bool) -> None:
    """Show what STATE of the operator UID holds for KEY, one value, element or map entry a line.

    Only the key group of the key is read.
    """
    from raystream.cli.state_listing import entry, missing_key, print_entry
    from raystream.savepoint.key_literals import key_of_literal

    wanted = key_of_literal(key) if literal else key
    with opened(snapshot) as savepoint:
        state = savepoint.state(uid, name)
        rows = state.get(wanted)
        if not len(rows):
            raise missing_key(state, wanted)
        found = entry(state, wanted, rows)
    if as_json:
        print_as_json(found)
    else:
        print_entry(found)


@state.command("export", short_help="Write a state to a Parquet file.")
@snapshot_argument
@click.argument("uid", metavar="UID")
@click.argument("name", metavar="STATE")
@click.argument("out", metavar="OUT.parquet", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def export(snapshot: str, uid: str, name: str, out: Path, as_json: bool) -> None:
    """Write all rows of STATE of the operator UID to one Parquet file, with the columns of savepoints.

    Prints the path of the file, which appears when it is complete.
    """
    with opened(snapshot) as savepoint:
        rows = savepoint.state(uid, name).export(out)
    if as_json:
        print_as_json({"path": str(out), "rows": rows})
    else:
        print(out)


@state.command("diff", short_help="Tell what changed between two snapshots.")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.option(
    "--keys", "keys_max", metavar="N", type=click.IntRange(min=0), default=KEYS_SHOWN_DEFAULT,
    show_default=True, help="Show at most so many keys of each state that differ.",
)  # fmt: skip
@json_option
def diff(before: str, after: str, keys_max: int, as_json: bool) -> None:
    """Tell what changed in each state from snapshot A to snapshot B: entries added, removed and changed.

    Values are compared as they are stored, without being decoded; times of writing do not count. At most one
    key group of an operator is held in memory, where A and B have the same max parallelism.
    """
    from raystream.cli.state_listing import difference_as_json, print_differences, regrouped_operators
    from raystream.savepoint.difference import differences

    with opened(before) as first, opened(after) as second:
        found = list(differences(first.reader, second.reader, keys_max=keys_max))
        regrouped = regrouped_operators(first, second)
    if as_json:
        print_as_json([difference_as_json(one) for one in found])
    else:
        for line in regrouped:
            say(line)
        print_differences(found)
