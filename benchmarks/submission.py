"""How long it takes from `raystream submit` to the first record, and from `raystream stop` to the end.

    python benchmarks/submission.py [--keys 1000000] [--parallelism 2] [--rounds 3]

A head with a dashboard and two nodes run on this machine, with token authentication.  A job that counts keys
is submitted, stopped with a savepoint when it has seen all of them, and submitted again from there.  Every
time is that of the machine's one clock; figures are seconds, the median of the rounds.

    client        the command starts, packs the directory of the script, and Ray takes the job
    Ray           its job supervisor starts, and unpacks the directory
    environment   driver, Python and script start, up to `env.submit()`
    connect       the script joins the cluster, the job master starts and takes the job
    deploy        the processes of the slots start
    restore       state is read, until the operator has its first record

    command       `raystream stop`, until the savepoint is stored and all before it committed
    Ray job       until the Ray job is over too
"""

import argparse
import re
import statistics
import tempfile
from datetime import datetime
from pathlib import Path

from raystream.clock import SystemClock
from tests.ray.started_cluster import StartedCluster, eventually, started_cluster

SCRIPT = """
import os
import sys
from pathlib import Path

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.clock import SystemClock
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource

KEYS, MARKS = int(sys.argv[1]), Path(sys.argv[2])


def mark(name, wall_ms=None):
    unfinished = MARKS / f".{name}"
    unfinished.write_text(str(wall_ms or SystemClock().wall_ms()))
    unfinished.rename(MARKS / name)


class Count(KeyedProcessFunction):
    def open(self, ctx):
        self.seen = ctx.get_state(ValueStateDescriptor("seen", int, default=0))
        self.subtask, self.records = ctx.subtask_index, 0

    def process_element(self, value, ctx):
        if not self.records:
            mark(f"record-{self.subtask}")
        self.records += 1
        if self.records == KEYS:
            mark(f"all-{self.subtask}")
        self.seen.update(self.seen.value() + 1)
        return ()


mark("driver", int(os.stat(f"/proc/{os.getppid()}").st_ctime * 1000))
env = StreamEnvironment()
keys = env.from_source(DatagenSource(lambda index: index % KEYS), uid="keys")
keys.key_by(lambda key: key).process(Count(), uid="count").sink_to(DiscardSink(), uid="sink")
mark("script")
client = env.submit("submission")
mark("accepted")
client.wait()
"""
STARTED = ("client", "Ray", "environment", "connect", "deploy", "restore")
STOPPED = ("command", "Ray job")
SLOT_CREATED = re.compile(r"^slot-\d+ \| (\S+ \S+) INFO .*slot created", re.MULTILINE)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="Time from submit to the first record, and of stop.")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--parallelism", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rs-", ignore_cleanup_errors=True) as name:
        home = Path(name) / "home"
        home.mkdir()
        with started_cluster(Path(name), home, nodes=2, node_cpus=options.parallelism) as cluster:
            rounds = [Round(cluster, Path(name) / f"round-{n}", options).run() for n in range(options.rounds)]
    for title, parts in (("submit, anew", STARTED), ("submit, -s", STARTED), ("stop", STOPPED)):
        medians = {part: statistics.median(one[title][part] for one in rounds) for part in parts}
        shown = "  ".join(f"{part} {seconds:.2f}" for part, seconds in medians.items())
        print(f"{title:14} {sum(medians.values()):6.2f} s   {shown}")


class Round:
    """A job from its submission to its end, and again from its savepoint."""

    def __init__(self, cluster: StartedCluster, directory: Path, options: argparse.Namespace) -> None:
        self._cluster = cluster
        self._directory = directory
        self._options = options
        self._now_ms = SystemClock().wall_ms

    def run(self) -> dict[str, dict[str, float]]:
        """Return the seconds of each part, by title."""
        (self._directory / "job").mkdir(parents=True)
        (self._directory / "job" / "job.py").write_text(SCRIPT)
        anew = self._submit("anew")
        self._times("anew", "all")
        savepoint, stopped = self._stop("anew")
        again = self._submit("again", "-s", savepoint)
        self._stop("again")
        return {"submit, anew": anew, "submit, -s": again, "stop": stopped}

    def _submit(self, name: str, *options: str) -> dict[str, float]:
        marks = self._directory / name
        marks.mkdir()
        began_ms = self._now_ms()
        done = self._cluster.raystream(
            "submit", "--address", self._cluster.dashboard, "--submission-id", self._id(name), "--no-wait",
            "-D", f"execution.checkpointing.dir={self._directory / 'checkpoints'}",
            "-p", self._options.parallelism, *options,
            self._directory / "job" / "job.py", self._options.keys, marks, cwd=self._directory,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        record_ms = min(self._times(name, "record"))
        (driver_ms,), (script_ms,), (accepted_ms,) = (
            self._times(name, mark) for mark in ("driver", "script", "accepted")
        )
        ray_ms = self._cluster.ask(f"/api/jobs/{self._id(name)}")["start_time"]
        logs = self._cluster.raystream(
            "logs", "submission", cwd=self._directory, env=self._cluster.shell(RAY_ADDRESS=self._cluster.head)
        ).stdout
        slots_ms = max(datetime.fromisoformat(when).timestamp() * 1000 for when in SLOT_CREATED.findall(logs))
        times = [began_ms, ray_ms, driver_ms, script_ms, accepted_ms, slots_ms, record_ms]
        return {part: (times[i + 1] - times[i]) / 1000 for i, part in enumerate(STARTED)}

    def _stop(self, name: str) -> tuple[str, dict[str, float]]:
        began_ms = self._now_ms()
        done = self._cluster.raystream(
            "stop", "submission", "-p", self._directory / "savepoints", cwd=self._directory,
            env=self._cluster.shell(RAY_ADDRESS=self._cluster.head),
        )  # fmt: skip
        over_ms = self._now_ms()  # With the stream job.
        assert done.returncode == 0, done.stderr
        ended_ms = eventually(lambda: self._cluster.ask(f"/api/jobs/{self._id(name)}")["end_time"])
        return done.stdout.strip(), {
            "command": (over_ms - began_ms) / 1000,
            "Ray job": max(ended_ms - over_ms, 0) / 1000,
        }

    def _id(self, name: str) -> str:
        return f"{self._directory.name}-{name}"

    def _times(self, name: str, mark: str) -> list[int]:
        """Return when a mark was set, by every subtask that sets it."""
        count = self._options.parallelism if mark in ("record", "all") else 1
        found = eventually(lambda: len(files := self._marks(name, mark)) == count and files)
        return [int(file.read_text()) for file in found]

    def _marks(self, name: str, mark: str) -> list[Path]:
        return sorted((self._directory / name).glob(f"{mark}*"))


if __name__ == "__main__":
    main()
