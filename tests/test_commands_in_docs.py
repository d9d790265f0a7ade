"""Every command in the documentation is one that exists, with options that it has."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
from functools import cache

import click
import pytest

from raystream.cli.main import commands
from tests.kuberay import groups, ray_container
from tests.manifests import ROOT, complaints, documents, objects, of_kind, rendered

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
KUBERNETES = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    """Return the shell commands of a page, a block each, without what they print."""
    found = []
    for language, block in re.findall(r"^```(bash|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        joined = block.replace("\\\n", " ")
        found += [joined] if language == "bash" else re.findall(r"^\$ (.*)", joined, re.MULTILINE)
    return found


def calls(program: str) -> list[tuple[str, str]]:
    """Return each page that calls a program with what stands behind it, up to the end of the command."""
    arguments = r"""(?:"[^"]*"|'[^']*'|[^)\n|;&"'])*"""
    pattern = re.compile(rf'(?:^|\$\(|\| |-- |"){program} ({arguments})', re.MULTILINE)
    return [
        (path.name, call.strip())
        for path in PAGES
        for block in blocks(path.read_text(encoding="utf-8"))
        for call in pattern.findall(block)
    ]


@pytest.mark.parametrize(("page", "call"), calls("raystream"), ids=lambda value: value[:60])
def test_command_of_raystream_exists_with_these_options(page, call):
    words = shlex.split(call, comments=True)
    command: click.Command = commands
    while isinstance(command, click.Group):
        name = words.pop(0)
        assert name in command.commands
        command = command.commands[name]

    command.make_context(command.name, words)


@cache
def help_of(words: tuple[str, ...]) -> str:
    """Return what kubectl says of a command."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, and no registry that tests use has it")
    return subprocess.run(["kubectl", *words], capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(("page", "call"), calls("kubectl"), ids=lambda value: value[:60])
def test_command_of_kubectl_exists_with_these_options(page, call):
    words = shlex.split(call)
    options = [word.partition("=")[0] for word in words if re.match(r"--?\w", word)]
    command = itertools.takewhile(lambda word: not word.startswith("-"), words)
    text = help_of((*command, "--help")) + help_of(("options",))

    assert [one for one in options if not re.search(rf"(?<!\S){one}[=, ]", text)] == []
    assert [word for word in words if word.startswith("k8s/") and not (ROOT / word).is_dir()] == []


def test_page_names_the_objects_that_the_manifests_make(in_ci):
    found = objects("overlays/s3", in_ci)
    (cluster,), (job,) = of_kind("RayCluster", found), of_kind("RayJob", found)
    name = cluster["metadata"]["name"]

    assert f"service/{name}-head-svc" in KUBERNETES  # KubeRay's name for it.
    assert f"get secret {name} " in KUBERNETES
    assert f"-l ray.io/cluster={name}," in KUBERNETES
    assert f"delete rayjob {job['metadata']['name']}\n" in KUBERNETES
    for monitor in of_kind("PodMonitor", found):
        assert f"`{monitor['metadata']['name']}`" in KUBERNETES
    for container in map(ray_container, groups(cluster["spec"])):
        assert f"kubectl create secret generic {container['envFrom'][0]['secretRef']['name']} " in KUBERNETES


def test_savepoint_of_the_roll_back_is_named_and_nothing_goes_on_from_latest_before_a_checkpoint():
    ways_back = [block for block in blocks(KUBERNETES) if "$savepoint" in block and "apply" in block]
    stops = [block for block in blocks(KUBERNETES) if "delete rayjob" in block and block not in ways_back]

    assert [block.splitlines()[-1].startswith("kubectl kustomize ") for block in ways_back] == [True]
    assert [block.startswith("savepoint=$(raystream stop ") for block in stops] == [True]


def test_job_that_is_rolled_back_starts_once_from_the_savepoint(in_ci):
    (edit,) = re.findall(r"kubectl kustomize k8s/overlays/s3 \| (sed .*) \| kubectl apply", KUBERNETES)
    edited = subprocess.run(
        ["bash", "-c", edit],
        input=rendered("overlays/s3", in_ci),
        env={**os.environ, "savepoint": "s3://my-bucket/raystream/savepoints/savepoint-1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (job,) = of_kind("RayJob", documents(edited))

    assert " -s s3://my-bucket/raystream/savepoints/savepoint-1 " in job["spec"]["entrypoint"]
    assert job["spec"]["backoffLimit"] == 0
    assert list(complaints(job, in_ci)) == []
