"""Clients get every view that has news and every output once, and never wait for anybody else."""

import asyncio
from dataclasses import replace
from threading import Thread

import pytest

from raystream.cluster import publication
from raystream.cluster.publication import Publication, Seen
from raystream.ids import JobStatus
from raystream.runtime.coordinator_view import JobView

PATIENCE_S = 60.0
VIEW = JobView(
    job_id="0" * 32, name="job", status=JobStatus.CREATED, parallelism=1, attempt=1, restarts=0, records_in=0,
    records_out=0, duration_ms=0,
)  # fmt: skip
RUNNING = replace(VIEW, status=JobStatus.RUNNING)


def ask(published: Publication, seen: Seen = Seen(), timeout_s: float = PATIENCE_S):  # noqa: B008 - frozen
    return asyncio.run(published.update(seen, timeout_s))


def test_first_question_is_answered_at_once():
    update = ask(Publication(VIEW))

    assert (update.view, update.outputs, update.complete) == (VIEW, (), True)


def test_who_has_seen_everything_waits_for_news():
    published = Publication(VIEW)
    seen = ask(published).seen

    async def wait_for_news():
        waiting = asyncio.create_task(published.update(seen, PATIENCE_S))
        await asyncio.wait([waiting], timeout=0)
        Thread(target=published.publish, args=(RUNNING,), kwargs={"news": True}).start()
        return await waiting

    assert asyncio.run(wait_for_news()).view is RUNNING


def test_higher_counts_alone_wake_nobody_but_are_shown_to_whoever_asks():
    published = Publication(VIEW)
    seen = ask(published).seen

    published.publish(replace(VIEW, records_in=5), news=False)
    update = ask(published, seen, timeout_s=0.0)

    assert (update.seen, update.view.records_in) == (seen, 5)


def test_job_that_is_being_recovered_is_shown_as_its_log_says():
    recovering = replace(VIEW, status=JobStatus.RESTARTING, recovering=True)
    known = replace(VIEW, status=JobStatus.RESTARTING, parallelism=3, records_in=7)
    published = Publication(recovering)

    async def wait_for_view():
        waiting = asyncio.create_task(published.known_view())
        await asyncio.wait([waiting], timeout=0)
        Thread(target=published.publish, args=(known,), kwargs={"news": False}).start()
        return await waiting

    assert asyncio.run(wait_for_view()) is known


def test_job_whose_log_cannot_be_read_is_shown_all_the_same(monkeypatch):
    monkeypatch.setattr(publication, "RECOVERY_PATIENCE_S", 0.0)
    recovering = replace(VIEW, recovering=True, waiting_for="the checkpoint directory")

    assert asyncio.run(Publication(recovering).known_view()) is recovering


def test_output_is_repeated_until_it_is_known_to_have_arrived():
    published = Publication(VIEW)
    published.add_output("print", ["one"])
    published.add_output("print", ["two"])

    first, again = ask(published), ask(published)
    published.add_output("print", ["three"])
    after = ask(published, first.seen)

    assert first.outputs == again.outputs == (("print", ["one"]), ("print", ["two"]))
    assert after.outputs == (("print", ["three"]),)
    assert ask(published, after.seen, timeout_s=0.0).outputs == ()


def test_client_that_leaves_output_to_others_takes_none_and_is_not_woken_by_it():
    published = Publication(VIEW)
    seen = ask(published, Seen(0, None)).seen

    published.add_output("print", ["one"])

    assert ask(published, seen, timeout_s=0.0).outputs == ()
    assert ask(published).outputs == (("print", ["one"]),)


def test_large_output_comes_in_several_answers_in_order(monkeypatch):
    monkeypatch.setattr(publication, "OUTPUT_BYTES_PER_UPDATE_MAX", 10)
    published = Publication(VIEW)
    for payload in (b"x" * 6, b"y" * 4, b"z", b"w" * 50):
        published.add_output("collect", payload)

    updates = [ask(published)]
    while not updates[-1].complete:
        updates.append(ask(published, updates[-1].seen))

    sizes = [[len(payload) for _, payload in update.outputs] for update in updates]
    assert sizes == [[6, 4], [1], [50]]


@pytest.mark.parametrize(
    ("payload", "lost"), [([["four"]] * 5, (2, 0)), ([b"four"] * 5, (0, 2))], ids=["lines", "values"]
)
def test_output_that_nobody_fetches_is_bounded_and_the_loss_is_told_once(monkeypatch, payload, lost):
    monkeypatch.setattr(publication, "OUTPUT_BYTES_MAX", 12)
    published = Publication(VIEW)
    for one in payload:
        published.add_output("sink", one)

    update = ask(published)

    assert len(update.outputs) == 3
    assert (update.lost_lines, update.lost_values) == lost
    after = ask(published, update.seen, timeout_s=0.0)
    assert (after.lost_lines, after.lost_values) == (0, 0)


def test_client_of_another_life_of_the_job_master_has_seen_nothing():
    before, after = Publication(VIEW), Publication(RUNNING)
    for number in range(5):
        before.add_output("print", [str(number)])
        before.publish(VIEW, news=True)
    after.add_output("print", ["new"])
    seen = ask(before).seen

    update = ask(after, seen)

    assert (update.view, update.outputs) == (RUNNING, (("print", ["new"]),))
    assert update.seen.life == after.life != seen.life
