"""A command that was typed here, as it has to be typed on the cluster."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import click
from click.core import ParameterSource

from raystream.api.ambient import Ambient
from raystream.cli.duration import Duration
from raystream.config.load import load_config


def retyped_options(context: click.Context, options: Collection[click.Parameter]) -> Iterator[str]:
    """Yield what was typed for these options of the command of a context; defaults are left out."""
    for option in options:
        assert option.name is not None
        if not isinstance(option, click.Option):
            continue
        if context.get_parameter_source(option.name) is not ParameterSource.COMMANDLINE:
            continue
        yield from _typed(option, context.params[option.name])


def retyped_arguments(context: click.Context) -> Iterator[str]:
    """Yield the arguments of the command of a context."""
    for argument in context.command.params:
        if isinstance(argument, click.Argument) and argument.name is not None:
            value = context.params[argument.name]
            yield from value if isinstance(value, tuple) else () if value is None else (str(value),)


def retyped_configuration(config_file: str | None, definitions: Mapping[str, str]) -> Iterator[str]:
    """Yield the configuration file and the definitions as definitions, which mean the same anywhere.

    Raises:
        ConfigError: what is wrong with them, before anything is sent.
    """
    Ambient(config_file=config_file, definitions=definitions).load(None, {})
    from_file: dict[str, str] = {}
    if config_file is not None:
        config = load_config(config_file)
        effective = config.effective()
        from_file = {key: effective[key] for key in sorted(config.explicit_keys)}
    for key, text in {**from_file, **definitions}.items():
        yield from ("-D", f"{key}={text}")


def _typed(option: click.Option, value: Any) -> Iterator[str]:
    flag = max(option.opts, key=len)
    if isinstance(option.type, Duration):
        value = option.type.typed(value)
    match value:
        case dict():  # As `definition` leaves it.
            for key, text in value.items():
                yield from (flag, f"{key}={text}")
        case tuple():
            for one in value:
                yield from (flag, str(one))
        case bool():
            if value:
                yield flag
        case "" if option.flag_value == "":  # Its value was left out.
            yield flag
        case _:  # In one word: one whose value may be missing would not take the next one.
            yield f"{flag}={value}" if flag.startswith("--") else f"{flag}{value}"
