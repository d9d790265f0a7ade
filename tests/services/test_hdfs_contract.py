"""HDFS keeps the promises that every store makes, by either protocol."""

import itertools

import pytest

from raystream.storage.stores import open_file_system
from tests.unit.storage.contract import FileSystemContract

_numbers = itertools.count()


@pytest.fixture(params=["hdfs", "webhdfs"])
def base(request, hdfs):
    """URL of an empty directory, for each client."""
    return f"{hdfs.url_of(request.param)}/contract-{next(_numbers)}"


@pytest.fixture
def fs(base):
    return open_file_system(base)


class TestHdfs(FileSystemContract):
    """Runs the contract against the real servers."""
