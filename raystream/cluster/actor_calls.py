"""Calls to the processes of slots, whose answers arrive as mail on the job master's thread, or never."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from raystream.cluster import losses
from raystream.cluster.endings import Answer
from raystream.runtime.mailbox import Mailbox


class ActorCalls:
    """Makes calls; in any thread.

    Args:
        mailbox: brings the answers.
    """

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    def ask(self, ref: Any, answered: Callable[["Future[Any]"], None]) -> None:
        """Hand over the answer to a call that was made."""
        ref.future().add_done_callback(lambda answer: self._mailbox.post(lambda: answered(answer)))

    def ready(self, actor: Any, answered: Callable[["Future[Any]"], None]) -> None:
        """Ask whether the process is there."""
        self.ask(actor.ready.remote(), answered)

    def lives(self, actor: Any, answered: Callable[[Answer], None]) -> None:
        """Ask whether it lives, of a process that was killed."""
        self.ready(actor, lambda call: answered(losses.answer_of(call)))

    def retire(self, actor: Any, answered: Callable[[Answer], None]) -> None:
        """Tell it to fall silent."""
        self.ask(actor.retire.remote(), lambda call: answered(losses.answer_of(call)))
