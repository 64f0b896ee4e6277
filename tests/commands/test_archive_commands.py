"""netdicom reindex and netdicom verify, on the directory of a node that does not run."""

import hashlib
import json
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from netdicom_tx.archive import Duplicates, FileStore, Index
from netdicom_tx.archive.store.filestore import Outcome
from netdicom_tx.archive.store.journal import Entry
from netdicom_tx.commands import run
from netdicom_tx.sopclass import Instance

NAMES = ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm"]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """Three instances that no row stands for."""
    made = FileStore(tmp_path / "archive", fsync=False)
    made.open()
    for name in NAMES:
        path = Path(str(get_testdata_file(name)))
        instance = Instance.of(path)
        spool = made.spool(
            instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax, "TEST"
        )
        spool.write(path.read_bytes()[instance.offset :])
        made.keep(spool)
        spool.close()
    made.close()
    return made


def indexed(store: FileStore) -> int:
    with Index(f"sqlite:///{store.root / 'index.db'}", root=store.root) as index:
        return index.counts().instances


@pytest.mark.slow
def test_files_without_rows_are_indexed(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["reindex", "--storage", str(store.root)]) == 0
    assert "3 instances: 0 agreed, 3 indexed" in capsys.readouterr().out
    assert indexed(store) == 3
    assert run(["reindex", "--storage", str(store.root), "--from-scratch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["indexed"] == 3


@pytest.mark.slow
def test_a_row_without_its_file_goes(store: FileStore, capsys: pytest.CaptureFixture[str]) -> None:
    run(["reindex", "--storage", str(store.root)])
    store.path(Instance.of(get_testdata_file("CT_small.dcm")).sop_instance_uid).unlink()
    capsys.readouterr()
    assert run(["reindex", "--storage", str(store.root)]) == 0
    assert "2 agreed, 0 indexed; 1 row without a file removed" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_is_named(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = store.instances / "00" / "broken.dcm"
    broken.write_bytes(b"nothing")
    assert run(["reindex", "--storage", str(store.root)]) == 1
    assert str(broken) in capsys.readouterr().err


def test_files_in_another_layout_are_named_and_are_not_a_success(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that were copied into the directory are not instances of the node."""
    study = store.instances / "1.2.3" / "1.2.3.1"
    study.mkdir(parents=True)
    for name in ("a.dcm", "b.dcm"):
        (study / name).write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    (store.instances / "c.dcm").touch()
    assert run(["reindex", "--storage", str(store.root)]) == 1
    out, err = capsys.readouterr()
    assert "3 instances: 0 agreed, 3 indexed" in out
    for path in (study / "a.dcm", study / "b.dcm", store.instances / "c.dcm"):
        assert f"not indexed: {path}: the file is not where a node keeps files" in err
    assert "error: 3 files could not be indexed" in err
    assert "netdicom import" in err
    assert run(["reindex", "--storage", str(store.root), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert len(document["misplaced"]) == 3
    assert document["error"]["code"] == 1


def test_a_directory_of_another_kind_is_refused_with_what_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.dcm", "b.dcm", "c.dcm", "d.dcm"):
        (tmp_path / name).touch()
    assert run(["reindex", "--storage", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert f"{tmp_path} holds a.dcm, b.dcm, c.dcm and 1 more" in err
    assert run(["verify", "--storage", str(tmp_path / "absent")]) == 2
    assert "No such file or directory" in capsys.readouterr().err


def test_verify_finds_what_has_changed(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """One octet of the pixel data, the size as before; another file is gone."""
    run(["reindex", "--storage", str(store.root)])
    assert run(["verify", "--storage", str(store.root)]) == 0
    changed, gone = (
        store.path(Instance.of(get_testdata_file(name)).sop_instance_uid) for name in NAMES[:2]
    )
    octets = bytearray(changed.read_bytes())
    octets[-1] ^= 1
    changed.write_bytes(octets)
    gone.unlink()
    capsys.readouterr()
    assert run(["verify", "--storage", str(store.root), "--json"]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(each["fault"], each["path"]) for each in found} == {
        ("changed", str(changed)),
        ("missing", str(gone)),
    }


def test_a_running_node_keeps_its_index(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.open()
    assert run(["reindex", "--storage", str(store.root)]) == 78
    assert "in use by another node" in capsys.readouterr().err
    store.close()


def test_reindex_makes_files_of_what_a_crash_has_left_in_the_journal(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also beside files of other programs. A directory of an earlier version has no journal, and gets one."""
    (store.root / "journal").rmdir()
    path = store.path(Instance.of(get_testdata_file("CT_small.dcm")).sop_instance_uid)
    octets = path.read_bytes()
    assert run(["reindex", "--storage", str(store.root)]) == 0
    store.journal.append([Entry(octets, hashlib.sha256(octets).digest())])
    store.journal.close()
    (store.root / "journal" / "README").touch()
    (store.root / "journal" / "0.segment").touch()
    path.unlink()
    capsys.readouterr()
    assert run(["reindex", "--storage", str(store.root)]) == 0
    assert "3 agreed" in capsys.readouterr().out
    assert path.read_bytes() == octets
    assert [each.name for each in (store.root / "journal").iterdir()] == ["README"]


def test_what_is_not_a_segment_is_one_sentence(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """No advice that does not help, such as to stop a node that does not run."""
    odd = store.root / "journal" / "0.segment"
    odd.mkdir()
    assert run(["reindex", "--storage", str(store.root)]) == 78
    err = capsys.readouterr().err
    assert f"it is not a regular file, so it must be moved away ({odd})" in err
    assert "stop" not in err


def test_another_directory_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("reindex", "verify"):
        assert run([name, "--storage", str(tmp_path)]) == 2
        assert "is not the storage directory of a node" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def changed(store: FileStore) -> FileStore:
    """The store with a second version of one instance."""
    both = FileStore(store.root, fsync=False, duplicates=Duplicates.KEEP_BOTH)
    both.open()
    path = Path(str(get_testdata_file("CT_small.dcm")))
    instance = Instance.of(path)
    spool = both.spool(
        instance.sop_class_uid, instance.sop_instance_uid, instance.transfer_syntax, "OTHER"
    )
    spool.write(
        path.read_bytes()[instance.offset :].replace(b"CompressedSamples", b"SomebodyElsesName")
    )
    assert both.keep(spool).outcome is Outcome.ASIDE
    spool.close()
    both.close()
    return both


def test_versions_are_listed(changed: FileStore, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is kept aside, with its sender and its time."""
    uid = Instance.of(get_testdata_file("CT_small.dcm")).sop_instance_uid
    (version,) = changed.versions()
    assert run(["versions", "--storage", str(changed.root)]) == 0
    out, err = capsys.readouterr()
    line = out.splitlines()[1].split("\t")
    assert (line[0], line[1], line[3], line[4]) == (
        uid,
        "OTHER",
        str(version.size),
        str(version.path),
    )
    assert "1 version of 1 instance" in err
    assert run(["versions", "--storage", str(changed.root), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sop_instance_uid"] == uid
    assert document["calling"] == "OTHER"
    assert Path(document["path"]) == version.path
    assert Path(document["first"]) == changed.path(uid)
    assert document["size"] == version.size


def test_a_version_is_adopted_as_an_instance_of_its_own(
    changed: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """PS3.3 C.12.1: other content, another SOP Instance UID, and an item that says which one it replaces."""
    (version,) = changed.versions()
    old = version.sop_instance_uid
    storage = ("--storage", str(changed.root))
    run(["reindex", *storage])
    capsys.readouterr()
    assert run(["versions", *storage, "--adopt", version.path.name, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["sop_instance_uid"] == old
    made = dcmread(document["path"])
    assert made.SOPInstanceUID == made.file_meta.MediaStorageSOPInstanceUID == document["adopted"]
    assert made.file_meta.SourceApplicationEntityTitle == "OTHER"
    (note,) = made.OriginalAttributesSequence
    assert note.ModifiedAttributesSequence[0].SOPInstanceUID == old
    assert note.SourceOfPreviousValues == "OTHER"
    assert indexed(changed) == 4
    assert list(changed.versions()) == []
    assert run(["verify", *storage]) == 0
    assert run(["reindex", *storage]) == 0
    assert "4 agreed, 0 indexed" in capsys.readouterr().out


def test_a_version_that_comes_again_is_adopted_once(
    changed: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its new UID follows from the old one and from the content, also after a crash between two steps."""
    (version,) = changed.versions()
    octets = version.path.read_bytes()
    adopt = ["versions", "--storage", str(changed.root), "--adopt", str(version.path)]
    run(["reindex", "--storage", str(changed.root)])
    assert run(adopt) == 0
    version.path.write_bytes(octets)
    capsys.readouterr()
    assert run(adopt) == 0
    assert "was adopted before" in capsys.readouterr().out
    assert indexed(changed) == 4
    assert list(changed.versions()) == []


def test_a_version_is_dropped(changed: FileStore, capsys: pytest.CaptureFixture[str]) -> None:
    (version,) = changed.versions()
    assert run(["versions", "--storage", str(changed.root), "--drop", version.path.name]) == 0
    assert f"{version.path.name} is deleted" in capsys.readouterr().out
    assert list(changed.versions()) == []


def test_a_version_that_does_not_exist_changes_nothing(
    changed: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = changed.versions()
    storage = ("--storage", str(changed.root))
    name = version.path.name
    assert run(["versions", *storage, "--drop", name, "--drop", "other.dcm"]) == 2
    assert "no version is called other.dcm" in capsys.readouterr().err
    assert run(["versions", *storage, "--drop", name, "--adopt", name]) == 2
    assert [each.path for each in changed.versions()] == [version.path]


def test_a_version_that_cannot_be_read_stays_aside(
    changed: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (version,) = changed.versions()
    octets = version.path.read_bytes()
    version.path.write_bytes(octets[: len(octets) // 2])
    storage = ("--storage", str(changed.root))
    assert run(["versions", *storage, "--adopt", version.path.name, "--json"]) == 1
    assert "could not be adopted" in capsys.readouterr().err
    assert [each.path for each in changed.versions()] == [version.path]
    assert len(list(changed.instances.rglob("*.dcm"))) == 3


def test_a_version_is_not_adopted_on_a_full_disk(
    changed: FileStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (version,) = changed.versions()
    monkeypatch.setattr(FileStore, "has_room", lambda self, octets=0: False)
    storage = ("--storage", str(changed.root))
    assert run(["versions", *storage, "--adopt", version.path.name]) == 11
    assert "No space left" in capsys.readouterr().err
    assert [each.path for each in changed.versions()] == [version.path]


def test_versions_are_not_indexed(changed: FileStore, capsys: pytest.CaptureFixture[str]) -> None:
    """What is kept aside is neither found nor sent, and is in nobody's way."""
    assert run(["reindex", "--storage", str(changed.root)]) == 0
    assert run(["verify", "--storage", str(changed.root)]) == 0
    assert indexed(changed) == 3


def test_without_versions_none_are_listed(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["versions", "--storage", str(store.root), "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["versions", "--storage", str(store.root / "absent")]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("source", ["file", "variable of the file", "variable"])
def test_the_configuration_of_the_node_names_its_directory(
    store: FileStore,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    source: str,
) -> None:
    """In a container, its variables do."""
    path = tmp_path / "node.toml"
    path.write_text(f'[storage]\ndirectory = "{store.root}"\n')
    arguments = ["--config", str(path)] if source == "file" else []
    if source == "variable of the file":
        monkeypatch.setenv("NETDICOM_CONFIG", str(path))
    elif source == "variable":
        monkeypatch.setenv("NETDICOM_STORAGE_DIRECTORY", str(store.root))
    assert run(["reindex", *arguments]) == 0
    assert "3 indexed" in capsys.readouterr().out
    for command in (["verify"], ["versions"], ["queue", "list"], ["schedule", "list"]):
        assert run([*command, *arguments]) == 0


def test_a_directory_has_one_source(
    store: FileStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option wins over a variable, and excludes the file."""
    monkeypatch.setenv("NETDICOM_STORAGE_DIRECTORY", "/none")
    assert run(["versions", "--storage", str(store.root)]) == 0
    assert run(["versions", "--storage", str(store.root), "--config", "node.toml"]) == 2
    assert "--config cannot be combined with --storage" in capsys.readouterr().err


def test_a_password_in_the_command_line_is_told(
    store: FileStore, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is used all the same, and not shown."""
    url = "nodb://me:geheim@host/archive"
    assert run(["reindex", "--storage", str(store.root), "--database", url]) != 0
    said = capsys.readouterr().err
    assert "warning: the password of the database stands in the command line" in said
    assert "geheim" not in said
