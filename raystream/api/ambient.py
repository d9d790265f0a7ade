"""What the command line says to the script that it runs.

`raystream run` cannot pass arguments to the `StreamEnvironment` that a script makes, so
it leaves them here, in `use(...)`, while the script runs; a script that is started by
`python job.py` finds the defaults.  A module variable and not a context variable: a
script may build its job in another thread.

Precedence, highest first: keyword arguments of the environment, `-D` and the options
that stand for one (`-p`, `-s`, ...), the file of `-c`, the `config=` of the environment.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from raystream.api.runner import Runner
from raystream.config.load import load_config
from raystream.config.options import JobConfig
from raystream.ids import JobId

ConfigSource = str | Path | Mapping[str, object] | JobConfig


@dataclass(kw_only=True)
class Ambient:
    """Options of the command line, and what the script did with them."""

    config_file: str | Path | None = None
    definitions: Mapping[str, str] = field(default_factory=dict)
    """The `-D` pairs, text by key."""
    parallelism: int | None = None
    runner_name: str | None = None
    """`ray` or `local`."""
    runner: Runner | None = None
    """Takes every job instead of the runner that the configuration names."""
    address: str | None = None
    detached: bool = False
    restore_path: str | None = None
    claim_mode: str | None = None
    allow_non_restored: bool = False
    allow_older: bool = False
    submitted: list[JobId] = field(default_factory=list)
    """The jobs that the script has submitted so far, in order."""

    def overrides(self) -> dict[str, str]:
        """Return the options that have a configuration key, text by key.

        Example:
            >>> Ambient(definitions={"slot.cpus": "0"}, parallelism=4).overrides()
            {'slot.cpus': '0', 'parallelism.default': '4'}
        """
        named = {
            "parallelism.default": None if self.parallelism is None else str(self.parallelism),
            "execution.runner": self.runner_name,
            "execution.state-recovery.path": self.restore_path,
            "execution.state-recovery.claim-mode": self.claim_mode,
            "execution.state-recovery.ignore-unclaimed-state": "true" if self.allow_non_restored else None,
            "execution.state-recovery.allow-older-checkpoint": "true" if self.allow_older else None,
        }
        return {**self.definitions, **{key: text for key, text in named.items() if text is not None}}

    def load(self, source: ConfigSource | None, keywords: Mapping[str, object]) -> JobConfig:
        """Return the configuration of an environment.

        Args:
            source: the `config=` of the environment.
            keywords: its other keyword arguments, by key with `.` and `-` as `_`.

        Raises:
            ConfigError: a file, key or value that cannot be used.
        """
        if self.config_file is not None:
            source = {**_explicit(load_config(source)), **_explicit(load_config(self.config_file))}
        return load_config(source, overrides=self.overrides(), keywords=keywords)


def current() -> Ambient:
    """Return the options under which this process runs scripts."""
    return _current


@contextmanager
def use(ambient: Ambient) -> Iterator[Ambient]:
    """Make the options hold until the end of the `with` block."""
    global _current  # noqa: PLW0603 - it is what this module is about
    before, _current = _current, ambient
    try:
        yield ambient
    finally:
        _current = before


def _explicit(config: JobConfig) -> dict[str, str]:
    effective = config.effective()
    return {key: effective[key] for key in sorted(config.explicit_keys)}


_current = Ambient()
