"""Scripts that define a class `Record` of every kind, for tests.

`make` returns a record; `check` gets it back in another process and returns 6.
"""

RECORDS = {
    "dataclass": """
        import dataclasses

        LIMIT = 3

        @dataclasses.dataclass
        class Record:
            x: int
            ys: list[int] = dataclasses.field(default_factory=list)

            def total(self):
                return self.x + sum(self.ys) + LIMIT

        def make():
            return Record(1, [2])

        def check(record):
            assert isinstance(record, Record)
            assert dataclasses.replace(record, x=5) == Record(5, [2])
            assert [f.name for f in dataclasses.fields(Record)] == ["x", "ys"]
            return record.total()
    """,
    "frozen dataclass with slots": """
        import dataclasses

        @dataclasses.dataclass(frozen=True, slots=True, order=True)
        class Record:
            x: int
            y: str = "y"

            def longer(self):
                return dataclasses.replace(self, x=self.x + 1)

        def make():
            return Record(5)

        def check(record):
            assert not hasattr(record, "__dict__")
            assert record < record.longer()
            assert len({record, Record(5)}) == 1
            return record.longer().x
    """,
    "dataclass with slots and itself inside": """
        import dataclasses
        from typing import Optional

        @dataclasses.dataclass(slots=True)
        class Record:
            x: int
            inner: "Optional[Record]" = None

        def make():
            return Record(1, Record(5))

        def check(record):
            assert not hasattr(record, "__dict__")
            return record.inner.x + 1
    """,
    "subclass of a class with super": """
        class Base:
            def __init__(self, x):
                self.x = x

            def value(self):
                return self.x

        class Record(Base):
            def value(self):
                return super().value() + 1

        def make():
            return Record(5)

        def check(record):
            assert isinstance(record, Base)
            return record.value()
    """,
    "abstract class": """
        import abc

        class Base(abc.ABC):
            @property
            @abc.abstractmethod
            def value(self): ...

        class Record(Base):
            value = 6

        def make():
            try:
                Base()
            except TypeError:
                return Record()

        def check(record):
            return record.value
    """,
    "generic class": """
        from typing import Generic, TypeVar

        T = TypeVar("T")

        class Record(Generic[T]):
            def __init__(self, value: T) -> None:
                self.value = value

        class Numbers(Record[int]):
            pass

        def make():
            return Numbers(6)

        def check(record):
            assert Record[int](1).value == 1
            return record.value
    """,
    "named tuple": """
        from typing import NamedTuple

        class Record(NamedTuple):
            x: int
            y: str = "b"

            def next(self):
                return Record(self.x + 1, self.y)

        FIRST = Record(5)

        def make():
            return FIRST

        def check(record):
            assert record._replace(x=1) == (1, "b")
            assert Record._field_defaults == {"y": "b"}
            return record.next().x
    """,
    "namedtuple function": """
        import collections

        Record = collections.namedtuple("Record", "x y")

        def make():
            return Record(6, 1)

        def check(record):
            return record.x
    """,
    "enums": """
        import enum

        STEP = 5

        class Record(enum.Enum):
            LOW = 1
            HIGH = 2
            TOP = 2

            @classmethod
            def _missing_(cls, value):
                return cls.LOW

            def value_and(self):
                return self.value + STEP - 1

        class Number(enum.IntEnum):
            ONE = 1

        class Text(enum.StrEnum):
            A = enum.auto()

        class Permission(enum.Flag):
            READ = enum.auto()
            WRITE = enum.auto()

        class Planet(enum.Enum):
            EARTH = (1, 9.8)

            def __new__(cls, number, gravity):
                self = object.__new__(cls)
                self._value_ = number
                self.gravity = gravity
                return self

        class Labelled(str, enum.Enum):
            X = "x"

            def __init__(self, value):
                self.label = value * STEP

        def make():
            both = Permission.READ | Permission.WRITE
            return Record.HIGH, Number.ONE, Text.A, both, Planet.EARTH, Labelled.X

        def check(record):
            high, number, text, permission, planet, labelled = record
            assert high is Record.HIGH is Record.TOP
            assert Record(77) is Record.LOW
            assert number + 1 == 2
            assert text == "a"
            assert Permission.WRITE in permission
            assert planet.gravity == 9.8
            assert Planet(1) is planet
            assert labelled == "x" and labelled.label == "xxxxx"
            return high.value_and()
    """,
    "typed dict and new type": """
        from typing import NewType, TypedDict

        import msgspec

        Id = NewType("Id", int)

        class Record(TypedDict, total=False):
            id: Id
            url: str

        decoder = msgspec.json.Decoder(Record)

        def make():
            return decoder.decode(b'{"id": 6}')

        def check(record):
            return record["id"]
    """,
    "struct with everything": """
        from typing import Annotated, ClassVar

        import msgspec

        LIMIT = 5

        class Record(msgspec.Struct, frozen=True, order=True, rename="camel", forbid_unknown_fields=True):
            url_path: str
            n: Annotated[int, msgspec.Meta(gt=0)] = 1
            tags: list[str] = []
            sizes: dict[str, int] = msgspec.field(default_factory=lambda: {"a": LIMIT}, name="bytes")
            KIND: ClassVar[str] = "hit"

            def __post_init__(self):
                if self.n > 1000 * LIMIT:
                    raise ValueError("too many")

            @property
            def next(self):
                return self.n + LIMIT

            @classmethod
            def empty(cls):
                return EMPTY

        EMPTY = Record("")
        decoder = msgspec.json.Decoder(Record)
        encode = msgspec.msgpack.Encoder().encode

        def make():
            return decoder.decode(b'{"urlPath": "/a", "tags": ["x"]}')

        def check(record):
            assert record == Record("/a", 1, ["x"], {"a": 5})
            assert record > Record.empty()
            assert Record.KIND == "hit"
            assert encode(record) == msgspec.msgpack.encode(record)
            assert msgspec.json.encode(Record("/a")) == b'{"urlPath":"/a","n":1,"tags":[],"bytes":{"a":5}}'
            for rest in (b'"n": 0}', b'"m": 0}', b'"n": 5001}'):
                try:
                    decoder.decode(b'{"urlPath": "/a", ' + rest)
                except msgspec.ValidationError:
                    continue
                raise AssertionError(rest)
            return record.next
    """,
    "struct with itself inside, under postponed annotations": """
        from __future__ import annotations

        from typing import Optional

        import msgspec

        class Record(msgspec.Struct):
            n: int
            children: list[Record] = []
            other: Optional[Other] = None

        class Other(msgspec.Struct):
            back: Record

        decode = msgspec.json.Decoder(Record).decode

        def make():
            return decode(b'{"n": 1, "children": [{"n": 2}], "other": {"back": {"n": 3}}}')

        def check(record):
            assert isinstance(record.other, Other)
            return record.n + record.children[0].n + record.other.back.n
    """,
    "struct inheritance and tagged union": """
        import msgspec

        class Event(msgspec.Struct, tag=True, kw_only=True):
            n: int = 2

        class Record(Event, tag="rec"):
            x: int
            y: int = 1

        class Other(Event):
            pass

        class Flat(msgspec.Struct, array_like=True, gc=False):
            a: int

        class Untagged(Event, tag=False, kw_only=True):
            z: int

        decoder = msgspec.msgpack.Decoder(Record | Other)

        def make():
            return decoder.decode(msgspec.msgpack.encode({"type": "rec", "x": 3}))

        def check(record):
            assert isinstance(record, Event)
            assert isinstance(decoder.decode(msgspec.msgpack.encode({"type": "Other"})), Other)
            assert msgspec.json.encode(Flat(1)) == b"[1]"
            assert Record.__match_args__ == ("x", "y")
            assert not Flat.__struct_config__.gc
            assert msgspec.json.encode(Untagged(z=1)) == b'{"n":2,"z":1}'
            return record.x + record.y + record.n
    """,
    "generic struct": """
        from typing import Generic, TypeVar

        import msgspec

        T = TypeVar("T")

        class Record(msgspec.Struct, Generic[T]):
            item: T

        decoder = msgspec.json.Decoder(Record[int])

        def make():
            return decoder.decode(b'{"item": 6}')

        def check(record):
            try:
                decoder.decode(b'{"item": "6"}')
            except msgspec.ValidationError:
                return record.item
    """,
    "class inside a class": """
        import msgspec

        class Outer:
            class Record(msgspec.Struct):
                x: int

        def make():
            return Outer.Record(6)

        def check(record):
            assert type(record) is Outer.Record
            return record.x
    """,
    "classes that register themselves": """
        KINDS = {}

        class Event:
            def __init_subclass__(cls, **options):
                KINDS[cls.__name__] = cls

        class Record(Event):
            x = 6

        def make():
            return Record()

        def check(record):
            assert KINDS == {"Record": Record}
            assert [cls.__name__ for cls in Event.__subclasses__()] == ["Record"]
            return KINDS["Record"].x
    """,
    "exception class": """
        class Record(ValueError):
            def __init__(self, x):
                super().__init__(x)
                self.x = x

        def make():
            return Record(6)

        def check(record):
            return record.x
    """,
}
