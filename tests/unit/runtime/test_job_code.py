"""What the functions of a script use works in processes that cannot import the script."""

import textwrap

import pytest

from raystream.errors import ConfigError
from tests.unit.runtime.shipping import Scripts, call, functions_in, python


@pytest.fixture
def scripts(tmp_path):
    return Scripts(tmp_path)


def test_functions_find_what_the_script_defines_and_imports(scripts):
    scripts.write("beside.py", "import deeper.inner\n\ndef twice(x):\n    return deeper.inner.double(x)\n")
    (scripts.directory / "deeper").mkdir()
    scripts.write("deeper/__init__.py", "")
    scripts.write("deeper/inner.py", "def double(x):\n    return 2 * x\n")
    scripts.write("later.py", "ANSWER = 42\n")
    scripts.run("""
        import functools, logging, os.path, re
        import beside
        import xml.dom.minidom

        logger = logging.getLogger("jobs")
        WORD = re.compile("[a-z]+")
        counter = 0

        @functools.lru_cache(maxsize=2)
        def cached(x):
            return x + 1

        class Lazy:
            @functools.cached_property
            def value(self):
                return cached(1)

        def count():
            global counter
            counter += 1
            return counter

        def factorial(n):
            return 1 if n == 0 else n * factorial(n - 1)

        def make():
            import later
            logger.info("made")
            count()
            return [
                later.ANSWER, beside.twice(4), WORD.findall("a1b"), count(), Lazy().value,
                cached.cache_info().maxsize, factorial(4), os.path.basename("/a/b"),
                xml.dom.minidom.parseString("<a/>").toxml()[-4:], __name__,
            ]

        def check():
            return counter
    """)

    assert scripts.call("make", "check") == [
        str([42, 8, ["a", "b"], 2, 2, 2, 24, "b", "<a/>", "my_job"]),
        "2",
    ]


def test_lambdas_closures_and_classes_inside_functions_travel(scripts):
    scripts.run(
        """
        import msgspec

        def build():
            class Local(msgspec.Struct):
                x: int

            decode = msgspec.json.Decoder(Local).decode
            base = 5

            def even(n):
                return n == 0 or odd(n - 1)

            def odd(n):
                return n != 0 and even(n - 1)

            def make():
                return decode(b'{"x": 1}').x + base, even(10)

            return make, lambda value=Local(1): isinstance(value, Local)

        make, check = build()
        """
    )

    assert scripts.call("make", "check") == ["(6, True)", "True"]


def test_class_inside_a_function_is_one_class_for_all_operators(scripts):
    scripts.run(
        """
        def build():
            class Local:
                pass

            return Local, lambda: Local

        Made, again = build()
        make = lambda: None
        make.local = Made
        """,
        end="""
if __name__ == "__main__":
    import sys
    from tests.unit.runtime.shipping import ship
    ship(sys.argv[1], make=lambda Made=Made: Made, check=again)
""",
    )
    functions = functions_in(scripts.program.read_bytes())

    assert functions["make"]() is functions["check"]()


def test_traceback_shows_the_lines_of_the_script(scripts):
    scripts.run("""
        def make():
            raise ValueError("no")  # the line to be shown

        def check():
            import traceback
            try:
                make()
            except ValueError:
                return "the line to be shown" in traceback.format_exc()
    """)
    (scripts.directory / "my_job.py").unlink()

    assert scripts.call("check") == ["True"]


def test_later_program_replaces_the_classes_of_an_earlier_one(scripts):
    source = """
        class Record:
            version = {version}

        def make():
            return Record()

        def check(record):
            assert type(record) is Record
            return record.version
    """
    scripts.run(source.format(version=1))
    scripts.call("make", dump=scripts.records)
    first = scripts.program.rename(scripts.directory / "first.bin")
    scripts.run(source.format(version=2))

    results = call([first, scripts.program, first], "check", load=scripts.records)

    assert results == ["1", "2", "1"]


def test_program_is_packed_anew_where_it_was_unpacked(scripts):
    scripts.run("""
        class Record:
            pass

        def make():
            return Record()

        check = lambda: isinstance(make(), Record)
    """)
    code = """
        import sys
        from raystream.runtime.program import pack, unpack
        data = pack(unpack(open(sys.argv[1], "rb").read()))
        open(sys.argv[1], "wb").write(data)
    """
    python("-c", textwrap.dedent(code), scripts.program)

    assert scripts.call("check") == ["True"]


def test_script_itself_keeps_its_own_functions_and_classes(scripts):
    output = scripts.run(
        """
        seen = []

        class Record:
            pass

        def make():
            seen.append(1)
            return Record()
        """,
        end="""
if __name__ == "__main__":
    import pickle, sys
    from raystream.runtime.program import pack
    from tests.unit.runtime.shipping import functions_in, program_of
    first = pack(program_of(make=make))
    second = pack(program_of(make=make))
    for data in (first, second, first):
        record = functions_in(data)["make"]()
        assert type(record) is Record
        assert type(pickle.loads(pickle.dumps(record))) is Record
    print(len(seen), Record.__module__)
""",
    )

    assert output.split() == ["3", "my_job"]


def test_class_that_nobody_needs_does_not_stop_the_job(scripts):
    scripts.run("""
        import threading

        class Unneeded:
            lock = threading.Lock()

        def make():
            return 1

        check = len
    """)

    assert scripts.call("make") == ["1"]


def test_module_that_the_workers_lack_is_a_clear_error(scripts):
    scripts.run("""
        import sys, types

        installed_here = types.ModuleType("installed_here")
        installed_here.answer = len
        len.__class__
        sys.modules["installed_here"] = installed_here

        def make():
            return installed_here.answer

        check = len
    """)

    with pytest.raises(ConfigError, match="program could not be loaded") as raised:
        functions_in(scripts.program.read_bytes())

    assert "installed_here" in raised.value.context["cause"]
    assert "on every node" in raised.value.hint
