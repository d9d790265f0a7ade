"""The manifests for Kubernetes are valid, agree with each other, and keep what their page promises."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay import node_provider

from raystream.cli import driver
from raystream.cli.main import commands
from raystream.cluster.versions import parsed_versions
from raystream.config.load import load_config
from tests.kuberay import groups, pod_templates, quantity, ray_container
from tests.manifests import (
    K8S,
    ROOT,
    ROOTS,
    Document,
    cluster_specs,
    complaints,
    documents,
    objects,
    of_kind,
)

FILES = sorted(path for path in K8S.rglob("*.yaml") if "monitoring" not in path.parts)
WHOLE = [path for path in FILES if "patch" not in path.name and path.name != "kustomization.yaml"]
RAYJOB_NAME_MAX = 47
TOKEN = "autoscaler-token"
"""The volume with what the autoscaler shows to the API of Kubernetes."""
SECRET_NAMES = re.compile(r"KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", re.IGNORECASE)


@pytest.fixture(params=ROOTS)
def found(request: pytest.FixtureRequest, in_ci: bool) -> list[Document]:
    """The objects of the base, and of each overlay."""
    return objects(request.param, in_ci)


@pytest.fixture
def specs(found: list[Document]) -> list[Document]:
    return cluster_specs(found)


def containers(specs: list[Document]) -> list[Document]:
    return [ray_container(group) for spec in specs for group in groups(spec)]


# ---- they are valid ---------------------------------------------------------


def test_every_object_is_valid_and_has_no_field_that_its_kind_does_not_have(found, in_ci):
    assert {one["metadata"]["name"]: list(complaints(one, in_ci)) for one in found} == {
        one["metadata"]["name"]: [] for one in found
    }


@pytest.mark.parametrize("path", WHOLE, ids=lambda path: str(path.relative_to(K8S)))
def test_every_file_that_is_no_patch_is_a_whole_and_valid_object(path, in_ci):
    (document,) = documents(path.read_text(encoding="utf-8"))

    assert list(complaints(document, in_ci)) == []


CLUSTER, JOB = "RayCluster", "RayJob"
HEAD_POD = ("headGroupSpec", "template", "spec")
WORKER_POD = ("workerGroupSpecs", 0, "template", "spec")


@pytest.mark.parametrize(
    ("kind", "place", "typo", "value"),
    [
        (CLUSTER, ("spec",), "enableInTreeAutoscalling", True),
        (CLUSTER, ("spec", "authOptions"), "secret", "token"),
        (CLUSTER, ("spec", "authOptions"), "mode", "tokens"),
        (CLUSTER, ("spec", "autoscalerOptions"), "version", "v3"),
        (CLUSTER, ("spec", "headGroupSpec"), "rayStartParam", {}),
        (CLUSTER, ("spec", "headGroupSpec", "rayStartParams"), "num-cpus", 0),
        (CLUSTER, ("spec", *HEAD_POD), "terminationGracePeriod", 30),
        (CLUSTER, ("spec", *HEAD_POD, "containers", 0), "volumesMounts", []),
        (CLUSTER, ("spec", *HEAD_POD, "containers", 0, "securityContext"), "runAsNonroot", True),
        (CLUSTER, ("spec", *HEAD_POD, "containers", 0, "resources", "limits"), "memory", "4 GB"),
        (CLUSTER, ("spec", "workerGroupSpecs", 0), "maxReplica", 3),
        (CLUSTER, ("spec", *WORKER_POD, "volumes", 3, "ephemeral"), "volumeClaim", {}),
        (CLUSTER, ("spec", "workerGroupSpecs", 0, "template", "metadata"), "label", {}),
        (CLUSTER, ("metadata",), "lables", {}),
        (JOB, ("spec",), "entryPoint", "raystream run job.py"),
        (JOB, ("spec",), "backoffLimit", "often"),
        (JOB, ("spec", "rayClusterSpec", *WORKER_POD, "containers", 0), "imagePullPolice", "Always"),
        ("NetworkPolicy", ("spec", "ingress", 0), "form", []),
        ("NetworkPolicy", ("spec", "ingress", 1, "ports", 0), "port", {}),
        ("PodDisruptionBudget", ("spec",), "minAvailble", 1),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0), "intervall", "15s"),
        ("ConfigMap", (), "date", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_typo_in_a_manifest_is_found(kind, place, typo, value, in_ci):
    document = copy.deepcopy(of_kind(kind, objects("overlays/s3", in_ci))[0])
    inside: Any = document
    for step in place:
        inside = inside[step]
    inside[typo] = value

    assert list(complaints(document, in_ci)) != []


# ---- they agree -------------------------------------------------------------


def test_cluster_of_the_job_is_the_cluster_for_many_jobs(found):
    def without_component(spec: Document) -> Document:
        spec = copy.deepcopy(spec)
        for template in pod_templates(spec):
            del template["metadata"]["labels"]["app.kubernetes.io/component"]
        return spec

    many, one = map(without_component, cluster_specs(found))
    assert many == one


def test_config_map_holds_the_files_of_the_environments_as_they_stand(found):
    (config,) = of_kind("ConfigMap", found)
    files = sorted((ROOT / "configs").glob("kubernetes-*.yaml"))

    assert config["data"] == {path.name: path.read_text(encoding="utf-8") for path in files}


def test_entry_point_goes_on_from_the_newest_checkpoint_with_files_that_are_there(found):
    (job,) = of_kind("RayJob", found)
    python, m, module, versions, command, *words = job["spec"]["entrypoint"].split()
    options = commands.commands[command].make_context(command, words).params
    config_file, script = Path(options["config_file"]), options["script"]
    (config,) = of_kind("ConfigMap", found)

    assert (python, m, module, command) == ("python", "-m", driver.__name__, "run")
    assert parsed_versions(versions) == {}
    assert options["restore_path"] == "latest"
    assert config_file.parent == Path("/etc/raystream")
    assert config_file.name in config["data"]
    assert script.parent == Path("/opt/raystream/jobs")
    assert (ROOT / "jobs" / script.name).is_file()


def test_every_volume_that_a_container_mounts_is_there_and_in_one_place(specs):
    for spec in specs:
        for template in pod_templates(spec):
            volumes = {volume["name"] for volume in template["spec"]["volumes"]}
            for container in template["spec"]["containers"]:
                mounts = container["volumeMounts"]
                assert {mount["name"] for mount in mounts} == volumes - {TOKEN}
                assert len({mount["mountPath"] for mount in mounts}) == len(mounts)
        head = {volume["name"] for volume in spec["headGroupSpec"]["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in spec["autoscalerOptions"]["volumeMounts"]} <= head


def test_rocksdb_is_on_a_volume_of_the_pod_that_ends_with_it(specs):
    local = {
        load_config(path).backend.rocksdb_directory for path in (ROOT / "configs").glob("kubernetes-*.yaml")
    }
    for spec in specs:
        for group in spec["workerGroupSpecs"]:
            ephemeral = [one["name"] for one in group["template"]["spec"]["volumes"] if "ephemeral" in one]
            mounts = ray_container(group)["volumeMounts"]
            assert {mount["mountPath"] for mount in mounts if mount["name"] in ephemeral} == local


def test_selectors_select_pods_of_the_clusters(found):
    labels = []
    for spec in cluster_specs(found):
        for group in groups(spec):
            node_type = "head" if group is spec["headGroupSpec"] else "worker"
            labels.append({**group["template"]["metadata"]["labels"], "ray.io/node-type": node_type})
    for one in found:
        spec = one.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            wanted = selector["matchLabels"].items()
            assert any(wanted <= present.items() for present in labels), one["metadata"]["name"]


def test_versions_of_ray_and_of_the_image_agree(specs):
    dockerfile = (K8S / "Dockerfile").read_text(encoding="utf-8")
    (ray,) = {spec["rayVersion"] for spec in specs}

    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == [f"rayproject/ray:{ray}-py311"] * 2
    assert re.findall(r"ray==([\d.]+)", dockerfile) == [ray]


def test_image_is_made_of_files_that_are_there_and_that_its_context_lets_in():
    dockerfile = (K8S / "Dockerfile").read_text(encoding="utf-8")
    copied = [
        source
        for words in re.findall(r"^COPY --chown=\S+ (.*)", dockerfile, re.MULTILINE)
        for source in words.split()[:-1]
    ]
    ignored = (K8S / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    let_in = re.findall(r"^!(.*)", ignored, re.MULTILINE)

    assert sorted(copied) == sorted(let_in)
    assert [source for source in copied if not (ROOT / source).exists()] == []


# ---- they keep promises -----------------------------------------------------


def test_pods_have_no_rights_that_they_do_not_need(specs):
    for spec in specs:
        for template in pod_templates(spec):
            pod = template["spec"]["securityContext"]
            assert (pod["runAsNonRoot"], pod["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
            assert template["spec"]["automountServiceAccountToken"] is False
    autoscalers = [spec["autoscalerOptions"] for spec in specs]
    for container in (*containers(specs), *autoscalers):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_autoscaler_alone_has_the_token_of_the_account_that_all_pods_have(found, specs):
    (account,) = of_kind("ServiceAccount", found)
    for spec in specs:
        for group in groups(spec):
            assert group["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]
            assert TOKEN not in [mount["name"] for mount in ray_container(group)["volumeMounts"]]
        volumes = {one["name"]: one for one in spec["headGroupSpec"]["template"]["spec"]["volumes"]}
        mounts = {one["name"]: one["mountPath"] for one in spec["autoscalerOptions"]["volumeMounts"]}
        token, authority, namespace = volumes[TOKEN]["projected"]["sources"]
        files = [token["serviceAccountToken"], *authority["configMap"]["items"]]
        assert [f"{mounts[TOKEN]}/{file['path']}" for file in files] == [
            node_provider.IN_CLUSTER_TOKEN_PATH,
            node_provider.IN_CLUSTER_CA_CERT_PATH,
        ]
        assert [file["path"] for file in namespace["downwardAPI"]["items"]] == ["namespace"]


@pytest.mark.parametrize("name", ["s3", "gpu"])
def test_pods_with_an_object_store_reach_those_that_hand_out_a_role(name, in_ci):
    addresses = ("169.254.169.254/32", "169.254.170.23/32")
    rule = {
        "to": [{"ipBlock": {"cidr": address}} for address in addresses],
        "ports": [{"protocol": "TCP", "port": 80}],
    }
    policies = of_kind("NetworkPolicy", objects(f"overlays/{name}", in_ci))

    assert [rule in policy["spec"]["egress"] for policy in policies] == [True, True]


def test_every_container_has_requests_and_limits(specs):
    for container in (*containers(specs), *(spec["autoscalerOptions"] for spec in specs)):
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        for name, asked in resources["requests"].items():
            assert quantity(asked) <= quantity(resources["limits"][name])


def test_clusters_ask_for_a_token_and_scale_with_their_jobs(specs):
    for spec in specs:
        assert spec["authOptions"]["mode"] == "token"
        assert (spec["enableInTreeAutoscaling"], spec["autoscalerOptions"]["version"]) == (True, "v2")
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_pod_that_is_told_to_go_has_time_to_drain_before_it_is_killed(specs):
    for spec in specs:
        for group in groups(spec):
            environment = {one["name"]: one["value"] for one in ray_container(group)["env"]}
            drain_s = int(environment["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
            assert drain_s + 30 <= group["template"]["spec"]["terminationGracePeriodSeconds"]


def test_no_credential_is_written_down(found, specs):
    for container in containers(specs):
        names = [one["name"] for one in container["env"]]
        assert not [name for name in names if SECRET_NAMES.search(name)]
        assert "HADOOP_USER_NAME" not in names  # It would win over that of the Secret.
    assert of_kind("Secret", found) == []


def test_job_is_retried_on_new_clusters_and_taken_away_at_its_end(found):
    (job,) = of_kind("RayJob", found)

    assert len(job["metadata"]["name"]) <= RAYJOB_NAME_MAX
    assert job["spec"]["submissionMode"] == "HTTPMode"
    assert job["spec"]["backoffLimit"] > 0
    assert job["spec"]["shutdownAfterJobFinishes"] is True
    assert "deletionStrategy" not in job["spec"]


def test_policies_let_pods_of_a_cluster_talk_at_every_port_and_others_at_few(found):
    for policy in of_kind("NetworkPolicy", found):
        among, *others = policy["spec"]["ingress"]
        pods = policy["spec"]["podSelector"]
        assert among == {"from": [{"podSelector": pods}]}
        assert {"to": [{"podSelector": pods}]} in policy["spec"]["egress"]
        assert [port["port"] for rule in others for port in rule["ports"]] == [8265, 8080]


def test_metrics_are_read_at_a_port_that_the_pods_have(found, specs):
    ports = [{port["name"] for port in container["ports"]} for container in containers(specs)]
    for monitor in of_kind("PodMonitor", found):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert all(endpoint["port"] in names for names in ports)


def test_overlay_for_gpus_has_pods_that_have_one_and_come_only_when_asked_for(in_ci):
    for spec in cluster_specs(objects("overlays/gpu", in_ci)):
        gpu = next(group for group in spec["workerGroupSpecs"] if group["groupName"] == "gpu")
        assert (gpu["replicas"], gpu["minReplicas"]) == (0, 0)
        assert ray_container(gpu)["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_patches_are_no_objects_of_their_own():
    patches = [path for path in FILES if "patch" in path.name]
    texts = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in patches}

    assert [path for path, text in texts.items() if isinstance(text, dict) and "$patch" not in text] == []
