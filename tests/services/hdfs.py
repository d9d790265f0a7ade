"""A real HDFS of the test session: a NameNode and a DataNode from Maven Central.

The first session on a machine fetches the jars.  Permissions are enforced; who starts the
session is the superuser.
"""

import getpass
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.services.processes import (
    CACHE,
    STARTS_MAX,
    end_server,
    fetching,
    free_port,
    free_ports,
    missing,
    start_server,
)

VERSION = "3.5.0"
FETCH_TIMEOUT_S = 600
READY_TIMEOUT_S = 60
"""A NameNode needs about three seconds on an idle machine."""
POLL_S = 0.1
LOG_LINES_MAX = 30
LOG_LINE_CHARACTERS_MAX = 300

_ARTIFACTS = ("hadoop-common", "hadoop-hdfs", "hadoop-hdfs-client")
_JAVA = ("java", "-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
_PORTS = ("rpc", "http", "data", "data-http", "data-ipc")
_NAME_NODE = "org.apache.hadoop.hdfs.server.namenode.NameNode"
_DATA_NODE = "org.apache.hadoop.hdfs.server.datanode.DataNode"
_LOG4J = """log4j.rootLogger=INFO,console
log4j.appender.console=org.apache.log4j.ConsoleAppender
log4j.appender.console.layout=org.apache.log4j.PatternLayout
log4j.appender.console.layout.ConversionPattern=%d %p %c: %m%n
"""


class NotReadyError(Exception):
    """A server did not come up; the message has the end of its log."""


class Hdfs:
    """A NameNode and a DataNode that can be stopped, killed and started again.

    Args:
        jars: directory of Hadoop's jars.
        directory: empty; for data, configuration and logs.
    """

    def __init__(self, jars: Path, directory: Path) -> None:
        self._jars = jars
        self._directory = directory
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._configure()

    def url_of(self, scheme: str) -> str:
        """URL of the root, by `hdfs` or `webhdfs`."""
        return f"{scheme}://127.0.0.1:{self._ports['rpc' if scheme == 'hdfs' else 'http']}"

    @property
    def configuration(self) -> Path:
        """Hadoop's configuration directory."""
        return self._directory / "conf"

    def start(self) -> None:
        """Format the NameNode, start both servers, and wait until a byte can be written.

        Raises:
            NotReadyError: a server did not come up.
        """
        self._run(_NAME_NODE, "-format", "-nonInteractive")
        self.start_name_node()
        self.start_data_node()

    def start_name_node(self) -> None:
        """Start the NameNode; it does not wait."""
        self._start("name-node", _NAME_NODE)

    def start_data_node(self) -> None:
        """Start the DataNode, and wait until it can be written to."""
        self._start("data-node", _DATA_NODE)
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until a byte can be written.

        Raises:
            NotReadyError: that takes too long, or a server has ended.
        """
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._writes():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise NotReadyError("\n".join(self._log_end(name) for name in ended or self._processes))
            threading.Event().wait(POLL_S)

    def kill_data_node(self) -> None:
        """Kill the DataNode; its blocks stay on its disk."""
        end_server(self._processes["data-node"])

    def kill_name_node(self) -> None:
        """Kill the NameNode."""
        end_server(self._processes["name-node"])

    def pause_name_node(self) -> None:
        """Let the NameNode answer nothing any more, though it takes connections."""
        self._processes["name-node"].send_signal(signal.SIGSTOP)

    def continue_name_node(self) -> None:
        """End a pause."""
        self._processes["name-node"].send_signal(signal.SIGCONT)

    def admin(self, *arguments: str) -> None:
        """Run `hdfs dfsadmin`."""
        self._run("org.apache.hadoop.hdfs.tools.DFSAdmin", *arguments)

    def rest(self, method: str, path: str, operation: str, **parameters: str) -> dict[str, Any]:
        """Ask the NameNode by REST as the superuser, and return what it answers."""
        query = urlencode({"op": operation, "user.name": getpass.getuser(), **parameters})
        url = f"http://127.0.0.1:{self._ports['http']}/webhdfs/v1{path}?{query}"
        with urllib.request.urlopen(urllib.request.Request(url, method=method)) as answer:
            content = answer.read()
        return json.loads(content) if content else {}

    def configure_service(self, name: str, directory: Path) -> None:
        """Write a client's configuration of a name service, whose first NameNode is away."""
        nodes = {"away": f"127.0.0.1:{free_port()}", "here": f"127.0.0.1:{self._ports['rpc']}"}
        _write_site(directory / "core-site.xml", {"fs.defaultFS": f"hdfs://{name}"})
        _write_site(
            directory / "hdfs-site.xml",
            {
                "dfs.nameservices": name,
                f"dfs.ha.namenodes.{name}": ",".join(nodes),
                **{f"dfs.namenode.rpc-address.{name}.{node}": at for node, at in nodes.items()},
            },
        )

    def close(self) -> None:
        """End both servers."""
        for process in self._processes.values():
            end_server(process)

    def _start(self, name: str, main: str) -> None:
        log = self._directory / f"{name}.log"
        self._processes[name] = start_server(self._java(main), log)

    def _run(self, main: str, *arguments: str) -> str:
        command = [*self._java(main), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotReadyError(done.stdout + done.stderr)
        return done.stdout

    def _java(self, main: str) -> list[str]:
        return [*_JAVA, "-cp", f"{self.configuration}:{self._jars}/*", main]

    def _writes(self) -> bool:
        path = f"http://127.0.0.1:{self._ports['http']}/webhdfs/v1/ready?op=CREATE&overwrite=true"
        request = urllib.request.Request(f"{path}&user.name={getpass.getuser()}", method="PUT")
        try:
            upload = urllib.request.Request(_redirect_of(request), data=b"1", method="PUT")
            with urllib.request.urlopen(upload, timeout=READY_TIMEOUT_S) as answer:
                return bool(answer.status == 201)
        except OSError:
            return False

    def _log_end(self, name: str) -> str:
        lines = (self._directory / f"{name}.log").read_text(errors="replace").splitlines()
        end = [line[:LOG_LINE_CHARACTERS_MAX] for line in lines[-LOG_LINES_MAX:]]
        return "\n".join([f"--- {name}", *end])

    def _configure(self) -> None:
        ports = self._ports
        self.configuration.mkdir()
        for pages in ("hdfs", "datanode"):  # Looked for in the class path, and not in the jars.
            (self.configuration / "webapps" / pages).mkdir(parents=True)
        (self.configuration / "log4j.properties").write_text(_LOG4J)
        _write_site(self.configuration / "core-site.xml", {"fs.defaultFS": self.url_of("hdfs")})
        _write_site(
            self.configuration / "hdfs-site.xml",
            {
                "dfs.replication": "1",
                "dfs.namenode.name.dir": str(self._directory / "name"),
                "dfs.datanode.data.dir": str(self._directory / "data"),
                "dfs.namenode.rpc-address": f"127.0.0.1:{ports['rpc']}",
                "dfs.namenode.http-address": f"127.0.0.1:{ports['http']}",
                "dfs.datanode.address": f"127.0.0.1:{ports['data']}",
                "dfs.datanode.http.address": f"127.0.0.1:{ports['data-http']}",
                "dfs.datanode.ipc.address": f"127.0.0.1:{ports['data-ipc']}",
                "dfs.datanode.hostname": "127.0.0.1",
                "dfs.namenode.datanode.registration.ip-hostname-check": "false",
                "dfs.namenode.safemode.extension": "0",
                "dfs.heartbeat.interval": "1",
                "dfs.namenode.heartbeat.recheck-interval": "500",
                "dfs.datanode.handler.count": "4",
                "dfs.namenode.handler.count": "4",
            },
        )


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


def _redirect_of(request: urllib.request.Request) -> str:
    """Return where the NameNode sends a writer."""
    try:
        urllib.request.build_opener(_NoRedirect).open(request, timeout=READY_TIMEOUT_S)
    except urllib.error.HTTPError as answer:
        if answer.code == 307:
            return str(answer.headers["Location"])
        raise
    raise OSError("a writer was not sent to a DataNode")


def _write_site(path: Path, settings: dict[str, str]) -> None:
    properties = "".join(
        f"  <property><name>{name}</name><value>{value}</value></property>\n"
        for name, value in settings.items()
    )
    path.write_text(f"<configuration>\n{properties}</configuration>\n")


def _fetch_jars(in_ci: bool) -> Path:
    """Return the directory of Hadoop's jars, fetched by Maven when it is not there yet."""
    jars = CACHE / f"hadoop-{VERSION}"
    for program in ("java",) if jars.is_dir() else ("java", "mvn"):
        if shutil.which(program) is None:
            missing(f"HDFS cannot be run: {program} is not installed", in_ci)
    if jars.is_dir():
        return jars
    work = CACHE / f".hadoop-{VERSION}-{os.urandom(8).hex()}"
    work.mkdir(parents=True)
    (work / "pom.xml").write_text(_pom())
    done = subprocess.run(
        ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={work / 'jars'}"],
        cwd=work,
        capture_output=True,
        text=True,
        timeout=FETCH_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(work)
        missing(f"Hadoop {VERSION} cannot be fetched: {done.stdout[-300:]}", in_ci)
    (work / "jars").rename(jars)  # Whole or not at all.
    shutil.rmtree(work)
    return jars


def _pom() -> str:
    dependencies = "".join(
        f"<dependency><groupId>org.apache.hadoop</groupId><artifactId>{name}</artifactId>"
        f"<version>{VERSION}</version></dependency>"
        for name in _ARTIFACTS
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>raystream</groupId><artifactId>hdfs-of-the-tests</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>\n"
    )


@contextmanager
def started_hdfs(new_directory: Callable[[], Path], in_ci: bool) -> Iterator[Hdfs]:
    """Run an HDFS until the block ends; a port that was taken meanwhile costs one retry."""
    with fetching():
        jars = _fetch_jars(in_ci)
    for last in (*[False] * (STARTS_MAX - 1), True):
        server = Hdfs(jars, new_directory())
        try:
            server.start()
        except NotReadyError:
            server.close()
            if last:
                raise
        else:
            break
    try:
        yield server
    finally:
        server.close()
