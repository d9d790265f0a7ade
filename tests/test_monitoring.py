"""Dashboard and alerts: well-formed, and made of metrics and labels that raystream has.

That a running job exports these is shown by `tests/ray/test_metrics.py`.
"""

import json
import re
from pathlib import Path

import jsonschema
import kubernetes_validate
import promql_parser as promql
import pytest
import yaml

from raystream.metrics.catalogue import JOB_LABELS, METRICS, OPERATOR_LABELS, Scope
from tests.manifests import KUBERNETES, objects
from tests.promql import MONITORING, Query, alert_queries, complaints, dashboard_queries

ROOT = Path(__file__).resolve().parents[1]
QUERIES = [*alert_queries(), *dashboard_queries()]
LABELS = {
    f"ray_{metric.exported}": frozenset(JOB_LABELS if metric.scope is Scope.JOB else OPERATOR_LABELS)
    for metric in METRICS
}
TEXT = {"type": "string"}


def closed(optional=(), **properties):
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


RULE = closed(
    optional=("for",),
    alert={"type": "string", "pattern": "^Raystream[A-Za-z]+$"},
    expr=TEXT,
    labels=closed(severity={"enum": ["critical", "warning"]}),
    annotations=closed(summary=TEXT, description=TEXT),
    **{"for": {"type": "string", "pattern": "^[0-9]+[smh]$"}},
)
GROUP = closed(name=TEXT, rules={"type": "array", "items": RULE})
PROMETHEUS_RULE = closed(
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PrometheusRule"},
    metadata=closed(name=TEXT, labels={"type": "object", "additionalProperties": TEXT}),
    spec=closed(groups={"type": "array", "items": GROUP}),
)
"""The part of the operator's definition that is used here, with every object closed."""


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_query_uses_metrics_and_labels_that_there_are(query):
    assert complaints(query, LABELS) == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("ray_raystream_num_record_in", "metric ray_raystream_num_record_in is not exported"),
        ('ray_raystream_uptime{job="hits"}', "metric ray_raystream_uptime has no label job"),
        ("sum by (operator) (ray_raystream_uptime)", "grouped by operator, which is not there"),
        ("time() - (deriv(ray_raystream_uptime{jobid='1'}[5m]))", "has no label jobid"),
    ],
)
def test_name_that_is_wrong_is_found(expression, complaint):
    (found,) = complaints(Query("planted", expression, frozenset()), LABELS)

    assert complaint in found


def test_shown_label_that_the_result_does_not_have_is_found():
    (found,) = complaints(Query("planted", "sum(ray_raystream_uptime)", frozenset({"job_name"})), LABELS)

    assert "shown label job_name is not in the result" in found


def test_alerts_are_an_object_of_their_kind_and_keep_the_job():
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(rules, PROMETHEUS_RULE)

    for query in alert_queries():
        assert complaints(query._replace(shown=frozenset(JOB_LABELS)), LABELS) == []


@pytest.mark.parametrize(
    ("alert", "metric"),
    [("RestartLoop", "num_restarts"), ("FailedCheckpoints", "number_of_failed_checkpoints")],
)
def test_alert_adds_up_what_a_count_rises_by_since_it_may_fall_at_a_failover(alert, metric):
    (query,) = (one for one in alert_queries() if one.where == f"Raystream{alert}")
    now, before = (
        f"max by (job_name, job_id) (ray_raystream_{metric}{offset})" for offset in ("", " offset 30s")
    )
    rises = f"sum_over_time(clamp_min({now} - {before}, 0)[15m:30s]) >= 3"

    assert promql.parse(query.expression).prettify() == promql.parse(rises).prettify()


def test_slots_that_run_without_a_job_master_are_an_alert():
    (query,) = (one for one in alert_queries() if one.where == "RaystreamNoJobMaster")
    tree = promql.parse(query.expression)

    assert str(tree.op) == "unless"
    assert tree.modifier.matching.labels == ["job_id"], "labels of a node differ"
    assert "ray_raystream_uptime" in tree.rhs.prettify()


def test_panels_do_not_overlap_and_have_numbers_of_their_own():
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [
        (x, y)
        for at in places
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


def test_kustomization_has_every_file_that_lies_there():
    kustomization = yaml.safe_load((MONITORING / "kustomization.yaml").read_text(encoding="utf-8"))
    (generated,) = kustomization["configMapGenerator"]

    named = {*kustomization["resources"], *generated["files"], "kustomization.yaml"}

    assert named == {path.name for path in MONITORING.iterdir()}


def test_kustomize_makes_rules_and_a_config_map_with_the_dashboard_as_it_stands(in_ci):
    config_map, rules = sorted(objects("monitoring", in_ci), key=lambda one: one["kind"])

    assert rules["kind"] == "PrometheusRule"
    kubernetes_validate.validate(config_map, KUBERNETES, strict=True)
    dashboard = (MONITORING / "dashboard.json").read_text(encoding="utf-8")
    assert config_map["data"] == {"dashboard.json": dashboard}
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_every_metric_stands_in_the_documentation_as_it_is():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)

    assert rows == [
        (metric.name, f"ray_{metric.exported}", metric.scope.value, metric.unit, metric.meaning)
        for metric in METRICS
    ]
