"""One server of each kind for all tests of a session; what is in them is kept apart by names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.hdfs import Hdfs, started_hdfs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.services)


@pytest.fixture(scope="session")
def hdfs(in_ci: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """The session's HDFS; a test that stops a server of it starts it again."""
    with started_hdfs(lambda: tmp_path_factory.mktemp("hdfs"), in_ci) as server:
        yield server
