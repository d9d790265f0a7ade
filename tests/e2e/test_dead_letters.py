"""A script puts the records aside on which it raises, and the command line tells how many there were."""

from tests.published import records

JOB = """
from raystream import StreamEnvironment
from raystream.connectors.files import FileSink, FileSource

env = StreamEnvironment()
lines = env.from_source(FileSource.lines("numbers.txt", with_position=True), uid="lines")
numbers = lines.map(lambda line: int(line[2]), name="parse", uid="parse", on_error="dead-letter")
halves = numbers.key_by(lambda n: n % 2).map(lambda n: 100 // n, uid="inverse", on_error="dead-letter")
halves.sink_to(FileSink.json_lines("out"), uid="out")
env.dead_letters().sink_to(FileSink.json_lines("dead"), uid="dead")
env.execute()
"""


def test_records_that_fail_are_in_files_of_their_own_with_their_position(raystream, script, tmp_path):
    (tmp_path / "numbers.txt").write_text("1\n2\nthree\n0\n5\n")

    outcome = raystream(
        "run", "--runner", "local", "-p", "2", "-D", "execution.checkpointing.interval=50ms",
        "-D", f"execution.checkpointing.dir={tmp_path / 'checkpoints'}", script(JOB),
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    assert "2 dead letters, " in outcome.err.splitlines()[-1]
    assert sorted(records(tmp_path / "out")) == [20, 50, 100]
    inverse, parse = sorted(records(tmp_path / "dead"), key=lambda letter: letter["uid"])
    assert (inverse["value"], inverse["error_type"], inverse["key"]) == (0, "ZeroDivisionError", 0)
    assert (parse["operator"], parse["error_type"]) == ("parse", "ValueError")
    assert parse["value"][1:] == [4, "three"]
    assert "lambda line: int(line[2])" in parse["traceback"]
