"""Fixtures of the tests of connectors."""

import pytest

from tests.unit.connectors.sinks import started_writers


@pytest.fixture
def open_writer():
    """Opens and starts a writer; closes it when the test is over."""
    with started_writers() as open_one:
        yield open_one
