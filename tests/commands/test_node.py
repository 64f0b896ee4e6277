"""``netdicom node``: who shares an archive, and what belongs together."""

import json
from pathlib import Path

import pytest

from netdicom_tx.archive import FileStore, Index
from netdicom_tx.archive.group.duties import Duties
from netdicom_tx.archive.group.members import DEAD_AFTER, Members, OwnNode
from netdicom_tx.archive.group.tables import node_table
from netdicom_tx.archive.store.deletion import open_archive
from netdicom_tx.archive.workflow.outbound import Queue
from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import ExitCode
from support.archive.databases import database_url
from support.archive.part10_files import write

Captured = pytest.CaptureFixture[str]


def test_the_nodes_of_a_database_are_listed(tmp_path: Path, capsys: Captured) -> None:
    url = database_url(tmp_path / "index.db")
    with Index(url) as index:
        for name in ("one", "two"):
            duties = Duties(name, ("scrub",))
            members = Members(
                index,
                OwnNode(
                    uuid=name, name=name, host="here", address="tcp:104", version="1.0", schema=4
                ),
                duties.renew,
            )
            members.join()
            members.beat({"associations": 7})
        queue = Queue(index, "one")
        queue.join("one")
        index.write_apart(lambda each: queue.put(each, "report", "PEER", {}, claimed=True))
        assert run(["node", "list", "--database", url, "--json"]) == ExitCode.OK
        said = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
        assert [(each["name"], each["state"], each["duties"]) for each in said] == [
            ("one", "alive", ["scrub"]),
            ("two", "alive", []),
        ]
        assert [each["tasks"] for each in said] == [1, 0]
        assert said[0]["associations"] == 7
        assert (said[0]["version"], said[0]["schema"]) == ("1.0", 4)
        late = node_table.update().where(node_table.c.uuid == "two")
        index.write_apart(
            lambda each: each.execute(late.values(seen=node_table.c.seen - DEAD_AFTER - 1))
        )
    assert run(["node", "list", "--database", url]) == ExitCode.SOME_FAILED
    told = capsys.readouterr()
    assert "dead" in told.out
    assert "2 nodes: 1 alive, 1 dead" in told.err


def test_a_node_that_is_alone_is_found_by_status(tmp_path: Path, capsys: Captured) -> None:
    """It has no row."""
    with Index(f"sqlite:///{tmp_path}/index.db"):
        pass
    assert run(["node", "list", "--database", f"sqlite:///{tmp_path}/index.db"]) == ExitCode.OK
    said = capsys.readouterr().err
    assert (
        said
        == "0 nodes: a node that is alone with SQLite is not listed; netdicom status shows it\n"
    )


@pytest.mark.sqlite
def test_a_list_makes_no_database(tmp_path: Path, capsys: Captured) -> None:
    assert (
        run(["node", "list", "--database", f"sqlite:///{tmp_path}/no.db"]) == ExitCode.CONFIGURATION
    )
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "no.db").exists()


@pytest.fixture
def storage(tmp_path: Path, capsys: Captured) -> Path:
    """A storage directory with an instance, which has lost its identity."""
    root = tmp_path / "archive"
    file = write(tmp_path / "in" / "one", "1.2.3")
    assert run(["import", str(file), "--storage", str(root)]) == ExitCode.OK
    (root / "identity.json").unlink()
    assert run(["reindex", "--storage", str(root)]) == ExitCode.CONFIGURATION
    assert "netdicom node adopt" in capsys.readouterr().err
    return root


def test_a_store_is_adopted(storage: Path, capsys: Captured) -> None:
    assert run(["node", "adopt", "--storage", str(storage)]) == ExitCode.OK
    assert "which has 1 instance" in capsys.readouterr().out
    assert run(["reindex", "--storage", str(storage)]) == ExitCode.OK
    assert "1 agreed" in capsys.readouterr().out


def test_a_store_without_the_files_is_adopted_only_on_purpose(
    storage: Path, capsys: Captured
) -> None:
    (file,) = (storage / "instances").glob("*/*.dcm")
    file.unlink()
    assert run(["node", "adopt", "--storage", str(storage)]) == ExitCode.CONFIGURATION
    assert "none of the files" in capsys.readouterr().err
    assert run(["node", "adopt", "--storage", str(storage), "--yes"]) == ExitCode.OK
    store = FileStore(storage)
    index = Index(f"sqlite:///{storage}/index.db", root=store.root)
    open_archive(store, index)
    index.close()
    store.close()
