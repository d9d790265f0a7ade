"""Names of the parts that a file sink writes, whatever store they go to.

    part-<uid>-<job>-<subtask>-<attempt>-<counter>

`<uid>` is percent-encoded and `<job>` the first 16 digits of the job id, so that no two operators, jobs,
attempts or checkpoints use one name, also when a second job starts from a savepoint of the first.
"""

import urllib.parse

from raystream.operators.sink import WriterContext

JOB_DIGITS = 16

FILE_FORMAT_VERSION, UPLOAD_FORMAT_VERSION = 2, 3
"""Of the committables for disks and for object stores: what they begin with tells them apart."""


class PartNames:
    """The names of one subtask in one attempt.

    Attributes:
        prefix: how every name of this operator and job begins, in any attempt.
    """

    def __init__(self, context: WriterContext) -> None:
        uid = urllib.parse.quote(context.uid, safe="")
        self.prefix = f"part-{uid}-{context.job_id[:JOB_DIGITS]}-"
        self._context = context
        self._counter = 0

    def draw(self) -> str:
        """Return a name that was never used before."""
        name = f"{self.prefix}{self._context.subtask}-{self._context.attempt}-{self._counter}"
        self._counter += 1
        return name

    def left_behind(self, name: str) -> bool:
        """Return whether a name is of a dead attempt of this operator and job, and this subtask's to remove.

        Each one is some subtask's, also when there were more of them before.
        """
        if not name.startswith(self.prefix):
            return False
        numbers = name[len(self.prefix) :].split("-")
        if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
            return False
        subtask, attempt = int(numbers[0]), int(numbers[1])
        context = self._context
        return attempt < context.attempt and subtask % context.parallelism == context.subtask
