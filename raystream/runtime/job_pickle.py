"""Pickling of a job's functions and records' classes, for processes that lack the script.

`python job.py` runs the script as `__main__`, which no other process can import.  So what
the script defines is pickled here in one of two ways:

    by value        classes and functions themselves, for the definitions of the job module
    by reference    their place in the job module, for everything that is loaded after it

Functions without a place (lambdas, inner functions) always go by value.  A function's
globals never travel with it: it is bound, where it is loaded, to the globals of the job
module, and the names that it uses are collected in `needed`, so that the caller can see
to it that they are there.  That breaks nearly all cycles, and leaves functions of one
script with common globals, as they were.

What belongs to other modules goes by reference; `modules` collects their names.  Code,
cells of properties, type variables and much else are left to cloudpickle.
"""

import builtins
import dataclasses
import dis
import functools
import importlib
import io
import pickle
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle
import msgspec

from raystream.runtime.job_classes import Reduced, defer, deferral, reduce_class

LOCAL_CLASSES = "__raystream_local_classes__"
"""Global of a job module: classes that are defined inside functions, by number."""

_MODULE_ATTRIBUTES = frozenset(vars(types.ModuleType("_"))) | {
    "__file__", "__builtins__", "__cached__", "__annotations__", LOCAL_CLASSES,
}  # fmt: skip
"""Globals that every module has of its own."""

_GLOBAL_OPERATIONS = frozenset(
    {"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
)

_IDENTIFIER = re.compile(r"[^\W\d]\w*")


@dataclass(frozen=True, slots=True)
class Script:
    """The module whose definitions other processes cannot import."""

    name: str
    """Its stable name: what it is called in other processes, in state and in savepoints."""
    module: types.ModuleType

    @property
    def names(self) -> dict[str, Any]:
        """The globals of the script."""
        return vars(self.module)

    def number_of(self, cls: type) -> int:
        """Return the number of a class that is defined inside a function; it gets one if it has none."""
        classes: dict[int, type] = self.names.setdefault(LOCAL_CLASSES, {})
        for number, known in classes.items():
            if known is cls:
                return number
        classes[len(classes)] = cls
        return len(classes) - 1


def loads(data: bytes) -> Any:
    """Return the object that a `JobPickler` wrote; its job module is in place already."""
    with deferral():
        return pickle.loads(data)


class JobPickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles one or, by several calls of `dump`, more objects that share parts.

    Attributes:
        needed: globals of the script that are used by what was pickled, in the order of
            their discovery.
        modules: names of modules that something was referred to in.
        local_classes: classes without a place in the script that were referred to, by number.
    """

    def __init__(self, file: io.BytesIO, script: Script, *, by_value: bool) -> None:
        super().__init__(file, protocol=5)
        self._script = script
        self._by_value = by_value
        self.needed: dict[str, None] = {}
        self.modules: dict[str, None] = {}
        self.local_classes: dict[int, type] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle functions, classes, modules and a few types; see `pickle`."""
        kind = type(obj)
        if kind is types.FunctionType:
            return self._function(obj)
        if issubclass(kind, type):
            return self._class(obj)
        if kind is types.ModuleType:
            return self._module(obj)
        reduce = _REDUCERS.get(kind)
        if reduce is None or (hasattr(obj, "__qualname__") and self._importable(obj)):
            return NotImplemented
        return self._place(obj) or reduce(obj)

    # ---- where things belong

    def _place(self, obj: Any) -> Reduced | None:
        """Return the reference to something with a place in the script, when references are wanted."""
        qualname = getattr(obj, "__qualname__", None)
        if not isinstance(qualname, str) or find_attribute(self._script.module, qualname) is not obj:
            return None
        self.needed[qualname.partition(".")[0]] = None
        return None if self._by_value else (find_in_module, (self._script.name, qualname))

    def _importable(self, obj: Any) -> bool:
        """Tell whether another process finds the object in the module that it says it is from."""
        module = sys.modules.get(getattr(obj, "__module__", None) or "")
        if module is None or self._is_script(module):
            return False
        if find_attribute(module, obj.__qualname__) is not obj:
            return False
        self.modules[module.__name__] = None
        return True

    def _is_script(self, module: types.ModuleType) -> bool:
        return module.__name__ == "__main__" or module is self._script.module

    # ---- functions

    def _function(self, function: Any) -> Any:
        placed = self._place(function)
        if placed is not None:
            return placed
        if function.__globals__ is self._script.names:
            for name in global_names(function.__code__):
                self._need(name)
            return self._function_by_value(function, self._script.name)
        if self._importable(function):
            return NotImplemented
        home = function.__globals__.get("__name__", "")
        if home != "__main__" and getattr(sys.modules.get(home), "__dict__", None) is function.__globals__:
            self.modules[home] = None
            return self._function_by_value(function, home)
        return super().reducer_override(function)

    def _need(self, name: str) -> None:
        if name in self._script.names and name not in _MODULE_ATTRIBUTES:
            self.needed[name] = None

    def _function_by_value(self, function: Any, home: str) -> Reduced:
        modules = tuple(_submodules_used(function.__code__, function.__globals__))
        state = {
            "__name__": function.__name__,
            "__qualname__": function.__qualname__,
            "__module__": self._script.name if function.__module__ == "__main__" else function.__module__,
            "__doc__": function.__doc__,
            "__defaults__": function.__defaults__,
            "__kwdefaults__": function.__kwdefaults__,
            "__annotations__": function.__annotations__,
            "__dict__": function.__dict__,
        }
        arguments = (home, function.__code__, function.__closure__, modules)
        return _make_function, arguments, state, None, None, _set_function_state

    # ---- classes and modules

    def _class(self, cls: type) -> Any:
        placed = self._place(cls)
        if placed is not None:
            return placed
        script = self._script
        of_script = cls.__module__ in ("__main__", script.name)
        if not of_script and (cls.__module__ in ("builtins", "types") or self._importable(cls)):
            return super().reducer_override(cls)
        if not self._by_value:
            number = script.number_of(cls)
            self.local_classes[number] = cls
            return find_local_class, (script.name, number)
        self._need_annotated(getattr(cls, "__annotations__", {}))
        return reduce_class(cls, script.name if of_script else cls.__module__)

    def _need_annotated(self, annotations: dict[str, Any]) -> None:
        """Collect the types that annotations of a class name as text: whoever reads them looks for these."""
        for annotation in annotations.values():
            for text in _texts_in(annotation):
                for name in _IDENTIFIER.findall(text):
                    if _stands_in_annotations(self._script.names.get(name)):
                        self._need(name)

    def _module(self, module: types.ModuleType) -> Any:
        if module is self._script.module:
            return importlib.import_module, (self._script.name,)
        if sys.modules.get(module.__name__) is module and module.__name__ != "__main__":
            self.modules[module.__name__] = None
            return importlib.import_module, (module.__name__,)
        return NotImplemented


# ---- looking up -------------------------------------------------------------


def find_attribute(module: Any, qualname: str) -> Any:
    """Return what `qualname` leads to in a module, or None."""
    found = module
    for part in qualname.split("."):
        found = vars(found).get(part) if isinstance(found, type) else getattr(found, part, None)
        if found is None:
            return None
    return found


def find_in_module(module: str, qualname: str) -> Any:
    """Return a class or function of a job module."""
    return find_attribute(sys.modules[module], qualname)


def find_local_class(module: str, number: int) -> type:
    """Return a class without a place of a job module."""
    found: type = vars(sys.modules[module])[LOCAL_CLASSES][number]
    return found


@functools.cache
def global_names(code: types.CodeType) -> tuple[str, ...]:
    """Return the globals that a piece of code uses, its inner functions included.

    Example:
        >>> sorted(global_names((lambda values: [len(v) for v in values if v != EMPTY]).__code__))
        ['EMPTY', 'len']
    """
    names: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_OPERATIONS:
            names[instruction.argval] = None
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(dict.fromkeys(global_names(constant)))
    return tuple(names)


def _submodules_used(code: types.CodeType, names: dict[str, Any]) -> Iterator[str]:
    """Yield the modules that code reaches as attributes, `b.c` where it says `import a.b.c; a.b.c.f()`."""
    attributes = set(_attribute_names(code))
    for name in global_names(code):
        value = names.get(name)
        if isinstance(value, types.ModuleType) and hasattr(value, "__path__"):
            prefix = f"{value.__name__}."
            for loaded in sorted(sys.modules):
                if loaded.startswith(prefix) and attributes.issuperset(loaded[len(prefix) :].split(".")):
                    yield loaded


def _attribute_names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _attribute_names(constant)


def _texts_in(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, str):
        yield annotation
    elif isinstance(annotation, typing.ForwardRef):
        yield annotation.__forward_arg__
    else:
        for argument in getattr(annotation, "__args__", ()):
            yield from _texts_in(argument)


def _stands_in_annotations(value: Any) -> bool:
    return isinstance(value, type | types.ModuleType) or type(value).__module__ in ("typing", "types")


# ---- putting together -------------------------------------------------------


def _make_function(
    home: str, code: types.CodeType, closure: tuple[types.CellType, ...] | None, modules: tuple[str, ...]
) -> types.FunctionType:
    for module in modules:
        importlib.import_module(module)
    names = vars(importlib.import_module(home))
    names.setdefault("__builtins__", builtins)
    return types.FunctionType(code, names, closure=closure)


def _set_function_state(function: types.FunctionType, state: dict[str, Any]) -> None:
    function.__dict__.update(state.pop("__dict__"))
    for attribute, value in state.items():
        setattr(function, attribute, value)


def _reduce_cell(cell: types.CellType) -> Reduced:
    content: tuple[Any, ...]
    try:
        content = (cell.cell_contents,)
    except ValueError:  # It is empty: the name in the enclosing function was never bound.
        content = ()
    return types.CellType, (), content, None, None, _fill_cell


def _fill_cell(cell: types.CellType, content: tuple[Any, ...]) -> None:
    for value in content:
        cell.cell_contents = value


def _reduce_lru_cache(function: Any) -> Reduced:
    return _make_lru_cache, (function.__wrapped__, function.cache_parameters())


def _make_lru_cache(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _reduce_cached_property(prop: Any) -> Reduced:
    return _make_cached_property, (prop.func, prop.attrname)


def _make_cached_property(function: Any, name: str | None) -> Any:
    prop: Any = functools.cached_property(function)
    prop.attrname = name
    return prop


def _reduce_new_type(new_type: Any) -> Reduced:
    return typing.NewType, (new_type.__name__, new_type.__supertype__)


def _reduce_missing(value: Any) -> Reduced:  # noqa: ARG001 - there is only one
    return getattr, (dataclasses, "MISSING")


_CODER_OPTIONS: dict[type, tuple[str, ...]] = {
    msgspec.json.Decoder: ("type", "strict", "dec_hook", "float_hook"),
    msgspec.msgpack.Decoder: ("type", "strict", "dec_hook", "ext_hook"),
    msgspec.json.Encoder: ("enc_hook", "decimal_format", "uuid_format", "order"),
    msgspec.msgpack.Encoder: ("enc_hook", "decimal_format", "uuid_format", "order"),
}


def _reduce_coder(coder: Any) -> Reduced:
    """Take a msgspec encoder or decoder apart.

    It is made usable at once, for any type, and gets its real type when everything around
    it is complete, since its type may lead back to it.
    """
    options = {name: getattr(coder, name) for name in _CODER_OPTIONS[type(coder)]}
    return type(coder), (), options, None, None, _set_coder_options


def _set_coder_options(coder: Any, options: dict[str, Any]) -> None:
    defer(lambda: coder.__init__(**options))


_META_OPTIONS = (
    "gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz", "title",
    "description", "examples", "extra_json_schema", "extra",
)  # fmt: skip


def _reduce_meta(meta: msgspec.Meta) -> Reduced:
    given = {name: getattr(meta, name) for name in _META_OPTIONS}
    return _make_meta, ({name: value for name, value in given.items() if value is not None},)


def _make_meta(options: dict[str, Any]) -> msgspec.Meta:
    return msgspec.Meta(**options)


_REDUCERS: dict[type, Callable[[Any], Reduced]] = {
    types.CellType: _reduce_cell,
    type(functools.lru_cache(len)): _reduce_lru_cache,
    functools.cached_property: _reduce_cached_property,
    typing.NewType: _reduce_new_type,
    type(dataclasses.MISSING): _reduce_missing,
    msgspec.Meta: _reduce_meta,
    **dict.fromkeys(_CODER_OPTIONS, _reduce_coder),
}
