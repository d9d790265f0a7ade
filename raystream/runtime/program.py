"""A job in the form in which it travels: plan, configuration and job code, as bytes.

Every operator is pickled on its own, and unpickled each time that its factory is called.
So each subtask gets a copy of the user's function, also where two operators were given
one function object, and what cannot be pickled is found with its operator's name.

Knows nothing of files and networks; who stores or sends the bytes checks them.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from raystream.config.options import JobConfig
from raystream.errors import ConfigError, RaystreamError
from raystream.graph.physical import Edge, OperatorNode, PhysicalPlan
from raystream.operators.operator import Operator
from raystream.runtime.job_code import (
    JobCode,
    JobCodeWriter,
    UnshippableError,
    find_script,
    give_stable_names,
    install,
)
from raystream.runtime.job_pickle import loads
from raystream.runtime.unshippable import locate

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a process must know to run its part of a job."""

    job_name: str
    plan: PhysicalPlan
    config: JobConfig
    job_code: JobCode | None = None
    """None in a program that was never packed."""


@dataclass(frozen=True, slots=True)
class PackedFactory:
    """Makes an operator, with a copy of the user's function that no other operator has."""

    data: bytes

    def __call__(self) -> Operator:
        """Return a new operator; the job module is in place."""
        factory: Callable[[], Operator] = loads(self.data)
        return factory()


def pack(program: Program) -> bytes:
    """Return the program as bytes that any process with raystream can unpack.

    A program that was unpacked is packed with the code that it came with; only its plan and
    configuration may have changed.

    Raises:
        ConfigError: a function, or a module that it needs, cannot be shipped.
    """
    if program.job_code is None:
        script = find_script()
        give_stable_names(script)
    else:
        script = install(program.job_code)
    writer = JobCodeWriter(script)
    plan = _pack_plan(program.plan, writer)
    code = program.job_code or _finish(writer)
    return pickle.dumps((FORMAT_VERSION, program.job_name, program.config, code, plan), protocol=5)


def unpack(data: bytes) -> Program:
    """Return a packed program; its job module is importable from now on.

    Raises:
        ConfigError: the program needs something that this process does not have.
    """
    try:
        version, job_name, config, code, plan = pickle.loads(data)
        assert version == FORMAT_VERSION, version
        install(code)
        return Program(job_name=job_name, plan=loads(plan), config=config, job_code=code)
    except RaystreamError:
        raise
    except Exception as error:
        raise ConfigError(
            "program could not be loaded",
            hint="install the packages that the job imports on every node, in the same versions",
            cause=f"{type(error).__name__}: {error}",
        ) from error


def _pack_plan(plan: PhysicalPlan, writer: JobCodeWriter) -> bytes:
    vertices = tuple(
        replace(vertex, operators=tuple(_pack_operator(node, writer) for node in vertex.operators))
        for vertex in plan.vertices
    )
    for edge in plan.edges:
        _check_functions(plan, edge, writer)
    return writer.pickle(replace(plan, vertices=vertices), owner="")


def _pack_operator(node: OperatorNode, writer: JobCodeWriter) -> OperatorNode:
    if isinstance(node.factory, PackedFactory):
        return node
    data = _pickle(node.factory, getattr(node.factory, "function", node.factory), node.name, writer)
    return replace(node, factory=PackedFactory(data))


def _check_functions(plan: PhysicalPlan, edge: Edge, writer: JobCodeWriter) -> None:
    target = plan.vertices[edge.target].operators[0].name
    for operation, function in (("key_by", edge.key_selector), ("partition_custom", edge.partitioner)):
        if function is not None:
            _pickle(function, function, f"{operation} before {target}", writer)


def _pickle(obj: Any, function: Any, owner: str, writer: JobCodeWriter) -> bytes:
    try:
        return writer.pickle(obj, owner=owner)
    except RaystreamError:
        raise
    except Exception as error:
        path, part = locate(function, writer.ships)
        of_object = path and not hasattr(function, "__code__") and not hasattr(function, "__self__")
        raise _unshippable(owner, f"self.{path}" if of_object else path, part, error) from error


def _finish(writer: JobCodeWriter) -> JobCode:
    try:
        return writer.finish()
    except UnshippableError as error:
        path, part = locate(error.value, writer.ships)
        separator = "." if path and not path.startswith("[") else ""
        cause = error.__cause__ or error
        raise _unshippable(error.owner, f"{error.name}{separator}{path}", part, cause) from cause


def _unshippable(owner: str, variable: str, value: Any, cause: BaseException) -> ConfigError:
    return ConfigError(
        "function of an operator cannot be shipped to the slots",
        hint="create the object in open(), which runs in the subtask, or in the function itself",
        operator=owner,
        variable=variable,
        type=type(value).__name__,
        cause=str(cause),
    )
