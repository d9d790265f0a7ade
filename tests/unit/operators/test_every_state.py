"""State of every kind is the same however the input is cut, at every parallelism, on every backend."""

from collections import Counter

import pytest

from raystream.records.elements import WATERMARK_MAX_MS
from raystream.testing import OperatorHarness
from raystream.testing.state_rows import row
from tests.every_state import PICKLED_RULES, RULES, TYPED_RULES, Everything, expected, key_of

COUNTS = {1: 12, 7: 30, 1000: 1100}
"""Records by the size of a batch; every subtask must get one."""


@row("operator.restored", "operator.broadcast-same", "timers.past", "timers.restored")
@pytest.mark.parametrize("backend", ["hashmap", "rocksdb"])
@pytest.mark.parametrize(
    ("batch_size", "parallelisms"),
    [(1, (1, 2, 3, 1)), (7, (1, 2, 3, 1)), (1000, (1, 2, 3, 1)), (7, (3, 5)), (7, (4, 2))],
)
def test_every_key_of_every_kind_and_every_timer_is_there_in_the_end(backend, batch_size, parallelisms):
    count = COUNTS[batch_size]
    with OperatorHarness(
        Everything(),
        key=key_of,
        broadcast=[TYPED_RULES, PICKLED_RULES],
        parallelism=parallelisms[0],
        backend=backend,
        max_parallelism=16,
    ) as harness:
        for batch, start in enumerate(range(0, count, batch_size)):
            numbers = range(start, min(start + batch_size, count))
            harness.process2(RULES[batch : batch + 1])
            harness.process(numbers, timestamps=numbers)
            harness.watermark(start - 5)
            harness.restore(harness.snapshot(), parallelisms[(batch + 1) % len(parallelisms)])
        harness.process2(RULES)
        harness.processing_time(100_000)
        harness.watermark(WATERMARK_MAX_MS)

        assert Counter(harness.outputs) == Counter(expected(count))
