"""What tests of the file sink share: contexts of writers, a commit, and the files of a directory."""

from contextlib import contextmanager
from pathlib import Path

from raystream.operators.sink import WriterContext

JOB_ID = "0123456789abcdef" * 2


def context_of(**changes):
    fields = {
        "job_id": JOB_ID, "uid": "sink", "subtask": 0, "parallelism": 1, "attempt": 1,
        "tell_client": None, "deliver": None,
    }  # fmt: skip
    return WriterContext(**{**fields, **changes})


@contextmanager
def started_writers():
    """Give what opens and starts a writer; they are closed in the end."""
    writers = []

    def open_one(sink, **changes):
        writers.append(sink.open_writer(context_of(**changes)))
        writers[-1].start()
        return writers[-1]

    yield open_one
    for writer in writers:
        writer.close()


def visible_files(directory):
    return sorted(path for path in Path(directory).iterdir() if not path.name.startswith("."))


def in_progress_files(directory):
    return sorted(path.name for path in Path(directory).iterdir() if ".inprogress" in path.name)


def names(directory):
    """Names of all files but the markers of jobs."""
    return sorted(path.name for path in Path(directory).iterdir() if not path.name.startswith(".raystream-"))


def commit(sink, writer):
    committables = writer.prepare_commit(1)
    writer.sync()
    sink.open_committer(context_of()).commit(committables)
