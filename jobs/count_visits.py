"""Counts the visits of users, for as long as it is let.

    raystream run -c configs/rocksdb-file.yaml jobs/count_visits.py --out visits/

The visits are made up, always in the same order, so that the job needs no input: it is there to try a cluster
with.  For each visit a line `[user, n]` appears in the output directory, n being the number of the user's
visits so far.  The directory is one that every slot reaches, or the URL of an object store.  Without `--out`
the counts are in the job's state alone: `raystream state` reads them in a savepoint.
"""

import argparse

from raystream import KeyedProcessFunction, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from raystream.connectors.files import FileSink


class CountVisits(KeyedProcessFunction):
    """Emits the user and the number of visits so far, for each visit."""

    def open(self, ctx):
        self.visits = ctx.get_state(ValueStateDescriptor("visits", int, default=0))

    def process_element(self, value, ctx):
        visits = self.visits.value() + 1
        self.visits.update(visits)
        return ((value, visits),)


def main() -> None:
    """Build the job from the command line's arguments and run it."""
    parser = argparse.ArgumentParser(description="Count the visits of users.")
    parser.add_argument("--out", metavar="URL", help="directory for the counts; none if not given")
    parser.add_argument("--visits", type=int, help="visits until the end; endless if not given")
    parser.add_argument("--users", type=int, default=10_000, help="different users")
    parser.add_argument("--rate", type=float, default=1_000, help="visits per second")
    options = parser.parse_args()

    users = options.users
    env = StreamEnvironment()
    source = DatagenSource(lambda index: f"user {index % users}", count=options.visits, rate=options.rate)
    sink = FileSink.json_lines(options.out) if options.out else DiscardSink()
    (
        env.from_source(source, name="visits", uid="visits")
        .key_by(lambda user: user)
        .process(CountVisits(), name="count", uid="count")
        .sink_to(sink, name="counts", uid="counts")
    )
    env.execute("count visits")


if __name__ == "__main__":
    main()
