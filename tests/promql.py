"""Which metrics and labels queries of Prometheus use, and which of these are not exported."""

import json
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser as promql
import yaml

MONITORING = Path(__file__).resolve().parents[1] / "k8s" / "monitoring"

Exported = Mapping[str, AbstractSet[str]]
"""Labels of each metric, by name."""

_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")
_SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


class Query(NamedTuple):
    """A query, and the labels of its result that are shown somewhere."""

    where: str
    expression: str
    shown: frozenset[str]


def alert_queries() -> Iterator[Query]:
    """Yield the expression of every alert."""
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))
    for group in rules["spec"]["groups"]:
        for rule in group["rules"]:
            shown = frozenset(_SHOWN.findall(json.dumps(rule["annotations"])))
            yield Query(rule["alert"], rule["expr"], shown)


def dashboard_queries() -> Iterator[Query]:
    """Yield every query of the dashboard's panels and variables."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"], frozenset(_SHOWN.findall(target["legendFormat"])))
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found = _LABEL_VALUES.fullmatch(variable["query"]["query"])
            assert found is not None, variable
            yield Query(variable["name"], found[1], frozenset({found[2]}))


def complaints(query: Query, exported: Exported) -> list[str]:
    """Return what a query uses that is not there."""
    found: list[str] = []
    labels = _labels(promql.parse(query.expression), exported, found)
    found += [f"shown label {label} is not in the result" for label in sorted(query.shown - labels)]
    return [f"{query.where}: {one}" for one in found]


def _labels(node: Any, exported: Exported, found: list[str]) -> AbstractSet[str]:
    """Return the labels of what an expression gives; complaints go to `found`."""
    match node:
        case promql.VectorSelector():
            if node.name not in exported:
                found.append(f"metric {node.name} is not exported")
                return frozenset()
            labels = exported[node.name]
            wrong = [one.name for one in node.matchers.matchers if one.name not in labels]
            found += [f"metric {node.name} has no label {name}" for name in wrong]
            return labels
        case promql.MatrixSelector():
            return _labels(node.vector_selector, exported, found)
        case promql.SubqueryExpr() | promql.ParenExpr() | promql.UnaryExpr():
            return _labels(node.expr, exported, found)
        case promql.AggregateExpr():
            labels = _labels(node.expr, exported, found)
            kept = frozenset() if node.modifier is None else frozenset(node.modifier.labels)
            found += [f"grouped by {name}, which is not there" for name in sorted(kept - labels)]
            return kept
        case promql.Call():
            return frozenset().union(*(_labels(one, exported, found) for one in node.args))
        case promql.BinaryExpr():
            left, right = (_labels(side, exported, found) for side in (node.lhs, node.rhs))
            return left or right
    return frozenset()
