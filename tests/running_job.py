"""Waiting for what a running job brings about."""

from collections.abc import Callable
from typing import TypeVar

import pytest

from raystream import JobClient

T = TypeVar("T")


def until(client: JobClient, condition: Callable[[], T]) -> T:
    """Return the first true value of a condition; a job that ends before it fails the test."""
    while not (value := condition()):
        with pytest.raises(TimeoutError):
            client.wait("20ms")
    return value
