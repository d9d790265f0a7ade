"""Records of every kind of class that a script defines work where the script is not.

Each script runs in one process; its functions are unpacked in a fresh one and make
records there; the plainly pickled records are loaded in a third.
"""

import pytest

from tests.unit.runtime.record_scripts import RECORDS
from tests.unit.runtime.shipping import Scripts


@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_script_classes_travel_by_plain_pickle(tmp_path, kind):
    scripts = Scripts(tmp_path)
    scripts.run(RECORDS[kind])

    scripts.call("make", dump=scripts.records)

    assert scripts.call("check", load=scripts.records) == ["6"]
