"""Keys whose feature this version does not have.

Their defaults load, so that a file which spells them out works; a value that asks for the
feature is an error.  Nothing is silently ignored.
"""

from dataclasses import dataclass
from typing import Any

from raystream.config.kinds import Boolean, Duration, Kind
from raystream.config.schema import NONE, Option


@dataclass(frozen=True, kw_only=True)
class ReservedOption(Option):
    """A key of which only some values are supported."""

    meaning: str
    supported: tuple[object, ...]

    def verify(self, value: object) -> None:
        super().verify(value)
        if value not in self.supported:
            raise ValueError(
                f"not supported in this version; leave the key out or set it to {self.default_text}"
            )


def _default_only(
    key: str, kind: Kind[Any], default: object, meaning: str, *, default_text: str = ""
) -> ReservedOption:
    text = default_text or (NONE if default is None else kind.format(default))
    return ReservedOption(
        key=key, kind=kind, default=default, default_text=text, meaning=meaning, supported=(default,)
    )


RESERVED = (
    _default_only(
        "execution.checkpointing.unaligned.enabled",
        Boolean(),
        False,
        "Let barriers overtake queued records; this version always aligns.",
    ),
    _default_only(
        "execution.checkpointing.aligned-checkpoint-timeout",
        Duration(),
        0,
        "Alignment time after which a checkpoint becomes unaligned; this version always aligns.",
    ),
)
