"""`docs/grafana/dreamhead.json` asks for metrics and labels that exist, on panels that don't overlap."""

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import ray

from tests.deploy.documents import ROOT

DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs" / "grafana" / "dreamhead.json").read_text())
RAY = Path(ray.__file__).parent / "dashboard" / "modules"

OURS = {
    "ray_dreamhead_frames_total": set(),
    "ray_dreamhead_chunks_total": {"status"},
    "ray_dreamhead_jobs_total": {"status"},
    "ray_dreamhead_retries_total": {"stage"},
    "ray_dreamhead_stage_seconds_bucket": {"stage", "le"},
    "ray_dreamhead_jobs_left": set(),
    "ray_dreamhead_frames_left": set(),
    "ray_dreamhead_eta_seconds": set(),
    "ray_dreamhead_pool_actors": {"pool"},
    "ray_dreamhead_pool_busy": {"pool"},
}
"""As Ray 2.60 exports what `ray.util.metrics` counts: `ray_` before the name, and nothing more after `_total`."""

COMMON = {"SessionName", "instance"}
"""Labels of every series: Ray's own, and the address that Prometheus found it at."""
RAYS_LABELS = {"Location", "Name", "node_type", "GpuIndex"}


def test_every_query_asks_for_what_is_there() -> None:
    assert problems(DASHBOARD) == []


@pytest.mark.parametrize("metric", sorted(OURS))
def test_every_metric_of_ours_is_shown(metric: str) -> None:
    assert any(re.search(rf"\b{metric}\b", query) for query in queries(DASHBOARD))


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("ray_dreamhead_frames_total", "dreamhead_frames_total", "no metric dreamhead_frames_total"),
        (
            "ray_dreamhead_frames_total",
            "ray_dreamhead_frames_total_total",
            "no metric ray_dreamhead_frames_total_total",
        ),
        ("ray_node_mem_used", "ray_node_memory_used", "no metric ray_node_memory_used"),
        ("by (pool)", "by (pools)", "no label pools"),
        ("status=", "state=", "no label state"),
        ("GpuIndex", "GpuNumber", "no label GpuNumber"),
        ("histogram_quantile(0.5, ", "histogram_quantile(0.5, (", "brackets"),
        ('"id": 2,', '"id": 1,', "two panels have one id"),
        ('"y": 4', '"y": 3', "lie on each other"),
        ('"x": 16', '"x": 18', "beyond the right edge"),
    ],
)
def test_a_slip_is_noticed(right: str, wrong: str, problem: str) -> None:
    text = json.dumps(DASHBOARD)
    assert right in text
    assert problem in "; ".join(problems(json.loads(text.replace(right, wrong))))


def test_the_dashboard_can_be_imported() -> None:
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["uid"] == "dreamhead"
    assert "id" not in DASHBOARD, "Grafana gives the number"
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert set(re.findall(r"\$(\w+)", " ".join(queries(DASHBOARD)))) <= {*variables, "__rate_interval"}


def problems(dashboard: dict[str, Any]) -> list[str]:
    """Queries that find nothing, and panels that can't all be seen."""
    known = set(OURS) | rays_metrics()
    found = []
    for query in queries(dashboard):
        found += [f"no metric {name}" for name in metrics_of(query) if name not in known]
        found += [f"no label {name}" for name in labels_of(query) if name not in COMMON | labels_for(query)]
        if query.count("(") != query.count(")") or query.count("{") != query.count("}"):
            found.append(f"brackets: {query}")
    return found + list(wrong_legends(dashboard)) + list(wrong_places(dashboard["panels"]))


def queries(dashboard: dict[str, Any]) -> list[str]:
    """What the panels ask Prometheus."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def metrics_of(query: str) -> list[str]:
    """Names before a selector; every series is asked for with one."""
    return re.findall(r"(\w+)\{", query)


def labels_of(query: str) -> list[str]:
    groups = [label.strip() for names in re.findall(r"by \((.*?)\)", query) for label in names.split(",")]
    return groups + re.findall(r"(\w+)(?:=~|!=|=)", query)


def labels_for(query: str) -> set[str]:
    """Labels that the metrics of a query have, beside the common ones."""
    names = metrics_of(query)
    own = set().union(*(OURS[name] for name in names if name in OURS))
    return own if all(name in OURS for name in names) else own | RAYS_LABELS


def rays_metrics() -> set[str]:
    """What Ray's agent exports of each node, and what Ray's own dashboard asks for."""
    agent = (RAY / "reporter" / "reporter_agent.py").read_text()
    panels = (RAY / "metrics" / "dashboards" / "default_dashboard_panels.py").read_text()
    gauges = re.findall(r'^    "(\w+)": Gauge\(', agent, re.MULTILINE)
    return {f"ray_{name}" for name in gauges} | set(re.findall(r"\b(ray_\w+)\{", panels))


def wrong_legends(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            allowed = COMMON | labels_for(target["expr"])
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                if label not in allowed:
                    yield f"no label {label}"


def wrong_places(panels: list[dict[str, Any]]) -> Iterator[str]:
    if len({panel["id"] for panel in panels}) < len(panels):
        yield "two panels have one id"
    for panel in panels:
        if panel["gridPos"]["x"] + panel["gridPos"]["w"] > 24:
            yield f"{panel['title']} reaches beyond the right edge"
    for one, other in combinations(panels, 2):
        if overlap(one["gridPos"], other["gridPos"]):
            yield f"{one['title']} and {other['title']} lie on each other"


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    sideways = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    return sideways and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]
