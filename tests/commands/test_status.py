"""netdicom status: what a node is doing, while it runs and while it does not."""

import json
import os
import signal
from pathlib import Path

import pytest

from netdicom_tx import commands
from netdicom_tx.archive import FileStore, Index, control
from netdicom_tx.archive.control import NodeAnswerError
from netdicom_tx.archive.snapshots import Snapshot
from netdicom_tx.commands.status import lines
from support.commands.running import Netdicom, three_lines
from support.node import Node
from support.snapshots import NOON, full

Captured = pytest.CaptureFixture[str]


def run(*arguments: object) -> int:
    return commands.run(["status", *map(str, arguments)])


def text(snapshot: Snapshot) -> str:
    return "\n".join(lines(snapshot))


# -- in words ----------------------------------------------------------------------------------------


def test_a_snapshot_is_told_in_lines() -> None:
    told = text(full())
    for line in (
        "NODE: netdicom_tx 1.2.3, serving, started ",
        " (1 h 0 min ago), process 4711\n",
        "\nready\n",
        "associations: 1 now (peers may open 100); since the start 4 accepted, 4 refusals\n",
        "  from CT1 at 192.0.2.7:50000, open for 1 min 30 s: C-STORE; 6.3 MB received (70.0 kB/s), "
        "2.0 kB sent (20 octets/s)\n",
        "last hour: 0 instances kept, 0 sent; 0 octets received, 0 octets sent\n",
        "13 C-STORE (1 failed, 53.9 s each), 1 C-FIND (0 failed, 2 ms each)\n",
        "requested since the start: 5 C-STORE\n",
        "storage: 2 patients, 3 studies, 4 series, 12 instances, 6.2 MB\n",
        "disk: 42.9 GB of 107 GB free, of which 1.1 GB stay free; use grows by 1.1 GB a day, full on 2023-12-",
        "queue: 2 waiting, 1 running, 1 dead; the oldest task is 10 min 0 s old\n",
        "journal: 2 instances (1.0 MB) not yet in files and rows, no progress for 0.2 s\n",
        "reactor: longest turn 0.125 s lately, 0.900 s since the start; 3 turns took too long\n",
        "shared store s3://archive: 4 objects put (125 ms each), 2 read (125 ms each), 1 failed; cache: ",
        ", 3 found there, 2 not\n",
        "memory: 100 MiB; associations hold 4.0 MiB of 256 MiB\n",
        " refused STRANGER at 192.0.2.9:50001 4 times: calling AE title 'STRANGER'; expected that of a known peer; "
        "add it to the peers that are served here",
    ):
        assert line in told


def test_an_empty_journal_has_no_lag() -> None:
    snapshot = full()
    assert snapshot["intake"] is not None
    snapshot["intake"]["instances"] = 0
    assert "journal: all that was kept is in files and rows\n" in text(snapshot)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.00012345, "0.123 ms each"),
        (0.9994, "999 ms each"),
        (0.9996, "1 s each"),
        (99.9, "99.9 s each"),
        (5000.0, "1 h 23 min each"),
    ],
)
def test_a_duration_has_a_unit_that_suits_it(seconds: float, said: str) -> None:
    snapshot = full()
    one = snapshot["operations"][0]
    snapshot["operations"] = [{**one, "count": 1, "seconds": seconds}]
    assert said in text(snapshot)


def test_one_of_a_kind_has_no_plural() -> None:
    snapshot = full()
    assert snapshot["storage"] is not None
    assert snapshot["reactor"] is not None
    snapshot["storage"] |= {"patients": 1, "studies": 1, "series": 1, "instances": 1}
    snapshot["reactor"]["held_up"] = 1
    assert "storage: 1 patient, 1 study, 1 series, 1 instance, " in text(snapshot)
    assert "; 1 turn took too long" in text(snapshot)


def test_what_is_not_known_is_left_out() -> None:
    snapshot = full()
    for part in ("intake", "shared", "reactor", "memory", "disk", "storage", "queue"):
        snapshot[part] = None
    snapshot["operations"], snapshot["refusals"] = [], []
    snapshot["associations"].update({"live": [], "limit": None, "requested": {}})
    told = text(snapshot)
    assert "associations: 0 now; since" in told
    for word in (
        "journal",
        "shared",
        "reactor",
        "memory",
        "disk",
        "storage",
        "queue",
        "refusals:",
        "C-",
    ):
        assert word not in told


def test_many_associations_are_not_all_named() -> None:
    snapshot = full()
    snapshot["associations"]["live"] *= 25
    told = text(snapshot)
    assert told.count("  from CT1 at") == 20
    assert "\n  and 5 more\n" in told


def test_an_association_is_told_as_it_is() -> None:
    snapshot = full()
    (live,) = snapshot["associations"]["live"]
    live.update({"title": "", "role": "requestor", "operations": [], "since": NOON})
    assert "  to an unknown title at 192.0.2.7:50000, open for 0 s: idle;" in text(snapshot)
    live["operations"] = ["C-STORE", "C-STORE", "C-FIND"]
    assert ": 2 C-STORE, C-FIND;" in text(snapshot)


def test_what_is_known_of_the_disk_grows() -> None:
    snapshot = full()
    snapshot["forecast"] = {"watched": 600.0, "per_day": -5e9, "full_at": None}
    assert "stay free; use grows by -5.0 GB a day\n" in text(snapshot)
    snapshot["forecast"] = {"watched": 0.0, "per_day": None, "full_at": None}
    assert "stay free\n" in text(snapshot)


def test_several_processes_are_one_node() -> None:
    snapshot = full()
    snapshot["processes"] *= 2
    assert "ago), processes 4711, 4711\n" in text(snapshot)


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """The storage directory of a node that does not run."""
    store = FileStore(tmp_path / "archive", fsync=False)
    store.open()
    store.close()
    return store.root


@pytest.mark.parametrize(("is_ready", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_says_whether_the_node_is_ready(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, is_ready: bool, code: int
) -> None:
    snapshot = full()
    if not is_ready:
        snapshot["health"] = {"ready": False, "state": "draining", "reasons": ["it is draining"]}
    monkeypatch.setattr(control, "ask", lambda root, verb, timeout: snapshot)
    assert run() == code
    out = capsys.readouterr().out
    assert ("\nnot ready: it is draining\n" in out) is not is_ready
    assert run("--json") == code
    document = json.loads(capsys.readouterr().out)
    assert document == {"running": True, **snapshot}


def test_what_a_peer_says_cannot_write_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    snapshot = full()
    snapshot["refusals"][0]["reason"] = "\x1b[2J"
    monkeypatch.setattr(control, "ask", lambda root, verb, timeout: snapshot)
    run()
    assert "\x1b" not in capsys.readouterr().out


def test_without_a_node_the_disk_tells(storage: Path, capsys: Captured) -> None:
    assert run("--storage", storage) == 3
    out, err = capsys.readouterr()
    assert out.startswith("disk: ")
    assert three_lines(err)
    assert err.startswith(f"error: no node runs on {storage}\n")
    assert f"hint:  start one: netdicom serve --storage {storage}" in err
    with Index(f"sqlite:///{storage / 'index.db'}", root=storage):
        pass
    assert run("--storage", storage) == 3
    out, _ = capsys.readouterr()
    assert out.startswith("storage: 0 patients, 0 studies, 0 series, 0 instances, 0 octets\ndisk: ")
    assert out.endswith("\nqueue: 0 waiting, 0 running, 0 dead\n")


def test_without_a_node_the_document_says_so(storage: Path, capsys: Captured) -> None:
    with Index(f"sqlite:///{storage / 'index.db'}", root=storage):
        pass
    assert run("--storage", storage, "--json") == 3
    document = json.loads(capsys.readouterr().out)
    assert document["running"] is False
    assert document["storage"]["instances"] == 0
    assert document["queue"] == {"waiting": 0, "running": 0, "dead": 0, "oldest": None}
    assert document["disk"]["total"] > 0


def test_a_node_without_a_socket_is_not_taken_for_none(storage: Path, capsys: Captured) -> None:
    """Its file system may have no sockets."""
    store = FileStore(storage, fsync=False)
    store.open()
    try:
        assert run("--storage", storage) == 8
        assert run("--storage", storage, "--json") == 8
    finally:
        store.close()
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["running"] is True
    assert f"error: the node on {storage}, process {os.getpid()}, cannot be asked\n" in err


def test_a_directory_that_is_no_archive_is_named(tmp_path: Path, capsys: Captured) -> None:
    assert run("--storage", tmp_path) == 2
    assert f"{tmp_path} is not the storage directory of a node" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NodeAnswerError("it has not answered", "silent"), 7, "hint:  look at its log: what holds"),
        (NodeAnswerError("unknown verb", "request"), 8, "error: unknown verb"),
        (PermissionError(13, "Permission denied"), 11, "run this as the user of the node, or as"),
    ],
)
def test_a_node_that_gives_no_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, error: Exception, code: int, said: str
) -> None:
    def ask(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(control, "ask", ask)
    assert run() == code
    assert said in capsys.readouterr().err


def test_the_directory_is_that_of_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(root: Path, verb: str, timeout: float) -> None:
        asked.append((root, verb, timeout))
        raise NodeAnswerError("?", "silent")

    monkeypatch.setattr(control, "ask", ask)
    path = tmp_path / "node.toml"
    path.write_text('[storage]\ndirectory = "images"\n')
    run("--config", path, "--timeout", 2)
    run("--config", path, "--storage", tmp_path / "elsewhere")
    assert [root.name for root, _, _ in asked] == ["images", "elsewhere"]
    assert asked[0][1:] == ("status", 2.0)


@pytest.mark.slow
def test_a_node_is_asked_while_it_runs(tmp_path: Path) -> None:
    netdicom = Netdicom(tmp_path)
    node = Node(tmp_path)
    node.start()
    try:
        assert netdicom("echo", f"127.0.0.1:{node.address.port}").returncode == 0
        done = netdicom("status", "--storage", node.storage, "--json")
        assert done.returncode == 0, done.stderr
        snapshot = json.loads(done.stdout)
        assert snapshot["processes"][0]["pid"] == node.pid
        assert {each["operation"]: each["count"] for each in snapshot["operations"]} == {
            "C-ECHO": 1
        }
        assert snapshot["reactor"]["busy"] > 0
        done = netdicom("status", "--storage", node.storage)
        assert f"process {node.pid}\nready\n" in done.stdout
        os.kill(node.pid, signal.SIGSTOP)
        try:
            done = netdicom("status", "--storage", node.storage, "--timeout", "0.2")
            assert done.returncode == 7
        finally:
            os.kill(node.pid, signal.SIGCONT)
        node.kill()
        done = netdicom("status", "--storage", node.storage)
        assert done.returncode == 3
        assert "storage: 0 patients" in done.stdout
        node.start()
        assert netdicom("status", "--storage", node.storage).returncode == 0
    finally:
        node.stop()
