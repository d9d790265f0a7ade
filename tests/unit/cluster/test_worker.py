"""A worker's data connections are as secure as Ray's own."""

import pytest

from raystream.clock import SystemClock
from raystream.cluster.worker import WatchedLinks
from raystream.errors import ConfigError
from raystream.runtime.links import LinkIdentity


def test_worker_with_ray_s_tls_switched_on_opens_no_plain_connection(monkeypatch):
    monkeypatch.setenv("RAY_USE_TLS", "1")
    links = WatchedLinks("127.0.0.1", SystemClock())
    identity = LinkIdentity(job_id="0" * 32, attempt=1, slot=0, secret=b"s" * 32, slot_count=2)

    with pytest.raises(ConfigError, match="TLS is on and RAY_TLS_SERVER_CERT is not set"):
        links.listen(identity, lambda *_: None)
    links.dispose()
