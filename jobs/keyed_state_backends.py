"""Keeps a gibibyte of keyed state, and shows what each state backend makes of it.

    raystream run -c configs/rocksdb-file.yaml jobs/keyed_state_backends.py --backend rocksdb
    raystream run -c configs/rocksdb-file.yaml jobs/keyed_state_backends.py --backend rocksdb --full
    raystream run -c configs/hashmap-file.yaml jobs/keyed_state_backends.py --backend hashmap

Every record is a number, padded with zeros to a kibibyte, which is its own key; the state of a key is
the record itself, with thirty days to live.  Records come again and again from the first one until
the wanted number has gone by, then the job stops with a savepoint.  Each checkpoint is printed as it
completes, with its duration, the bytes that it wrote and the size of the state: run it on one backend and
on the other, with incremental checkpoints and without, and compare.  Checkpoints and the runner are a
matter of configuration.
"""

import argparse
import sys
import time
from datetime import timedelta

from raystream import KeyedProcessFunction, StateTtl, StreamEnvironment, ValueStateDescriptor
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource

KIB = 1024
MIB = KIB * KIB
TIME_TO_LIVE = timedelta(days=30)
LOOK_EVERY = "500ms"


class Remember(KeyedProcessFunction):
    """Keeps the newest record of each key and emits those whose key is new."""

    def open(self, ctx):
        self.line = ctx.get_state(ValueStateDescriptor("line", str, ttl=StateTtl(TIME_TO_LIVE)))

    def process_element(self, value, ctx):
        line, _ = value
        new = self.line.value() is None
        self.line.update(line)
        return (value,) if new else ()


def main() -> None:
    """Build the job from the command line's arguments and run it to its savepoint."""
    parser = argparse.ArgumentParser(description="Keep a lot of keyed state and show what that costs.")
    parser.add_argument("--backend", choices=("hashmap", "rocksdb"), help="as configured if not given")
    parser.add_argument(
        "--incremental",
        action=argparse.BooleanOptionalAction,
        help="let checkpoints write only what is new, as far as the backend can; as configured if not given",
    )
    parser.add_argument(
        "--full", dest="incremental", action="store_const", const=False, help="the same as --no-incremental"
    )
    parser.add_argument("--keys", type=int, default=KIB * KIB, help="different records")
    parser.add_argument("--record-bytes", type=int, default=KIB, help="length of a record")
    parser.add_argument("--records", type=int, help="records until the savepoint; all keys once if not given")
    options = parser.parse_args()

    keys, width = options.keys, options.record_bytes
    configured = {
        "state_backend_type": options.backend,
        "execution_checkpointing_incremental": options.incremental,
    }
    env = StreamEnvironment(**{key: value for key, value in configured.items() if value is not None})
    (
        env.from_source(
            DatagenSource(lambda index: str(index % keys).zfill(width)), name="numbers", uid="source"
        )
        .map(lambda line: (line, 1), name="pair", uid="pair")
        .key_by(lambda pair: pair[0])
        .process(Remember(), name="remember", uid="remember")
        .sink_to(DiscardSink(), name="discard", uid="sink")
    )
    watch(env.submit("keyed state backends"), options.records or keys)


def watch(client, records) -> None:
    """Print checkpoints until enough records have gone by, then stop the job and print what it cost."""
    started = time.monotonic()
    shown = set()
    print(f"{'checkpoint':>10}{'duration':>12}{'written':>12}{'state':>12}{'records':>14}")
    while client.progress().records_in < records:
        try:
            client.wait(LOOK_EVERY)
        except TimeoutError:
            show(client, shown)
        else:
            sys.exit("the job ended before all records had gone by")
    seconds = time.monotonic() - started
    path = client.stop()
    result = client.wait()
    show(client, shown)
    rate = result.records_in / seconds
    print(f"{result.records_in:,} records, {result.records_out:,} keys, {rate:,.0f} records/s")
    print(f"savepoint: {path}")


def show(client, shown) -> None:
    """Print the checkpoints and savepoints that have completed since the last call."""
    records = client.progress().records_in
    for checkpoint in client.checkpoints():
        if checkpoint.status in ("completed", "deleted") and checkpoint.checkpoint_id not in shown:
            shown.add(checkpoint.checkpoint_id)
            name = "savepoint" if checkpoint.purpose in ("stop", "savepoint") else checkpoint.checkpoint_id
            print(
                f"{name:>10}{checkpoint.duration_ms / 1000:>10.1f} s"
                f"{checkpoint.uploaded_bytes / MIB:>8.1f} MiB{checkpoint.size_bytes / MIB:>8.1f} MiB"
                f"{records:>14,}",
                flush=True,
            )


if __name__ == "__main__":
    main()
