"""A client's request is taken once and answered once, however often it is repeated."""

import pytest

from raystream.errors import ProtocolError
from raystream.protocol.client_requests import OUTCOMES_REMEMBERED_MAX, ClientRequests, RequestOutcome


def test_repeated_request_is_not_a_new_one_before_and_after_its_answer():
    requests = ClientRequests()

    assert requests.request_received("r")
    assert not requests.request_received("r")
    requests.request_resolved(RequestOutcome(request_id="r", path="/sp"))
    assert not requests.request_received("r")
    assert requests.outcomes == (RequestOutcome(request_id="r", path="/sp"),)
    requests.validate()


@pytest.mark.parametrize("received", [False, True])
def test_second_answer_and_answer_to_nobody_are_bugs(received):
    requests = ClientRequests()
    if received:
        requests.request_received("r")
        requests.request_resolved(RequestOutcome(request_id="r"))

    with pytest.raises(ProtocolError, match="not open"):
        requests.request_resolved(RequestOutcome(request_id="r"))


def test_oldest_answers_are_forgotten():
    requests = ClientRequests()
    for number in range(OUTCOMES_REMEMBERED_MAX + 1):
        requests.request_received(str(number))
        requests.request_resolved(RequestOutcome(request_id=str(number)))
        requests.validate()

    assert len(requests.outcomes) == OUTCOMES_REMEMBERED_MAX
    assert requests.outcomes[0].request_id == "1"
