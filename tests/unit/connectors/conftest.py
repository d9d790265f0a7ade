"""Fixtures of the tests of connectors."""

import pytest

from tests.unit.connectors.sinks import context_of


@pytest.fixture
def open_writer():
    """Opens and starts a writer; closes it when the test is over."""
    writers = []

    def open_one(sink, **changes):
        writers.append(sink.open_writer(context_of(**changes)))
        writers[-1].start()
        return writers[-1]

    yield open_one
    for writer in writers:
        writer.close()
