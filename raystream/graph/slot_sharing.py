"""Slot-sharing groups: which operators share slots, and what each of their slots needs.

Subtask i of all operators of a group runs in slot i of the group, so a group has as many slots as
its most parallel operator.  Operators of different groups never share a slot, nor a chain.

Slots of all groups of a job are numbered together: slot i of group g is `i * groups + g`.  So a slot
keeps its number, and with it its process, whatever parallelism the job is rescaled to; there are gaps
where groups differ in parallelism.

Source: Flink's `SlotSharingGroup` and FLIP-156.
"""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from raystream.config.units import format_size, parse_size_bytes
from raystream.errors import GraphError

DEFAULT_GROUP = "default"
"""Name of the group of operators that nobody has put into another one."""

_OWN_KEYWORDS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}


@dataclass(frozen=True, slots=True)
class SlotSharingGroup:
    """Operators that share slots, and what each slot reserves on its node.

    Example:
        >>> gpu = SlotSharingGroup("inference", cpus=2, gpus=1, memory="4gb", labels={"zone": "eu-1"})
        >>> gpu.memory
        4294967296
    """

    name: str
    """`"default"` is the group of everything that is in no other one."""
    _: KW_ONLY
    cpus: float | None = None
    """CPUs of each slot; None for `slot.cpus` of the configuration."""
    gpus: float = 0.0
    """GPUs of each slot: a whole number, or a part of one."""
    memory: int | str | None = None
    """Memory of each slot, such as `"4gb"`, or in bytes; None reserves none."""
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources of each slot, by the names that the nodes give them."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Ray's label selector: what the labels of the slots' nodes must be, such as `{"zone": "in(a, b)"}`."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise GraphError("name of a slot-sharing group is not a text", name=self.name)
        for amount in (self.cpus, self.gpus):
            if amount is not None and not _amount(amount):
                raise self._error("amount is not a number from 0 on", amount=amount)
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise self._error("GPUs are whole ones, or a part of one", gpus=self.gpus)
        object.__setattr__(self, "memory", self._bytes(self.memory))
        object.__setattr__(self, "resources", dict(self.resources))
        object.__setattr__(self, "labels", dict(self.labels))
        for name, amount in self.resources.items():
            if name in _OWN_KEYWORDS:
                raise self._error(f"{name} is no custom resource", hint=f"write {_OWN_KEYWORDS[name]}=")
            if not isinstance(name, str) or not _amount(amount) or not amount:
                raise self._error("custom resource is not a name with a number above 0", resource=name)
        for label, wanted in self.labels.items():
            if not isinstance(label, str) or not isinstance(wanted, str):
                raise self._error("label selector is not a text for a label's name", label=label)

    def needs(self, default_cpus: float) -> dict[str, float]:
        """Return what each slot reserves, by Ray's names of resources; nothing that is 0.

        Args:
            default_cpus: CPUs of a slot whose group does not say.
        """
        memory_bytes = self.memory if isinstance(self.memory, int) else 0
        amounts = {
            "CPU": default_cpus if self.cpus is None else self.cpus,
            "GPU": self.gpus,
            "memory": memory_bytes,
            **self.resources,
        }
        return {name: float(amount) for name, amount in amounts.items() if amount}

    def _bytes(self, raw: int | str | None) -> int | None:
        try:
            return None if raw is None else parse_size_bytes(raw)
        except ValueError as error:
            raise self._error(str(error), memory=raw) from None

    def _error(self, message: str, *, hint: str = "", **context: Any) -> GraphError:
        return GraphError(f"slot-sharing group: {message}", hint=hint, group=self.name, **context)


def _amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


DEFAULT = SlotSharingGroup(DEFAULT_GROUP)


def as_group(given: SlotSharingGroup | str) -> SlotSharingGroup:
    """Return the group of what an operator was given: the group, or its name.

    Raises:
        GraphError: it is neither.
    """
    if isinstance(given, SlotSharingGroup):
        return given
    if not isinstance(given, str):
        hint = 'write slot_sharing_group="name" or SlotSharingGroup("name", cpus=...)'
        raise GraphError(
            "slot-sharing group is neither a group nor a name", hint=hint, group=repr(given)[:80]
        )
    return SlotSharingGroup(given)


def inherited(groups: Iterable[str]) -> str:
    """Return the group of an operator that was given none, from those of its inputs."""
    distinct = set(groups)
    return distinct.pop() if len(distinct) == 1 else DEFAULT_GROUP


def specified(groups: Iterable[SlotSharingGroup]) -> dict[str, SlotSharingGroup]:
    """Return each group by its name, as it was specified; one that was only named needs nothing special.

    Raises:
        GraphError: two groups of one name need different things.
    """
    found: dict[str, SlotSharingGroup] = {}
    for group in groups:
        named_only = SlotSharingGroup(group.name)
        if found.get(group.name, named_only) == named_only:
            found[group.name] = group
        elif group not in (found[group.name], named_only):
            raise GraphError(
                "two slot-sharing groups have one name",
                hint="use one SlotSharingGroup object, or its name, for all operators of the group",
                group=group.name,
            )
    return found


def needs_text(needs: Mapping[str, float], labels: Mapping[str, str] | None = None) -> str:
    """Return what one slot needs, in words.

    Example:
        >>> needs_text({"CPU": 2.0, "GPU": 0.5, "memory": 2147483648.0}, {"zone": "a"})
        '2 CPUs, 0.5 GPUs, 2gb memory, zone=a'
    """
    parts = [_need(name, amount) for name, amount in needs.items()]
    parts += [f"{label}={wanted}" for label, wanted in (labels or {}).items()]
    return ", ".join(parts) or "0 CPUs"


def _need(name: str, amount: float) -> str:
    if name == "memory":
        return f"{format_size(round(amount))} memory"
    plural = "s" if name in ("CPU", "GPU") and amount != 1 else ""
    return f"{amount:g} {name}{plural}"
