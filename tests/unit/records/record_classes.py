"""Classes of records, ordinary ones and every kind that must be sent with care, and how to compare them."""

import copyreg
import dataclasses
import enum
import math
import struct
import typing
from collections import deque, namedtuple

import msgspec


class Colour(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Verb(enum.StrEnum):
    GET = "GET"


class Text(str):
    __slots__ = ()


class Count(int):
    note: str = ""


class Pair(typing.NamedTuple):
    left: typing.Any
    right: typing.Any = 0


class Nothing(typing.NamedTuple):
    pass


class LabelledPair(Pair):
    """Not slotted, so that it takes attributes."""


Legacy = namedtuple("Legacy", "a b c")  # noqa: PYI024 - programs have these too


@dataclasses.dataclass
class Plain:
    a: typing.Any
    b: typing.Any = 2
    c: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: typing.Any
    b: typing.Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    a: typing.Any
    b: typing.Any


@dataclasses.dataclass(kw_only=True)
class KeywordOnly:
    a: typing.Any
    b: typing.Any = 1


@dataclasses.dataclass
class Doubling:
    a: typing.Any

    def __post_init__(self):
        self.a = self.a + self.a


@dataclasses.dataclass
class Derived:
    a: typing.Any
    b: typing.Any = dataclasses.field(init=False, default=7)


@dataclasses.dataclass
class OwnInit:
    a: typing.Any
    b: typing.Any

    def __init__(self, a, b):
        self.b = a
        self.a = b


class Undecorated(Plain):
    pass


class UndecoratedInit(Plain):
    def __init__(self, a, b, c):
        super().__init__(a, (b, b), c)


@dataclasses.dataclass
class Child(Plain):
    d: typing.Any = None


@dataclasses.dataclass
class Initial:
    a: typing.Any
    seed: dataclasses.InitVar[int] = 3


@dataclasses.dataclass
class Converting:
    a: typing.Any

    def __setattr__(self, name, value):
        object.__setattr__(self, name, [value])


class Stored:
    """A data descriptor that keeps its value under its own name, changed."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return instance.__dict__[self.name] if instance else 0

    def __set__(self, instance, value):
        instance.__dict__[self.name] = (value,)


@dataclasses.dataclass
class Described:
    a: typing.Any = Stored()


@dataclasses.dataclass
class Table(dict):
    a: typing.Any


@dataclasses.dataclass
class Nameless:
    pass


@dataclasses.dataclass
class Reduced:
    a: typing.Any

    def __reduce__(self):
        return Reduced, (f"reduced {self.a}",)


class ReducedChild(Reduced):
    pass


@dataclasses.dataclass
class Remembering:
    a: typing.Any

    def __getstate__(self):
        return {"a": self.a, "pickled": True}


@dataclasses.dataclass
class Restored:
    a: typing.Any

    def __setstate__(self, state):
        self.a = ("restored", state["a"])


@dataclasses.dataclass
class Registered:
    a: typing.Any


copyreg.pickle(Registered, lambda value: (Registered, (("registered", value.a),)))


class Counting(type):
    def __call__(cls, *args):
        return super().__call__(*args[:1], "metaclass")


@dataclasses.dataclass
class Made(metaclass=Counting):
    a: typing.Any
    b: typing.Any


@dataclasses.dataclass
class Box(typing.Generic[typing.TypeVar("T")]):
    a: typing.Any


class Struct(msgspec.Struct):
    a: typing.Any
    b: typing.Any = 1


class FrozenStruct(msgspec.Struct, frozen=True, gc=False):
    a: int
    b: str = ""


class KeywordStruct(msgspec.Struct, kw_only=True):
    a: typing.Any
    b: typing.Any = 1


class PartlyKeywordStruct(KeywordStruct):
    c: typing.Any = 0


class CheckedStruct(msgspec.Struct):
    a: typing.Any

    def __post_init__(self):
        self.a = str(self.a)


class TaggedStruct(msgspec.Struct, tag="t", array_like=True, rename="camel", omit_defaults=True):
    first_field: typing.Any
    b: typing.Any = 1


class DictStruct(msgspec.Struct, dict=True):
    a: typing.Any


class EmptyStruct(msgspec.Struct):
    pass


class TypedStruct(msgspec.Struct):
    price: float
    name: str
    tags: list[int]


# ---- exact equality ---------------------------------------------------------


def exact(value):
    """Return a form of the value that is equal only for equal values of equal types, at every level."""
    cls = type(value)
    if cls is float:
        return cls, "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, enum.Enum):
        return cls, value.name
    if isinstance(value, msgspec.Struct):
        return cls, [exact(getattr(value, name)) for name in value.__struct_fields__]
    content = None
    if isinstance(value, tuple | list | deque):
        content = [exact(item) for item in (value)]
    elif isinstance(value, dict):
        content = [(exact(k), exact(v)) for k, v in value.items()]
    elif isinstance(value, set | frozenset):
        content = sorted(map(repr, map(exact, value)))
    elif isinstance(value, str):
        content = str.__str__(value)
    elif isinstance(value, int):
        content = int(value)
    attributes = getattr(value, "__dict__", None)
    if isinstance(value, Slotted):
        attributes = {"a": value.a, "b": value.b}
    if content is None and attributes is None:
        content = value
    return cls, content, attributes and [(k, exact(v)) for k, v in attributes.items()]
