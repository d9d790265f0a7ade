"""The pieces of the simulated world behave as what they stand for."""

import errno
import random
from types import SimpleNamespace

import pytest

from raystream.errors import StorageError
from raystream.ids import SlotId
from raystream.testing import SinkContract
from raystream.testing.drawn_faults import Faults
from raystream.testing.faults import SlotCrash, StorageFailure
from raystream.testing.simulation_faults import FaultInjector
from raystream.testing.simulation_sink import SimulatedSink, close_store, open_store, visible_records
from raystream.testing.simulation_sockets import HOST, FrameFate, Network, ProcessSockets
from raystream.testing.simulation_storage import SimulatedFileSystem
from raystream.testing.simulation_work import Running
from raystream.testing.simulation_world import SimulationError, VirtualClock, World
from tests.unit.storage.contract import FileSystemContract


class Nobody:
    """Watches, and lets everything happen as it does."""

    def storage_called(self, call):
        pass

    def storage_done(self, call):
        pass

    def frame_sent(self):
        return FrameFate()

    def frame_arrived(self, slot, kind, payload):
        pass


@pytest.fixture
def world():
    return World(random.Random(0))


# ---- contracts -----------------------------------------------------------------------


class TestSimulatedFileSystem(FileSystemContract):
    @pytest.fixture
    def fs(self):
        return SimulatedFileSystem(Nobody())

    @pytest.fixture
    def base(self):
        return "memory://base"


class TestSimulatedSink(SinkContract):
    def setup_method(self):
        super().setup_method()
        self.fs = SimulatedFileSystem(Nobody())
        open_store("contract", self.fs)

    def teardown_method(self):
        close_store("contract")
        super().teardown_method()

    def sink(self):
        return SimulatedSink("contract")

    def visible(self):
        return visible_records(self.fs.files)


# ---- time ----------------------------------------------------------------------------


class Idler:
    """Has nothing to do, but at its deadlines."""

    name = "idler"

    def __init__(self, world, *deadlines_ms):
        self.world = world
        self.deadlines_ms = list(deadlines_ms)
        self.stepped_ms = []

    def step(self):
        if self.deadlines_ms and self.world.now_ms >= self.deadlines_ms[0]:
            self.stepped_ms.append(self.deadlines_ms.pop(0))
            return True
        return False

    def next_deadline_ms(self):
        return self.deadlines_ms[0] if self.deadlines_ms else None


def test_calls_are_made_in_the_order_of_their_times(world):
    calls = []
    for at_ms in (30, 10, 20, 10):
        world.at(at_ms, lambda at_ms=at_ms: calls.append((at_ms, world.now_ms)))
    world.run(lambda: len(calls) == 4, steps_max=100)

    assert calls == [(10, 10), (10, 10), (20, 20), (30, 30)]


def test_actor_that_waits_is_woken_at_its_deadlines(world):
    idler = Idler(world, 5, 500, 501)
    world.add(idler)
    world.run(lambda: not idler.deadlines_ms, steps_max=100)

    assert idler.stepped_ms == [5, 500, 501]
    assert 501 <= world.now_ms < 510


def test_paused_actor_gets_no_turn(world):
    idler = Idler(world, 5)
    world.add(idler)
    world.pause(idler, 200)
    world.run(lambda: not idler.deadlines_ms, steps_max=100)

    assert world.now_ms >= 200


def test_world_in_which_nothing_is_under_way_is_stuck(world):
    world.add(Idler(world))

    with pytest.raises(SimulationError, match="stuck"):
        world.run(lambda: False, steps_max=100)


def test_world_in_which_something_goes_on_for_ever_is_stopped(world):
    world.add(SimpleNamespace(name="busy", step=lambda: True, next_deadline_ms=lambda: None))

    with pytest.raises(SimulationError, match="does not come to an end"):
        world.run(lambda: False, steps_max=100)


def test_reading_the_clock_takes_time(world):
    clock = VirtualClock(world, read_ms=0.5)

    assert [clock.monotonic_ms(), clock.monotonic_ms()] == [0.5, 1.0]
    assert clock.wall_ms() == clock.wall_ms()


# ---- sockets -------------------------------------------------------------------------


class Ends:
    """Two processes with a connection between them, as far as their sockets go."""

    def __init__(self, world):
        self.world = world
        network = Network(world, Nobody())
        self.processes = [ProcessSockets(network, SlotId(slot), lambda: None) for slot in (0, 1)]
        self.listener = self.processes[1].stream(HOST)
        self.listener.bind((HOST, 0))
        self.listener.listen(1)
        self.dialer = self.processes[0].stream(HOST)

    def connect(self):
        assert self.dialer.connect_ex(self.listener.getsockname()) == errno.EINPROGRESS
        self.pass_time()
        self.acceptor, _ = self.listener.accept()
        return self

    def pass_time(self):
        ended = []
        self.world.after(100, lambda: ended.append(True))
        self.world.run(lambda: bool(ended), steps_max=1000)


def test_bytes_arrive_in_order_whatever_a_socket_takes_at_a_time(world):
    ends = Ends(world).connect()
    sent = bytes(range(100))
    rest = sent
    while rest:
        try:
            rest = rest[ends.dialer.sendmsg([rest[:7], rest[7:20]]) :]
        except BlockingIOError:
            ends.pass_time()
    ends.pass_time()

    assert ends.acceptor.recv(40) + ends.acceptor.recv(1000) == sent
    with pytest.raises(BlockingIOError):
        ends.acceptor.recv(1)


def test_what_was_sent_before_a_close_arrives_before_the_end(world):
    ends = Ends(world).connect()
    count = ends.dialer.sendmsg([b"last words"])
    ends.dialer.close()
    ends.pass_time()

    assert ends.acceptor.recv(100) == b"last words"[:count]
    assert ends.acceptor.recv(100) == b""


def test_process_that_dies_with_unread_bytes_resets_its_connections(world):
    ends = Ends(world).connect()
    ends.dialer.sendmsg([b"never read"])
    ends.pass_time()
    ends.processes[1].die()
    ends.pass_time()

    with pytest.raises(ConnectionResetError):
        ends.dialer.recv(1)
    with pytest.raises(ConnectionResetError):
        ends.dialer.sendmsg([b"more"])


def test_connection_to_nobody_is_refused(world):
    ends = Ends(world)
    address = ends.listener.getsockname()
    ends.listener.close()
    ends.dialer.connect_ex(address)
    ends.pass_time()

    with pytest.raises(ConnectionRefusedError):
        ends.dialer.sendmsg([b"hello"])


# ---- faults --------------------------------------------------------------------------


@pytest.mark.parametrize(("effective", "files"), [(False, {}), (True, {"memory://x": b"1"})])
def test_storage_failure_comes_instead_of_the_call_or_only_of_its_answer(world, effective, files):
    failure = StorageFailure(call=1, effective=effective)
    injector = FaultInjector(world, [failure], Running())
    fs = SimulatedFileSystem(injector)
    fs.exists("memory://x")

    with pytest.raises(StorageError):
        fs.write("memory://x", b"1")

    assert fs.files == files
    assert injector.happened == [failure]
    fs.write("memory://y", b"2")


def test_seeds_in_a_row_crash_slots_in_every_phase_of_every_checkpoint():
    firsts = [Faults().draw(seed, slot_count=2)[0] for seed in range(18)]

    assert all(isinstance(crash, SlotCrash) for crash in firsts)
    assert len({(crash.phase, crash.checkpoint_id) for crash in firsts}) == 18


def test_faults_of_a_seed_are_the_same_every_time():
    assert Faults().draw(5, slot_count=3) == Faults().draw(5, slot_count=3)
    assert Faults().draw(5, slot_count=3) != Faults().draw(6, slot_count=3)
