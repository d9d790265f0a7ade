"""Names of what sinks write and commit later, by which a later attempt knows what a dead one has left.

    <kind>-<uid>-<job>-<subtask>-<attempt>-<counter>

`<uid>` is percent-encoded and `<job>` the first 16 digits of the job id, so that no two operators, jobs,
attempts or checkpoints use one name, also when a second job starts from a savepoint of the first.
"""

import urllib.parse

from raystream.operators.sink import WriterContext

JOB_DIGITS = 16


class OutputNames:
    """The names of one subtask in one attempt.

    Args:
        kind: how all names of this sort begin, `part` say.

    Attributes:
        prefix: how every name of this operator and job begins, in any attempt.
    """

    def __init__(self, kind: str, context: WriterContext) -> None:
        uid = urllib.parse.quote(context.uid, safe="")
        self.prefix = f"{kind}-{uid}-{context.job_id[:JOB_DIGITS]}-"
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
