"""What user code counts with: `ctx.metrics`."""

import logging

import pytest

from raystream.errors import ConfigError
from raystream.metrics.user import HISTOGRAM_VALUES_MAX, METRICS_MAX, MetricGroup


def test_name_that_is_asked_for_again_is_the_same_metric():
    metrics = MetricGroup()
    metrics.counter("hits").inc(3)
    metrics.counter("hits").dec()

    assert metrics.values(0.0) == {"hits": 2.0}


def test_names_are_in_lower_case_whatever_they_were():
    metrics = MetricGroup()
    metrics.counter("lateRecords").inc()

    assert metrics.values(0.0) == {"late_records": 1.0}


def test_gauge_is_set_or_read():
    waiting = [1, 2]
    metrics = MetricGroup()
    metrics.gauge("waiting", lambda: len(waiting))
    level = metrics.gauge("level")
    assert metrics.values(0.0) == {"waiting": 2.0}, "a gauge that was not set has no value"

    waiting.append(3)
    level.set(0.5)
    assert metrics.values(0.0) == {"waiting": 3.0, "level": 0.5}
    with pytest.raises(ConfigError, match="has a function"):
        metrics.gauge("waiting").set(1)


def test_meter_has_a_count_and_a_rate():
    metrics = MetricGroup()
    calls = metrics.meter("calls")
    metrics.values(0.0)
    calls.mark_event()
    calls.mark_event(9)

    assert metrics.values(2_000.0) == {"calls_count": 10.0, "calls_per_second": 5.0}


def test_histogram_is_over_the_newest_values():
    metrics = MetricGroup()
    sizes = metrics.histogram("size")
    assert metrics.values(0.0) == {"size_count": 0.0}
    sizes.update(1_000_000)
    for value in range(HISTOGRAM_VALUES_MAX):
        sizes.update(value)

    values = metrics.values(0.0)

    assert values["size_count"] == HISTOGRAM_VALUES_MAX + 1
    assert (values["size_min"], values["size_max"]) == (0.0, HISTOGRAM_VALUES_MAX - 1)
    assert values["size_mean"] == pytest.approx((HISTOGRAM_VALUES_MAX - 1) / 2)
    assert values["size_p50"] < values["size_p95"] < values["size_p99"]


def test_metric_that_gives_no_number_costs_nothing_but_one_line_of_the_log(caplog):
    metrics = MetricGroup()
    metrics.gauge("broken", lambda: 1 / 0)
    metrics.gauge("text", lambda: "many")
    metrics.counter("hits").inc()

    with caplog.at_level(logging.WARNING):
        assert metrics.values(0.0) == metrics.values(1.0) == {"hits": 1.0}

    assert [record.metric for record in caplog.records] == ["broken", "text"]


@pytest.mark.parametrize("name", ["", "two words", "größe", "_hidden", "x" * 101, 7])
def test_name_that_collectors_do_not_take_is_refused(name):
    with pytest.raises(ConfigError, match="no name that collectors take"):
        MetricGroup().counter(name)


@pytest.mark.parametrize("second", ["calls_count", "callsCount"])
def test_two_metrics_never_share_a_name(second):
    metrics = MetricGroup()
    metrics.meter("calls")

    with pytest.raises(ConfigError, match="name is taken"):
        metrics.counter(second)
    with pytest.raises(ConfigError, match="name is taken"):
        MetricGroup.counter(metrics, "calls_per_second")


def test_number_of_metrics_is_bounded():
    metrics = MetricGroup()
    for number in range(METRICS_MAX):
        metrics.counter(f"key{number}")

    with pytest.raises(ConfigError, match="too many metrics"):
        metrics.counter("another")
