"""What a node says of itself agrees with what DCMTK has sent."""

import re
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.interop.samples import Sample
from support.node import Node
from support.processes import eventually, program, run, succeed

pytestmark = pytest.mark.interop


def page_of(node: Node) -> str:
    """Where the status page is."""
    found = re.search(r"status page at (http://[^/]+)/", node.log_text())
    assert found is not None
    return found[1]


def get(url: str) -> tuple[int, str]:
    """Status and text of a page."""
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(page: str) -> dict[str, float]:
    """The samples, by name and sorted labels."""
    parse: Any = text_string_to_metric_families  # which is not annotated
    status, text = get(f"{page}/metrics")
    assert status == 200
    return {
        sample.name + "".join(f" {name}={sample.labels[name]}" for name in sorted(sample.labels)): (
            sample.value
        )
        for family in parse(text)
        for sample in family.samples
    }


def test_figures_agree_with_what_dcmtk_has_sent(
    start_node: Callable[..., Node], samples: tuple[Sample, ...]
) -> None:
    ct = next(each for each in samples if each.name == "CT_small.dcm")
    node = start_node(
        "--strict-peers", "--peer", "CT1@127.0.0.1:104", "--http", "tcp:0:interface=127.0.0.1"
    )
    page = page_of(node)
    known = ("-aet", "CT1", "-aec", node.ae_title, *node.address.arguments)
    for _ in range(3):
        succeed(program("echoscu"), *known)
    succeed(program("storescu"), *known, ct.path, ct.path)
    level = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")
    succeed(program("findscu"), *level, *known)
    strange = ("-aet", "STRANGER", "-aec", node.ae_title, *node.address.arguments)
    for _ in range(2):
        assert run(program("echoscu"), *strange).returncode != 0
    elsewhere = ("-aet", "CT1", "-aec", "ELSEWHERE", *node.address.arguments)
    assert run(program("echoscu"), *elsewhere).returncode != 0

    def at_rest() -> dict[str, float] | None:
        found = metrics(page)
        return (
            found
            if not any(
                found[f"netdicom_associations role=acceptor state={state}"]
                for state in ("connected", "requested", "open", "ending")
            )
            else None
        )

    told = eventually(at_rest, "end of all associations")
    expected = {
        "netdicom_operations_total operation=C-ECHO outcome=success status=0000": 3,
        "netdicom_operations_total operation=C-STORE outcome=success status=0000": 2,
        "netdicom_operations_total operation=C-FIND outcome=success status=0000": 1,
        "netdicom_operation_duration_seconds_count operation=C-STORE": 2,
        "netdicom_associations_accepted_total role=acceptor": 5,
        "netdicom_associations_ended_total end=released": 5,
        "netdicom_associations_ended_total end=rejected": 3,
        "netdicom_refusals_total kind=calling": 2,
        "netdicom_refusals_total kind=called": 1,
        "netdicom_ready": 1,
        "netdicom_queue_tasks state=dead": 0,
    }
    assert {name: told.get(name) for name in expected} == expected
    size = ct.path.stat().st_size
    assert 2 * (size - 1024) < told["netdicom_received_bytes_total"] < 2 * size + 20_000
    assert told["netdicom_reactor_busy_seconds_total"] > 0
    # What was counted a moment ago is counted again after some seconds.
    eventually(lambda: metrics(page)["netdicom_storage_instances"] == 1, "row")


def test_health_follows_the_life_of_a_node(start_node: Callable[..., Node]) -> None:
    node = start_node("--http", "tcp:0:interface=127.0.0.1")
    page = page_of(node)
    assert get(f"{page}/live") == (200, "alive\n")
    assert get(f"{page}/ready") == (200, "ready\n")
    index = node.storage / "index.db"
    index.rename(node.storage / "elsewhere.db")

    def not_ready() -> str | None:
        status, text = get(f"{page}/ready")
        return text if status == 503 else None

    text = eventually(not_ready, "answer that the node is not ready")
    assert text.startswith("not ready\nthe file ")
    assert "was deleted or replaced while the node runs" in text
    assert get(f"{page}/live") == (200, "alive\n")
    # The node is to be restarted now; a connection may have made a new file of this name.
    (node.storage / "elsewhere.db").rename(index)
