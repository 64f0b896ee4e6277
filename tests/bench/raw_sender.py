"""A C-STORE SCU that takes almost no time, so that a benchmark measures the SCP at the other end.

All PDUs are made beforehand. To send an instance, the SCU calls ``sendall`` once and reads one response. It implements
only what it needs and uses nothing from the library that it measures.
"""

import socket
import struct
from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread
from pydicom.filereader import read_file_meta_info

from tests.bench.data import data_set_offset
from tests.bench.peers import LARGEST_PDU, Peer

_CONTEXT_ID = 1
RELEASE_RQ = struct.pack(">BxII", 5, 4, 0)
RELEASE_RP = 6
ASSOCIATE_AC = 2
P_DATA_TF = 4
COMMAND, LAST = 1, 2


class RawSender:
    """Instances of one SOP class in one transfer syntax, ready to be sent any number of times.

    Attributes:
        sop_class: The SOP class of all instances.
        study: The Study Instance UID of the first instance.
        series: The Series Instance UID of the first instance.
    """

    def __init__(self, paths: list[Path]) -> None:
        """Read the files and make their PDUs, which stay in memory."""
        meta = read_file_meta_info(paths[0])
        self.sop_class = str(meta.MediaStorageSOPClassUID)
        self._transfer_syntax = str(meta.TransferSyntaxUID)
        header = dcmread(paths[0], stop_before_pixels=True)
        self.study = str(header.StudyInstanceUID)
        self.series = str(header.SeriesInstanceUID)
        self._messages = [_c_store(path, number) for number, path in enumerate(paths, start=1)]

    def send(self, peer: Peer) -> None:
        """Associate, send every instance once and wait for its Success, then release.

        Raises:
            RuntimeError: The peer behaved unexpectedly.
        """
        with socket.create_connection(("127.0.0.1", peer.port), timeout=120) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            contexts = [(_CONTEXT_ID, self.sop_class, self._transfer_syntax)]
            connection.sendall(associate_rq(peer.ae_title, contexts))
            with connection.makefile("rb") as answers:

                def answer(expected: int) -> bytes:
                    kind, length = struct.unpack(">BxI", answers.read(6))
                    body = answers.read(length)
                    if kind != expected:
                        raise RuntimeError(f"{peer.name}: PDU {kind} {body.hex()}")
                    return body

                _check_acceptance(answer(ASSOCIATE_AC))
                for message in self._messages:
                    connection.sendall(message)
                    _check_status(answer(P_DATA_TF))
                connection.sendall(RELEASE_RQ)
                answer(RELEASE_RP)


def associate_rq(
    called: str, contexts: Iterable[tuple[int, str, str]], further: bytes = b""
) -> bytes:
    """Return an A-ASSOCIATE-RQ: PS3.8 9.3.2, with the items of Tables 9-12 to 9-15 and D.1-1, and PS3.7 D.3-1.

    Args:
        called: The AE title of the peer.
        contexts: The ID, the abstract syntax and the transfer syntax of each presentation context.
        further: Sub-items to add to the user information.
    """
    body = struct.pack(">HH16s16s32x", 1, 0, called.ljust(16).encode(), b"RAW".ljust(16))
    body += item(0x10, b"1.2.840.10008.3.1.1.1")
    for number, abstract, transfer in contexts:
        context = struct.pack(">B3x", number) + item(0x30, abstract.encode())
        body += item(0x20, context + item(0x40, transfer.encode()))
    user = item(0x51, struct.pack(">I", LARGEST_PDU)) + item(0x52, b"2.25.1")
    body += item(0x50, user + further)
    return struct.pack(">BxI", 1, len(body)) + body


def item(kind: int, value: bytes) -> bytes:
    """Return an encoded item of an A-ASSOCIATE-RQ."""
    return struct.pack(">BxH", kind, len(value)) + value


def _c_store(path: Path, message_id: int) -> bytes:
    part10 = path.read_bytes()
    meta = read_file_meta_info(path)
    data_set = memoryview(part10)[data_set_offset(path) :]
    command = b"".join(
        [
            element(0x0002, uid_value(meta.MediaStorageSOPClassUID)),
            element(0x0100, struct.pack("<H", 0x0001)),  # C-STORE-RQ
            element(0x0110, struct.pack("<H", message_id)),
            element(0x0700, struct.pack("<H", 0)),  # priority: medium
            element(0x0800, struct.pack("<H", 0)),  # a data set follows
            element(0x1000, uid_value(meta.MediaStorageSOPInstanceUID)),
        ]
    )
    command = element(0x0000, struct.pack("<I", len(command))) + command
    pdus: list[bytes | memoryview] = [pdv_head(len(command), COMMAND | LAST), command]
    size = LARGEST_PDU - 6  # the PDV's own length, context ID and message control header
    for start in range(0, len(data_set), size):
        fragment = data_set[start : start + size]
        pdus += [pdv_head(len(fragment), LAST * (start + size >= len(data_set))), fragment]
    return b"".join(pdus)


def element(number: int, value: bytes) -> bytes:
    """Return an encoded element of a command set."""
    return struct.pack("<HHI", 0x0000, number, len(value)) + value


def uid_value(value: str) -> bytes:
    """Return a padded UID."""
    return value.encode() + b"\0" * (len(value) % 2)


def pdv_head(length: int, control: int, context_id: int = _CONTEXT_ID) -> bytes:
    """Return the headers of the PDU and the PDV in front of a fragment (PS3.8 9.3.5, E.2)."""
    return struct.pack(">BxIIBB", P_DATA_TF, length + 6, length + 2, context_id, control)


def _check_acceptance(body: bytes) -> None:
    limit, result = None, None
    at = 68
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        at += 4
        if kind == 0x21:
            result = body[at + 2]
        if kind == 0x51:
            (limit,) = struct.unpack_from(">I", body, at)
        at += 0 if kind == 0x50 else length  # user information is entered, not skipped
    if result != 0:
        raise RuntimeError(f"presentation context: result {result}")
    if limit is None or 0 < limit < LARGEST_PDU:
        raise RuntimeError(f"maximum length of the peer is {limit}, the PDUs have {LARGEST_PDU}")


def _check_status(body: bytes) -> None:
    command = body[6:]
    at = 0
    while at < len(command):
        _, number, length = struct.unpack_from("<HHI", command, at)
        at += 8
        if number == 0x0900:
            (status,) = struct.unpack_from("<H", command, at)
            if status == 0:
                return
            raise RuntimeError(f"status 0x{status:04X}")
        at += length
    raise RuntimeError(f"a response without a status: {command.hex()}")
