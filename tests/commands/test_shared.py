"""The commands that work on an archive, for a node that shares its store with others."""

import json
from pathlib import Path

import pytest

from netdicom_tx.archive import ArchiveAE, Duplicates, Index
from netdicom_tx.archive.store.objects import DirectoryObjects, ObjectStoreError
from netdicom_tx.archive.store.sharedstore import SharedStore
from netdicom_tx.commands import run
from support import doubles
from support.archive.archives import Archive, stored
from support.archive.databases import PostgreSQL
from support.archive.groups import of_study
from support.archive.part10_files import write

pytestmark = pytest.mark.interop

UID = "1.2.3"


class Stopped(Archive):
    """A node with one instance and a version of it, which is stopped; and the file of its configuration."""

    def __init__(self, folder: Path) -> None:
        (folder / "shared").mkdir()
        self.objects = DirectoryObjects(folder / "shared", fsync=False)
        database = PostgreSQL.running().url(str(folder))
        store = SharedStore(
            folder / "node", self.objects, fsync=False, duplicates=Duplicates.KEEP_BOTH
        )
        index = Index(database, root=store.root)
        doubles.Node.__init__(self, ArchiveAE("NODE", store, index, threads=0))
        self.ae.start()
        self.store, self.index = store, index
        for fill in (1, 2):
            assert stored(self.sender(), of_study(UID, fill=fill)) == 0x0000
        self.ae.stop()
        self.config = str(folder / "node.toml")
        Path(self.config).write_text(
            f'[storage]\ndirectory = "{store.root}"\nurl = "file://{folder / "shared"}"\n'
            f'[database]\nurl = "{database}"\n'
        )

    def keys(self, prefix: str = "instances/") -> list[str]:
        return [each.key for each in self.objects.list(prefix)]


@pytest.fixture
def node(tmp_path: Path) -> Stopped:
    return Stopped(tmp_path)


def test_files_are_compared_with_their_digests(
    node: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", "--config", node.config]) == 0
    (key,) = node.keys()
    node.objects.delete([key])
    assert run(["verify", "--config", node.config, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["fault"] == "missing"


def test_a_store_that_does_not_answer_is_told(
    node: Stopped, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ObjectStoreError("the store is away")

    monkeypatch.setattr(DirectoryObjects, "read", away)
    assert run(["verify", "--config", node.config]) == 1
    assert "the store is away" in capsys.readouterr().err


def test_instances_are_exported(node: Stopped, tmp_path: Path) -> None:
    assert run(["export", "--config", node.config, "--all", "-o", str(tmp_path / "out")]) == 0
    (file,) = (each for each in (tmp_path / "out").rglob("*") if each.is_file())
    assert of_study(UID, fill=1) in file.read_bytes()


def test_versions_are_listed_adopted_and_dropped(
    node: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    (key,) = node.keys("versions/")
    assert run(["versions", "--config", node.config]) == 0
    assert Path(key).name in capsys.readouterr().out
    assert run(["versions", "--config", node.config, "--adopt", Path(key).name]) == 0
    assert node.keys("versions/") == []
    assert len(node.keys()) == 2
    assert run(["verify", "--config", node.config]) == 0


def test_an_instance_is_deleted(node: Stopped) -> None:
    words = ["delete", "--config", node.config, "--instance", UID, "--yes"]
    assert run(words) == 0
    assert run(words) == 10
    assert len(node.keys()) == 1  # for retrieves of other nodes


def test_files_are_imported(
    node: Stopped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [write(tmp_path / "in" / f"{number}.dcm", f"1.{number}") for number in range(3)]
    other = write(tmp_path / "in" / "other.dcm", UID)
    assert run(["import", "--config", node.config, str(tmp_path / "in"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["stored"], told["refused"]) == (3, 1)
    assert [each["path"] for each in told["failures"]] == [str(other)]
    assert len(node.keys()) == 4
    other.unlink()
    assert run(["import", "--config", node.config, str(tmp_path / "in"), "--move"]) == 0
    assert not any(each.exists() for each in files)
    assert run(["verify", "--config", node.config]) == 0


def test_a_lost_database_is_made_anew_from_the_objects(
    node: Stopped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = Path(node.config).read_text()
    other = PostgreSQL.running().url(str(tmp_path / "new"))
    Path(node.config).write_text(
        text[: text.index("[database]")] + f'[database]\nurl = "{other}"\n'
    )
    assert run(["reindex", "--config", node.config]) == 78
    assert "which is empty" in capsys.readouterr().err
    assert run(["node", "adopt", "--config", node.config]) == 0
    assert run(["reindex", "--config", node.config]) == 0
    assert "1 instance: 1 object compared, 1 indexed" in capsys.readouterr().out
    assert run(["verify", "--config", node.config]) == 0
    assert run(["reindex", "--config", node.config, "--from-scratch"]) == 2
    assert "would find nothing" in capsys.readouterr().err


def test_objects_are_backed_up(
    node: Stopped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "backup")
    assert run(["backup", target, "--config", node.config, "--files", "copy"]) == 0
    assert "pg_dump, before this" in capsys.readouterr().err
    assert run(["backup", "--check", target]) == 0


def test_the_directory_alone_is_not_enough(
    node: Stopped, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", "--storage", str(node.store.root)]) != 0
    said = capsys.readouterr().err
    assert "keeps its instances in a store that nodes share" in said
    assert "--config" in said


def test_doctor_uses_the_store(
    node: Stopped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["doctor", "--config", node.config])
    assert "an object was put, read, listed and deleted" in capsys.readouterr().out
    (tmp_path / "shared").rename(tmp_path / "away")
    assert run(["doctor", "--config", node.config]) != 0
    assert "mount it, or create it once" in capsys.readouterr().out


def test_doctor_takes_an_empty_mount_point_for_what_it_is(
    node: Stopped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shared").rename(tmp_path / "away")
    (tmp_path / "shared").mkdir()
    assert run(["doctor", "--config", node.config]) != 0
    said = capsys.readouterr().out
    assert "no node has used it yet" in said
    assert "has no identity.json" in said
    assert list((tmp_path / "shared").iterdir()) == []
