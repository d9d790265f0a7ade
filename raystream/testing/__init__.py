"""The public test kit: an operator harness, a simulated cluster, a scripted source, contracts."""

from raystream.records.elements import Idle, Watermark
from raystream.testing.check import Second, check_operator
from raystream.testing.contracts import SinkContract, SourceContract
from raystream.testing.drawn_faults import NO_FAULTS, Faults
from raystream.testing.harness import HarnessSnapshot, OperatorHarness
from raystream.testing.simulation import SimulationReport, simulate
from raystream.testing.simulation_job import SeedResult
from raystream.testing.simulation_run import Delivery
from raystream.testing.sources import Barrier, Crash, Pause, TestSource

__all__ = [
    "NO_FAULTS",
    "Barrier",
    "Crash",
    "Delivery",
    "Faults",
    "HarnessSnapshot",
    "Idle",
    "OperatorHarness",
    "Pause",
    "Second",
    "SeedResult",
    "SimulationReport",
    "SinkContract",
    "SourceContract",
    "TestSource",
    "Watermark",
    "check_operator",
    "simulate",
]
