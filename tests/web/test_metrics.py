"""What Prometheus reads, and what a load balancer asks."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from netdicom_tx.archive.index.index import IndexUnavailableError
from netdicom_tx.archive.snapshots import Snapshot
from netdicom_tx.archive.store.filestore import Room
from netdicom_tx.passwords import write_password
from netdicom_tx.web.metrics import families, render
from support.archive.archives import Archive, stored
from support.archive.data_sets import ct
from support.snapshots import NOON, full
from support.web import Browser

Make = Callable[..., Browser]
DOCS = Path(__file__).resolve().parents[2] / "docs"


def values(text: str) -> dict[str, float]:
    """The samples of a text, by name and labels as they are written."""
    found = {}
    parse: Any = text_string_to_metric_families  # which is not annotated
    for family in parse(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def text(snapshot: Snapshot) -> str:
    return render(snapshot)[1].decode()


# -- the metrics of a snapshot -------------------------------------------------------------------------


def test_every_figure_is_told() -> None:
    told = values(text(full()))
    expected = {
        "netdicom_node_info{ae_title=NODE,node=archive-1,version=1.2.3}": 1,
        "netdicom_ready": 1,
        "netdicom_processes{state=serving}": 1,
        "netdicom_processes{state=draining}": 0,
        "netdicom_start_time_seconds": NOON - 3600,
        "netdicom_cpu_seconds_total": 12.5,
        "netdicom_associations{role=acceptor,state=open}": 1,
        "netdicom_associations{role=requestor,state=open}": 0,
        "netdicom_associations_limit": 100,
        "netdicom_associations_accepted_total{role=acceptor}": 3,
        "netdicom_associations_ended_total{end=lost}": 1,
        "netdicom_refusals_total{kind=calling}": 4,
        "netdicom_received_bytes_total": 7_000_000,
        "netdicom_sent_bytes_total": 3_000_000,
        "netdicom_operations_total{operation=C-STORE,outcome=success,status=0000}": 12,
        "netdicom_operations_total{operation=C-STORE,outcome=failure,status=A700}": 1,
        "netdicom_operations_total{operation=C-FIND,outcome=none,status=none}": 1,
        "netdicom_operation_duration_seconds_count{operation=C-STORE}": 13,
        "netdicom_operation_duration_seconds_sum{operation=C-STORE}": 700.501,
        "netdicom_operation_duration_seconds_bucket{le=0.001,operation=C-STORE}": 1,
        "netdicom_operation_duration_seconds_bucket{le=0.005,operation=C-STORE}": 12,
        "netdicom_operation_duration_seconds_bucket{le=300,operation=C-STORE}": 12,
        "netdicom_operation_duration_seconds_bucket{le=+Inf,operation=C-STORE}": 13,
        "netdicom_requests_total{operation=C-STORE}": 5,
        "netdicom_intake_lag_seconds": 0.25,
        "netdicom_intake_instances": 2,
        "netdicom_shared_store_put_total": 4,
        "netdicom_shared_store_read_seconds_total": 0.25,
        "netdicom_shared_store_failures_total": 1,
        "netdicom_shared_store_cache_hits_total": 3,
        "netdicom_shared_store_cache_bytes": 1_000_000,
        "netdicom_reactor_busy_seconds_total": 10.5,
        "netdicom_reactor_longest_turn_seconds": 0.125,
        "netdicom_reactor_held_up_total": 3,
        "netdicom_associations_memory_bytes": 4 << 20,
        "netdicom_disk_free_bytes": 40 << 30,
        "netdicom_disk_growth_bytes_per_day": 1 << 30,
        "netdicom_disk_full_time_seconds": NOON + 39 * 86400,
        "netdicom_storage_instances": 12,
        "netdicom_storage_bytes": 6_200_000,
        "netdicom_queue_tasks{state=dead}": 1,
        "netdicom_queue_oldest_seconds": 600,
        "netdicom_group_nodes{state=alive}": 1,
        "netdicom_group_nodes{state=dead}": 1,
        "netdicom_group_nodes{state=stopped}": 0,
        "netdicom_group_duty{duty=scrub}": 1,
        "netdicom_group_clock_skew_seconds": 0.5,
    }
    assert {name: told.get(name) for name in expected} == expected


def test_a_part_that_is_not_there_is_not_told() -> None:
    snapshot = full()
    for part in ("intake", "shared", "reactor", "memory", "disk", "storage", "queue", "group"):
        snapshot[part] = None
    snapshot["forecast"] = {"watched": 0.0, "per_day": None, "full_at": None}
    snapshot["associations"]["limit"] = None
    told = " ".join(values(text(snapshot)))
    assert not re.search(
        "intake|shared|reactor|memory_bytes|disk|storage|queue|group|limit",
        told.replace("resident_memory", ""),
    )


def test_an_empty_queue_has_no_age() -> None:
    snapshot = full()
    assert snapshot["queue"] is not None
    snapshot["queue"]["oldest"] = None
    assert values(text(snapshot))["netdicom_queue_oldest_seconds"] == 0


def test_a_scraper_may_ask_for_openmetrics() -> None:
    content_type, octets = render(full(), "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    parse: Any = openmetrics.text_string_to_metric_families  # which is not annotated
    found = {each.name for each in parse(octets.decode())}
    assert "netdicom_received_bytes" in found


def test_names_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    for metric in families(full()):
        assert re.fullmatch("netdicom_[a-z_]+", metric.name)
        assert not re.search("milliseconds|_kb|_mb|minutes|octets", metric.name)
        assert metric.documentation.endswith(".")
        for sample in metric.samples:
            assert metric.type != "counter" or sample.name.endswith("_total")


# -- the documentation -------------------------------------------------------------------------------


def documented(metric: Metric) -> str:
    """The row of a metric."""
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    labels = dict.fromkeys(
        name for sample in metric.samples for name in sample.labels if name != "le"
    )
    named = ", ".join(f"`{each}`" for each in labels)
    return f"| `{metric.name}{suffix}` | {metric.type} | {named} | {metric.documentation} |"


def test_the_reference_lists_every_metric() -> None:
    page = (DOCS / "reference" / "metrics.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `netdicom_")]
    assert rows == [documented(metric) for metric in families(full())]


def expressions(value: Any) -> Iterator[str]:
    """The queries of a dashboard."""
    if isinstance(value, dict):
        if isinstance(value.get("expr"), str):
            yield value["expr"]
        for each in value.values():
            yield from expressions(each)
    elif isinstance(value, list):
        for each in value:
            yield from expressions(each)


def test_the_dashboard_asks_for_metrics_and_labels_that_there_are() -> None:
    board = json.loads((DOCS / "howto" / "grafana-dashboard.json").read_text())
    asked = list(expressions(board))
    assert len(asked) > 10
    told: dict[str, set[str]] = {}
    for metric in families(full()):
        for sample in metric.samples:
            told.setdefault(sample.name, set()).update(sample.labels)
    for expression in asked:
        names = re.findall(r"\bnetdicom_\w+", expression)
        assert names
        for name in names:
            assert name in told, f"{expression}: there is no {name}"
        known = {"job", "instance"}.union(*(told[name] for name in names))
        for selector in re.findall(r"\{([^}]*)\}", expression):
            assert set(re.findall(r"(\w+)\s*[=!]~?", selector)) <= known, expression
        for by in re.findall(r"\bby\s*\(([^)]*)\)", expression):
            assert {each.strip() for each in by.split(",")} <= known, expression


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    board = json.loads((DOCS / "howto" / "grafana-dashboard.json").read_text())
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


# -- the routes --------------------------------------------------------------------------------------


def test_what_was_done_is_what_is_told(node: Archive, page: Make) -> None:
    node.ae.observations.state = "serving"
    peer = node.sender()
    data = ct("1.2.3")
    assert stored(peer, data) == 0
    assert stored(peer, ct("1.2.3", fill=8), message_id=8) == 0x0111
    answer = page().get("/metrics")
    assert answer.code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    told = values(answer.text)
    assert told["netdicom_operations_total{operation=C-STORE,outcome=success,status=0000}"] == 1
    assert told["netdicom_operations_total{operation=C-STORE,outcome=failure,status=0111}"] == 1
    assert told["netdicom_operations_total{operation=C-ECHO,outcome=success,status=0000}"] == 2
    assert told["netdicom_associations{role=acceptor,state=open}"] == 1
    assert told["netdicom_storage_instances"] == 1
    assert told["netdicom_received_bytes_total"] > 2 * len(data)


def test_a_node_that_serves_is_ready(node: Archive, page: Make) -> None:
    node.ae.observations.state = "serving"
    for path, said in (("/live", "alive\n"), ("/ready", "ready\n")):
        answer = page().get(path)
        assert (answer.code, answer.text) == (200, said)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("state", ["starting", "draining"])
def test_a_node_that_starts_or_stops_is_alive_and_not_ready(
    node: Archive, page: Make, state: str
) -> None:
    node.ae.observations.state = state
    assert page().get("/live").code == 200
    answer = page().get("/ready")
    assert (answer.code, answer.text) == (503, f"not ready\nthe node is {state}\n")


def test_a_node_without_its_database_is_not_ready(
    node: Archive, page: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.ae.observations.state = "serving"

    def gone() -> None:
        raise IndexUnavailableError("the database is gone")

    monkeypatch.setattr(node.ae.observations._looks["database"], "look", gone)
    answer = page().get("/ready")
    assert (answer.code, answer.text) == (503, "not ready\nthe database is gone\n")


def test_a_node_with_a_full_disk_is_not_ready(
    node: Archive, page: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.ae.observations.state = "serving"
    monkeypatch.setattr(node.store, "room", lambda: Room(100 << 20, 1 << 20, 5 << 20))
    answer = page().get("/ready")
    assert answer.code == 503
    assert answer.text == "not ready\nthe disk is full: 1 MiB are free, and 5 MiB are the reserve\n"


def test_metrics_want_a_user_where_there_are_users(page: Make, users: str) -> None:
    browser = page(users_file=users)
    answer = browser.get("/metrics")
    assert answer.code == 401
    assert answer.headers["www-authenticate"] == 'Basic realm="netdicom", charset="UTF-8"'
    assert browser.get("/ready").code == 503
    assert browser.get("/live").code == 200
    browser.log_in("anna", "secret")
    assert browser.get("/metrics").code == 200


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_a_scraper_names_its_user(page: Make, users: str, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = page(users_file=users)
    checks = []
    check = browser.service.web.check_password

    async def counted(user: str, password: str, host: str) -> str | None:
        checks.append(user)
        return await check(user, password, host)

    monkeypatch.setattr(browser.service.web, "check_password", counted)
    for _ in range(3):
        assert browser.get("/metrics", authorization=basic("anna", "secret")).code == 200
    assert checks == ["anna"]
    for wrong in ("Bearer x", "Basic \u00e4", "Basic " + base64.b64encode(b"\xff").decode()):
        assert browser.get("/metrics", authorization=wrong).code == 401


def test_a_scraper_needs_the_new_password_at_once(page: Make, tmp_path: Path) -> None:
    users = tmp_path / "users"
    write_password(users, "anna", "secret")
    browser = page(users_file=str(users))
    assert browser.get("/metrics", authorization=basic("anna", "secret")).code == 200
    write_password(users, "anna", "another")
    browser.service.web._attempts["192.0.2.7"] = 4
    assert browser.get("/metrics", authorization=basic("anna", "secret")).code == 429


@pytest.mark.parametrize(
    "accept",
    [
        *("application/openmetrics-text;version=one", "text/plain;version=1..0"),
        "application/openmetrics-text;version=1.0.0;escaping=\xff",
    ],
)
def test_a_format_that_nobody_knows_is_answered(page: Make, accept: str) -> None:
    answer = page().get("/metrics", accept=accept)
    assert answer.code == 200
    assert "netdicom_ready" in answer.text


def test_a_wrong_password_is_refused_a_second_later(node: Archive, page: Make, users: str) -> None:
    browser = page(users_file=users)
    answer = browser.ask("GET", "/live")
    assert answer.code == 200
    transport = browser.send(
        b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n"
        + f"authorization: {basic('anna', 'guess')}\r\n\r\n".encode()
    )
    assert transport.value() == b""
    node.ae.reactor.advance(1)
    assert transport.value().startswith(b"HTTP/1.1 401 ")


def test_the_alarms_of_the_guide_ask_for_metrics_that_there_are() -> None:
    page = (DOCS / "howto" / "monitoring.md").read_text()
    told = {sample.name for metric in families(full()) for sample in metric.samples}
    asks = "\n".join(line for line in page.splitlines() if " expr: " in line)
    asked = set(re.findall(r"\bnetdicom_[a-z_]+\b", asks))
    assert asked <= told
    assert len(asked) > 5
