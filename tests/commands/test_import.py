"""netdicom import, as a process and in this one."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netdicom_tx.archive import FileStore, Index
from netdicom_tx.archive.store.reconcile import verify
from netdicom_tx.commands import run
from support.archive.part10_files import facts, write
from support.commands.running import Netdicom, environment, three_lines
from support.node import Node
from support.processes import eventually

MANY = 1500


def sound(storage: Path) -> int:
    """How many instances an archive has; every row is that of its file."""
    with Index(f"sqlite:///{storage / 'index.db'}", root=storage) as index:
        assert not list(verify(index))
        return index.counts().instances


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Three instances and two other files."""
    for number in range(3):
        write(tmp_path / "in" / "a" / f"{number}.dcm", f"1.{number}")
    (tmp_path / "in" / "readme").write_text("no instance")
    write(tmp_path / "in" / "DICOMDIR", "1.9", SOPClassUID="1.2.840.10008.1.3.10")
    return tmp_path / "in"


def test_a_directory_is_imported_and_is_found_at_once(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = tmp_path / "archive"
    before = facts(files)
    arguments = ["import", str(files), "--storage", str(storage), "--jobs", "1"]
    assert run(arguments) == 0
    assert "5 files: 3 stored" in capsys.readouterr().err
    assert sound(storage) == 3
    assert run([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {name: document[name] for name in ("stored", "same", "skipped", "failed")} == {
        "stored": 0,
        "same": 3,
        "skipped": 2,
        "failed": 0,
    }
    assert facts(files) == before


def test_the_configuration_file_of_the_node_names_the_archive(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "node.toml"
    config.write_text(
        f'[storage]\ndirectory = "{tmp_path / "archive"}"\nduplicates = "keep-both"\n'
    )
    write(files / "other.dcm", "1.0", PatientName="OTHER")
    arguments = ["import", str(files), "--config", str(config), "--jobs", "1"]
    assert run(arguments) == 0
    assert "1 kept aside" in capsys.readouterr().err
    assert len(list(FileStore(tmp_path / "archive").versions())) == 1
    assert run([*arguments, "--storage", str(tmp_path)]) == 2
    config.write_text("[storage]\ndirectry = 1\n")
    assert run(arguments) == 78


def test_what_could_not_be_imported_is_named(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = write(files / "cut.dcm", "1.7")
    cut.write_bytes(cut.read_bytes()[:-10])
    write(files / "z.dcm", "1.0", PatientName="OTHER")
    storage = str(tmp_path / "archive")
    assert run(["import", str(files), "--storage", storage, "--jobs", "1"]) == 1
    err = capsys.readouterr().err
    assert f"failed: {cut}: " in err
    assert "refused: " in err
    assert "2 files could not be imported" in err
    assert three_lines(err)


def test_without_an_instance_there_is_nothing_to_import(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    assert run(["import", str(tmp_path / "in"), "--storage", str(tmp_path / "archive")]) == 10
    assert run(["import", str(tmp_path / "absent"), "--storage", str(tmp_path / "archive")]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    assert run(["import", str(tmp_path / "in"), "--storage", str(tmp_path / "other")]) == 2
    assert "is not the storage directory of a node" in capsys.readouterr().err


def test_a_full_disk_is_a_code_of_its_own(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FileStore, "has_room", lambda *_: False)
    storage = str(tmp_path / "archive")
    assert run(["import", str(files), "--storage", storage, "--jobs", "1"]) == 11
    assert "No space left on device" in capsys.readouterr().err


def test_a_dicomdir_stands_for_its_medium(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """PS3.10 8.6: what it names must be there."""
    storage, medium = tmp_path / "archive", tmp_path / "medium"
    assert run(["import", str(files / "a"), "-s", str(storage), "--jobs", "1"]) == 0
    assert run(["export", "-s", str(storage), "--all", "--dicomdir", "-o", str(medium)]) == 0
    arguments = ["import", str(medium / "DICOMDIR"), "-s", str(tmp_path / "other"), "--jobs", "1"]
    assert run(arguments) == 0
    assert sound(tmp_path / "other") == 3
    one = next(path for path in medium.rglob("IM*") if path.is_file())
    one.unlink()
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["same"], document["missing"]) == (2, 1)
    assert document["failures"][0]["path"] == str(one)
    (medium / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert run(arguments) == 1


@pytest.mark.slow
def test_a_running_node_serves_what_is_imported(
    netdicom: Netdicom, files: Path, tmp_path: Path
) -> None:
    node = Node(tmp_path)
    node.start()
    peer = f"{node.ae_title}@127.0.0.1:{node.address.port}"
    for uid, name in (("1.0", "0.dcm"), ("1.50", "50.dcm")):
        assert netdicom("store", peer, write(tmp_path / "sent" / name, uid), "-q").returncode == 0
    done = netdicom("import", files, "-s", node.storage, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["stored"], document["same"]) == (2, 1)
    assert netdicom("store", peer, files / "a", "-q").returncode == 0
    done = netdicom("get", peer, "-k", "StudyInstanceUID=2.1", "-o", "out")
    assert done.returncode == 0, done.stderr
    assert len(list((netdicom.directory / "out").rglob("*.dcm"))) == 4
    node.stop()
    assert sound(node.storage) == 4


def many(directory: Path) -> Path:
    for number in range(MANY):
        write(directory / f"{number // 100}" / f"{number}.dcm", f"1.{number}", pixels=2048)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--copy", "--link", "--move"])
def test_an_import_that_was_killed_is_done_again(
    netdicom: Netdicom, tmp_path: Path, how: str
) -> None:
    """Nothing is half there after the kill, and the second run stores the rest."""
    files = many(tmp_path / "in")
    before = facts(files)
    storage = tmp_path / "archive"
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "netdicom_tx",
            "import",
            files,
            "--storage",
            storage,
            how,
            "--jobs",
            "2",
        ],
        env=environment(tmp_path),
        stderr=subprocess.DEVNULL,
    )
    eventually(lambda: any(storage.glob("instances/*/*.dcm")), "stored file")
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert sound_files(storage)
    # The processes of the killed one may still end what they have begun.
    done = eventually(lambda: again(netdicom, files, storage, how), "import without another one")
    document = json.loads(done.stdout)
    assert document["failed"] == document["refused"] == 0
    if how == "--move":
        assert not facts(files)
    else:
        assert document["stored"] + document["same"] == MANY
        assert facts(files) == before
    assert sound(storage) == MANY
    assert [each.name for each in (storage / "importing").iterdir()] == ["lock"]


def again(
    netdicom: Netdicom, files: Path, storage: Path, how: str
) -> "subprocess.CompletedProcess[str] | None":
    done = netdicom("import", files, "--storage", storage, how, "--json")
    return done if done.returncode == 0 else None


def sound_files(storage: Path) -> bool:
    """Whether each file that has its name is whole: its data set has all its pixels."""
    sizes = {path.stat().st_size for path in storage.glob("instances/*/*.dcm")}
    return all(size > 2048 for size in sizes)


def test_ctrl_c_ends_an_import_in_order(tmp_path: Path) -> None:
    files = many(tmp_path / "in")
    storage = tmp_path / "archive"
    process = subprocess.Popen(
        [sys.executable, "-m", "netdicom_tx", "import", files, "--storage", storage, "--jobs", "2"],
        env=environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    eventually(lambda: any(storage.glob("instances/*/*.dcm")), "stored file")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # It may have been done already.
    assert process.returncode in (130, 0), err
    assert sound(storage) == int(err.split(" files: ")[1].split(" stored")[0])
