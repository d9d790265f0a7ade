"""Errors in the form in which a slot reports them."""

import pickle

from raystream.errors import RaystreamError
from raystream.operators.user_code import said


def portable(error: BaseException, failed: str) -> RaystreamError:
    """Return the error in a form that reaches the coordinator, without the frames that it came through.

    It is a copy also where the coordinator is in this process and keeps it, and with it nothing else.

    Args:
        error: any; of one that is not ours, type and message are told.
        failed: what has failed with it.
    """
    if isinstance(error, RaystreamError):
        try:
            copied: RaystreamError = pickle.loads(pickle.dumps(error))
        except BaseException:
            return type(error)(error.message, hint=error.hint, cause=repr(error.context))
        return copied
    return RaystreamError(failed, cause=said(error))
