"""The list of jobs leaves out masters that have nothing to show, and warns of those that should have."""

from types import SimpleNamespace

import pytest
from ray.exceptions import RayTaskError

from raystream.cluster import client
from raystream.errors import JobNotFoundError, StorageError


@pytest.mark.parametrize(
    ("cause", "warned"), [(JobNotFoundError("job has ended"), False), (StorageError("store is away"), True)]
)
def test_master_without_a_job_is_no_warning(monkeypatch, caplog, cause, warned):
    def fail(question, timeout):
        raise RayTaskError("view", "", cause)

    monkeypatch.setattr(client.ray, "get", fail)
    master = SimpleNamespace(view=SimpleNamespace(remote=lambda: "question"))

    assert client._views({"5eed": master}) == []
    assert ("job master does not answer" in caplog.text) == warned
