"""`raystream submit`: a script, run on a cluster that this machine reaches over HTTP alone.

The script goes to the cluster with the files around it and runs there as a Ray job, under
`raystream.cli.driver`.  What was typed here is typed again there, so that `submit` takes what `run` does.
"""

import re
import secrets
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from raystream.cli.attend import say
from raystream.cli.retyped import retyped_configuration, retyped_options
from raystream.cli.run import SCRIPT_SETTINGS, run
from raystream.errors import ConfigError

SUBMISSION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Ray puts the id into its URLs as it is, so that `a/b` or `a#1` would be found under another name."""

_LAUNCHER = r"""
P=python
raystream() { "$1" -c 'import sys, importlib.util as u; sys.exit(not u.find_spec("raystream"))' 2>/dev/null; }
raystream "$P" || P=$(sed -n 's|.* \(/.*\)/lib/python[^/]*/site-packages/ray/_raylet.so$|\1/bin/python|p' \
  /proc/$PPID/maps 2>/dev/null | head -n 1)
raystream "$P" || { echo 'error: raystream is not installed on the head of the cluster'
  echo 'hint: install the version of this machine there, and on every other node'; exit 2; }
exec "$P" -m raystream.cli.driver """
"""Shell text that starts the driver with the first Python that has raystream.

That of the PATH is the one of the job's runtime environment.  A cluster whose `ray` was started by its path,
as in `.venv/bin/ray start`, has no Python of its own on the PATH; the one of our parent process, which
is Ray's job supervisor, is next to the Ray that it has loaded.
"""

_OWN_TO_RUN = ("address", "runner_name", "config_file", "definitions")
"""Options of `run` that mean something else here, or are written in another way there."""


def driver_command(words: Iterable[str]) -> str:
    """Return the shell text with which a cluster runs a command of raystream for this machine."""
    from raystream.cluster.versions import own_versions, versions_text

    return _LAUNCHER.lstrip() + shlex.join([versions_text(own_versions()), *words])


def _submit_options() -> list[click.Parameter]:
    own = [
        click.Option(
            ["--address"], metavar="http://HEAD:8265",
            help="Dashboard of the cluster; by default RAY_ADDRESS, else the cluster on this machine.",
        ),
        click.Option(
            ["--working-dir"], metavar="DIR",
            help="What goes along, JOB.py in it; by default the directory of JOB.py; or a package's URI.",
        ),
        click.Option(
            ["--py-module", "py_modules"], metavar="PATH", multiple=True,
            help="A package, wheel or Python file that goes along too.",
        ),
        click.Option(
            ["--exclude", "excludes"], metavar="PATTERN", multiple=True,
            help="What does not go along, as in .gitignore.",
        ),
        click.Option(
            ["--runtime-env", "runtime_env_file"], metavar="FILE",
            help="YAML file with a Ray runtime environment, such as packages to install.",
        ),
        click.Option(
            ["--submission-id"], metavar="ID",
            help="Name of this submission; one that is there already is followed and not made again.",
        ),
        click.Option(
            ["--no-wait"], is_flag=True, help="Return when Ray has the job; prints its submission id."
        ),
    ]  # fmt: skip
    return [*own, *(one for one in run.params if one.name not in ("address", "runner_name"))]


@click.pass_context
def _submit(context: click.Context, /, script: Path, arguments: tuple[str, ...], **options: Any) -> None:
    """Run JOB.py on a cluster, as a Ray job; what stands after it are its own arguments.

    The directory of JOB.py goes along, and the configuration file.  Paths in arguments and configuration are
    paths on the cluster.  What the job prints is shown until its end; Ctrl-C leaves it alone.
    """
    from raystream.cli.following import follow
    from raystream.cli.packing import pack
    from raystream.cluster.ray_jobs import RayJobs

    submission_id = _submission_id(options["submission_id"])
    luggage = pack(
        script,
        working_dir=options["working_dir"],
        py_modules=options["py_modules"],
        excludes=options["excludes"],
        runtime_env_file=options["runtime_env_file"],
    )
    passed_on = [one for one in run.params if one.name not in _OWN_TO_RUN]
    words = [
        "run",
        *retyped_configuration(options["config_file"], options["definitions"]),
        *retyped_options(context, passed_on),
        luggage.script,
        *arguments,
    ]
    for name in luggage.hiding:
        say(
            f"{name} hides the module of Python that has its name; if Ray's processes do not start, rename it"
        )
    jobs = RayJobs(options["address"])
    known = jobs.find(submission_id)
    if known is None and jobs.submit(driver_command(words), submission_id, runtime_env=luggage.runtime_env):
        say(f"submitted {script.name} to {jobs.address} as {submission_id!r}")
    elif known is not None and known.ended:
        say(
            f"{submission_id!r} was submitted before and has ended, {known.status}; another --submission-id"
            " starts the script again, with `-s latest` from where its job was"
        )
    else:
        say(f"{submission_id!r} was submitted before; following it, nothing new is started")
    if options["no_wait"]:
        print(submission_id)
        return
    context.exit(follow(jobs, submission_id))


def _submission_id(given: str | None) -> str:
    """Return the id of a submission: the one that was given, if any, else a new one.

    Raises:
        ConfigError: it is none that Ray can be asked for.
    """
    if given is None:
        return f"raystream-{secrets.token_hex(6)}"
    if SUBMISSION_ID.fullmatch(given) is None:
        raise ConfigError(
            "submission id has characters that an id may not have, or is too long",
            hint="give up to 100 letters, digits, dots, underscores and hyphens, a letter or digit first",
            submission_id=given,
        )
    return given


submit = click.Command(
    "submit",
    callback=_submit,
    params=_submit_options(),
    context_settings=SCRIPT_SETTINGS,
    help=_submit.__doc__,
    short_help="Run the jobs of a script on a cluster elsewhere.",
)
