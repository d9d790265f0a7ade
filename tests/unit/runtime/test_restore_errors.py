"""What cannot be restored is told with the file that it is in."""

import pytest

from raystream.errors import StateCorruptError
from raystream.handles import OperatorStateHandle, Redistribution
from raystream.runtime.messages import OperatorRestore, OperatorStateSlice
from raystream.runtime.restore import read_operator
from raystream.storage.blobs import SnapshotFiles
from tests.unit.storage import sample


def test_part_of_operator_state_that_is_none_is_named_by_its_path(tmp_path):
    content = b"PAR1 and nothing that Parquet has"
    file = sample.named_file("count/offsets/part-0.parquet", content).file
    files, directory = SnapshotFiles(), tmp_path.as_uri()
    files.write_file(directory, file, content)
    handle = OperatorStateHandle(name="offsets", mode=Redistribution.SPLIT, element_count=1, data=file)
    part = OperatorStateSlice(handle=handle, start=0, stop=1)
    restore = OperatorRestore(directory=directory, states=(), keyed=(), operator=(part,))

    with pytest.raises(StateCorruptError, match="cannot be read") as caught:
        read_operator(files, restore, None)
    assert caught.value.context["path"] == f"{directory}/count/offsets/part-0.parquet"
