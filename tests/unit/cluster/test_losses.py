"""What Ray says about a dead process becomes one line of cause and one of advice."""

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayTaskError

from raystream.cluster.losses import slot_lost, slot_silent
from raystream.cluster.worker import WorkerInfo
from raystream.errors import RaystreamError, SlotLostError

INFO = WorkerInfo(slot=1, node_ip="10.0.0.7", node_id="n", pid=4711)

KILLED = """The actor died unexpectedly before finishing this task.
\tclass_name: SlotActor
\tactor_id: de13deac7279978d49b881b001000000
\tpid: 4711
\tnamespace: raystream
\tip: 10.0.0.7
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: \
Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the \
process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called."""

OUT_OF_MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node \
(IP: 10.0.0.7, ID: 7e95) was 4.73GB used / 23.54GB limit (0.201105)
OOM kill reason: Memory usage 5075038208B exceeded threshold of 5055302144B (20.0% of 25276510208B limit)"""


def died(text: str, *, init_failed: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = text
    error._actor_init_failed = init_failed
    return error


@pytest.mark.parametrize(
    ("error", "message", "advice"),
    [
        (died(KILLED), "process of a slot was killed or crashed", "dmesg"),
        (OutOfMemoryError(OUT_OF_MEMORY), "killed because the node ran out of memory", "fewer slots"),
        (died("The actor is dead because its node has died. Node Id: 1"), "node of a slot is gone", ""),
        (died("ModuleNotFoundError: No module named 'raystream'", init_failed=True),
         "raystream is not installed on its node", "install"),
        (died("ValueError: boom", init_failed=True), "process of a slot could not start", ""),
        (died("The actor is dead because it was killed by `ray.kill`."), "process of a slot is gone", ""),
    ],
)  # fmt: skip
def test_loss_is_explained_with_its_place(error, message, advice):
    lost = slot_lost(1, INFO, error)

    assert isinstance(lost, SlotLostError)
    assert message in lost.message
    assert advice in lost.hint
    assert (lost.context["slot"], lost.context["node"], lost.context["pid"]) == (1, "10.0.0.7", 4711)


def test_cause_is_rays_own_without_what_the_error_says_already():
    assert slot_lost(1, INFO, died(KILLED)).context["cause"] == (
        "its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
        "Worker unexpectedly exits with a connection error code 2. End of file."
    )


def test_error_of_ours_in_a_slots_process_is_told_as_it_is():
    error = RaystreamError("loop of a slot ended")

    assert slot_lost(1, INFO, RayTaskError("heartbeat", "", error)) is error


def test_process_that_never_answered_has_no_place():
    assert "pid" not in slot_lost(1, None, died(KILLED)).context


def test_silence_is_told_with_its_length():
    assert slot_silent(1, INFO, 30_400.0).context["silent_s"] == 30
