"""The main job counts every request of a log exactly once."""

import json
from collections import Counter

import pytest

from jobs.access_log_count import request_target
from tests.access_logs import (
    JOB,
    REAL_LOG,
    Expected,
    assert_counted_exactly_once,
    assert_real_log_counted,
    needs_real_log,
)
from tests.published import counts_by_key, one_to_n, records

PREFIX = b"127.0.0.1 - - [17/May/2015:10:05:03 +0000] "


# ---- one line ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (PREFIX + b'"GET /a?b=1&c=%20 HTTP/1.1" 200 9 "-" "curl/8"', "/a?b=1&c=%20"),
        (PREFIX + b'"GET /a HTTP/1.1" 200 9', "/a"),
        (PREFIX + b'"GET /a HTTP/1.1" 304 - "-" "-"', "/a"),
        (PREFIX + b'"GET /a HTTP/1.1" 200 9 "-" "an agent that is cut o', "/a"),
        (PREFIX + b'"GET /a HTTP/1.1" 200 9 "-" "curl" 0.004 "10.0.0.1"', "/a"),
        (PREFIX + b'"GET /old" 200 9 "-" "-"', "/old"),
        (PREFIX + b'"GET /two words HTTP/1.1" 404 9 "-" "-"', "/two words"),
        (PREFIX + rb'"GET /say?\"hi\" HTTP/1.1" 200 9 "-" "-"', r"/say?\"hi\""),
        (PREFIX + rb'"GET /back\\ HTTP/1.1" 200 9 "-" "-"', r"/back\\"),
        (PREFIX + rb'"GET /\xff HTTP/1.1" 200 9 "-" "-"', r"/\xff"),
        (PREFIX + b'"GET /\xff\xc3\xa9 HTTP/1.1" 200 9 "-" "-"', r"/\xffé"),
        (PREFIX + b'"OPTIONS * HTTP/1.0" 200 9 "-" "-"', "*"),
        (PREFIX + b'"M-SEARCH /x HTTP/2.0" 200 9 "-" "-"', "/x"),
        (PREFIX + b'"GET http://a.example/x HTTP/1.1" 200 9 "-" "-"', "http://a.example/x"),
        (b'::1 - Jane Doe [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 9 "-" "-"', "/a"),
        (b'{"path": "/a?b=1", "status": 200}', "/a?b=1"),
        (b'{"url": "/u", "path": "/p"}', "/u"),
        (b'{"url": null, "path": "/p"}', "/p"),
        (b' {"request": {"method": "GET"}, "url": "/\\u00e9"}', "/é"),
    ],
)
def test_path_is_the_request_target_as_it_stands(line, path):
    assert request_target(line) == path


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET /a HTTP/1.1",
        PREFIX + b'"-" 408 0 "-" "-"',
        PREFIX + b'"" 400 0 "-" "-"',
        PREFIX + b'"GET  HTTP/1.1" 400 0 "-" "-"',
        PREFIX + rb'"\x16\x03\x01 \x02 x" 400 0 "-" "-"',
        PREFIX + b'"GET /a',
        PREFIX + b'"GET /a HTTP/1.1" 2',
        PREFIX + rb'"GET /a\" 200 9',
        b"{}",
        b'{"path": 7}',
        b'{"path": ""}',
        b'{"path": "/a"',
        b'{"path": "/a"} {"path": "/b"}',
        b'{"path": "/\xff"}',
        b'["/a"]',
        b"\x00" * 100_000,
        b"a b " + b"[" * 100_000,
        PREFIX + b'"GET ' + b"/ " * 100_000,
    ],
)
def test_line_without_a_path_is_rejected(line):
    assert not request_target(line)


# ---- whole logs -------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [1, 2])
def test_log_of_both_formats_is_counted_exactly_once(raystream, tmp_path, parallelism):
    log, out = tmp_path / "mixed.log", tmp_path / "out"
    expected = Expected()
    expected.append_to(log, lines=20_000, seed=parallelism)

    outcome = raystream("run", "--runner", "local", "-p", parallelism, JOB, log, "--out", out)

    assert (outcome.code, outcome.out) == (0, ""), outcome.err
    assert_counted_exactly_once(out, expected)


def test_checkpoints_on_the_way_change_nothing(raystream, tmp_path):
    log, out = tmp_path / "mixed.log", tmp_path / "out"
    expected = Expected()
    expected.append_to(log, lines=20_000, seed=3)

    outcome = raystream(
        "run", "--runner", "local", "-p", "2", "-D", "execution.checkpointing.interval=50ms",
        "-D", f"state.checkpoints.dir={tmp_path / 'checkpoints'}", JOB, log, "--out", out,
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert_counted_exactly_once(out, expected)


def test_several_logs_are_counted_together(raystream, tmp_path):
    expected = Expected()
    expected.append_to(tmp_path / "a.log", lines=500, seed=4)
    expected.append_to(tmp_path / "b.log", lines=500, seed=5)

    assert raystream("run", "--runner", "local", JOB, tmp_path / "*.log", "--out", tmp_path / "out").code == 0
    assert_counted_exactly_once(tmp_path / "out", expected)


def test_job_makes_itself_a_log_when_it_is_given_none(raystream, tmp_path):
    for out in (tmp_path / "first", tmp_path / "second"):
        outcome = raystream("run", "--runner", "local", JOB, "--out", out, "--lines", "2000")
        assert outcome.code == 0, outcome.err
        assert ("made " in outcome.err) == (out.name == "first")

    (log,) = tmp_path.glob("*.log")
    lines = log.read_text().splitlines()
    independent = Counter(
        json.loads(line)["url"] if line.startswith("{") else line.split('"')[1].split()[1] for line in lines
    )
    assert len(lines) == 2_000
    assert sum(line.startswith("{") for line in lines) == 1_000
    assert counts_by_key(tmp_path / "first") == one_to_n(independent.elements())
    assert counts_by_key(tmp_path / "second") == one_to_n(independent.elements())
    assert records(tmp_path / "first" / "rejected") == []


@needs_real_log
@pytest.mark.parametrize("parallelism", [1, 2])
def test_real_log_has_the_counts_of_an_independent_program(raystream, tmp_path, parallelism):
    out = tmp_path / "out"

    outcome = raystream("run", "--runner", "local", "-p", parallelism, JOB, REAL_LOG, "--out", out)

    assert outcome.code == 0, outcome.err
    assert_real_log_counted(out)
