"""The exactly-once file sink under the faults of the simulation: real files, crashed writers."""

import gc
import json
from collections import Counter

import pytest

from raystream.connectors.files import FileSink
from raystream.testing import simulate
from raystream.testing.faults import CancelAndResume
from tests.published import records, unfinished
from tests.simulation import jobs

pytestmark = pytest.mark.simulation


def counts_into(directory):
    def job(env):
        jobs.twice_keyed(env).sink_to(FileSink.json_lines(directory), uid="files")

    return job


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_files_hold_every_record_once_and_nothing_unfinished_is_left(tmp_path, seeds):
    expected = Counter(json.dumps(record) for record in jobs.expected_twice_keyed())
    for seed in seeds[: len(seeds) // 10]:
        directory = tmp_path / str(seed)
        report = simulate(counts_into(str(directory)), seeds=[seed], expected=())
        report.check()

        assert Counter(map(json.dumps, records(directory))) == expected
        # A cancelled job leaves what it had pre-committed: its newest checkpoint may refer to it.
        if not any(isinstance(fault, CancelAndResume) for fault in report.rows[0].faults):
            assert unfinished(directory) == [], seed
    gc.collect()  # Writers that died with their processes left their files to the garbage collector.
