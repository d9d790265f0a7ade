"""What tells the committables of the file sink apart, and how its parts are named, in every store."""

from raystream.operators.output_names import OutputNames
from raystream.operators.sink import WriterContext

FILE_FORMAT_VERSION, UPLOAD_FORMAT_VERSION = 2, 3
"""Of the committables for disks and for object stores: what they begin with tells them apart."""


def part_names(context: WriterContext) -> OutputNames:
    """Return the names of the parts of one subtask: `part-<uid>-<job>-<subtask>-<attempt>-<counter>`."""
    return OutputNames("part", context)
