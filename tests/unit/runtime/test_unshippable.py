"""What cannot be shipped is refused before the job starts, with an error that names it."""

import pickle
import sys
import types
from pathlib import Path

import pytest

from raystream.runtime import job_code
from raystream.runtime.job_code import find_script, give_stable_names
from raystream.runtime.job_pickle import Script
from tests.unit.runtime.shipping import Scripts, python

REFUSED = """
if __name__ == "__main__":
    import sys
    from raystream import ConfigError
    from tests.unit.runtime.shipping import ship
    try:
        ship(sys.argv[1], make=make, check=check)
    except ConfigError as error:
        print(error)
"""

IN_A_GLOBAL = """
import threading
lock = threading.Lock()
def make():
    return lock
check = len
"""
IN_A_GLOBAL_OF_A_FUNCTION_THAT_IS_CALLED = """
import threading
locks = {"a": [threading.Lock()]}
def find():
    return locks
make = len
check = lambda: find()
"""
IN_AN_ATTRIBUTE = """
import threading
class Make:
    def __init__(self):
        self.client = {"lock": threading.Lock()}
make = Make()
check = len
"""
IN_A_CLOSURE = """
def build():
    feed = (i for i in [1])
    return lambda: feed
make = len
check = build()
"""
IN_A_PARTIAL = """
import functools
def use(feed): pass
make = functools.partial(use, (i for i in [1]))
check = len
"""
IN_A_CLASS = """
class Make:
    feed = (i for i in [1])
    def __call__(self):
        return 1
make = Make()
check = len
"""


@pytest.fixture
def scripts(tmp_path):
    return Scripts(tmp_path)


@pytest.mark.parametrize(
    ("source", "operator", "variable", "kind"),
    [
        (IN_A_GLOBAL, "make", "lock", "lock"),
        (IN_A_GLOBAL_OF_A_FUNCTION_THAT_IS_CALLED, "check", "locks['a'][0]", "lock"),
        (IN_AN_ATTRIBUTE, "make", "self.client['lock']", "lock"),
        (IN_A_CLOSURE, "check", "feed", "generator"),
        (IN_A_PARTIAL, "make", "self.args[0]", "generator"),
        (IN_A_CLASS, "make", "Make.feed", "generator"),
    ],
)
def test_what_cannot_be_shipped_is_named_with_its_operator(scripts, source, operator, variable, kind):
    output = scripts.run(
        source,
        end="""
if __name__ == "__main__":
    import sys
    from raystream import ConfigError
    from tests.unit.runtime.shipping import ship
    try:
        ship(sys.argv[1], make=make, check=check)
    except ConfigError as error:
        print([error.context[key] for key in ("operator", "variable", "type")], "open()" in error.hint)
""",
    )

    assert output == f"{[operator, variable, kind]} True\n"


@pytest.mark.parametrize("name", ["json.py", "yaml.py"])
def test_script_with_the_name_of_another_module_is_refused(scripts, name):
    # A script beside which Python looks for modules last, as `raystream run` may be started.
    scripts.write(
        "start.py",
        f"""
        import sys
        sys.path.append(sys.path.pop(0))
        import json, runpy
        runpy.run_path({name!r}, run_name="__main__")
        """,
    )
    scripts.write(name, "def make():\n    return 1\ncheck = len\n" + REFUSED)

    output = python("start.py", scripts.program, cwd=scripts.directory)

    assert "script has the name of another module" in output
    assert "hint: rename the script" in output


def test_script_that_its_own_module_imports_is_refused(scripts):
    scripts.write("helper_module.py", "import my_job\n")
    output = scripts.run(
        "import helper_module\nmake = check = len",
        end=REFUSED,
    )

    assert "script is imported by one of the modules that it imports" in output
    assert "a module of its own" in output


@pytest.mark.parametrize(
    ("path", "name"),
    [("/jobs/access-log.v2.py", "access_log_v2"), ("/jobs/count/__main__.py", "count"), ("/jobs/a.py", "a")],
)
def test_stable_name_is_the_stem_of_the_file(monkeypatch, path, name):
    main = types.ModuleType("__main__")
    main.__file__ = path
    monkeypatch.setitem(sys.modules, "__main__", main)

    assert find_script().name == name


def test_notebook_has_a_stable_name_too(monkeypatch):
    main = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    assert find_script() == Script("raystream_job", main)


def test_command_of_a_package_is_no_script(monkeypatch):
    main = types.ModuleType("__main__")
    main.__file__ = str(Path(pytest.__file__).with_name("__main__.py"))
    monkeypatch.setitem(sys.modules, "__main__", main)

    assert find_script().module is job_code._no_script


def test_nested_classes_get_the_stable_name():
    main = types.ModuleType("__main__")
    exec("class Outer:\n    class Inner: pass\ndef function(): pass", vars(main))

    give_stable_names(Script("some_job_of_a_test", main))

    inner = main.Outer.Inner
    assert {main.Outer.__module__, inner.__module__, main.function.__module__} == {"some_job_of_a_test"}
    assert pickle.loads(pickle.dumps(inner)) is inner
    del sys.modules["some_job_of_a_test"]
