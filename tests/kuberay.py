"""The pods that KubeRay makes of a cluster's specification, as far as tests need them.

It fills in what `rayStartParams` leave open, makes a `ray start` of them, and hands the token of a Secret to
every container.  Source: `controllers/ray/common/pod.go` of KubeRay's ray-operator.
"""

import math
import shlex
from typing import Any

Document = dict[str, Any]

GCS_PORT = 6379
DEFAULTS = {"metrics-export-port": "8080", "dashboard-agent-listen-port": "52365", "block": "true"}
HEAD_DEFAULTS = {"dashboard-host": "0.0.0.0"}
BINARY_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def pod_templates(spec: Document) -> list[Document]:
    """Return the templates of a cluster's pods, the head's first."""
    return [group["template"] for group in groups(spec)]


def groups(spec: Document) -> list[Document]:
    """Return the groups of a cluster's pods, the head's first."""
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def ray_container(group: Document) -> Document:
    """Return the container of a group's pods in which Ray runs."""
    container: Document = group["template"]["spec"]["containers"][0]
    return container


def start_parameters(spec: Document, group: Document) -> dict[str, str]:
    """Return the options of `ray start` in a group's pods, by name; a switch is `true`."""
    given = dict(group["rayStartParams"])
    limits = ray_container(group)["resources"]["limits"]
    counted = {"num-cpus": str(math.ceil(quantity(limits["cpu"]))), "memory": str(quantity(limits["memory"]))}
    if "nvidia.com/gpu" in limits:
        counted["num-gpus"] = limits["nvidia.com/gpu"]
    if group is not spec["headGroupSpec"]:
        return {"address": f"head:{GCS_PORT}", **DEFAULTS, **counted, **given}
    # The autoscaler runs in a container of its own.
    monitor = {"no-monitor": "true"} if spec.get("enableInTreeAutoscaling") else {}
    return {**HEAD_DEFAULTS, **monitor, **DEFAULTS, **counted, **given}


def start_command(parameters: dict[str, str], *, head: bool) -> list[str]:
    """Return the command of the Ray container; the shell replaces itself with Ray, which gets its signals."""
    options = [f"--{name}" if value == "true" else f"--{name}={value}" for name, value in parameters.items()]
    start = shlex.join(["ray", "start", *(["--head"] if head else []), *sorted(options)])
    return ["/bin/bash", "-c", "--", f"ulimit -n 65536; {start}"]


def quantity(text: str) -> float | int:
    """Return the number that a quantity of Kubernetes stands for."""
    if text.endswith("m"):
        return int(text[:-1]) / 1000
    if text[-2:] in BINARY_UNITS:
        return int(text[:-2]) * BINARY_UNITS[text[-2:]]
    return int(text)
