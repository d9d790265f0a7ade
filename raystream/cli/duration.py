"""Times on the command line, which have a unit."""

import click

from raystream.config.units import parse_duration_ms


class Duration(click.ParamType):  # type: ignore[type-arg]  # Generic in newer versions only.
    """A time such as `30s`, in whole ms."""

    name = "time"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return a time in ms; a number without a unit is refused, since nobody who types 30 means 30 ms."""
        if isinstance(value, int):
            return value
        try:
            if value.strip().isdecimal():
                raise ValueError(f"give a unit, as in {value.strip()}s")
            return parse_duration_ms(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)

    def typed(self, value: int) -> str:
        """Return what is typed for a time."""
        return f"{value}ms"
