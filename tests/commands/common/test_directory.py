"""What is received is whole, and where it belongs; whatever the peer says."""

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from netdicom_tx import PContextDef
from netdicom_tx.archive.encoded.walk import INFLATED_LIMIT
from netdicom_tx.commands.common.directory import Arrived, Incoming, OutputDirectory, is_safe_uid
from netdicom_tx.commands.common.failures import CommandError
from netdicom_tx.dsutils import encode, part10_header, read_file_meta
from netdicom_tx.encoding import Buffer, inflate_part
from netdicom_tx.exceptions import StatusError
from netdicom_tx.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

CLASS = "1.2.840.10008.5.1.4.1.1.7"
UID, STUDY, SERIES = "1.2.3.4", "1.2.3", "1.2.3.1"


class Receiver:
    """An output directory, used as an association would."""

    def __init__(self, directory: Path, layout: str = "study") -> None:
        self.directory = directory
        self.output = OutputDirectory(str(directory), layout)

    def store(
        self,
        data_set: Dataset | bytes,
        uid: str = UID,
        syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
        sop_class: str = CLASS,
    ) -> Arrived:
        octets = data_set if isinstance(data_set, bytes) else encode(data_set, syntax)
        asce: Any = SimpleNamespace(
            is_requestor=False, calling_ae_title="MODALITY", called_ae_title="US"
        )
        file = self.output.open(asce, PContextDef(1, CLASS, syntax), sop_class, uid)
        try:
            for start in range(0, len(octets), 10_000):
                file.write(memoryview(octets)[start : start + 10_000])
            return self.output.keep(file)
        finally:
            file.close()

    @property
    def files(self) -> set[str]:
        """All there is, directories without content too."""
        return {
            str(path.relative_to(self.directory))
            for path in self.directory.rglob("*")
            if not path.is_dir() or not any(path.iterdir())
        }


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Receiver]]:
    made: list[Receiver] = []

    def receiver(layout: str = "study") -> Receiver:
        made.append(Receiver(tmp_path / "out", layout))
        return made[-1]

    yield receiver
    for each in made:
        each.output.close()


def instance(**elements: Any) -> Dataset:
    made = Dataset()
    made.SOPClassUID = CLASS
    made.SOPInstanceUID = UID
    made.StudyInstanceUID = STUDY
    made.SeriesInstanceUID = SERIES
    made.PatientName = "DOE^JOHN"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


# -- names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", ["1.2.3", "0", "1" * 64, "1.02.3", "2.25.123"])
def test_digits_with_dots_between_them_are_a_name(uid: str) -> None:
    """Some devices send components with leading zeros."""
    assert is_safe_uid(uid)


@pytest.mark.parametrize(
    "uid",
    [
        "",
        ".",
        "..",
        "1..2",
        ".1",
        "1.",
        "../1",
        "/1",
        "1/2",
        "1\0",
        "1\n",
        "1 ",
        "1" * 65,
        "x",
        "¹",
        None,
        1,
    ],
)
def test_nothing_else_is_one(uid: object) -> None:
    """CVE-2026-50003 and its kind: a UID of a peer must not become a path."""
    assert not is_safe_uid(uid)


# -- keeping ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "path"), [("study", f"{STUDY}/{SERIES}/{UID}.dcm"), ("flat", f"{UID}.dcm")]
)
def test_an_instance_has_its_place(make: Callable[..., Receiver], layout: str, path: str) -> None:
    receiver = make(layout)
    arrived = receiver.store(instance())
    assert receiver.files == {path}
    assert arrived.path == str(receiver.directory / path)
    assert arrived.size == (receiver.directory / path).stat().st_size


@pytest.mark.parametrize(
    "syntax",
    [
        EXPLICIT_VR_LITTLE_ENDIAN,
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ],
)
def test_the_data_set_is_kept_as_it_came(make: Callable[..., Receiver], syntax: str) -> None:
    receiver = make("study")
    sent = encode(instance(), syntax)
    path = Path(receiver.store(sent, syntax=syntax).path)
    with path.open("rb") as file:
        meta = read_file_meta(file)
        assert file.read() == sent
    assert meta[:3] == (CLASS, UID, syntax)
    assert dcmread(path).file_meta.SourceApplicationEntityTitle == "MODALITY"
    assert path.parts[-3:] == (STUDY, SERIES, f"{UID}.dcm")


def test_a_real_image_is_kept(make: Callable[..., Receiver]) -> None:
    receiver = make()
    path = Path(str(get_testdata_file("CT_small.dcm")))
    with path.open("rb") as file:
        meta = read_file_meta(file)
        octets = file.read()
    kept = Path(
        receiver.store(octets, meta.sop_instance_uid, meta.transfer_syntax, meta.sop_class_uid).path
    )
    assert dcmread(kept) == dcmread(path)


def test_the_same_instance_again_takes_its_own_place(make: Callable[..., Receiver]) -> None:
    receiver = make()
    receiver.store(instance())
    kept = receiver.store(instance(PatientName="NEW"))
    assert dcmread(kept.path).PatientName == "NEW"
    assert len(receiver.files) == 1


def test_an_instance_without_a_study_stands_at_the_top(make: Callable[..., Receiver]) -> None:
    """PS3.4 GG: color palettes and the like belong to no patient."""
    receiver = make()
    sent = instance()
    del sent.StudyInstanceUID, sent.SeriesInstanceUID
    receiver.store(sent)
    assert receiver.files == {f"{UID}.dcm"}


def test_the_umask_decides_who_may_read(make: Callable[..., Receiver]) -> None:
    before = os.umask(0o027)
    try:
        mode = Path(make().store(instance()).path).stat().st_mode
    finally:
        os.umask(before)
    assert stat.S_IMODE(mode) == 0o640


# -- refusing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", ["../../etc/x", "/tmp/x", "", "..", "1" * 65, "1\0", "ü", "1/2"])
def test_a_hostile_instance_uid_is_refused(make: Callable[..., Receiver], uid: str) -> None:
    """RELIABILITY: nothing outside the directory, nothing left in it, and a status for the peer."""
    receiver = make()
    with pytest.raises(StatusError) as caught:
        receiver.store(instance(SOPInstanceUID="1"), uid)
    assert caught.value.status == 0xA900
    assert receiver.files == set()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("study", ["..", ".", "../..", "/tmp", "1/../../2", "", "1" * 70, "x"])
def test_a_hostile_study_uid_leads_nowhere(make: Callable[..., Receiver], study: str) -> None:
    receiver = make()
    receiver.store(instance(StudyInstanceUID=study))
    assert receiver.files == {f"{UID}.dcm"}


@pytest.mark.parametrize("name", [STUDY, f"{STUDY}/{SERIES}"])
def test_a_link_in_the_directory_is_not_followed(
    make: Callable[..., Receiver], tmp_path: Path, name: str
) -> None:
    """RELIABILITY: a link that was planted points out of the directory."""
    receiver = make()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = receiver.directory / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        receiver.store(instance())
    assert list(elsewhere.iterdir()) == []
    assert not [name for name in receiver.files if name.endswith((".part", ".dcm"))]


def test_a_link_with_the_name_of_the_file_is_replaced(
    make: Callable[..., Receiver], tmp_path: Path
) -> None:
    receiver = make("flat")
    target = tmp_path / "target"
    target.write_text("precious")
    (receiver.directory / f"{UID}.dcm").symlink_to(target)
    receiver.store(instance())
    assert target.read_text() == "precious"
    assert not (receiver.directory / f"{UID}.dcm").is_symlink()


@pytest.mark.parametrize(
    "octets",
    [
        encode(instance(SOPInstanceUID="1.9"), EXPLICIT_VR_LITTLE_ENDIAN),
        encode(instance(SOPClassUID="1.9"), EXPLICIT_VR_LITTLE_ENDIAN),
        encode(Dataset(), EXPLICIT_VR_LITTLE_ENDIAN),
        b"",
        b"\x08\x00\x16\x00UI\xff\xff" + b"1.2",
        b"no data set at all, but some text",
    ],
)
def test_another_data_set_than_announced_is_refused(
    make: Callable[..., Receiver], octets: bytes
) -> None:
    """PS3.4 B.2.3: it does not match the SOP class, or cannot be understood."""
    receiver = make()
    with pytest.raises(StatusError) as caught:
        receiver.store(octets)
    assert caught.value.status in (0xA900, 0xC000)
    assert receiver.files == set()


def test_damaged_deflation_is_refused(make: Callable[..., Receiver]) -> None:
    receiver = make()
    with pytest.raises(StatusError) as caught:
        receiver.store(b"\xff" * 100, syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert caught.value.status == 0xC000
    assert receiver.files == set()


@pytest.mark.slow
def test_a_deflated_data_set_is_not_inflated_beyond_its_head(
    make: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELIABILITY: a megabyte that inflates to a gigabyte; what names the instance comes first."""
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN)
    rest = b"\xe0\x7f\x10\x00OB\0\0" + (200 << 20).to_bytes(4, "little")
    octets = stream.compress(head + rest)
    octets += b"".join(stream.compress(bytes(1 << 20)) for _ in range(200)) + stream.flush()
    inflated: list[int] = []

    def watched(data: Buffer, limit: int, start: int = 0) -> tuple[bytes, bool]:
        found, is_whole = inflate_part(data, limit, start)
        inflated.append(len(found))
        return found, is_whole

    monkeypatch.setattr("netdicom_tx.archive.encoded.walk.inflate_part", watched)
    receiver = make()
    receiver.store(octets, syntax=DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    assert receiver.files == {f"{STUDY}/{SERIES}/{UID}.dcm"}
    assert max(inflated) <= INFLATED_LIMIT


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN])
def test_a_file_header_in_front_of_the_data_set_is_kept_with_it(
    make: Callable[..., Receiver], syntax: str
) -> None:
    """PS3.10 7.1: some senders send it along; the instance is filed like any other."""
    receiver = make()
    octets = part10_header(CLASS, UID, syntax) + encode(instance(), syntax)
    receiver.store(octets, syntax=syntax)
    assert receiver.files == {f"{STUDY}/{SERIES}/{UID}.dcm"}
    kept = (receiver.directory / STUDY / SERIES / f"{UID}.dcm").read_bytes()
    assert kept.endswith(octets)


def test_what_was_not_complete_leaves_nothing(make: Callable[..., Receiver]) -> None:
    """The association ended in its middle: the file is closed and gone."""
    receiver = make()
    asce: Any = SimpleNamespace(is_requestor=True, calling_ae_title="US", called_ae_title="PEER")
    file = receiver.output.open(asce, PContextDef(1, CLASS, EXPLICIT_VR_LITTLE_ENDIAN), CLASS, UID)
    assert all(name.startswith(".") for name in receiver.files)
    file.close()
    file.close()
    assert receiver.files == set()


def incoming(receiver: Receiver, octets: bytes) -> Incoming:
    asce: Any = SimpleNamespace(is_requestor=True, calling_ae_title="US", called_ae_title="PEER")
    file = receiver.output.open(asce, PContextDef(1, CLASS, EXPLICIT_VR_LITTLE_ENDIAN), CLASS, UID)
    file.write(octets)
    return file


def test_a_connection_that_is_lost_while_an_instance_is_kept_does_not_close_its_file(
    make: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that keeps it must not write to another file that has got its descriptor."""
    receiver = make()
    file = incoming(receiver, encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN))
    sync = os.fsync

    def lose(descriptor: int) -> None:
        file.close()
        assert not file.closed
        sync(descriptor)

    monkeypatch.setattr("netdicom_tx.commands.common.directory.os.fsync", lose)
    receiver.output.keep(file)
    assert file.closed
    assert receiver.files == {f"{STUDY}/{SERIES}/{UID}.dcm"}


def test_a_connection_that_was_lost_before_keeps_nothing(make: Callable[..., Receiver]) -> None:
    receiver = make()
    file = incoming(receiver, encode(instance(), EXPLICIT_VR_LITTLE_ENDIAN))
    file.close()
    with pytest.raises(StatusError):
        receiver.output.keep(file)
    assert receiver.files == set()


WHOLE = encode(instance(ContentDate="20260101"), EXPLICIT_VR_LITTLE_ENDIAN)


@pytest.mark.parametrize(
    "octets",
    [
        pytest.param(WHOLE[:-1], id="cut in the last value"),
        pytest.param(WHOLE[:-3], id="cut in the last header"),
        pytest.param(WHOLE + b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\xff", id="an open sequence"),
        pytest.param(WHOLE + b"\x29\x00\x10\x10OB\0\0\x10\0\0\0abcd", id="too long a length"),
    ],
)
def test_a_data_set_that_is_not_whole_is_refused(
    make: Callable[..., Receiver], octets: bytes
) -> None:
    """PS3.4 B.2.3: 0xC000, as a node answers; it is not acknowledged and then found broken."""
    receiver = make()
    with pytest.raises(StatusError) as caught:
        receiver.store(octets)
    assert caught.value.status == 0xC000
    assert receiver.files == set()


def test_an_output_directory_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError) as caught:
        OutputDirectory(str(tmp_path / "file"))
    assert caught.value.problem.code == 2
    assert "output directory" in caught.value.problem.what
