"""A user reads the traceback of the user's own code, and no frames of raystream before it."""

import pytest

from raystream import UserCodeError
from raystream.testing import OperatorHarness


def parse(line):
    return int(line)


def test_traceback_begins_in_the_users_function():
    with OperatorHarness(parse, operation="map") as harness, pytest.raises(UserCodeError) as raised:
        harness.process(["1", "x"])

    head, frame, *_ = raised.value.context["traceback"].splitlines()
    assert head == "Traceback (most recent call last):"
    assert frame.endswith("in parse")
