"""Each process of a slot has a placement group of its own, that goes with it."""

from types import SimpleNamespace

import pytest

from raystream.cluster import _ray_compat as compat
from raystream.cluster import reservations
from raystream.cluster.reservations import REMOVE_TRIES_MAX, Reservation, Reservations, remove_groups
from raystream.cluster.resources import Node, SlotNeeds

JOB = "ab" * 16
CPU = SlotNeeds(group="default", amounts={"CPU": 1.0}, labels={"zone": "a"})
NOTHING = SlotNeeds(group="default", amounts={})


class Head:
    """Ray's head: the groups that there are, by name, and the thread that calls it."""

    def __init__(self, monkeypatch):
        self.groups, self.near, self.fault = {}, [], None
        self.nodes, self.draining, self.stuck, self.gone = {}, {}, [], []
        monkeypatch.setattr(compat, "draining_nodes", lambda: self.draining)
        monkeypatch.setattr(compat, "placement_group_of_one", self.make)
        monkeypatch.setattr(reservations, "remove_placement_group", self.remove)
        monkeypatch.setattr(reservations, "get_placement_group", self.get)
        monkeypatch.setattr(reservations, "placement_group_table", self.table)
        monkeypatch.setattr(
            reservations, "cluster_nodes",
            lambda: [Node(node_id=name, total={}, free={"CPU": 2.0}, labels={"zone": "a"}) for name in "mn"],
        )  # fmt: skip

    def make(self, bundle, *, name, labels, near, detached):
        if name.endswith(f"-{self.fault}"):
            raise OSError("head is away")
        self.groups[name] = bundle, labels
        self.near.append(near)
        return name

    def get(self, name):
        if name in self.gone:
            raise ValueError("no such group")
        return name

    def remove(self, name):
        """Fail as often as the name is among those that are stuck."""
        if name in self.stuck:
            self.stuck.remove(name)
            raise OSError("head is away")
        del self.groups[name]

    def table(self):
        others = [{"name": "somebody's", "state": "CREATED"}, {"name": self.name(9, 9), "state": "REMOVED"}]
        ours = [{"name": name, "state": "CREATED"} for name in self.groups]
        found = [{**one, "bundles_to_node_id": {0: self.nodes.get(one["name"], "")}} for one in others + ours]
        return dict(enumerate(found))

    def name(self, slot, incarnation):
        return f"raystream-{JOB}-{slot}-{incarnation}"

    def submit(self, work, done):
        try:
            result = work()
        except OSError as error:
            result = error
        done(result)


@pytest.fixture
def head(monkeypatch):
    return Head(monkeypatch)


def wanted(*slots, needs=CPU):
    return [Reservation(slot=slot, incarnation=slot + 1, needs=needs) for slot in slots]


def reserve(made, *slots, needs=CPU, used=()):
    answers = []
    made.reserve(wanted(*slots, needs=needs), used, answers.append)
    return answers[0]


def test_group_holds_what_a_slot_needs_under_the_names_of_job_and_slot(head):
    made = Reservations(JOB, "spread", head)

    assert reserve(made, 0, 3) == {1: head.name(0, 1), 4: head.name(3, 4)}
    assert head.groups[head.name(0, 1)] == ({"CPU": 1.0}, {"zone": "a"})
    assert head.near == [None, None], "Ray takes the node with the most room"


def test_slot_that_needs_nothing_has_no_group(head):
    assert reserve(Reservations(JOB, "pack", head), 0, needs=NOTHING) == {}


def test_packed_slots_are_where_the_job_has_slots_and_then_where_most_of_them_have_room(head):
    made = Reservations(JOB, "pack", head)

    reserve(made, 0, 1, 2, used=["m"])

    assert head.near == ["m", "m", "n"]


def test_groups_go_with_their_processes_and_the_rest_with_the_job(head):
    made, told = Reservations(JOB, "pack", head), []
    reserve(made, 0, 1, 2)
    made.release(2)
    made.release(2)
    assert [*head.groups] == [head.name(0, 1), head.name(2, 3)]

    made.close(lambda: told.append("closed"))

    assert (head.groups, told) == ({}, ["closed"])


def test_group_that_was_handed_over_goes_with_its_heir(head):
    made = Reservations(JOB, "pack", head)
    reserve(made, 0)

    made.hand_over(1, 7)
    made.hand_over(2, 8)
    made.release(1)
    assert ([*head.groups], made._groups) == ([head.name(0, 1)], {7: head.name(0, 1)})
    made.release(7)

    assert head.groups == {}


def test_no_group_is_left_when_one_of_several_can_not_be_made(head):
    head.fault = 2

    assert isinstance(reserve(Reservations(JOB, "pack", head), 0, 1, 2), OSError)
    assert head.groups == {}


def test_groups_that_have_found_room_are_told_from_those_that_wait(head, monkeypatch):
    made = Reservations(JOB, "pack", head)
    monkeypatch.setattr(head, "make", lambda bundle, *, name, **_: SimpleNamespace(id=bytes(name, "ascii")))
    monkeypatch.setattr(compat, "placement_group_of_one", head.make)
    groups = reserve(made, 0, 1)
    states = {groups[1].id.hex(): "CREATED", groups[2].id.hex(): "PENDING"}
    table = {name: {"placement_group_id": name, "state": state} for name, state in states.items()}
    monkeypatch.setattr(reservations, "placement_group_table", lambda: table)

    assert made.placed() == {1}


def test_next_job_master_finds_the_groups_by_their_names(head):
    reserve(Reservations(JOB, "pack", head), 0, 1)
    heir = Reservations(JOB, "pack", head, inherits=True)

    answer = reserve(heir, 1, 2)

    assert answer == {2: head.name(1, 2), 3: head.name(2, 3)}
    assert [*head.groups] == [head.name(1, 2), head.name(2, 3)], "the job has slot 0 no more"
    heir.release(2)
    assert [*head.groups] == [head.name(2, 3)]
    heir.close()
    assert head.groups == {}


@pytest.mark.parametrize("stays", [0, 1])
def test_slot_that_was_leaving_its_node_keeps_the_group_on_a_node_that_stays(head, stays):
    before = Reservations(JOB, "pack", head)
    before.reserve([Reservation(slot=0, incarnation=number, needs=CPU) for number in (1, 2)], (), print)
    names = [head.name(0, 1), head.name(0, 2)]
    head.nodes, head.draining = {names[stays]: "stays", names[1 - stays]: "goes"}, {"goes": 0}

    assert reserve(Reservations(JOB, "pack", head, inherits=True), 0) == {1: names[stays]}
    assert [*head.groups] == [names[stays]]


def test_slot_has_a_new_group_when_the_inherited_one_is_gone(head):
    reserve(Reservations(JOB, "pack", head), 0)
    head.gone = [head.name(0, 1)]
    heir = Reservations(JOB, "pack", head, inherits=True)

    heir.reserve([Reservation(slot=0, incarnation=7, needs=CPU)], (), print)

    assert head.name(0, 7) in head.groups


def test_group_that_can_not_be_removed_at_once_is_removed_with_a_later_try(head):
    reserve(Reservations(JOB, "pack", head), 0, 1)
    heir, told = Reservations(JOB, "pack", head, inherits=True), []
    reserve(heir, 1, 2)
    head.stuck = [head.name(1, 2), head.name(1, 2)]

    heir.close(lambda: told.append([*head.groups]))

    assert told == [[]]


def test_groups_that_can_not_be_removed_hold_up_neither_the_others_nor_the_end_of_the_job(head):
    made, told = Reservations(JOB, "pack", head), []
    reserve(made, 0, 1)
    head.stuck = [head.name(0, 1)] * (REMOVE_TRIES_MAX + 1)

    made.close(lambda: told.append([*head.groups]))

    assert (told, head.stuck) == ([[head.name(0, 1)]], [head.name(0, 1)])


def test_groups_of_a_job_that_has_ended_are_removed_by_whoever_finds_that(head):
    reserve(Reservations(JOB, "pack", head), 0, 1)

    remove_groups(JOB)

    assert head.groups == {}
