"""Addresses of heads and of dashboards."""

import socket

import pytest

from raystream.cluster.address import answers_at_all, dashboard_url, given_dashboard


@pytest.mark.parametrize(("address", "url"), [
    ("http://head:8265", "http://head:8265"),
    ("https://ray.example.org/", "https://ray.example.org"),
    ("head:6379", None),
    ("ray://head:10001", None),
    ("auto", None),
])  # fmt: skip
def test_dashboard_is_told_from_a_head_by_its_scheme(address, url):
    assert dashboard_url(address) == url


def test_address_that_was_typed_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")

    assert given_dashboard(None) == "http://head:8265"
    assert given_dashboard("http://other:8265") == "http://other:8265"
    assert given_dashboard("head:6379") is None


def test_something_answers_only_where_something_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers_at_all(f"http://127.0.0.1:{port}")

    assert not answers_at_all(f"http://127.0.0.1:{port}")
    assert not answers_at_all("http://127.0.0.1:70000")
