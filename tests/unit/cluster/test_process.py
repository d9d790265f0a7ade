"""Log lines say which job, operator, subtask and attempt they are about."""

import json
import logging
import re

import pytest

from raystream.cluster.process import JsonFormatter, TextFormatter
from raystream.runtime import log_place

LINE = re.compile(
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>\w+) job=(?P<job>\S+)"
    r" operator=(?P<operator>\"[^\"]*\"|\S+)"
    r" subtask=(?P<subtask>\S+) attempt=(?P<attempt>\S+) (?P<logger>\S+): (?P<message>.*)"
)


@pytest.fixture(autouse=True)
def place(monkeypatch):
    monkeypatch.setattr(log_place.process, "job", "5eed")
    monkeypatch.setattr(log_place.process, "attempt", "2")
    monkeypatch.setattr(log_place.here, "at", ("count hits", "1"))


def record(**extra):
    made = logging.makeLogRecord({"name": "jobs.hits", "levelname": "WARNING", "msg": "slow", **extra})
    made.created = 1_760_000_000.5
    return made


def test_line_of_text_has_time_and_level_then_its_place_then_the_message():
    line = LINE.fullmatch(TextFormatter().format(record(key="a b", _ray_private=1)))

    assert line is not None
    assert line.groupdict() == {
        "level": "WARNING", "job": "5eed", "operator": '"count hits"', "subtask": "1", "attempt": "2",
        "logger": "jobs.hits", "message": "slow key='a b'",
    }  # fmt: skip


def test_what_is_not_known_of_a_place_has_its_column_all_the_same(monkeypatch):
    monkeypatch.setattr(log_place.here, "at", log_place.NOWHERE)

    line = LINE.fullmatch(TextFormatter().format(record()))

    assert line is not None
    assert (line["operator"], line["subtask"], line["attempt"]) == ("-", "-", "2")


def test_traceback_stands_below_the_line():
    try:
        raise ValueError("wrong")
    except ValueError as error:
        text = TextFormatter().format(record(exc_info=(ValueError, error, error.__traceback__)))

    first, *below = text.splitlines()
    assert LINE.fullmatch(first)
    assert below[-1] == "ValueError: wrong"


def test_field_of_a_record_takes_no_name_of_its_place():
    taken = record(job="mine", operator="mine", time="mine", level="mine", key="mine")

    shown = json.loads(JsonFormatter().format(taken))

    assert shown == {
        "time": "2025-10-09T08:53:20.500+00:00", "level": "WARNING", "job": "5eed", "operator": "count hits",
        "subtask": "1", "attempt": "2", "logger": "jobs.hits", "message": "slow", "key": "mine",
        "extra_job": "mine", "extra_operator": "mine", "extra_time": "mine", "extra_level": "mine",
    }  # fmt: skip


def test_record_is_one_object_of_json_that_holds_everything():
    try:
        raise ValueError("wrong")
    except ValueError as error:
        failed = record(exc_info=(ValueError, error, error.__traceback__), slot=3, what=object)
    (line,) = JsonFormatter().format(failed).splitlines()

    shown = json.loads(line)

    assert shown.pop("traceback").endswith("ValueError: wrong")
    assert shown == {
        "time": "2025-10-09T08:53:20.500+00:00", "level": "WARNING", "job": "5eed", "operator": "count hits",
        "subtask": "1", "attempt": "2", "logger": "jobs.hits", "message": "slow", "slot": 3,
        "what": "<class 'object'>",
    }  # fmt: skip
