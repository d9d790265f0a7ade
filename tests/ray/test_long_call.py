"""A user function that takes longer than a slot may be silent is reported, and not taken for death."""

from pathlib import Path
from threading import Event

from raystream import MapFunction
from raystream.cluster.vitals import HELD_MS_MIN
from raystream.connectors.files import FileSink
from tests.published import records
from tests.ray.conftest import PATIENCE_S
from tests.running_job import until

TIMEOUT_MS = 4_000


class Held(MapFunction):
    """Gives each number back, one of them only when it may."""

    def __init__(self, release: Path) -> None:
        self.release = release

    def map(self, value):
        if value == 50:
            self.wait_for_what_takes_long()
        return value

    def wait_for_what_takes_long(self):
        while not self.release.exists():
            Event().wait(0.05)


def test_slot_is_kept_while_a_call_takes_longer_than_the_heartbeat_timeout(
    ray_cluster, environment, tmp_path
):
    assert TIMEOUT_MS < HELD_MS_MIN, "the stack is logged when the timeout is over"
    env = environment(1, heartbeat_interval="500ms", heartbeat_timeout=f"{TIMEOUT_MS}ms")
    numbers = env.from_collection(range(100), uid="numbers").map(Held(tmp_path / "release"), uid="held")
    numbers.sink_to(FileSink.json_lines(tmp_path / "out"), uid="out")
    client = env.submit("long call")

    until(client, lambda: told(ray_cluster, Held.wait_for_what_takes_long.__name__))
    (tmp_path / "release").touch()
    result = client.wait(PATIENCE_S)

    assert result.restarts == 0
    assert sorted(records(tmp_path / "out")) == list(range(100))


def told(ray_cluster, function: str) -> bool:
    """Return whether a job master has logged that a slot is in a function."""
    logs = Path(ray_cluster.head_node.get_logs_dir_path()).glob("worker-*")
    texts = [path.read_text(errors="replace") for path in logs]
    return any("loop of a slot is held up" in text and function in text for text in texts)
