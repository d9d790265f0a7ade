"""Every key has a form in JSON."""

import json

from raystream.savepoint.key_literals import key_as_json


def test_int_of_more_digits_than_python_writes_is_told_by_its_size():
    assert json.loads(json.dumps(key_as_json((10**4000, -(10**5000))))) == [10**4000, "key of 2082 bytes"]
