import itertools

import pytest

from raystream.storage.stores import open_file_system, to_url

_numbers = itertools.count()


@pytest.fixture
def memory_base():
    base = f"memory://storage-tests-{next(_numbers)}"
    yield base
    open_file_system(base).delete_dir(base)


@pytest.fixture(params=["file", "memory"])
def base(request):
    """URL of an empty directory, of each store."""
    if request.param == "file":
        return to_url(str(request.getfixturevalue("tmp_path")))
    return request.getfixturevalue("memory_base")


@pytest.fixture
def fs(base):
    return open_file_system(base)
