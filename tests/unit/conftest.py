"""What every unit test may use."""

import pytest


@pytest.fixture(autouse=True)
def row(request):
    """Names of the rules of state that the test proves (`raystream.testing.state_rows`)."""
    return getattr(request, "param", ())
