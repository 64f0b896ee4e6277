"""Files that are sent, and the journal of what a peer has."""

import os
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file

from netdicom_tx.commands.common.failures import CommandError, ExitCode
from netdicom_tx.commands.common.files import (
    FoundFile,
    HeldBackError,
    Journal,
    Sending,
    check_named,
    is_storable,
    walk,
)
from netdicom_tx.dsutils import DataSetError
from netdicom_tx.sopclass import Instance
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN

CT = str(get_testdata_file("CT_small.dcm"))
PEER = "ARCHIVE@127.0.0.1:104"


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


# -- walking ------------------------------------------------------------------------------------------


def test_a_directory_is_walked_to_its_end_in_order(tmp_path: Path) -> None:
    tree(tmp_path, "b/2", "b/1", "a/x/y/z", "c", "a/.hidden")
    found = [os.path.relpath(path, tmp_path) for path in walk([str(tmp_path)])]
    assert found == ["a/.hidden", "a/x/y/z", "b/1", "b/2", "c"]


def test_files_and_directories_come_in_the_order_they_were_named(tmp_path: Path) -> None:
    tree(tmp_path, "z", "d/1")
    paths = [str(tmp_path / "z"), str(tmp_path / "d"), str(tmp_path / "z")]
    assert [os.path.basename(path) for path in walk(paths)] == ["z", "1", "z"]


def test_a_link_to_a_directory_is_not_followed(tmp_path: Path) -> None:
    """A loop would never end; a link to a file is a file."""
    tree(tmp_path, "d/1")
    (tmp_path / "d" / "loop").symlink_to(tmp_path)
    (tmp_path / "d" / "file").symlink_to(tmp_path / "d" / "1")
    (tmp_path / "d" / "dangling").symlink_to(tmp_path / "nowhere")
    assert [os.path.basename(path) for path in walk([str(tmp_path)])] == ["1", "file"]


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    """Reading a FIFO would wait for ever."""
    os.mkfifo(tmp_path / "fifo")
    assert list(walk([str(tmp_path)])) == []


# -- what was named -------------------------------------------------------------------------------------


def no_uid(directory: Path) -> Path:
    """A DICOM file that has no SOP Instance UID, neither in its header nor in its data set."""
    octets = Path(CT).read_bytes()
    for tag, other in (
        (b"\x02\x00\x03\x00", b"\x02\x00\x04\x00"),
        (b"\x08\x00\x18\x00", b"\x08\x00\x19\x00"),
    ):
        octets = octets.replace(tag + b"UI", other + b"UI", 1)
    path = directory / "no-uid.dcm"
    path.write_bytes(octets)
    return path


def test_files_that_can_be_sent_are_let_through(tmp_path: Path) -> None:
    tree(tmp_path, "no DICOM")
    check_named([CT, str(tmp_path)])


@pytest.mark.parametrize("name", ["absent", "text", "no-uid.dcm", "cut", "empty"])
def test_a_named_file_that_cannot_be_sent_is_told(tmp_path: Path, name: str) -> None:
    tree(tmp_path, "text")
    no_uid(tmp_path)
    (tmp_path / "cut").write_bytes(Path(CT).read_bytes()[:200])
    (tmp_path / "empty").touch()
    with pytest.raises(CommandError) as caught:
        check_named([CT, str(tmp_path / name)])
    problem = caught.value.problem
    assert problem.code == ExitCode.USAGE
    assert str(tmp_path / name) in problem.what
    assert "nothing was sent" in problem.hint
    assert ("SOP Instance UID" in problem.evidence) == (name == "no-uid.dcm")


def test_a_directory_file_is_not_for_storage(tmp_path: Path) -> None:
    """PS3.10 8: it is an index of a medium."""
    dicomdir = get_testdata_file("DICOMDIR")
    if dicomdir is None:
        pytest.skip("pydicom has no DICOMDIR")
    assert not is_storable(Instance.of(str(dicomdir)))
    assert is_storable(Instance.of(CT))


def test_an_instance_is_announced_as_its_data_set_says() -> None:
    """PS3.4 B.2.2; the header of this file has another UID, as some writers leave one there."""
    instance = Sending.in_file(FoundFile.of(str(get_testdata_file("rtdose.dcm"))), lambda: False)
    assert instance.sop_instance_uid == "1.9.999.999.99.9.9999.9999.20030818153516"


def test_an_instance_can_be_held_back_until_it_goes_out() -> None:
    """Ctrl-C lets what is on its way end, and sends nothing of what is planned."""
    stopped = False
    instance = Sending.in_file(FoundFile.of(CT), lambda: stopped)
    assert instance.sop_instance_uid == dcmread(CT).SOPInstanceUID
    instance.encoded(EXPLICIT_VR_LITTLE_ENDIAN)
    stopped = True
    with pytest.raises(HeldBackError):
        instance.encoded(EXPLICIT_VR_LITTLE_ENDIAN)
    assert issubclass(HeldBackError, DataSetError)  # which the storage service passes on


# -- the journal --------------------------------------------------------------------------------------


def noted(path: Path) -> tuple[FoundFile, Instance]:
    path.write_bytes(Path(CT).read_bytes())
    return FoundFile.of(str(path)), Instance.of(str(path))


def test_what_was_acknowledged_is_known_to_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, instance = noted(tmp_path / "1\n\t'.dcm")
    two, _ = noted(tmp_path / "2.dcm")
    path = str(tmp_path / "journal")
    journal = Journal(path, PEER)
    assert not journal.has(one)
    journal.add(one, instance)
    # Not closed: what is written stays written when the process is killed.
    again = Journal(path, PEER)
    assert (again.has(one), again.has(two)) == (True, False)
    monkeypatch.chdir(tmp_path)
    assert again.has(FoundFile.of("1\n\t'.dcm"))  # by whatever path it is named
    journal.close()
    again.close()


def test_a_file_that_has_changed_is_sent_again(tmp_path: Path) -> None:
    file, instance = noted(tmp_path / "1.dcm")
    path = str(tmp_path / "journal")
    journal = Journal(path, PEER)
    journal.add(file, instance)
    journal.close()
    os.utime(file.path, ns=(1, 1))
    again = Journal(path, PEER)
    assert not again.has(FoundFile.of(file.path))
    again.close()


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_line_that_was_cut_off_counts_for_nothing(tmp_path: Path, cut: int) -> None:
    """A crash, or a full disk, in the middle of a line; the next line is whole again."""
    one, first = noted(tmp_path / "1.dcm")
    two, second = noted(tmp_path / "2.dcm")
    path = tmp_path / "journal"
    for file, instance in ((one, first), (two, second)):
        journal = Journal(str(path), PEER)
        journal.add(file, instance)
        journal.close()
    path.write_bytes(path.read_bytes()[:-cut])
    journal = Journal(str(path), PEER)
    assert journal.has(one)
    # Without its line end the last entry is whole.
    assert journal.has(two) == (cut == 1)
    journal.add(two, second)
    journal.close()
    again = Journal(str(path), PEER)
    assert again.has(one)
    assert again.has(two)
    again.close()


@pytest.mark.parametrize("content", ["precious notes\n", '{"a": 1}\n', "[]\n", "\n"])
def test_a_file_that_is_no_journal_is_not_touched(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes"
    path.write_text(content)
    with pytest.raises(CommandError) as caught:
        Journal(str(path), PEER)
    assert caught.value.problem.code == ExitCode.USAGE
    assert path.read_text() == content


def test_a_journal_belongs_to_one_peer(tmp_path: Path) -> None:
    """What one archive has acknowledged, another does not have."""
    path = str(tmp_path / "journal")
    Journal(path, PEER).close()
    with pytest.raises(CommandError) as caught:
        Journal(path, "OTHER@127.0.0.1:104")
    assert "another peer" in caught.value.problem.what


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        Journal(str(tmp_path / "absent" / "journal"), PEER)
    assert caught.value.problem.code == ExitCode.USAGE


def test_a_tree_may_be_deeper_than_calls_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = 1500
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    Path("image.dcm").touch()
    monkeypatch.chdir(tmp_path)
    found = list(walk(["d"]))
    monkeypatch.chdir("/".join("d" * depth))
    Path("image.dcm").unlink()
    for _ in range(depth):
        os.chdir("..")
        os.rmdir("d")
    assert found == ["/".join("d" * depth) + "/image.dcm"]
