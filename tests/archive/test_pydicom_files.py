"""All files that come with pydicom, sent as they are and without being decoded: they come back octet for octet."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pydicom
import pytest

from netdicom_tx.archive.store.reconcile import reconcile
from netdicom_tx.dimsemessages import CGetRQ, CStoreRQ, Message, decode_command
from netdicom_tx.dsutils import identity, read_file_meta
from netdicom_tx.encoding import DataSetError
from netdicom_tx.uids import COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS as GET
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN, STORAGE_SOP_CLASSES
from netdicom_tx.userdataitems import MaximumLength, RoleSelection
from support.archive.archives import Archive, stored
from support.archive.data_sets import EXPLICIT, IMPLICIT, padded

#: Files that no archive can keep, and why; see docs/reference/limits.md.
REFUSED = {
    "MR_truncated.dcm": "the pixel data is cut off",
    "rtplan_truncated.dcm": "the last sequence is cut off",
    "SC_rgb_jpeg.dcm": "the data set is in implicit VR, and its transfer syntax has explicit VR",
}


class File(NamedTuple):
    """A file with an instance of a storage SOP class."""

    path: Path
    sop_class: str
    instance: str
    transfer_syntax: str
    data: bytes


def _file(path: Path) -> File | None:
    octets = path.read_bytes()
    file = BytesIO(octets)
    try:
        meta = read_file_meta(file)
    except DataSetError:
        return None
    data = octets[meta.offset :]
    sop_class, instance = identity(BytesIO(data), meta.transfer_syntax) or ("", "")
    if path.name in REFUSED:
        sop_class, instance = meta.sop_class_uid, meta.sop_instance_uid
    if sop_class not in STORAGE_SOP_CLASSES or not instance:
        return None
    return File(path, sop_class, instance, meta.transfer_syntax, data)


def _files() -> list[File]:
    root = Path(pydicom.__file__).parent / "data"
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return [file for file in map(_file, paths) if file is not None]


FILES = _files()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    opened = Archive(tmp_path_factory.mktemp("archive"))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _empty(node: Archive) -> Iterator[None]:
    """Several files have one SOP Instance UID."""
    yield
    for entry in list(node.index.entries()):
        entry.path.unlink()
        node.index.remove(entry.sop_instance_uid).result()


def send(node: Archive, file: File) -> int:
    """The status of a C-STORE whose data set is the octets of the file."""
    encoding = EXPLICIT._replace(transfer_syntax=file.transfer_syntax)
    peer = node.sender(encoding, file.sop_class)
    return stored(peer, file.data, file.instance, file.sop_class)


def got(node: Archive, file: File) -> bytes:
    """The data set that a C-GET of the instance brings."""
    peer = node.associate(
        {GET: [IMPLICIT_VR_LITTLE_ENDIAN], file.sop_class: [file.transfer_syntax]},
        MaximumLength(0),
        RoleSelection(file.sop_class, False, True),
    )
    asked = IMPLICIT.element(0x00080018, "UI", padded(file.instance))
    asked += IMPLICIT.element(0x00080052, "CS", b"IMAGE ")
    peer.send(CGetRQ(affected_sop_class_uid=GET, message_id=1, data_set=asked))
    messages: list[Message] = []
    data = b""
    for kind, body in peer.take():
        assert kind == 4
        while body:
            length, _, flags = struct.unpack_from(">IBB", body)
            part, body = body[6 : length + 4], body[length + 4 :]
            if flags & 1:
                messages.append(decode_command(part)[0])
            else:
                data += part
    (request,) = messages
    assert isinstance(request, CStoreRQ)
    # The node waits for the answer. A retrieval that is left behind fails a later test when it is collected as garbage.
    peer.transport.loseConnection()
    return data


def test_there_are_files_of_all_kinds() -> None:
    """The others that pydicom has are directories and fragments, or have no UIDs."""
    assert len(FILES) >= 119
    assert {file.path.name for file in FILES} >= set(REFUSED)
    assert len({file.transfer_syntax for file in FILES}) >= 10


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.path.name not in REFUSED],
    ids=lambda file: file.path.name,
)
def test_a_file_comes_back_octet_for_octet(node: Archive, file: File) -> None:
    """Kept, sent, the same again, and still there with a new index."""
    assert send(node, file) == 0x0000
    # PS3.8 Annex E: a fragment has an even length, so that a NUL follows an odd data set.
    assert got(node, file) == file.data + b"\0" * (len(file.data) % 2)
    assert send(node, file) == 0x0000
    node.index.remove(file.instance).result()
    assert reconcile(node.index, node.store).indexed == [file.instance]
    assert node.kept(file.instance) == file.data + b"\0" * (len(file.data) % 2)


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.path.name in REFUSED], ids=lambda file: file.path.name
)
def test_what_is_not_whole_or_in_another_transfer_syntax_is_refused(
    node: Archive, file: File
) -> None:
    """PS3.4 B.2.3: 0xC000, cannot understand."""
    assert send(node, file) == 0xC000
    assert node.kept(file.instance) is None
