"""Files of this machine are taken into an archive by the rules for instances that are sent."""

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive import Duplicates, FileStore, Index, IndexUnavailableError, StorageError
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store.filestore import Outcome
from netdicom_tx.archive.store.importing import (
    Source,
    Taken,
    What,
    committing,
    import_files,
    opened_for_import,
    processes,
    readers,
)
from netdicom_tx.archive.store.reconcile import verify
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.part10_files import facts, octets_of, write
from support.archive.records import CT_IMAGE_STORAGE
from support.part10 import data_set_bytes


class Archive:
    """An archive on which no node runs."""

    def __init__(self, root: Path, duplicates: Duplicates = Duplicates.KEEP) -> None:
        self.store = FileStore(root, fsync=False, duplicates=duplicates)
        self.store.open()
        self.store.close()
        self.index = Index(f"sqlite:///{root / 'index.db'}", root=root)

    def take(self, *paths: Path, **options: Any) -> dict[str, Taken]:
        """What has become of files, by their names."""
        self.index.close()
        with opened_for_import(self.store, self.index), readers(self.store, **options) as reader:
            self.index.open()
            found = import_files(self.store, self.index, reader, map(str, paths))
            return {Path(each.path).name: each for each in found}

    def has(self, uid: str) -> bool:
        ref = self.index.get(uid)
        return ref is not None and ref.path.exists()

    def is_sound(self) -> bool:
        """Whether each row is that of its file, and nothing temporary is left."""
        left = [each.name for each in (self.store.root / "importing").iterdir()]
        return not list(verify(self.index)) and left == ["lock"]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Archive]]:
    made: list[Archive] = []

    def archive(**options: Any) -> Archive:
        made.append(Archive(tmp_path / "archive", **options))
        return made[-1]

    yield archive
    for each in made:
        each.index.close()


@pytest.fixture
def archive(make: Callable[..., Archive]) -> Archive:
    return make()


@pytest.mark.parametrize("jobs", [1, 2])
def test_files_are_stored_and_their_originals_are_untouched(
    archive: Archive, tmp_path: Path, jobs: int
) -> None:
    files = [write(tmp_path / "in" / f"{number}.dcm", f"1.{number}") for number in range(20)]
    before = facts(tmp_path / "in")
    taken = archive.take(*files, jobs=jobs)
    assert {each.what for each in taken.values()} == {What.STORED}
    assert all(archive.has(f"1.{number}") for number in range(20))
    assert archive.index.counts()[:4] == (1, 1, 1, 20)
    assert archive.is_sound()
    assert facts(tmp_path / "in") == before


def test_a_copy_has_the_data_set_behind_a_header_of_our_own(
    archive: Archive, tmp_path: Path
) -> None:
    """The preamble of a file may contain a program (PS3.10 7.5); it is not kept."""
    file = write(tmp_path / "a.dcm", "1.1")
    file.write_bytes(b"MZ" * 64 + file.read_bytes()[128:])
    assert archive.take(file)["a.dcm"].what is What.STORED
    stored = archive.store.path("1.1")
    assert stored.read_bytes()[:128] == bytes(128)
    assert data_set_bytes(stored) == data_set_bytes(file)
    assert stored.stat().st_mode & 0o777 == 0o600


def test_the_uids_of_the_data_set_count(archive: Archive, tmp_path: Path) -> None:
    """PS3.4 B.2.2; some writers leave other ones in the header. Such a file cannot be linked."""
    file = write(tmp_path / "a.dcm", "1.1", header_uid="9.9")
    taken = archive.take(file, source=Source.LINK)["a.dcm"]
    assert (taken.what, taken.sop_instance_uid, taken.is_linked) == (What.STORED, "1.1", False)
    assert archive.is_sound()


def test_what_is_sent_later_is_the_same_instance(archive: Archive, tmp_path: Path) -> None:
    archive.take(write(tmp_path / "a.dcm", "1.1"))
    archive.store.open()
    with archive.store.spool(CT_IMAGE_STORAGE, "1.1", EXPLICIT_VR_LITTLE_ENDIAN, "CT1") as spool:
        spool.write(octets_of("1.1"))
        assert archive.store.keep(spool).outcome is Outcome.SAME
    archive.store.close()


def test_a_link_is_a_second_name_of_the_file(archive: Archive, tmp_path: Path) -> None:
    file = write(tmp_path / "in" / "a.dcm", "1.1")
    before = facts(tmp_path / "in")
    assert archive.take(file, source=Source.LINK)["a.dcm"].is_linked
    assert archive.store.path("1.1").samefile(file)
    again = archive.take(file, source=Source.LINK)["a.dcm"]
    assert again.what is What.SAME
    assert facts(tmp_path / "in") == before
    assert archive.is_sound()


@pytest.mark.parametrize("left_out", [128, 132, None], ids=["preamble", "prefix", "header"])
@pytest.mark.parametrize("source", list(Source))
def test_a_file_of_an_older_system_gets_a_header_of_our_own(
    archive: Archive, tmp_path: Path, source: Source, left_out: int | None
) -> None:
    """It has no preamble, or no header at all, so it cannot get a second name."""
    file = write(tmp_path / "in" / "a.dcm", "1.1")
    whole = file.read_bytes()
    data = octets_of("1.1")
    file.write_bytes(data if left_out is None else whole[left_out:])
    taken = archive.take(file, source=source)["a.dcm"]
    assert (taken.what, taken.is_linked) == (What.STORED, False)
    assert archive.store.path("1.1").read_bytes().endswith(data)
    assert archive.store.path("1.1").read_bytes()[128:132] == b"DICM"
    assert archive.is_sound()
    if source is not Source.MOVE:
        assert archive.take(file, source=source)["a.dcm"].what is What.SAME


def test_a_symbolic_link_is_copied(archive: Archive, tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", "1.1")
    (tmp_path / "b.dcm").symlink_to("a.dcm")
    assert not archive.take(tmp_path / "b.dcm", source=Source.LINK)["b.dcm"].is_linked
    assert archive.is_sound()


def test_a_file_system_without_links_gets_copies(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.dcm", "1.1")

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    taken = archive.take(file, source=Source.LINK)["a.dcm"]
    assert (taken.what, taken.is_linked) == (What.STORED, False)
    assert not archive.store.path("1.1").samefile(file)
    assert archive.is_sound()


def test_moving_removes_what_is_in_the_archive_and_nothing_else(
    archive: Archive, tmp_path: Path
) -> None:
    archive.take(write(tmp_path / "first.dcm", "1.1"))
    files = [
        write(tmp_path / "new.dcm", "1.2"),
        write(tmp_path / "same.dcm", "1.1"),
        write(tmp_path / "other.dcm", "1.1", PatientName="OTHER"),
        tmp_path / "text.txt",
    ]
    files[3].write_text("no instance")
    taken = archive.take(*files, source=Source.MOVE)
    assert [each.exists() for each in files] == [False, False, True, True]
    assert {name for name, each in taken.items() if each.is_removed} == {"new.dcm", "same.dcm"}
    assert archive.has("1.2")
    assert archive.store.path("1.2").stat().st_mode & 0o777 == 0o600
    assert archive.is_sound()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_file_that_is_named_twice_is_moved_once(
    archive: Archive, tmp_path: Path, jobs: int
) -> None:
    file, other = write(tmp_path / "a.dcm", "1.1"), write(tmp_path / "b.dcm", "1.2")
    (tmp_path / "link.dcm").symlink_to(file)
    paths = (file, tmp_path / "link.dcm", other)
    taken = archive.take(*paths, source=Source.MOVE, jobs=jobs)
    assert taken["a.dcm"].what is What.STORED
    assert (taken["link.dcm"].what, taken["link.dcm"].reason) == (
        *(What.FAILED, "No such file or directory"),
    )
    assert taken["b.dcm"].what is What.STORED
    assert not file.exists()
    assert archive.is_sound()


def test_moving_keeps_the_file_until_its_row_is_committed(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.dcm", "1.1")

    def refuse(_: object) -> None:
        raise IndexUnavailableError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(archive.index, "add_many", refuse)
        with pytest.raises(IndexUnavailableError):
            archive.take(file, source=Source.MOVE)
    assert file.exists()
    taken = archive.take(file, source=Source.MOVE)["a.dcm"]
    assert (taken.what, taken.is_removed) == (What.SAME, True)
    assert archive.has("1.1")


def test_a_file_of_the_archive_is_never_removed(archive: Archive, tmp_path: Path) -> None:
    archive.take(write(tmp_path / "a.dcm", "1.1"))
    (tmp_path / "way").symlink_to(archive.store.root)
    stored = archive.store.path("1.1")
    around = tmp_path / "way" / stored.relative_to(archive.store.root)
    taken = archive.take(stored, source=Source.MOVE)[stored.name]
    assert taken.what is What.SKIPPED
    assert archive.take(around, source=Source.MOVE)[stored.name].what is What.SAME
    assert stored.exists()


@pytest.mark.parametrize(
    ("rule", "what"),
    [
        (Duplicates.KEEP, What.REFUSED),
        (Duplicates.REPLACE, What.REPLACED),
        (Duplicates.KEEP_BOTH, What.ASIDE),
    ],
)
def test_other_content_is_decided_about_as_when_it_is_sent(
    make: Callable[..., Archive], tmp_path: Path, rule: Duplicates, what: What
) -> None:
    archive = make(duplicates=rule)
    first = write(tmp_path / "first.dcm", "1.1")
    other = write(tmp_path / "other.dcm", "1.1", PatientName="OTHER")
    archive.take(first)
    assert archive.take(other)["other.dcm"].what is what
    kept = data_set_bytes(archive.store.path("1.1"))
    assert (kept == data_set_bytes(other)) is (what is What.REPLACED)
    assert len(list(archive.store.versions())) == (what is What.ASIDE)
    assert archive.is_sound()


def test_two_files_of_one_import_with_one_uid(archive: Archive, tmp_path: Path) -> None:
    taken = archive.take(
        write(tmp_path / "a.dcm", "1.1"),
        write(tmp_path / "b.dcm", "1.1"),
        write(tmp_path / "c.dcm", "1.1", PatientName="OTHER"),
    )
    assert [each.what for each in taken.values()] == [What.STORED, What.SAME, What.REFUSED]
    assert archive.is_sound()


def test_what_is_not_an_instance_is_passed_over(archive: Archive, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("text", "empty", "DICOMDIR", "pipe")}
    files["text"].write_text("words " * 100)
    files["empty"].touch()
    write(files["DICOMDIR"], "1.1", SOPClassUID="1.2.840.10008.1.3.10")
    os.mkfifo(files["pipe"])
    taken = archive.take(*files.values())
    assert {each.what for each in taken.values()} == {What.SKIPPED}


def test_what_a_node_would_refuse_is_refused(archive: Archive, tmp_path: Path) -> None:
    cut = write(tmp_path / "cut", "1.1")
    cut.write_bytes(cut.read_bytes()[:-10])
    private = write(tmp_path / "private", "1.2", SOPClassUID="1.2.3.4")
    taken = archive.take(cut, private, tmp_path / "absent")
    assert {each.what for each in taken.values()} == {What.FAILED}
    assert "not a storage SOP class" in taken["private"].reason
    assert taken["absent"].reason == "No such file or directory"
    assert archive.take(private, unknown_sop_classes=True)["private"].what is What.STORED


def test_large_files_are_copied_in_pieces(archive: Archive, tmp_path: Path) -> None:
    large = write(tmp_path / "large.dcm", "1.1", pixels=(1 << 22) + 1000)
    assert archive.take(large)["large.dcm"].what is What.STORED
    assert data_set_bytes(archive.store.path("1.1")) == data_set_bytes(large)
    assert archive.take(large)["large.dcm"].what is What.SAME
    other = write(tmp_path / "other.dcm", "1.1", pixels=(1 << 22) + 1002)
    assert archive.take(other)["other.dcm"].what is What.REFUSED
    linked = write(tmp_path / "linked.dcm", "1.2", pixels=(1 << 22) + 1000)
    assert archive.take(linked, source=Source.LINK)["linked.dcm"].is_linked
    assert archive.is_sound()


def test_files_that_a_kill_has_left_without_rows_get_them(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [write(tmp_path / f"{number}.dcm", f"1.{number}") for number in range(3)]
    with monkeypatch.context() as patched:
        patched.setattr(committing.Committing, "begin", _killed)
        with pytest.raises(KeyboardInterrupt):
            archive.take(*files)
    assert archive.store.path("1.1").exists()
    assert not archive.has("1.1")
    (archive.store.root / "importing" / "1-7").write_bytes(b"a half")
    assert {each.what for each in archive.take(*files).values()} == {What.SAME}
    assert all(archive.has(f"1.{number}") for number in range(3))
    assert archive.is_sound()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_row_is_that_of_the_file_when_a_node_has_stored_the_instance_meanwhile(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has had it in its journal, and puts its own file in the place of ours."""
    file = write(tmp_path / "a.dcm", "1.1")
    other = write(tmp_path / "b.dcm", "1.1", PatientName="OTHER")
    begin = committing.Committing.begin

    def meanwhile(self: Any, group: list[Any]) -> Any:
        archive.store.place(archive.store.path_text("1.1"), other.read_bytes())
        return begin(self, group)

    monkeypatch.setattr(committing.Committing, "begin", meanwhile)
    taken = archive.take(file, source=Source.MOVE)["a.dcm"]
    assert (taken.what, taken.is_removed) == (What.REFUSED, False)
    assert file.exists()
    ref = archive.index.get("1.1")
    assert ref is not None
    assert ref.size == other.stat().st_size


def test_an_import_beside_a_running_node(archive: Archive, tmp_path: Path) -> None:
    node = FileStore(archive.store.root, fsync=False)
    node.open()
    assert archive.take(write(tmp_path / "a.dcm", "1.1"))["a.dcm"].what is What.STORED
    archive.store.duplicates = Duplicates.REPLACE
    with pytest.raises(StorageError, match="a node is running"):
        archive.take(tmp_path / "a.dcm")
    node.close()


def test_a_process_that_dies_ends_the_import(archive: Archive, tmp_path: Path) -> None:
    file = write(tmp_path / "a.dcm", "1.1")
    with (
        opened_for_import(archive.store, archive.index),
        readers(archive.store, jobs=2) as reader,
        archive.index,
    ):
        assert isinstance(reader, processes.Processes)
        for each in reader._processes:
            each.process.kill()
            each.process.join()
        with pytest.raises(processes.ReaderError, match="has ended"):
            list(import_files(archive.store, archive.index, reader, [str(file)]))
    assert archive.take(file)["a.dcm"].what is What.STORED


def test_one_import_at_a_time(archive: Archive) -> None:
    other = FileStore(archive.store.root, fsync=False)
    with (
        opened_for_import(archive.store, archive.index),
        pytest.raises(StorageError, match="another import"),
        opened_for_import(other, archive.index),
    ):
        raise AssertionError("it must not begin")


def test_a_full_disk_ends_the_import_and_leaves_nothing_behind(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.dcm", "1.1")
    monkeypatch.setattr(FileStore, "has_room", lambda *_: False)
    with pytest.raises(OSError, match="No space left"):
        archive.take(file)
    assert not archive.store.path("1.1").exists()
    assert archive.is_sound()


def test_what_a_process_has_found_arrives_as_it_was(archive: Archive, tmp_path: Path) -> None:
    """A file of several levels, one that is decided about later, and one without a record."""
    files = [
        write(tmp_path / "a", "1.1", RequestAttributesSequence={"RequestedProcedureID": "7"}),
        write(tmp_path / "b", "1.1", PatientName="OTHER"),
        tmp_path / "absent",
    ]
    with opened_for_import(archive.store, archive.index), readers(archive.store) as reader:
        groups = list(reader.found(map(str, files)))
    for found in (each for group in groups for each in group):
        again = pickle.loads(pickle.dumps(found))
        assert again.taken() == found.taken() if found.what else again.what is None
        assert (again.original, again.named, again.temporary, again.record) == (
            *(found.original, found.named, found.temporary, found.record),
        )
        if found.record is not None:
            for level in Level:
                assert again.record.values(level) == found.record.values(level)
            assert again.record.receipt == found.record.receipt
            assert again.record.identity == found.record.identity
