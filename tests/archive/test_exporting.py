"""Instances leave the archive as whole files, below the directory and nowhere else."""

import io
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from netdicom_tx.archive import FileStore, Index
from netdicom_tx.archive.exporting import (
    LAYOUTS,
    Directory,
    Exported,
    Layout,
    LayoutError,
    Zip,
    as_file_set,
    export,
    leased,
    named,
    select,
)
from netdicom_tx.archive.store.importing import import_files, opened_for_import, readers
from netdicom_tx.part10 import read_file_meta
from support.archive.part10_files import write
from support.archive.patients import data_set


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "archive", fsync=False)


@pytest.fixture
def index(store: FileStore, tmp_path: Path) -> Iterator[Index]:
    """Two studies with two instances each."""
    files = [
        write(
            tmp_path / "in" / f"{study}{number}",
            f"1.{study}.{number}",
            StudyInstanceUID=f"2.{study}",
            SeriesInstanceUID=f"3.{study}",
            InstanceNumber=str(number),
            StudyDate=f"2026010{study}",
            Modality=("CT", "MR")[study],
        )
        for study in range(2)
        for number in range(2)
    ]
    made = Index(f"sqlite:///{tmp_path / 'archive' / 'index.db'}", root=store.root)
    with opened_for_import(store, made), readers(store) as reader:
        made.open()
        assert len(list(import_files(store, made, reader, map(str, files)))) == 4
    yield made
    made.close()


def files_of(directory: Path) -> list[str]:
    return sorted(
        str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()
    )


def exported(index: Index, directory: Path, layout: str = "uids", **keys: str) -> Exported:
    template = Layout(layout)
    with Directory(directory) as sink:
        *_, done = export(named(select(index, data_set(**keys), template.keywords), template), sink)
    return done


def test_files_are_the_stored_ones_under_their_uids(
    index: Index, store: FileStore, tmp_path: Path
) -> None:
    done = exported(index, tmp_path / "out")
    assert (done.stored, done.same, done.failed) == (4, 0, [])
    assert files_of(tmp_path / "out") == [
        f"2.{study}/3.{study}/1.{study}.{number}.dcm" for study in range(2) for number in range(2)
    ]
    written = tmp_path / "out" / "2.0" / "3.0" / "1.0.0.dcm"
    assert written.read_bytes() == store.path("1.0.0").read_bytes()


def test_keys_of_all_levels_are_matched_at_once(index: Index, tmp_path: Path) -> None:
    done = exported(
        index, tmp_path / "out", "flat", PatientID="P", Modality="MR", InstanceNumber="1"
    )
    assert done.stored == 1
    assert files_of(tmp_path / "out") == ["1.1.1.dcm"]


def test_what_is_there_is_left_alone_and_other_files_are_kept(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(index, out, "{PatientID}/{InstanceNumber:03}.dcm")
    assert files_of(out) == ["P/000.dcm", "P/000_2.dcm", "P/001.dcm", "P/001_2.dcm"]
    (out / "P" / "000_2.dcm").write_bytes(b"of the user")
    done = exported(index, out, "{PatientID}/{InstanceNumber:03}.dcm")
    assert (done.stored, done.same) == (1, 3)
    assert (out / "P" / "000_2.dcm").read_bytes() == b"of the user"
    assert "P/000_3.dcm" in files_of(out)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"PatientID": "../../etc", "InstanceNumber": "7"}, "etc/unknown/007.dcm"),
        ({"PatientID": "a/b\\c", "StudyDate": "20260101"}, "a_b_c/20260101/unknown.dcm"),
        ({"PatientID": "\x1b[31m\n", "StudyDescription": ".."}, "31m/unknown/unknown.dcm"),
        ({"PatientID": "CON", "StudyDescription": "nul.x"}, "_CON/_nul.x/unknown.dcm"),
        ({"PatientID": "ä" * 200, "StudyDescription": "山田"}, f"{'ä' * 50}/山田/unknown.dcm"),
        ({"PatientID": ".hidden", "StudyDescription": "a b  c"}, "hidden/a_b_c/unknown.dcm"),
        ({"PatientID": "", "StudyDescription": "{PatientID}"}, "unknown/PatientID/unknown.dcm"),
        ({"PatientID": "$(rm x)", "StudyDescription": "HEAD"}, "rm_x/HEAD/unknown.dcm"),
    ],
)
def test_no_value_leads_out_of_the_directory(values: dict[str, str], expected: str) -> None:
    layout = Layout("{PatientID}/{StudyDate}_{StudyDescription}/{InstanceNumber:03}.dcm")
    assert layout.path(data_set(**values)) == PurePosixPath(expected)


def test_values_are_written_as_people_do() -> None:
    """A person's name is one value; several values stand beside each other."""
    layout = Layout("{PatientName}/{ImageType}/{InstanceNumber:03}.dcm")
    values = data_set(
        PatientName="Yamada^Tarou=山田^太郎", ImageType=["ORIGINAL", "PRIMARY"], InstanceNumber=7
    )
    assert layout.path(values) == PurePosixPath(
        "Yamada_Tarou=山田_太郎", "ORIGINAL_PRIMARY", "007.dcm"
    )
    turned = data_set(PatientName="A\u202efdp.B", ImageType="\u200b")
    assert layout.path(turned) == PurePosixPath("Afdp.B", "unknown", "unknown.dcm")


def test_long_uids_are_not_cut() -> None:
    uid = f"2.25.{'9' * 39}"
    layout = Layout(LAYOUTS["uids"])
    path = layout.path(data_set(StudyInstanceUID=uid, SeriesInstanceUID=uid, SOPInstanceUID=uid))
    assert path == PurePosixPath(uid, uid, f"{uid}.dcm")


@pytest.mark.parametrize(
    "template",
    ["", "/etc/{PatientID}", "../{PatientID}", "{PatientID}/", "{PatientId}", "{PatientID", "{}",
     "{PatientID.parent}", "{PatientID!r}", "{PatientID:>500}", "{0}"],
)  # fmt: skip
def test_a_template_that_is_wrong_is_refused(template: str) -> None:
    with pytest.raises(LayoutError):
        Layout(template)


def test_no_link_is_followed(index: Index, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "P").symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        exported(index, tmp_path / "out", "{PatientID}/{SOPInstanceUID}.dcm")
    assert not files_of(elsewhere)
    assert os.listdir(tmp_path / "out") == ["P"]
    (tmp_path / "out" / "P").unlink()
    (tmp_path / "out" / "1.0.0.dcm").symlink_to(elsewhere / "file")
    assert exported(index, tmp_path / "out", "flat").stored == 4
    assert not files_of(elsewhere)


def test_a_damaged_file_is_named_and_the_others_are_exported(
    index: Index, store: FileStore, tmp_path: Path
) -> None:
    path = store.path("1.0.0")
    path.write_bytes(path.read_bytes()[:-10])
    store.path("1.0.1").unlink()
    done = exported(index, tmp_path / "out")
    assert done.stored == 2
    assert [uid for uid, _ in done.failed] == ["1.0.0", "1.0.1"]


def test_nothing_is_left_of_an_export_that_is_interrupted(index: Index, tmp_path: Path) -> None:
    template = Layout("uids")
    with Directory(tmp_path / "out") as sink:
        next(export(named(select(index, Dataset(), template.keywords), template), sink))
    assert not files_of(tmp_path / "out")


def test_a_full_disk_is_an_error_and_leaves_no_half_file(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("netdicom_tx.archive.exporting.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        exported(index, tmp_path / "out")
    assert not files_of(tmp_path / "out")


def test_a_zip_file_has_all_files_and_gets_its_name_at_the_end(
    index: Index, store: FileStore, tmp_path: Path
) -> None:
    target = tmp_path / "a.zip"
    template = Layout("{PatientID}/{InstanceNumber}.dcm")
    with Zip(target) as sink:
        list(export(named(select(index, Dataset(), template.keywords), template), sink))
        assert not target.exists()
    with zipfile.ZipFile(target) as found:
        assert found.testzip() is None
        assert sorted(found.namelist()) == ["P/0.dcm", "P/0_2.dcm", "P/1.dcm", "P/1_2.dcm"]
        assert found.read("P/0.dcm") == store.path("1.0.0").read_bytes()
    assert os.listdir(tmp_path).count("a.zip") == 1
    with pytest.raises(KeyError), Zip(tmp_path / "b.zip"):
        raise KeyError
    assert not list(tmp_path.glob("*b.zip*"))


def test_a_zip_file_is_written_to_a_stream(index: Index) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    stream = Pipe()
    template = Layout("flat")
    with Zip(stream) as sink:
        list(export(named(select(index, Dataset(), template.keywords), template), sink))
    with zipfile.ZipFile(io.BytesIO(stream.getvalue())) as found:
        assert len(found.namelist()) == 4


def test_a_pipe_is_written_to_and_stays_one(index: Index, tmp_path: Path) -> None:
    """A file would take the place of a pipe, or of a device: root may do that in /dev."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    template = Layout("flat")
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(pipe.read_bytes)
        with Zip(pipe) as sink:
            list(export(named(select(index, Dataset(), template.keywords), template), sink))
        octets = reader.result()
    with zipfile.ZipFile(io.BytesIO(octets)) as found:
        assert len(found.namelist()) == 4
    assert pipe.is_fifo()
    with pytest.raises(IsADirectoryError):
        Zip(tmp_path)


def test_a_file_set_has_the_stored_files_and_a_dicomdir(
    index: Index, store: FileStore, tmp_path: Path
) -> None:
    """PS3.10 8: names of at most eight characters; PS3.3 F: a record for each patient, study, series and image."""
    out = tmp_path / "out"
    paths, dicomdir, failed = as_file_set(each.ref for each in select(index, Dataset()))
    assert failed == []
    with Directory(out) as sink:
        list(export(paths, sink))
        sink.put_octets(PurePosixPath("DICOMDIR"), dicomdir)
    files = FileSet(dcmread(out / "DICOMDIR"))
    assert sorted(str(each.SOPInstanceUID) for each in files) == [
        "1.0.0",
        "1.0.1",
        "1.1.0",
        "1.1.1",
    ]
    for each in files:
        path = Path(each.path)
        assert path.read_bytes() == store.path(str(each.SOPInstanceUID)).read_bytes()
        parts = path.relative_to(out).parts
        assert all(len(part) <= 8 and part == part.upper() for part in parts)
    files._stage["t"].cleanup()  # pydicom would do it with a warning


@pytest.mark.parametrize("place", ["in front", "within"])
def test_a_file_header_in_the_data_set_does_not_keep_the_others_out_of_a_file_set(
    index: Index, store: FileStore, tmp_path: Path, place: str
) -> None:
    """A node keeps what some senders put there, but pydicom writes no such data set."""
    path = write(tmp_path / "in" / "odd", "1.0.2", StudyInstanceUID="2.0", SeriesInstanceUID="3.0")
    octets = path.read_bytes()
    header = bytes(128) + b"DICM" + b"\2\0\x10\0UI\x14\0" + b"1.2.840.10008.1.2.1\0"
    offset = read_file_meta(io.BytesIO(octets)).offset
    if place == "within":
        offset, header = octets.index(b"\xe0\x7f\x10\0OW"), header[132:]
    path.write_bytes(octets[:offset] + header + octets[offset:])
    with opened_for_import(store, index), readers(store) as reader:
        index.open()
        list(import_files(store, index, reader, [str(path)]))
    paths, _, failed = as_file_set(each.ref for each in select(index, Dataset()))
    assert failed == []
    assert len(paths) == 5


def test_an_instance_that_cannot_be_described_does_not_keep_the_others_out_of_a_file_set(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydicom has added it before it writes its file."""
    written = Dataset.save_as

    def save_as(header: Dataset, *arguments: Any, **more: Any) -> None:
        if header.SOPInstanceUID == "1.0.1":
            raise ValueError("not writable")
        written(header, *arguments, **more)

    monkeypatch.setattr(Dataset, "save_as", save_as)
    paths, _, failed = as_file_set(each.ref for each in select(index, Dataset()))
    assert failed == [("1.0.1", "not writable")]
    assert sorted(each.sop_instance_uid for each, _ in paths) == ["1.0.0", "1.1.0", "1.1.1"]


def test_what_was_selected_is_not_deleted_meanwhile(index: Index, store: FileStore) -> None:
    with leased(store):
        generation = store.leases.turn()
        assert store.leases.ended() < generation
    assert store.leases.ended() >= generation
