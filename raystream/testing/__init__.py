"""The public test kit: an operator harness, a scripted source, contracts for sources and sinks."""

from raystream.testing.check import check_operator
from raystream.testing.contracts import SinkContract, SourceContract
from raystream.testing.harness import HarnessSnapshot, OperatorHarness
from raystream.testing.sources import Barrier, Crash, Pause, TestSource

__all__ = [
    "Barrier",
    "Crash",
    "HarnessSnapshot",
    "OperatorHarness",
    "Pause",
    "SinkContract",
    "SourceContract",
    "TestSource",
    "check_operator",
]
