"""What is used of Ray beyond its public API is there, in the form in which it is used."""

import inspect

from ray._private import utils, worker
from ray._raylet import AuthenticationTokenLoader, Config
from ray.util.placement_group import placement_group

from raystream.cluster import _ray_compat as compat
from raystream.cluster.connection import connect_to_run


def test_settings_can_be_read_again_and_the_token_is_then_the_new_one(monkeypatch):
    for name in (compat.AUTH_MODE, compat.AUTH_TOKEN, compat.AUTH_TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    compat.set_authentication("token", "a" * 64)
    token = AuthenticationTokenLoader.instance().get_raw_token()
    compat.set_authentication(None, None)
    monkeypatch.undo()
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()

    assert token == "a" * 64


def test_address_of_a_started_cluster_is_read_from_a_file_and_none_without_it(monkeypatch, tmp_path):
    monkeypatch.setattr(utils, "get_ray_address_file", lambda temp_dir: str(tmp_path / "address"))

    assert compat.started_cluster_address() is None
    (tmp_path / "address").write_text("head:6379\n")
    assert compat.started_cluster_address() == "head:6379"


def test_files_that_ray_does_not_pack_are_those_of_its_defaults_of_patterns_and_of_ignore_files(tmp_path):
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".rayignore").write_text("*.bin\n")
    rules = [compat.exclusion(tmp_path, ["data/"]), *compat.exclusions_of_files(tmp_path)]
    (tmp_path / "data").mkdir()

    left_out = [
        name
        for name in (".git", ".venv", "data/rows.csv", "job.log", "model.bin", "job.py")
        if any(rule(tmp_path / name) for rule in rules)
    ]

    assert left_out == [".git", ".venv", "data/rows.csv", "job.log", "model.bin"]


def test_raylet_is_silenced_by_a_switch_that_exists():
    assert isinstance(worker._worker_logs_enabled, bool)
    assert "_worker_logs_enabled" in inspect.getsource(worker.print_worker_logs)


def test_placement_group_of_one_bundle_may_name_the_node_that_it_would_like():
    parameters = inspect.signature(placement_group).parameters

    assert {"name", "lifetime", "bundle_label_selector", "_soft_target_node_id"} <= parameters.keys()


def test_nodes_that_drain_and_what_is_free_on_each_are_told(address):
    connect_to_run(address, cpus=0, detached=False)

    assert compat.draining_nodes() == {}
    assert 1 in [free.get("CPU") for free in compat.free_resources_by_node().values()]
