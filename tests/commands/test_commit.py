"""netdicom commit: what a peer keeps for good, file by file."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.statuses import Status
from support.commands.running import Netdicom, Peer, three_lines
from support.node import Node
from support.processes import eventually, free_port

pytestmark = pytest.mark.slow

STANDARD = Path(__file__).resolve().parents[1] / "standard" / "service_statuses.json"


def rows(out: str) -> list[dict[str, str]]:
    head, *lines = [line.split("\t") for line in out.splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


def outcomes(out: str) -> dict[str, tuple[bool, str]]:
    """The files of the JSON document, by name: whether each is committed, and if not, why."""
    return {
        Path(each["file"]).name: (each["committed"], each["reason"])
        for each in json.loads(out)["files"]
    }


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start ``twistd dicom`` with options."""
    made: list[Node] = []

    def start(*options: str) -> Node:
        made.append(Node(tmp_path, *options))
        made[-1].start()
        return made[-1]

    yield start
    for node in made:
        node.stop()
        assert "Traceback" not in node.log, node.log


def address(node: Node) -> str:
    return f"{node.ae_title}@127.0.0.1:{node.address.port}"


def test_the_reasons_are_those_of_the_standard() -> None:
    """PS3.3 C.14.1.1: each has words of its own."""
    classes: Any = json.loads(STANDARD.read_text())["service_classes"]
    codes = [int(code, 16) for code in classes["storage_commitment_push"]["failure_reasons"]]
    assert codes
    assert "Failure" not in {Status(code, "N-EVENT-REPORT").meaning for code in codes}


# -- our node -----------------------------------------------------------------------------------------


def test_the_node_reports_on_the_same_association(
    netdicom: Netdicom, start_node: Callable[..., Node], instances: Path
) -> None:
    node = start_node()
    assert netdicom("store", address(node), instances).returncode == 0
    done = netdicom("commit", address(node), instances)
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    assert {row["commitment"] for row in found} == {"committed"}
    assert {row["file"] for row in found} == {str(path) for path in instances.iterdir()}
    assert done.stderr.splitlines()[-1] == f"{len(found)} committed, 0 failed"
    # Each request is a transaction of its own, so the second one is not a duplicate.
    assert netdicom("commit", address(node), instances).returncode == 0


def test_what_the_node_does_not_have_is_failed_with_its_reason(
    netdicom: Netdicom, start_node: Callable[..., Node], instances: Path
) -> None:
    """Exit code 1. 0x0112: it is not in the index."""
    node = start_node()
    assert netdicom("store", address(node), instances / "ct0.dcm").returncode == 0
    named = (instances / "ct0.dcm", instances / "MR_small.dcm")
    done = netdicom("commit", address(node), *named)
    assert done.returncode == 1
    assert [(row["commitment"], row["reason"]) for row in rows(done.stdout)] == [
        ("committed", ""),
        ("failed", "No such SOP instance (0x0112)"),
    ]
    assert "1 of 2 files are not committed" in done.stderr
    assert three_lines(done.stderr)
    done = netdicom("commit", address(node), *named, "--json", "-q")
    document = json.loads(done.stdout)
    assert (document["committed"], document["failed"]) == (1, 1)
    assert document["files"][1]["code"] == "0112"
    assert document["error"]["code"] == done.returncode == 1


def test_the_node_reports_on_an_association_of_its_own(
    netdicom: Netdicom, start_node: Callable[..., Node], instances: Path
) -> None:
    """PS3.4 J.3.3: with --listen ours is released, and the node knows where we are."""
    port = free_port()
    node = start_node(f"--peer=CT1@127.0.0.1:{port}")
    assert netdicom("store", address(node), instances / "ct0.dcm").returncode == 0
    done = netdicom(
        *("commit", address(node), instances / "ct0.dcm", instances / "ct1.dcm", "--json"),
        *("-aet", "CT1", "--listen", f"127.0.0.1:{port}"),
    )
    assert done.returncode == 1, done.stderr
    assert outcomes(done.stdout) == {
        "ct0.dcm": (True, ""),
        "ct1.dcm": (False, "No such SOP instance (0x0112)"),
    }
    assert f"CT1 listening on 127.0.0.1:{port}" in done.stderr
    # It was its association, and it has ended it.
    eventually(
        lambda: "association with CT1 is over: the association has been released" in node.log,
        "release by the node",
    )
    listed = netdicom("queue", "list", "--storage", node.storage)
    assert listed.stderr == "0 tasks\n"


def test_a_node_that_does_not_know_where_we_listen_does_not_report_in_time(
    netdicom: Netdicom, start_node: Callable[..., Node], instances: Path
) -> None:
    """Exit code 7; and what the node owes is seen there."""
    node = start_node()
    done = netdicom(
        *("commit", address(node), instances / "ct0.dcm", "-aet", "CT1"),
        *("--listen", "127.0.0.1:0", "--timeout", 1.5),
    )
    assert done.returncode == 7
    assert "did not report in time" in done.stderr
    assert "-aet" in done.stderr.splitlines()[-1]
    assert three_lines(done.stderr)

    def task() -> Any:
        said = netdicom("queue", "list", "--json", "--storage", node.storage).stdout
        (found,) = map(json.loads, said.splitlines())
        return found if found["last_error"] else None

    owed = eventually(task, "failed attempt")
    assert (owed["kind"], owed["destination"], owed["state"]) == ("commitment", "CT1", "waiting")
    assert (
        owed["last_error"]
        == "CT1 is not a peer of this node, so its address is unknown: add it with --peer"
    )


# -- files --------------------------------------------------------------------------------------------


def test_directories_are_walked_and_each_instance_is_asked_for_once(
    netdicom: Netdicom, start_peer: Callable[[], Peer], instances: Path
) -> None:
    """PS3.4 J.3.2: an instance is at most once in a request; both of its files are told of."""
    below = netdicom.directory / "in" / "below"
    below.mkdir(parents=True)
    for name in ("a.dcm", "below/b.dcm"):
        (below.parent / name).write_bytes((instances / "ct0.dcm").read_bytes())
    (below / "c.dcm").write_bytes((instances / "ct1.dcm").read_bytes())
    (below / "cut.dcm").write_bytes((instances / "ct1.dcm").read_bytes()[:200])
    (below / "notes.txt").write_text("nothing")
    peer = start_peer()
    done = netdicom("commit", peer.address(), "in", "--json")
    assert done.returncode == 1
    found = outcomes(done.stdout)
    cut = found.pop("cut.dcm")
    assert found == {"a.dcm": (True, ""), "b.dcm": (True, ""), "c.dcm": (True, "")}
    assert cut[0] is False
    assert json.loads(done.stdout)["skipped"] == {"not_dicom": 1}
    assert "commitment of 2" in peer.log


def test_what_the_report_does_not_say_is_not_committed(
    netdicom: Netdicom, peer: Peer, instances: Path
) -> None:
    """The two lists are to have all that was asked for; a peer that forgets one has not promised it."""
    done = netdicom("commit", peer.address("PARTLY"), instances, "--json")
    assert done.returncode == 1
    found = outcomes(done.stdout)
    assert found.pop("ct3.dcm") == (False, "Processing failure (0x0110)")
    assert found.pop("ct4.dcm") == (False, "Failure (0xC001)")
    assert found.pop("ct5.dcm") == (False, "the report does not name it")
    assert set(found.values()) == {(True, "")}
    assert "the first is" in done.stderr


# -- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("called", "options", "code", "said"),
    [
        ("NOCOMMIT", [], 5, "no presentation context"),
        ("REFUSING", [], 8, "Resource limitation (0x0213): the disk is full"),
        ("REFUSING", ["--listen", "127.0.0.1:0"], 8, "Resource limitation (0x0213)"),
        ("MUTE", ["--timeout", "0.3"], 7, "--listen"),
        ("LEAVING", [], 6, "ended the association before it reported"),
        ("STRICT", [], 4, "called AE title not recognized"),
        ("SILENT", ["-ta", "0.3"], 7, "did not answer in time"),
    ],
)
def test_a_peer_that_does_not_commit_has_its_code(
    netdicom: Netdicom,
    peer: Peer,
    instances: Path,
    called: str,
    options: list[str],
    code: int,
    said: str,
) -> None:
    done = netdicom("commit", peer.address(called), instances / "ct0.dcm", *options)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert said in done.stderr
    assert three_lines(done.stderr)
    assert "Traceback" not in done.stderr


def test_a_failure_is_told_in_json_too(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    done = netdicom("commit", peer.address("REFUSING"), instances, "--json")
    assert json.loads(done.stdout)["error"]["code"] == done.returncode == 8


def test_a_port_that_is_taken_is_told(netdicom: Netdicom, peer: Peer, instances: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        done = netdicom("commit", peer.address(), instances, "--listen", where)
    assert done.returncode == 2
    assert f"cannot listen at tcp:{where.rpartition(':')[2]}" in done.stderr


@pytest.mark.parametrize("options", [[], ["--listen", "127.0.0.1:0"]])
def test_ctrl_c_while_the_report_is_awaited_releases(
    netdicom: Netdicom, start_peer: Callable[[], Peer], instances: Path, options: list[str]
) -> None:
    peer = start_peer()
    with netdicom.start("commit", peer.address("MUTE"), instances, *options) as run:
        eventually(lambda: "commitment of" in peer.log, "request")
        run.interrupt()
        code, out, err = run.end()
    assert (code, out) == (130, ""), err
    assert "Traceback" not in err
    eventually(lambda: "end AssociationReleasedError" in peer.log, "release at the peer")


def test_ctrl_c_while_nobody_answers_gives_up(
    netdicom: Netdicom, start_peer: Callable[[], Peer], instances: Path
) -> None:
    peer = start_peer()
    with netdicom.start("commit", peer.address("SILENT"), instances) as run:
        eventually(lambda: "association" in peer.log, "association request")
        run.interrupt()
        code, out, err = run.end()
    assert (code, out) == (130, ""), err
    assert "Traceback" not in err
