"""A cluster that is not joined is told apart by what the user can do about it."""

import pytest
from ray.exceptions import AuthenticationError

from raystream.cluster import refusals
from raystream.cluster.refusals import not_joined, refused
from raystream.errors import ClusterNotFoundError, ConfigError

MISMATCH = """\
Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.12.4
This process on node 10.0.0.7 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


@pytest.fixture
def home(monkeypatch, tmp_path):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(refusals.Path, "home", lambda: tmp_path)
    return tmp_path


def test_client_without_a_token_is_told_how_to_give_one(home):
    error = refused("head:6379", AuthenticationError("Missing authentication token"))

    assert isinstance(error, ConfigError)
    assert error.message == "Ray cluster wants a token, and this client has shown none"
    assert "RAY_AUTH_MODE=token" in error.hint
    assert "RAY_AUTH_TOKEN_PATH" in error.hint
    assert "ray get-auth-token" in error.hint
    assert str(home) not in error.hint


def test_token_that_lies_at_home_is_named_because_it_is_shown_only_on_request(home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("a" * 32)

    assert f"RAY_AUTH_MODE=token alone shows it the one in {home}" in refused("head:6379", Exception()).hint


def test_client_with_the_wrong_token_is_told_so(home, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 32)

    error = not_joined("head:6379", RuntimeError("gRPC: InvalidAuthToken: Unauthenticated"))

    assert error.message == "Ray cluster refuses this client's token"


def test_versions_of_both_sides_are_in_the_error():
    error = not_joined("head:6379", RuntimeError(MISMATCH))

    assert isinstance(error, ConfigError)
    assert error.message == "Ray cluster runs another version of Python or Ray"
    for version in ("2.59.0", "3.12.4", "2.60.0", "3.11.7"):
        assert version in error.context["cause"]


def test_machine_outside_the_cluster_is_told_to_use_the_dashboard():
    error = not_joined("head:6379", ConnectionError("no node has the address of this machine"))

    assert isinstance(error, ClusterNotFoundError)
    assert "--address http://HEAD:8265" in error.hint
