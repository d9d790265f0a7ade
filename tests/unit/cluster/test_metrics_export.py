"""What is given to Ray of a slot's reports and of the job's view."""

import logging

import pytest

from raystream.cluster import metrics_export
from raystream.cluster.metrics_export import JobExporter, RayGauges, SlotExporter
from raystream.ids import Attempt, JobId, JobStatus, SlotId
from raystream.metrics.catalogue import JOB_LABELS, OPERATOR_LABELS
from raystream.metrics.reports import OperatorMetrics, SubtaskMetrics
from raystream.runtime.coordinator_view import CheckpointCounts
from raystream.runtime.messages import Progress
from raystream.testing.source_run import ManualClock
from tests.unit.cli.fakes import checkpoint, view

JOB = JobId("ab" * 16)


class Gauges:
    """Stands for Ray's gauges: remembers how each was made, and what it was set to."""

    def __init__(self):
        self.made = {}
        self.values = {}

    def __call__(self, name, description, labels):
        assert name not in self.made, "Ray keeps the first one for good"
        self.made[name] = labels
        gauges = self

        class Gauge:
            def set(self, value, tags):
                assert set(tags) == set(labels)
                assert all(text.isascii() for text in tags.values())
                gauges.values[name, tuple(tags.values())] = value

        return Gauge()


@pytest.fixture
def gauges():
    return Gauges()


def progress(values=None, user=None, name="count hits", **fields):
    operator = OperatorMetrics(uid="count", name=name, values=values or {}, user=user or {})
    subtask = SubtaskMetrics(vertex=1, task=f"{name}, out", subtask=3, operators=(operator,))
    return Progress(
        attempt=Attempt(1), slot=SlotId(0), records_in=0, records_out=0, job_name="hits", subtasks=(subtask,)
    )  # fmt: skip


def test_each_value_is_set_with_the_labels_of_its_operator(gauges):
    exporter = SlotExporter(JOB, RayGauges(gauges))
    exporter.export(progress({"num_records_in": 7}, {"size_p50": 1.5}))
    exporter.export(progress({"num_records_in": 9}))

    labels = ("hits", JOB, "count hits, out", "count hits", "count", "3")
    assert gauges.values == {
        ("raystream_num_records_in", labels): 9,
        ("raystream_user_size_p50", labels): 1.5,
    }
    assert set(gauges.made.values()) == {OPERATOR_LABELS}


def test_names_in_any_language_become_labels(gauges):
    SlotExporter(JOB, RayGauges(gauges)).export(progress({"num_records_in": 1}, name="zähle" * 100))

    ((_, labels),) = gauges.values
    assert labels[3].startswith("z\\xe4hle")
    assert len(labels[3]) == metrics_export.LABEL_CHARACTERS_MAX


def test_characters_that_would_break_a_scrape_do_not_stand_in_labels():
    assert metrics_export.label('a\0b\nc\x7f "\\') == 'a\\x00b\\nc\\x7f "\\'


def test_number_of_names_that_ray_learns_is_bounded(gauges, monkeypatch):
    monkeypatch.setattr(metrics_export, "USER_METRICS_MAX", 2)
    exporter = SlotExporter(JOB, RayGauges(gauges))

    exporter.export(progress(user={"a": 1, "b": 2, "c": 3}))

    assert list(gauges.made) == ["raystream_user_a", "raystream_user_b"]


def test_value_that_cannot_be_set_is_logged_and_disturbs_nobody(caplog):
    def broken(name, description, labels):
        raise TypeError("no gauge")

    with caplog.at_level(logging.WARNING):
        SlotExporter(JOB, RayGauges(broken)).export(progress({"num_records_in": 1}))

    assert [record.message for record in caplog.records] == ["metrics could not be given to Ray"]


def exported(gauges, *shown, interval_ms=100):
    """Return what is exported of views that are a second apart, the first one at 6,000."""
    clock = ManualClock(6_000)
    exporter = JobExporter(None, interval_ms=interval_ms, clock=clock, gauges=RayGauges(gauges))
    for one in shown:
        exporter.export(one)
        clock.now_ms += 1_000
    return {name.removeprefix("raystream_"): value for (name, _), value in gauges.values.items()}


def test_job_without_a_checkpoint_counts_the_time_since_it_was_submitted(gauges):
    values = exported(gauges, view(duration_ms=5_000))

    assert values == {
        "num_restarts": 0, "uptime": 5_000, "checkpoint_interval": 100,
        "number_of_completed_checkpoints": 0, "number_of_failed_checkpoints": 0,
        "last_checkpoint_completed_timestamp": 1_000,
    }  # fmt: skip
    assert set(gauges.made.values()) == {JOB_LABELS}


def test_job_that_is_not_recovered_yet_exports_nothing(gauges):
    assert exported(gauges, view(JobStatus.RESTARTING, recovering=True)) == {}


def test_recovered_job_was_submitted_when_its_log_says(gauges):
    recovering = view(JobStatus.RESTARTING, recovering=True, duration_ms=10)
    recovered = view(duration_ms=6_500, restarts=3)
    values = exported(gauges, recovering, recovered, recovered)

    assert values["last_checkpoint_completed_timestamp"] == 500, "whatever the age of a later view"
    assert values["num_restarts"] == 3


def test_last_checkpoint_is_the_newest_complete_one(gauges):
    records = (
        checkpoint(7, size_bytes=10, triggered_ms=50_000, duration_ms=84.0),
        checkpoint(8, "failed"), checkpoint(9, "pending"),
    )  # fmt: skip
    counts = CheckpointCounts(completed=7, failed=1)
    values = exported(gauges, view(checkpoints=records, checkpoint_counts=counts, restarts=2), interval_ms=0)

    assert values["last_checkpoint_completed_timestamp"] == 50_084
    assert (values["last_checkpoint_duration"], values["last_checkpoint_size"]) == (84.0, 10)
    assert (values["number_of_completed_checkpoints"], values["number_of_failed_checkpoints"]) == (7, 1)
    assert values["num_restarts"] == 2
    assert "checkpoint_interval" not in values, "checkpointing is off"


def test_savepoint_is_nothing_that_a_failure_goes_back_to(gauges):
    records = (
        checkpoint(7, triggered_ms=50_000, duration_ms=84.0),
        checkpoint(8, purpose="savepoint", triggered_ms=90_000, duration_ms=5.0),
    )  # fmt: skip
    values = exported(gauges, view(checkpoints=records))

    assert values["last_checkpoint_completed_timestamp"] == 50_084
    assert values["last_checkpoint_duration"] == 5.0, "of the newest one, savepoint or not"


class Shown:
    """Stands for the publication: shows one view after the other."""

    def __init__(self, *views):
        self._views = iter(views)

    @property
    def view(self):
        return next(self._views)


def run(gauges, *views):
    JobExporter(Shown(*views), interval_ms=1, clock=ManualClock(), gauges=RayGauges(gauges))._run()


def test_nothing_is_set_any_more_when_the_job_has_ended(gauges):
    run(gauges, view(JobStatus.FINISHED))

    assert gauges.values == {}


def test_job_is_exported_again_after_what_could_not_be_set(gauges, monkeypatch, caplog):
    monkeypatch.setattr(metrics_export, "EXPORT_INTERVAL_S", 0)
    failures = [TypeError("no gauge")]

    def broken_once(*made):
        if failures:
            raise failures.pop()
        return gauges(*made)

    with caplog.at_level(logging.WARNING):
        run(broken_once, view(), view(), view(JobStatus.FINISHED))

    assert [record.message for record in caplog.records] == ["metrics of the job could not be given to Ray"]
    assert gauges.values["raystream_uptime", ("numbers", view().job_id)] == view().duration_ms
