"""netdicom backup."""

import json
import shutil
from pathlib import Path

import pytest

from netdicom_tx.archive import FileStore
from netdicom_tx.commands import run
from support.archive.part10_files import write
from support.commands.running import Netdicom, three_lines
from support.node import Node


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for number in range(3):
        write(tmp_path / "in" / f"{number}.dcm", f"1.{number}")
    storage = tmp_path / "archive"
    assert run(["import", str(tmp_path / "in"), "-s", str(storage), "-q", "--jobs", "1"]) == 0
    return storage


def test_a_backup_is_made_and_checked(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "backup"
    assert run(["backup", str(target), "-s", str(storage), "--files", "copy"]) == 0
    assert "3 files in " in capsys.readouterr().err
    assert run(["backup", "--check", str(target)]) == 0
    assert run(["backup", str(target), "-s", str(storage), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["files"], document["added"], document["has_index"]) == (3, 0, True)
    path = target / FileStore(storage).path("1.1").relative_to(storage)
    path.unlink()
    assert run(["backup", "--check", str(target), "--json"]) == 1
    fault = json.loads(capsys.readouterr().out)
    assert fault["path"] == str(path.relative_to(target))


def test_a_backup_without_files_says_so(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could be taken for one that has them."""
    target = tmp_path / "backup"
    assert run(["backup", str(target), "-s", str(storage)]) == 0
    said = capsys.readouterr().err
    assert f"{target} lists 3 files" in said
    assert "no copies of them; --files copy makes some" in said
    assert run(["backup", str(target), "-s", str(storage), "--json", "--files", "copy"]) == 0
    assert json.loads(capsys.readouterr().out)["has_files"]


def test_what_cannot_be_backed_up_is_told(
    storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["backup", str(tmp_path / "in"), "-s", str(storage)]) == 2
    assert run(["backup", "--check", str(tmp_path / "in")]) == 2
    assert run(["backup", str(tmp_path / "backup"), "-s", str(tmp_path / "in")]) == 2
    path = FileStore(storage).path("1.1")
    path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()
    assert run(["backup", str(tmp_path / "b"), "-s", str(storage), "--files", "link"]) == 1
    err = capsys.readouterr().err
    assert "damaged: instances/" in err
    assert three_lines(err)


@pytest.mark.slow
def test_what_a_running_node_has_acknowledged_is_restored(
    netdicom: Netdicom, tmp_path: Path
) -> None:
    """The backup begins as soon as the last answer is there."""
    files = tmp_path / "in"
    for number in range(60):
        write(files / f"{number}.dcm", f"1.{number}")
    node = Node(tmp_path)
    node.start()
    peer = f"{node.ae_title}@127.0.0.1:{node.address.port}"
    assert netdicom("store", peer, files, "--quiet").returncode == 0
    target = tmp_path / "backup"
    done = netdicom("backup", target, "-s", node.storage, "--files", "link", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == 60
    node.stop()
    restored = tmp_path / "new"
    restored.mkdir()
    shutil.copytree(target, restored / "archive")
    again = Node(restored)
    again.start()
    peer = f"{again.ae_title}@127.0.0.1:{again.address.port}"
    done = netdicom("get", peer, "-k", "StudyInstanceUID=2.1", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 60
    again.stop()
    assert run(["verify", "-s", str(again.storage)]) == 0
