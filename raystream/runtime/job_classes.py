"""Classes of a job's script, taken apart for pickling and put together again by value.

Knows nothing of scripts or streams of bytes: `raystream.runtime.job_pickle` decides which
classes go by value and calls `reduce_class`.

A class is pickled in two steps, so that it may refer to itself through its methods:

    creation   what the metaclass must see: bases, slots, fields and their defaults
    state      everything else, set on the finished class

Metaclasses differ in what they must see.  `msgspec.Struct` wants annotations and
defaults; enums want their members, as plain values, so that no code of the user runs
while code is still being loaded; typed dicts are written out anew.  For the same reason
`__init_subclass__` of a class is set last of all, at the end of `deferral`.
"""

import contextlib
import enum
import inspect
import threading
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

Reduced = tuple[Any, ...]
"""What `reducer_override` returns: constructor, arguments, state, and how to set it."""


class ClassName(NamedTuple):
    """Under which name a class will be found where it is loaded."""

    module: str
    qualname: str


def reduce_class(cls: type, module: str) -> Reduced:
    """Return the recipe by which pickle makes the class anew.

    Args:
        cls: any class that is written in Python.
        module: name of the module that it will belong to.
    """
    name = ClassName(module, cls.__qualname__)
    if isinstance(cls, enum.EnumType):
        return _reduce_enum(cls, name)
    if isinstance(cls, type(msgspec.Struct)):
        return _reduce_struct(cls, name)
    if typing.is_typeddict(cls):
        return _reduce_typed_dict(cls, name)
    return _reduce_plain(cls, name)


# ---- what is put off --------------------------------------------------------

_loading = threading.local()


@contextlib.contextmanager
def deferral() -> Iterator[None]:
    """Do at the end of the `with` block what loading in it puts off.

    Raises:
        NameError: a type refers to a name that the script does not define.
    """
    before, _loading.steps = getattr(_loading, "steps", None), []
    try:
        yield
        for step in _loading.steps:
            step()
    finally:
        _loading.steps = before


def defer(step: Callable[[], None]) -> None:
    """Do a step of loading when everything is loaded; at once outside of `deferral`."""
    steps = getattr(_loading, "steps", None)
    if steps is None:
        step()
    else:
        steps.append(step)


# ---- plain classes ----------------------------------------------------------

_SET_BY_CREATION = frozenset(
    {"__module__", "__qualname__", "__orig_bases__", "__slots__", "__dict__", "__weakref__", "_abc_impl"}
)
_SET_LAST = "__init_subclass__"
_MSGSPEC_CACHE = "__msgspec_cache__"
"""What msgspec remembers about an enum or dataclass; made anew where it is needed."""


def _reduce_plain(cls: type, name: ClassName) -> Reduced:
    creation = _attributes_at_creation(cls)
    if "__slots__" in cls.__dict__:
        creation["__slots__"] = cls.__dict__["__slots__"]
    state = _state(cls, leave_out=_SET_BY_CREATION)
    return _make_class, (type(cls), name, cls.__bases__, creation, {}), state, None, None, _set_state


def _attributes_at_creation(cls: type) -> dict[str, Any]:
    """Return what any metaclass must see; `Generic` refuses bases without the original ones."""
    original = cls.__dict__.get("__orig_bases__")
    return {} if original is None else {"__orig_bases__": original}


def _state(cls: type, leave_out: frozenset[str]) -> dict[str, Any]:
    """Return the attributes of the class itself that are set after its creation."""
    return {
        attribute: value
        for attribute, value in cls.__dict__.items()
        if attribute not in leave_out
        and attribute != _MSGSPEC_CACHE
        and not isinstance(value, types.MemberDescriptorType | types.GetSetDescriptorType)
    }


def _make_class(
    metaclass: type,
    name: ClassName,
    bases: tuple[type, ...],
    creation: dict[str, Any],
    keywords: dict[str, Any],
) -> type:
    def body(namespace: dict[str, Any]) -> None:
        namespace.update({"__module__": name.module, "__qualname__": name.qualname, **creation})

    simple_name = name.qualname.rpartition(".")[2]
    return types.new_class(simple_name, bases, {"metaclass": metaclass, **keywords}, body)


def _set_state(cls: type, state: dict[str, Any]) -> None:
    for attribute, value in state.items():
        if attribute == _SET_LAST:
            defer(lambda hook=value: setattr(cls, _SET_LAST, hook))  # type: ignore[misc]
        else:
            setattr(cls, attribute, value)


# ---- msgspec structs --------------------------------------------------------

_STRUCT_OPTIONS = (
    "frozen", "eq", "order", "array_like", "gc", "repr_omit_defaults", "omit_defaults",
    "forbid_unknown_fields", "weakref", "dict", "cache_hash",
)  # fmt: skip
_SEEN_BY_STRUCT_META = frozenset({"__annotations__", "__post_init__"})


class _Probe(msgspec.Struct):
    field: list[int] = []


_DEFAULT_FACTORY: Any = type(_Probe.__struct_defaults__[0])
"""Type of the entries of `__struct_defaults__` that stand for a default factory."""


def _reduce_struct(cls: Any, name: ClassName) -> Reduced:
    config = cls.__struct_config__
    own_annotations = inspect.get_annotations(cls)
    own_fields = [field for field in cls.__struct_fields__ if field in own_annotations]
    creation = {
        **_attributes_at_creation(cls),
        **{hook: cls.__dict__[hook] for hook in ("__post_init__",) if hook in cls.__dict__},
        "__annotations__": {
            field: own_annotations[field] for field in own_annotations if field in own_fields
        },
        **_own_defaults(cls, own_fields),
    }
    options = {option: getattr(config, option) for option in _STRUCT_OPTIONS if hasattr(config, option)}
    options |= {
        "kw_only": any(field not in cls.__match_args__ for field in own_fields),
        "rename": dict(zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)),
        # A tag is inherited unless it is refused.
        "tag": False if config.tag is None else config.tag,
        "tag_field": None if config.tag is None else config.tag_field,
    }
    # The annotations come again with the state: those of class variables are not for the metaclass.
    left_out = (_SET_BY_CREATION | _SEEN_BY_STRUCT_META) - {"__annotations__"}
    state = _state(cls, leave_out=left_out)
    return _make_struct, (type(cls), name, cls.__bases__, creation, options), state, None, None, _set_state


def _own_defaults(cls: Any, own_fields: list[str]) -> dict[str, Any]:
    """Return what stood behind `=` of each own field that has a default."""
    defaults = cls.__struct_defaults__
    with_default = cls.__struct_fields__[len(cls.__struct_fields__) - len(defaults) :]
    return {
        field: _Factory(default.factory) if isinstance(default, _DEFAULT_FACTORY) else default
        for field, default in zip(with_default, defaults, strict=True)
        if field in own_fields and default is not msgspec.NODEFAULT
    }


class _Factory(NamedTuple):
    """Default factory of a field, on its way."""

    make: Callable[[], Any]


def _make_struct(
    metaclass: type,
    name: ClassName,
    bases: tuple[type, ...],
    creation: dict[str, Any],
    options: dict[str, Any],
) -> type:
    fields = creation["__annotations__"]
    namespace = {
        attribute: _struct_field(value) if attribute in fields else value
        for attribute, value in creation.items()
    }
    return _make_class(metaclass, name, bases, namespace, options)


def _struct_field(default: Any) -> Any:
    if isinstance(default, _Factory):
        return msgspec.field(default_factory=default.make)
    return msgspec.field(default=default)


# ---- enums ------------------------------------------------------------------

_MADE_BY_ENUM_META = frozenset(
    {
        "_generate_next_value_", "_member_names_", "_member_map_", "_member_type_", "_value2member_map_",
        "_hashable_values_", "_unhashable_values_", "_unhashable_values_map_", "_use_args_", "_value_repr_",
        "_boundary_", "_flag_mask_", "_singles_mask_", "_all_bits_", "_inverted_", "__new__",
        "_new_member_", "__new_member__",
    }
)  # fmt: skip
_MADE_BY_MEMBER = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_", "_inverted_"})


def _reduce_enum(cls: Any, name: ClassName) -> Reduced:
    values = {member_name: member.value for member_name, member in cls.__members__.items()}
    attributes = {
        member.name: {key: value for key, value in vars(member).items() if key not in _MADE_BY_MEMBER}
        for member in cls
    }
    boundary = cls._boundary_ if issubclass(cls, enum.Flag) else None
    leave_out = _SET_BY_CREATION | _MADE_BY_ENUM_META | frozenset(cls.__members__)
    state = (_state(cls, leave_out), attributes)
    arguments = (type(cls), name, cls.__bases__, values, boundary)
    return _make_enum, arguments, state, None, None, _set_enum_state


def _make_enum(
    metaclass: Any, name: ClassName, bases: tuple[type, ...], values: dict[str, Any], boundary: Any
) -> type:
    simple_name = name.qualname.rpartition(".")[2]
    namespace = metaclass.__prepare__(simple_name, bases)
    namespace.update({"__module__": name.module, "__qualname__": name.qualname})
    for member, value in values.items():
        namespace[member] = value
    keywords = {} if boundary is None else {"boundary": boundary}
    made: type = metaclass(simple_name, bases, namespace, **keywords)
    return made


def _set_enum_state(cls: Any, state: tuple[dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    attributes, of_members = state
    _set_state(cls, attributes)
    for member, values in of_members.items():
        vars(cls[member]).update(values)


# ---- typed dicts ------------------------------------------------------------


def _reduce_typed_dict(cls: Any, name: ClassName) -> Reduced:
    fields = {}
    for field, hint in cls.__annotations__.items():
        required = typing.NotRequired if field in cls.__optional_keys__ else typing.Required
        marked = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
        fields[field] = hint if marked else required[hint]
    return _make_typed_dict, (name, fields)


def _make_typed_dict(name: ClassName, fields: dict[str, Any]) -> Any:
    def body(namespace: dict[str, Any]) -> None:
        namespace.update(
            {"__module__": name.module, "__qualname__": name.qualname, "__annotations__": fields}
        )

    return types.new_class(name.qualname.rpartition(".")[2], (typing.TypedDict,), {}, body)
