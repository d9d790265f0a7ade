"""With Ray's variables for TLS, no connection is plain, and nobody without a certificate gets in."""

import datetime as dt

import pytest

from raystream.errors import ConfigError, ConnectionLostError, ProtocolError
from raystream.runtime.frame import FrameKind
from raystream.runtime.tls import tls_of_environment
from tests.certificates import Authority
from tests.unit.runtime.tcp_nodes import Node, RawDialer, Relay, begin, connect, drive

FILES = ["RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT"]


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "own")


@pytest.fixture
def make():
    nodes = []

    def make_node(slot, environment, **identity):
        nodes.append(Node(slot, lambda: tls_of_environment(environment), **identity))
        return nodes[-1]

    yield make_node
    for node in nodes:
        node.links.dispose()


def refused(*nodes):
    """Return how the connection between nodes fails at the one that dials."""
    begin(*nodes)
    with pytest.raises((ConnectionLostError, ProtocolError)) as caught:
        drive(nodes, lambda: False)
    assert not any(node.links.connected for node in nodes)
    return caught.value


# ---- the variables --------------------------------------------------------------


@pytest.mark.parametrize("value", ["", "0", "false"])
def test_tls_is_off_unless_it_is_switched_on(value):
    assert tls_of_environment({"RAY_USE_TLS": value}) is None
    assert tls_of_environment({}) is None


@pytest.mark.parametrize("variable", FILES)
def test_variable_that_is_not_set_is_named(authority, variable):
    environment = authority.environment("node")
    del environment[variable]

    with pytest.raises(ConfigError, match=f"TLS is on and {variable} is not set"):
        tls_of_environment(environment)


@pytest.mark.parametrize("variable", FILES)
def test_file_that_does_not_exist_is_named_with_its_variable(authority, variable):
    environment = authority.environment("node") | {variable: "/nowhere.pem"}

    with pytest.raises(ConfigError, match=f"file of {variable} does not exist") as caught:
        tls_of_environment(environment)

    assert caught.value.context == {"path": "/nowhere.pem"}


@pytest.mark.parametrize("variable", FILES)
def test_file_that_holds_something_else_is_named_with_its_variable(authority, tmp_path, variable):
    (tmp_path / "text").write_text("nothing of the kind")
    environment = authority.environment("node") | {variable: str(tmp_path / "text")}

    with pytest.raises(ConfigError, match=variable):
        tls_of_environment(environment)


def test_key_of_another_certificate_is_refused(authority):
    other = authority.environment("other")["RAY_TLS_SERVER_KEY"]

    with pytest.raises(ConfigError, match="no certificate with its unencrypted key"):
        tls_of_environment(authority.environment("node") | {"RAY_TLS_SERVER_KEY": other})


def test_files_are_read_anew_by_each_attempt(authority, make):
    """Certificates that were replaced on disk need no new process."""
    environment = authority.environment("node")
    node = make(0, environment)
    node.links.close()
    environment["RAY_TLS_CA_CERT"] = "/nowhere.pem"

    with pytest.raises(ConfigError, match="RAY_TLS_CA_CERT"):
        node.listen(attempt=2)


# ---- connections ----------------------------------------------------------------


def test_records_between_nodes_with_certificates_are_not_readable_on_their_way(authority, make):
    nodes = [make(slot, authority.environment(f"node-{slot}")) for slot in range(2)]
    sent = b"a secret of the user" * 1_000
    with Relay(nodes[1].address) as relay:
        nodes[0].links.connect({1: relay.address}, [1])
        nodes[1].links.connect({}, [0])
        drive(nodes, lambda: relay.move() or all(node.links.connected for node in nodes))
        nodes[0].links.send(1, 7, FrameKind.BATCH, sent)
        drive(nodes, lambda: relay.move() or nodes[1].received)

        assert nodes[1].received == [(0, 7, FrameKind.BATCH, sent)]
        assert len(relay.seen) > len(sent)
        assert b"secret" not in relay.seen
        assert b"RAYSTRM" not in relay.seen


def test_certificate_of_another_authority_is_refused_by_who_dials(authority, make, tmp_path):
    other = Authority(tmp_path / "other").environment("node") | {"RAY_TLS_CA_CERT": str(authority.path)}

    error = refused(make(0, authority.environment("node")), make(1, other))

    assert "is not of the authority in RAY_TLS_CA_CERT" in error.message


def test_certificate_of_another_authority_is_refused_by_who_accepts_and_the_dialer_is_told(
    authority, make, tmp_path
):
    other = Authority(tmp_path / "other").environment("node") | {"RAY_TLS_CA_CERT": str(authority.path)}

    error = refused(make(0, other), make(1, authority.environment("node")))

    assert "slot refuses the connection for its RAY_TLS_SERVER_CERT" in error.message
    assert "UNKNOWN_CA" in error.context["cause"]


def test_certificate_that_has_expired_is_refused(authority, make):
    expired = authority.environment("old", until=dt.datetime(2021, 1, 1, tzinfo=dt.UTC))

    error = refused(make(0, authority.environment("node")), make(1, expired))

    assert "expired" in error.context["cause"]


def test_peer_that_speaks_plainly_is_found_out_by_who_dials(authority, make):
    error = refused(make(0, authority.environment("node")), make(1, {}))

    # It ends the connection, and may have said something before.
    assert error.message in ("slot closed the connection before it was encrypted", "slot does not speak TLS")
    assert "RAY_USE_TLS" in error.hint


def test_peer_that_speaks_plainly_is_refused_by_who_accepts(authority, make, caplog):
    refused(make(0, {}), make(1, authority.environment("node")))

    assert "connection refused" in caplog.text
    assert "slot does not speak TLS" in caplog.records[-1].cause


def test_stranger_without_a_certificate_does_not_disturb(authority, make, caplog):
    nodes = [make(slot, authority.environment(f"node-{slot}")) for slot in range(2)]
    connect(*nodes)
    with RawDialer(nodes[1]) as stranger:
        stranger.greet()
        drive(nodes, lambda: "connection refused" in caplog.text)
    nodes[0].links.send(1, 0, FrameKind.BATCH, b"still here")

    drive(nodes, lambda: nodes[1].received)


def test_certificate_does_not_stand_in_for_the_secret_of_the_attempt(authority, make):
    environment = authority.environment("node")

    error = refused(make(0, environment, secret=b"guess"), make(1, environment))

    assert "does not hold the attempt's secret" in error.message


def test_proof_cannot_be_passed_on_by_somebody_else_with_a_certificate(authority, make):
    """One in the middle ends TLS at both sides and hands on what is inside."""
    nodes = [make(slot, authority.environment(f"node-{slot}")) for slot in range(2)]
    middle = tls_of_environment(authority.environment("middle"))
    with Relay(nodes[1].address, middle) as relay:
        nodes[0].links.connect({1: relay.address}, [1])
        nodes[1].links.connect({}, [0])

        with pytest.raises(ProtocolError, match="does not hold the attempt's secret"):
            drive(nodes, lambda: relay.move() and False)


def test_idle_handshake_does_not_keep_the_loop_awake(authority, make):
    """The dialer has said all that it can: until the peer answers there is nothing to do."""
    dialer, acceptor = (make(slot, authority.environment(f"node-{slot}")) for slot in range(2))
    dialer.links.connect({1: acceptor.address}, [1])
    for _ in range(20):
        dialer.links.poll()
        dialer.links.wait(1)

    dialer.links.wake()
    dialer.links.wait(None)
    assert not dialer.links.poll()
