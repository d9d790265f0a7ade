"""Examples in docstrings run as they stand."""

import doctest
import importlib
import pkgutil

import pytest

import raystream

MODULES = [
    module.name
    for module in pkgutil.walk_packages(raystream.__path__, prefix="raystream.")
    if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_module_run_as_they_stand(name):
    outcome = doctest.testmod(importlib.import_module(name))

    assert outcome.failed == 0
