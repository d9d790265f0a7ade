"""The states of one backend: what a restore brought, what the program registers, whether they fit.

A state that does not fit is not refused when it is registered.  The program registers the others too,
and then whoever runs it looks at `matches` and reports all at once, before the first record.
"""

from dataclasses import dataclass
from enum import StrEnum

from raystream.errors import StateError, StateRestoreError
from raystream.handles import StateInfo
from raystream.state.descriptor import StateDescriptor
from raystream.state.schema import difference


class Verdict(StrEnum):
    """What became of a state at a restore."""

    MATCHED = "matched"
    NEW = "new"
    MISSING = "missing"
    """Stored, and not registered by the program."""
    DIFFERENT = "different"
    """Registered in a way that cannot take over what is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMatch:
    """One state at a restore."""

    name: str
    stored: StateInfo | None
    registered: StateInfo | None
    problem: str = ""
    """Why the one cannot take over the other, as a fragment; empty when it can."""
    entries: int | None = 0
    """How many are stored; None when nobody has counted."""
    size_bytes: int | None = 0
    """Stored size; None when nobody knows it of this state alone."""

    @property
    def verdict(self) -> Verdict:
        """What became of it."""
        if self.problem:
            return Verdict.DIFFERENT
        if self.stored is None:
            return Verdict.NEW
        return Verdict.MISSING if self.registered is None else Verdict.MATCHED


class StateRegistry:
    """Bookkeeping that every backend needs alike; holds no state itself."""

    def __init__(self) -> None:
        self._descriptors: dict[str, StateDescriptor] = {}
        self._stored: dict[str, StateInfo] = {}
        self._sizes: dict[str, tuple[int | None, int | None]] = {}
        self._problems: dict[str, str] = {}

    @property
    def infos(self) -> tuple[StateInfo, ...]:
        """All registered states, in order of registration."""
        return tuple(descriptor.info() for descriptor in self._descriptors.values())

    def stored(self, info: StateInfo, *, entries: int | None, size_bytes: int | None = None) -> None:
        """Take note of a state in a restored snapshot; called for each snapshot that has it.

        Args:
            info: its description.
            entries: how many of them are restored from there; None when that is not known.
            size_bytes: their size; None when that is not known.

        Raises:
            StateRestoreError: another snapshot describes it differently.
        """
        assert not self._descriptors, "states are registered after the restore"
        if self._stored.setdefault(info.name, info) != info:
            raise StateRestoreError(
                "subtasks stored one state differently",
                state=info.name,
                one=self._stored[info.name],
                other=info,
            )
        before = self._sizes.get(info.name, (0, 0))
        self._sizes[info.name] = (_sum(before[0], entries), _sum(before[1], size_bytes))

    def register(self, descriptor: StateDescriptor) -> StateInfo | None:
        """Register a state that is not registered yet.

        Returns:
            The stored state that it takes over, or None when it begins empty: it is new, or does not fit.

        Raises:
            StateCorruptError: the stored schema cannot be read.
        """
        name, registered = descriptor.name, descriptor.info()
        self._descriptors[name] = descriptor
        stored = self._stored.get(name)
        if stored is None:
            return None
        field = difference(stored, registered, migrates=descriptor.migrate is not None)
        if field:
            before, now = getattr(stored, field), getattr(registered, field)
            self.refuse(name, f"{field.replace('_', ' ')} was {before!r}, is {now!r}")
            return None
        return stored

    def registered(self, descriptor: StateDescriptor) -> bool:
        """Return whether a state of this name is registered already.

        Raises:
            StateError: it is, with another kind, type or time to live.
        """
        known = self._descriptors.get(descriptor.name)
        if known is None:
            return False
        if _declaration(known) != _declaration(descriptor):
            raise StateError(
                "state is registered twice with different kinds or types",
                hint="give the two states different names",
                state=descriptor.name,
                registered=_shown(known),
                again=_shown(descriptor),
            )
        return True

    def refuse(self, name: str, problem: str) -> None:
        """Take note that a registered state cannot take over what is stored under its name."""
        self._problems[name] = problem

    def matches(self) -> tuple[StateMatch, ...]:
        """Return each stored or registered state once, those of the program first."""
        return tuple(
            StateMatch(
                name=name,
                stored=self._stored.get(name),
                registered=self._descriptors[name].info() if name in self._descriptors else None,
                problem=self._problems.get(name, ""),
                entries=self._sizes.get(name, (0, 0))[0],
                size_bytes=self._sizes.get(name, (0, 0))[1],
            )
            for name in dict.fromkeys((*self._descriptors, *self._stored))
        )

    def drop_unregistered(self) -> tuple[StateInfo, ...]:
        """Forget the stored states that are not registered, and return them."""
        dropped = tuple(info for name, info in self._stored.items() if name not in self._descriptors)
        for info in dropped:
            del self._stored[info.name]
        return dropped


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _declaration(descriptor: StateDescriptor) -> tuple[object, ...]:
    return descriptor.kind, descriptor.declared, descriptor.ttl, descriptor.namespaced


def _shown(descriptor: StateDescriptor) -> str:
    lives = descriptor.ttl
    ttl = "" if lives is None else f" ttl={lives.ttl_ms}ms of {lives.time.value}"
    namespaced = " namespaced" if descriptor.namespaced else ""
    return f"{descriptor.kind.value} {descriptor.declared}{ttl}{namespaced}"
