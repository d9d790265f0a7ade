"""Prometheus text of a node while jobs run: every metric, beside what was counted independently of it.

The values are those of Ray's agents: the whole way there is tested, by way of slot, report and exporter.
"""

import json
import urllib.request
from collections import defaultdict

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from raystream import CheckpointError, KeyedProcessFunction, MapFunction, ValueStateDescriptor
from raystream.cli.main import main
from raystream.clock import SystemClock
from raystream.connectors.basic import DiscardSink
from raystream.connectors.datagen import DatagenSource
from raystream.metrics.catalogue import JOB_LABELS, METRICS, OPERATOR_LABELS, Scope
from raystream.testing import Crash, Pause, TestSource, Watermark
from tests.checkpointing import ON_REQUEST
from tests.promql import alert_queries, complaints, dashboard_queries
from tests.ray.conftest import PATIENCE_S, completed, handle_of

TestSource.__test__ = False
RECORDS = 6_000
KEYS = 50
BROKEN_EVERY = 10
RATE = 400
LAST_MS = 5_000
CHECKPOINTS = 3
TOLERANCE = 0.1


class Count(KeyedProcessFunction):
    """Counts by key, in state and with a metric of its own."""

    def open(self, ctx):
        self.hits = ctx.get_state(ValueStateDescriptor("hits", int, default=0))
        self.seen = ctx.metrics.counter("recordsSeen")

    def process_element(self, value, ctx):
        self.seen.inc()
        self.hits.update(self.hits.value() + 1)
        yield ctx.current_key, self.hits.value()


class Slow(MapFunction):
    """Takes much longer for a record than anything else in its job."""

    def map(self, value):
        sum(range(2_000))
        return value


def checked(number):
    if number % BROKEN_EVERY == 0:
        raise ValueError(number)
    return number


def scraped():
    """Return what the nodes export of raystream: by metric, the labels and value of each series."""
    series = defaultdict(list)
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("ray_raystream_"):
                    series[sample.name].append((sample.labels, sample.value))
    return series


class Scrapes:
    """The exported metrics of one job."""

    def __init__(self, handle):
        self.handle = handle
        self.series = {}

    def until(self, condition):
        """Scrape, with every news of the job or second, until the condition holds."""
        clock = SystemClock()
        until_ms = clock.monotonic_ms() + PATIENCE_S * 1000
        while clock.monotonic_ms() < until_ms:
            self.series = {
                name: [(labels, value) for labels, value in found if labels["job_id"] == self.handle.job_id]
                for name, found in scraped().items()
            }
            if condition(self):
                return self
            next(iter(self._news()), None)
        raise AssertionError(self.series)

    def _news(self):
        try:
            yield from self.handle.watch(0.5)
        except TimeoutError:
            return

    def values(self, metric, **labels):
        """Return the values of a metric, by subtask; of a job metric one."""
        found = self.series.get(f"ray_raystream_{metric}", [])
        return [value for own, value in found if labels.items() <= own.items()]

    def total(self, metric, **labels):
        return sum(self.values(metric, **labels))

    def mean(self, metric, **labels):
        values = self.values(metric, **labels)
        return sum(values) / len(values) if values else 0.0


def last_checkpoint(view):
    """Return the newest complete checkpoint of a view."""
    return [record for record in view.checkpoints if record.status == "completed"][-1]


def close(value, truth):
    return value == pytest.approx(truth, rel=TOLERANCE)


def counting(env, name):
    """Start a job of two pipelines: one soon has all its records, one goes on at a steady rate."""
    scripts = [
        [Crash(), *range(1, RECORDS // 2 + 1), Watermark(LAST_MS), Pause(600_000)],
        [*range(RECORDS // 2 + 1, RECORDS + 1), Watermark(LAST_MS), Pause(600_000)],
    ]
    numbers = env.from_source(TestSource(*scripts), name="numbers", uid="numbers")
    good = numbers.map(checked, name="check", uid="check", on_error="dead-letter")
    good.dead_letters().sink_to(DiscardSink(), name="dead", uid="dead")
    hits = good.key_by(lambda number: number % KEYS).process(Count(), name="count hits", uid="count")
    hits.sink_to(DiscardSink(), name="hits", uid="hits")
    ticks = env.from_source(DatagenSource(lambda n: n, rate=RATE), name="ticks", uid="ticks")
    steady = ticks.key_by(lambda number: number % KEYS).process(Count(), name="steady", uid="steady")
    steady.sink_to(DiscardSink(), name="out", uid="out")
    return env.submit(name)


def test_every_metric_is_exported_with_what_was_counted_beside_it(environment, tmp_path, address, capsys):
    env = environment(2, state_backend_type="rocksdb", **ON_REQUEST)
    client = counting(env, 'metrics of "Ä"')
    handle = handle_of(client.job_id)
    good = RECORDS - RECORDS // BROKEN_EVERY
    scrapes = Scrapes(handle)
    scrapes.until(lambda now: now.total("num_records_out", uid="hits") == good)
    for _ in range(CHECKPOINTS):
        client.checkpoint()
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError):
        client.savepoint(str(tmp_path / "file"))
    view = handle.view()
    scrapes.until(
        lambda now: (
            now.values("number_of_failed_checkpoints") == [1]
            and close(now.total("num_records_in_per_second", uid="steady"), RATE)
            and close(now.total("state_size"), last_checkpoint(view).size_bytes)
        )
    )

    assert scrapes.total("num_records_in", uid="numbers") == RECORDS
    assert scrapes.total("num_records_out", uid="check") == RECORDS, "dead letters are emitted, too"
    assert scrapes.total("num_dead_letters", uid="check") == RECORDS // BROKEN_EVERY
    assert scrapes.total("num_records_in", uid="count") == good
    assert scrapes.total("user_records_seen", uid="count") == good
    assert close(scrapes.mean("cache_hit_rate", uid="steady"), 1.0), "of so few keys each is read once"
    for uid in ("numbers", "ticks", "count", "steady"):
        times = ("busy", "back_pressured", "idle")
        assert close(sum(scrapes.mean(f"{time}_time_ms_per_second", uid=uid) for time in times), 1_000)
    assert scrapes.values("current_input_watermark", uid="count") == [LAST_MS, LAST_MS]
    assert scrapes.values("num_restarts") == [view.restarts] == [1]
    assert scrapes.values("number_of_completed_checkpoints") == [completed(view)] == [CHECKPOINTS]
    assert scrapes.values("checkpoint_interval") == [3_600_000]
    last = last_checkpoint(view)
    assert scrapes.values("last_checkpoint_size") == [last.size_bytes]
    assert close(scrapes.total("last_checkpoint_duration"), last.duration_ms)
    assert close(scrapes.total("last_checkpoint_completed_timestamp"), last.triggered_ms + last.duration_ms)
    # What changes all the time is exported with a delay.
    scrapes.until(lambda now: now.total("uptime") >= view.duration_ms)
    assert scrapes.total("uptime") <= handle.view().duration_ms
    scrapes.until(lambda now: close(now.total("num_records_out_per_second", uid="ticks"), RATE))
    assert_names_are_those_of_catalogue_dashboard_and_alerts(scrapes)
    assert_top_shows_the_same(handle, capsys, address)

    client.cancel()
    Scrapes(handle).until(lambda now: not any(now.series.values()))


def assert_names_are_those_of_catalogue_dashboard_and_alerts(scrapes):
    exported = {name: frozenset(found[0][0]) for name, found in scrapes.series.items() if found}
    for metric in METRICS:
        labels = JOB_LABELS if metric.scope is Scope.JOB else OPERATOR_LABELS
        assert exported[f"ray_{metric.exported}"] >= {*labels}, metric
    for query in (*alert_queries(), *dashboard_queries()):
        assert complaints(query, exported) == []
    assert scrapes.values("num_restarts", job_name='metrics of "\\xc4"')


def assert_top_shows_the_same(handle, capsys, address):
    """`raystream top` says it on any machine: as JSON, and as a table where there is no terminal."""
    assert main(["top", "--json", "--address", address, handle.job_id[:8]]) == 0
    shown = json.loads(capsys.readouterr().out)
    operators = {one["uid"]: one for one in shown["operators"]}
    assert operators["numbers"]["records_in"] == RECORDS
    assert operators["count"]["watermark_ms"] == LAST_MS
    assert operators["check"]["task"] == operators["numbers"]["task"]

    assert main(["top", "--address", address, handle.job_id]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "RUNNING  attempt 2  1 restart" in lines[0]
    assert [line.split()[0] for line in lines[2:6]] == ["numbers", "check", "dead", "ticks"]


def test_back_pressure_shows_at_the_operator_before_the_slow_one(environment):
    env = environment(2)
    numbers = env.from_source(DatagenSource(lambda n: n), name="numbers", uid="numbers")
    slow = numbers.rebalance().map(Slow(), name="slow", uid="slow")
    slow.rebalance().sink_to(DiscardSink(), name="quick", uid="quick")
    client = env.submit("held up")

    def times(now, uid):
        return [now.mean(f"{one}_time_ms_per_second", uid=uid) for one in ("busy", "back_pressured", "idle")]

    scrapes = Scrapes(handle_of(client.job_id)).until(lambda now: times(now, "slow")[0] > 800)
    busy, held, _ = times(scrapes, "numbers")
    assert held > 700
    assert held > 3 * busy
    busy, held, _ = times(scrapes, "slow")
    assert busy > 3 * held, "nothing holds up the slow one"
    busy, held, idle = times(scrapes, "quick")
    assert idle > 3 * (busy + held), "what is behind the slow one has little to do"
    client.cancel()
