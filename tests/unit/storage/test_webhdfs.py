"""What the REST client makes of a gateway that breaks off."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from raystream.storage.hdfs_client import HdfsError, Trouble
from raystream.storage.webhdfs import WebHdfsClient

CONTENT = b"0123456789"
STATUS = {"type": "FILE", "length": len(CONTENT), "fileId": 1, "modificationTime": 1, "owner": "somebody"}


class Gateway(BaseHTTPRequestHandler):
    """Ends its answers by closing the connection, so that nothing in them says that one is cut off."""

    sent = len(CONTENT)

    def do_GET(self):
        if "op=GETFILESTATUS" in self.path:
            self._answer(200, json.dumps({"FileStatus": STATUS}).encode())
        elif "from=data-node" in self.path:
            self._answer(200, CONTENT[: self.sent])
        else:
            self._answer(307, b"", Location=f"http://{self.headers['Host']}{self.path}&from=data-node")

    def _answer(self, status, body, **headers):
        self.send_response(status)
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def client():
    with ThreadingHTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield WebHdfsClient(f"127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


def test_what_a_gateway_sends_whole_is_read(client):
    assert client.read("/file", 0, None) == CONTENT


def test_an_answer_that_breaks_off_is_no_shorter_file(client, monkeypatch):
    """Else the snapshot would count as damaged, and an older one be restored."""
    monkeypatch.setattr(Gateway, "sent", 4)

    with pytest.raises(HdfsError) as caught:
        client.read("/file", 0, None)
    assert caught.value.trouble is Trouble.DATA_NODE
