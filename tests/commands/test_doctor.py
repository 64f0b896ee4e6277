"""``netdicom doctor``: what a node needs of its machine."""

import json
import os
import re
import socket
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from netdicom_tx.archive import FileStore, Index
from netdicom_tx.archive.group import members
from netdicom_tx.archive.index.migrations import VERSION
from netdicom_tx.archive.store.deletion import open_archive
from netdicom_tx.archive.store.objects import DirectoryObjects
from netdicom_tx.archive.store.sharedstore import SharedStore
from netdicom_tx.commands import run as netdicom
from netdicom_tx.commands.common import checkup
from netdicom_tx.commands.common.checkup import Finding, Verdict, checked, pid_of_node
from netdicom_tx.options import Options
from support.archive.databases import PostgreSQL
from support.node import Node
from support.processes import dead_port, run

Captured = pytest.CaptureFixture[str]
LISTEN = ("--listen", "tcp:0:interface=127.0.0.1")


@pytest.fixture(autouse=True)
def in_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def findings(*arguments: str) -> list[Finding]:
    options = Options()
    options.parse([*LISTEN, *arguments])
    return list(checked(options))


def about(word: str, *arguments: str) -> list[Finding]:
    """What is said about one thing."""
    return [each for each in findings(*arguments) if each.about.startswith(word)]


# -- ports -------------------------------------------------------------------------------------------


def test_a_free_port_is_right_and_a_held_one_is_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        held = f"tcp:{port}:interface=127.0.0.1"
        free, wrong = about("port", "--listen", held)
    assert (free.verdict, free.text) == (Verdict.OK, "is free")
    assert (wrong.verdict, wrong.text) == (Verdict.FAIL, "is in use by another program")
    assert f"sport = :{port}" in wrong.hint


@pytest.mark.parametrize(
    ("endpoint", "place"),
    [
        ("tcp:104", (socket.AF_INET, "", 104)),
        ("tcp:port=104:interface=127.0.0.1", (socket.AF_INET, "127.0.0.1", 104)),
        ("tcp:104:interface=\\:\\:1", (socket.AF_INET6, "::1", 104)),
        ("tcp6:104", (socket.AF_INET6, "", 104)),
        ("unix:/run/netdicom.sock", None),
        ("systemd:domain=INET:name=dicom", None),
    ],
)
def test_the_place_of_an_endpoint(endpoint: str, place: object) -> None:
    assert checkup._place(endpoint) == place


def test_other_endpoints_are_not_checked() -> None:
    assert checkup._port("unix:/run/netdicom.sock", None).verdict is Verdict.OK


def test_an_address_of_another_machine() -> None:
    found = checkup._port("tcp:0:interface=192.0.2.1", None)
    assert (found.verdict, found.hint) == (Verdict.FAIL, "name an address of this machine")


def test_a_port_that_needs_privileges(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(socket.socket):
        def bind(self, _: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Closed)
    found = checkup._port("tcp:104", None)
    assert (found.verdict, found.text) == (Verdict.FAIL, "needs privileges")


@pytest.mark.slow
def test_a_running_node_is_recognized(tmp_path: Path, capsys: Captured) -> None:
    """Its port, its storage directory and its database are right."""
    node = Node(tmp_path)
    node.start()
    try:
        assert pid_of_node(node.storage) == node.pid
        port = node.address.port
        arguments = ["--storage", str(node.storage), "--listen", f"tcp:{port}:interface=127.0.0.1"]
        assert netdicom(["doctor", "--json", *arguments]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        said = {each["about"].split()[0]: each["text"] for each in lines}
        assert said["port"] == f"is held by the running node (process {node.pid})"
        assert said["storage"] == f"a node runs on it (process {node.pid})"
        assert said["database"] == "passes its quick check"
    finally:
        node.kill()
    assert pid_of_node(node.storage) is None


# -- disk --------------------------------------------------------------------------------------------


def test_a_storage_directory_that_is_made_later() -> None:
    storage, disk, room, kind = findings()[1:5]
    assert storage.text == "does not exist; the node makes it at its first start"
    assert disk.text.startswith("takes files, and syncs one in ")
    assert room.text.endswith(" %)")
    assert kind.text != "is unknown"


def test_a_storage_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (found,) = about("storage", "--storage", "file")
    assert (found.verdict, found.text) == (Verdict.FAIL, "is not a directory")


def test_a_disk_that_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = checkup._written(tmp_path)
    assert (found.verdict, found.text) == (
        Verdict.FAIL,
        "cannot be written: No space left on device",
    )


def test_a_slow_disk_and_file_systems_that_promise_little(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(checkup, "_SLOW", 0.0)
    assert checkup._written(tmp_path).verdict is Verdict.WARN
    for kind in ("nfs4", "tmpfs"):
        monkeypatch.setattr(checkup, "_kind_of_file_system", lambda _, kind=kind: kind)
        found = checkup._file_system(tmp_path)
        assert (found.verdict, found.text) == (Verdict.WARN, f"is {kind}")


@pytest.mark.parametrize(
    ("free", "verdict"), [(5, Verdict.FAIL), (15, Verdict.WARN), (50, Verdict.OK)]
)
def test_room_is_compared_with_the_reserve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, verdict: Verdict
) -> None:
    """A node keeps 5 % of a small disk for itself."""
    (tmp_path / "incoming").mkdir()
    before = os.statvfs(tmp_path)
    values = list(before)
    values[1], values[2], values[4] = 1, 100, free  # f_frsize, f_blocks, f_bavail
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(values))
    assert checkup._room(tmp_path).verdict is verdict


# -- clock -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "verdict"), [(True, Verdict.OK), (None, Verdict.OK), (False, Verdict.WARN)]
)
def test_a_clock_that_nothing_synchronizes(
    monkeypatch: pytest.MonkeyPatch, state: bool | None, verdict: Verdict
) -> None:
    monkeypatch.setattr(checkup, "_is_synchronized", lambda: state)
    (found,) = checkup._clock()
    assert found.verdict is verdict


def test_a_clock_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_OLDEST", datetime.now(UTC) + timedelta(days=1))
    (found,) = checkup._clock()
    assert found.verdict is Verdict.FAIL


def test_the_kernel_is_asked() -> None:
    assert checkup._is_synchronized() in (True, False, None)


# -- descriptors -------------------------------------------------------------------------------------


def test_the_limit_of_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = about("open files")
    assert found.verdict is Verdict.OK
    monkeypatch.setattr("netdicom_tx.descriptors.associations_for", lambda wanted: wanted - 1)
    (found,) = about("open files", "--max-associations", "7")
    assert found.verdict is Verdict.WARN
    assert "6 associations instead of 7" in found.text


# -- database ----------------------------------------------------------------------------------------


def database(path: Path, version: int | None) -> str:
    with closing(sqlite3.connect(path)) as made:
        if version is not None:
            made.execute("CREATE TABLE schema_version (version INTEGER)")
            made.execute("INSERT INTO schema_version VALUES (?)", (version,))
            made.commit()
        else:
            made.execute("CREATE TABLE other (x INTEGER)")
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("version", "verdict", "text"),
    [
        (None, Verdict.OK, "is empty"),
        (VERSION, Verdict.OK, f"has schema version {VERSION}"),
        (VERSION - 1, Verdict.WARN, f"has schema version {VERSION - 1}"),
        (VERSION + 1, Verdict.FAIL, f"has schema version {VERSION + 1}"),
    ],
)
def test_the_version_of_the_tables(
    tmp_path: Path, version: int | None, verdict: Verdict, text: str
) -> None:
    found, whole = about("database", "--database", database(tmp_path / "index.db", version))
    assert found.verdict is verdict
    assert text in found.text
    assert whole.text == "passes its quick check"


def test_a_storage_and_the_database_of_another(tmp_path: Path) -> None:
    places: list[tuple[str, ...]] = []
    for name in ("one", "two"):
        store = FileStore(tmp_path / name, fsync=False)
        url = f"sqlite:///{tmp_path}/{name}.db"
        index = Index(url, root=store.root)
        open_archive(store, index)
        index.close()
        store.close()
        places.append(("--storage", str(store.root), "--database", url))
    (right,) = about("archive", *places[0])
    assert right.verdict is Verdict.OK
    assert right.text == f"{tmp_path}/one and its database belong together"
    (wrong,) = about("archive", *places[0][:2], *places[1][2:])
    assert wrong.verdict is Verdict.FAIL
    assert f"the store {tmp_path}/one belongs to another database than" in wrong.text
    assert wrong.hint.startswith("name the database of this store")


def test_a_store_that_another_database_uses(tmp_path: Path) -> None:
    """Both were restored from one backup, and have one identity."""
    (tmp_path / "shared").mkdir()
    url = PostgreSQL.running().url(str(tmp_path))
    store = SharedStore(tmp_path / "one", DirectoryObjects(tmp_path / "shared", fsync=False))
    index = Index(url, root=store.root)
    store.bind(index)
    open_archive(store, index)
    index.close()
    store.close()
    path = tmp_path / "node.toml"
    path.write_text(
        f'[storage]\ndirectory = "{tmp_path}/one"\nurl = "file://{tmp_path}/shared"\n'
        f'[database]\nurl = "{url}"\n'
    )
    (right,) = about("archive", "--config", str(path))
    assert right.verdict is Verdict.OK
    other = {"node": "x", "name": "other", "host": "there", "database": "d", "when": time.time()}
    (tmp_path / "shared/used-by.json").write_text(json.dumps(other))
    (wrong,) = about("archive", "--config", str(path))
    assert wrong.verdict is Verdict.FAIL
    assert wrong.text.startswith("the node other on there used the store")
    assert wrong.hint.startswith("give one of them a copy of the store")


def test_the_clock_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = PostgreSQL.running().url(str(tmp_path))
    _, clock, *_ = about("database", "--database", url)
    assert clock.verdict is Verdict.OK
    monkeypatch.setattr(members, "database_time", lambda _: time.time() - 600)
    _, clock, *_ = about("database", "--database", url)
    assert clock.verdict is Verdict.FAIL
    assert re.match(r"its clock differs by (599\.\d|600\.\d) s from that of this", clock.text)


def test_a_database_that_a_power_cut_may_damage(tmp_path: Path) -> None:
    """The server of the tests runs so, and syncs nothing."""
    _, _, *disk = about("database", "--database", PostgreSQL.running().url(str(tmp_path)))
    (found,) = disk
    assert found.verdict is Verdict.WARN
    assert found.text.startswith("its server runs with fsync = off")
    assert found.hint.startswith("set fsync = on in postgresql.conf")


def test_a_damaged_database(tmp_path: Path) -> None:
    path = tmp_path / "index.db"
    url = database(path, VERSION)
    octets = path.read_bytes()
    path.write_bytes(octets[:4096] + b"\xff" * (len(octets) - 4096))
    assert about("database", "--database", url)[-1].verdict is Verdict.FAIL
    path.write_bytes(b"no database" * 1000)
    (found,) = about("database", "--database", url)
    assert "cannot be used: file is not a database" in found.text


def test_a_database_that_nobody_serves() -> None:
    """The password is not shown."""
    warned, found = about("database", "--database", "nodb://u:geheim@h/d")
    assert warned.verdict is Verdict.WARN
    assert "every user of this machine can read it" in warned.text
    assert found.verdict is Verdict.FAIL
    assert "geheim" not in str((warned, found))
    (found,) = about("database", "--database", "geheim")
    assert found.verdict is Verdict.FAIL
    assert "geheim" not in str(found)


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "verdict"), [(400, Verdict.OK), (10, Verdict.WARN), (-10, Verdict.FAIL)]
)
def test_a_certificate_has_time_left(tmp_path: Path, days: int, verdict: Verdict) -> None:
    now = datetime.now(UTC)
    made = trustme.CA().issue_cert(
        "localhost", not_before=now - timedelta(days=30), not_after=now + timedelta(days=days)
    )
    path = tmp_path / "node.pem"
    made.private_key_and_cert_chain_pem.write_to_path(path)
    path.chmod(0o644)
    options = ("--tls-certificate", str(path), "--tls-listen", "tcp:0:interface=127.0.0.1")
    (found,) = about("certificate", *options)
    assert found.verdict is verdict
    (key,) = about("private key", *options)
    assert (key.verdict, key.hint) == (Verdict.WARN, f"chmod 600 {path}")
    path.chmod(0o600)
    (key,) = about("private key", *options)
    assert key.verdict is Verdict.OK


def test_files_that_are_gone(tmp_path: Path) -> None:
    assert checkup._validity(tmp_path / "none").verdict is Verdict.FAIL
    assert checkup._privacy(tmp_path / "none").verdict is Verdict.FAIL
    (tmp_path / "empty").write_bytes(b"")
    assert "holds no certificate" in checkup._validity(tmp_path / "empty").text


def test_the_audit_trail(tmp_path: Path) -> None:
    (found,) = about("audit", "--audit", str(tmp_path / "trail.xml"))
    assert found.verdict is Verdict.OK
    (found,) = about("audit", "--audit", str(tmp_path / "none" / "trail.xml"))
    assert found.verdict is Verdict.FAIL


# -- the command -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_peer_is_asked(tmp_path: Path) -> None:
    """A peer that does not answer is a warning: it may be switched off."""
    node = Node(tmp_path)
    node.start()
    try:
        with dead_port() as nobody:
            done = run(
                *(sys.executable, "-m", "netdicom_tx", "doctor", *LISTEN),
                *("--peer", f"NETDICOM@127.0.0.1:{node.address.port}"),
                *("--peer", f"OFF@127.0.0.1:{nobody}"),
            )
    finally:
        node.kill()
    assert done.returncode == 0, done.stdout
    assert "ok    peer NETDICOM: answers C-ECHO" in done.stdout
    assert "warn  peer OFF: OFF refused the connection" in done.stdout
    assert " 0 failures" in done.stdout


def test_a_wrong_configuration_is_told_and_the_rest_is_checked(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netdicom_tx.options.find_spec", lambda _: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / "node.toml").write_text(f"""
[node]
aet = "LONGER_THAN_SIXTEEN"
listen = ["tcp:{taken.getsockname()[1]}:interface=127.0.0.1", "nonsense"]
[http]
listen = "tcp:0:interface=127.0.0.1"
[database]
url_file = "none"
[worklist]
forward_mpps = ["A"]
[[peer]]
title = "A"
host = "127.0.0.1"
port = 0
[[peer]]
title = "B"
host = "127.0.0.1"
port = 104
""")
        assert netdicom(["doctor", "--config", "node.toml", "--no-peers"]) == 78
    said = capsys.readouterr()
    wrong = [each for each in said.out.splitlines() if each.startswith("fail  configuration")]
    assert [each.split(": ")[1] for each in wrong] == [
        *("line 3", "line 4", "line 6", "line 8", "line 14")
    ]
    assert "is in use by another program" in said.out
    assert "database" not in said.out.replace(wrong[3], "")  # it is not known which one is meant
    assert "6 failures" in said.err


@pytest.mark.slow
def test_a_wrong_configuration_keeps_no_peer_from_being_asked(tmp_path: Path) -> None:
    with dead_port() as nobody:
        (tmp_path / "node.toml").write_text(f"""
[node]
listen = ["tcp:0:interface=127.0.0.1"]
unknown = 1
[[peer]]
title = "A"
port = 104
[[peer]]
title = "B"
host = "127.0.0.1"
port = {nobody}
""")
        done = run(sys.executable, "-m", "netdicom_tx", "doctor", "--config", "node.toml")
    assert done.returncode == 78, done.stdout
    assert "warn  peer B: B refused the connection" in done.stdout
    assert "peer A" not in done.stdout


def test_a_file_that_cannot_be_read_says_nothing_of_the_node(capsys: Captured) -> None:
    assert netdicom(["doctor", "--config", "none.toml"]) == 78
    out = capsys.readouterr().out
    assert "fail  configuration none.toml: No such file" in out
    assert "Python" in out
    assert "port" not in out
    assert "storage" not in out


def test_a_right_configuration_is_a_line(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "node.toml").write_text('[node]\nlisten = ["tcp:0:interface=127.0.0.1"]\n')
    assert netdicom(["doctor", "--config", "node.toml"]) == 0
    assert "ok    configuration node.toml: has no mistake" in capsys.readouterr().out


def test_a_failure_is_an_exit_code(tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert netdicom(["doctor", *LISTEN, "--storage", "file"]) == 1
    assert "fail  storage" in capsys.readouterr().out
    assert netdicom(["doctor", "--config", "none.toml"]) == 78
    assert netdicom(["doctor", "--max-associations", "many"]) == 2
