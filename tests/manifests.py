"""The manifests in `k8s/`: rendered by kustomize, and held against schemas in which no field is free.

Kinds of Kubernetes itself are validated by `kubernetes-validate`, RayCluster and RayJob against the
definitions that KubeRay ships, with every object closed, so that a field that is not there is found.
"""

import copy
import functools
import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from tests.go_modules import directory_of, program_of
from tests.kuberay import Document, pod_templates
from tests.services.processes import missing

ROOT = Path(__file__).resolve().parents[1]
K8S = ROOT / "k8s"
OVERLAYS = ("local", "s3", "hdfs", "gpu")
ROOTS = ("base", *(f"overlays/{name}" for name in OVERLAYS))
"""What can be rendered, below `k8s/`."""

KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5", "v5.8.1"
KUBERNETES = "1.34"
KUBERAY = "github.com/ray-project/kuberay/ray-operator"
DEFINITIONS = {  # Their SHA-256 by version, the newest first, which not every proxy serves.
    "v1.7.0": {
        "ray.io_rayclusters.yaml": "c44704442eef0c6721ad40c1d66782c8bd3fdab9d3344306a5820910a679baa1",
        "ray.io_rayjobs.yaml": "01a5cf3b17c1769fda44af7e82debcd98722f0c27b9ab84d084681c6649121f5",
    },
    "v1.6.1": {
        "ray.io_rayclusters.yaml": "1d51d8c4ce065b22c2069af0ebd72ae25f4a6968e5c5f93a3106ba6fc35bcc1d",
        "ray.io_rayjobs.yaml": "ecae45d9a5dc1be68f1074ba784c495ef9d439d295253b61e1bd51f7b08522f5",
    },
}
BESIDE_THE_PROJECT = ROOT.parent / "shared" / "crds"
"""Where the newest definitions may lie already."""


# ---- rendering --------------------------------------------------------------


def documents(text: str) -> list[Any]:
    """Return the documents of a YAML text."""
    return [one for one in yaml.load_all(text, yaml.CSafeLoader) if one is not None]


@functools.cache
def rendered(root: str, in_ci: bool) -> str:
    """Return what kustomize makes of a directory below `k8s/`."""
    command = [program_of(*KUSTOMIZE, in_ci), "build", K8S / root]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def objects(root: str, in_ci: bool) -> list[Document]:
    """Return the objects of a directory below `k8s/`."""
    return documents(rendered(root, in_ci))


def of_kind(kind: str, found: list[Document]) -> list[Document]:
    """Return the objects of a kind."""
    return [one for one in found if one["kind"] == kind]


def cluster_specs(found: list[Document]) -> list[Document]:
    """Return the specification of the RayCluster, and that of the cluster that the RayJob makes."""
    (cluster,), (job,) = of_kind("RayCluster", found), of_kind("RayJob", found)
    return [cluster["spec"], job["spec"]["rayClusterSpec"]]


# ---- schemas ----------------------------------------------------------------


@functools.cache
def kuberay_schemas(in_ci: bool) -> dict[str, Document]:
    """Return the closed schemas of KubeRay's kinds."""
    here, version = _definitions(in_ci)
    schemas = {}
    for name, digest in DEFINITIONS[version].items():
        text = (here / name).read_bytes()
        assert hashlib.sha256(text).hexdigest() == digest, f"{name} is not of KubeRay {version}"
        definition = yaml.load(text, yaml.CSafeLoader)["spec"]
        (served,) = [one for one in definition["versions"] if one["name"] == "v1"]
        schemas[definition["names"]["kind"]] = closed(served["schema"]["openAPIV3Schema"])
    return schemas


def _definitions(in_ci: bool) -> tuple[Path, str]:
    """Return the directory of KubeRay's definitions and their version."""
    if BESIDE_THE_PROJECT.is_dir():
        return BESIDE_THE_PROJECT, next(iter(DEFINITIONS))
    fetched = ((directory_of(KUBERAY, version), version) for version in DEFINITIONS)
    directory, version = next((one for one in fetched if one[0] is not None), (None, ""))
    if directory is None:
        missing("KubeRay's definitions cannot be fetched", in_ci)
    return directory / "config" / "crd" / "bases", version


def closed(schema: Any) -> Any:
    """Return a schema in which objects have no other fields than those that it names."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made["additionalProperties"] = False
    return made


_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_SELECTOR = {"type": "object", "additionalProperties": False, "properties": {"matchLabels": _LABELS}}
_DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m|h)$"}
POD_MONITOR = closed(
    {
        "type": "object",
        "required": ["spec"],
        "properties": {
            **{key: {} for key in ("apiVersion", "kind", "metadata")},
            "spec": {
                "type": "object",
                "required": ["selector", "podMetricsEndpoints"],
                "properties": {
                    "selector": _SELECTOR,
                    "podTargetLabels": {"type": "array", "items": {"type": "string"}},
                    "podMetricsEndpoints": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["port"],
                            "properties": {
                                "port": {"type": "string"},
                                "path": {"type": "string"},
                                "interval": _DURATION,
                            },
                        },
                    },
                },
            },
        },
    }
)
"""The part of the kind of Prometheus' operator that the manifests use."""


def complaints(document: Document, in_ci: bool) -> Iterator[str]:
    """Tell what an API server would not take, or would drop in silence."""
    version = document.get("apiVersion")
    if version == "ray.io/v1":
        yield from _held_against(kuberay_schemas(in_ci)[document["kind"]], document)
    elif version == "monitoring.coreos.com/v1":
        yield from _held_against({"PodMonitor": POD_MONITOR}[document["kind"]], document)
    else:
        yield from _kubernetes(document)
        return
    # The definitions leave metadata open; it is the same for all kinds.
    bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
    yield from _kubernetes(bare)
    if version == "ray.io/v1":
        spec = document["spec"].get("rayClusterSpec", document["spec"])
        for template in pod_templates(spec):
            pod = {"apiVersion": "v1", "kind": "Pod", **copy.deepcopy(template)}
            yield from _kubernetes(pod)


def _held_against(schema: Document, document: Document) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(schema).iter_errors(document):
        yield f"{error.json_path}: {error.message[:300]}"


def _kubernetes(document: Document) -> Iterator[str]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{error.json_path}: {error.message[:300]}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield error.message
