"""What a function counts with `ctx.metrics` is seen in the harness."""

from raystream import KeyedProcessFunction
from raystream.testing.harness import OperatorHarness


class CountsLetters(KeyedProcessFunction):
    """Counts with `ctx.metrics` what it has seen."""

    def open(self, ctx):
        self.letters = ctx.metrics.counter("letters")
        ctx.metrics.gauge("subtask", lambda: ctx.subtask_index)

    def process_element(self, value, ctx):
        self.letters.inc(len(value))


def test_metrics_of_the_function_are_seen_and_begin_at_zero_after_a_restore():
    with OperatorHarness(CountsLetters(), key=len, parallelism=2) as harness:
        harness.process(["a", "bb", "ccc"])
        assert sum(one["letters"] for one in harness.metrics) == 6
        assert [one["subtask"] for one in harness.metrics] == [0.0, 1.0]

        harness.restore(harness.snapshot())
        assert [one["letters"] for one in harness.metrics] == [0.0, 0.0]
