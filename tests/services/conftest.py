"""One server of each kind for all tests of a session; what is in them is kept apart by names."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from raystream.connectors.files import FileSink
from raystream.operators.sink import SinkWriter
from raystream.storage.stores import open_file_system
from tests.e2e.conftest import ROOT, Outcome, environment, raystream  # noqa: F401 - fixtures
from tests.services.hdfs import Hdfs, started_hdfs
from tests.services.object_sinks import Output
from tests.services.servers import FaultyStore, ObjectStore, moto, versitygw
from tests.unit.connectors.sinks import started_writers

_numbers = itertools.count()

JOB = ROOT / "jobs" / "keyed_state_backends.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.services)


@pytest.fixture(scope="session")
def servers() -> Iterator[ExitStack]:
    """Ends the servers of the session."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="session")
def moto_server(servers: ExitStack, tmp_path_factory: pytest.TempPathFactory) -> FaultyStore:
    return servers.enter_context(moto(tmp_path_factory.mktemp("moto")))


@pytest.fixture(scope="session")
def versitygw_server(
    servers: ExitStack, tmp_path_factory: pytest.TempPathFactory, in_ci: bool
) -> ObjectStore:
    return servers.enter_context(versitygw(tmp_path_factory.mktemp("versitygw"), in_ci))


def use(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process, and those that it starts, use a store."""
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def faulty(moto_server: FaultyStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """The store that breaks as it is told, in use and whole at first."""
    use(moto_server, monkeypatch)
    moto_server.faults()
    yield moto_server
    moto_server.faults()


@pytest.fixture(params=["moto", "versitygw"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Each of the stores, in use."""
    server: ObjectStore = request.getfixturevalue(f"{request.param}_server")
    use(server, monkeypatch)
    return server


@pytest.fixture
def bucket(store: ObjectStore) -> str:
    """Name of an empty bucket."""
    name = f"tests-{next(_numbers)}"
    store.client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def base(bucket: str) -> str:
    """URL of an empty directory."""
    return f"s3://{bucket}/checkpoints"


@pytest.fixture
def fs(base: str):
    return open_file_system(base)


@pytest.fixture(scope="session")
def hdfs(in_ci: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """The session's HDFS; a test that stops a server of it starts it again."""
    with started_hdfs(lambda: tmp_path_factory.mktemp("hdfs"), in_ci) as server:
        yield server


@pytest.fixture
def submit(request: pytest.FixtureRequest) -> Callable[[str], Outcome]:
    """Run a small job with checkpoints and its savepoint at a URL."""

    def run(url: str) -> Outcome:
        command = request.getfixturevalue("raystream")  # Sees the environment as the test has made it.
        directories = [f"execution.checkpointing.{name}={url}" for name in ("dir", "savepoint-dir")]
        options = ["execution.checkpointing.interval=100ms", *directories]
        settings = [argument for one in options for argument in ("-D", one)]
        return command("run", "--runner", "local", *settings, JOB, "--keys", "100")

    return run


@pytest.fixture
def output(store: ObjectStore, bucket: str) -> Output:
    """An empty bucket, as somebody sees it who reads what a job writes."""
    return Output(store.client, bucket)


@pytest.fixture
def sink(output: Output) -> FileSink:
    return FileSink.lines(f"{output.url}/out")


@pytest.fixture
def open_writer() -> Iterator[Callable[..., SinkWriter]]:
    """Opens and starts a writer; closes it when the test is over."""
    with started_writers() as open_one:
        yield open_one
