"""A conversation that was recorded, and is lost behind each of its octets.

A requestor stores an instance, finds it, retrieves it and releases the association. What it sent is sent again up to
every octet, and the connection ends there. The node fails in nothing, shows nothing partial, keeps what it has
acknowledged, and serves the other association.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from twisted.internet import defer
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import LogLevel, capturedLogs, formatEvent
from zope.interface import implementer

from netdicom_tx import AE, RemoteAE, uids, verification_scu
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.memory import MemoryTransport, join
from netdicom_tx.sopclass import (
    qr_find_scu,
    qr_get_scu,
    storage_scp,
    storage_scu,
)
from netdicom_tx.testing import success_of
from support.archive.archives import Archive, is_heard
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import data_set
from support.doubles import AC, RawPeer

EXPLICIT = uids.EXPLICIT_VR_LITTLE_ENDIAN
#: The instance of the recorded conversation; each replay has another one, whose UID is as long.
RECORDED = "1.2.3.10000"


def data_of(instance: str) -> bytes:
    """The data set that is stored."""
    return encode(
        data_set(
            SOPClassUID=CT_IMAGE_STORAGE,
            SOPInstanceUID=instance,
            PatientID="P1",
            StudyInstanceUID="1.2.3",
            SeriesInstanceUID="1.2.3.1",
            Modality="CT",
        ),
        EXPLICIT,
    )


@implementer(IStreamClientEndpoint)
class Recorder:
    """An endpoint that leads to a node in memory, and keeps the transport of the requestor."""

    transport: MemoryTransport

    def __init__(self, node: Archive) -> None:
        self._node = node

    def connect(self, protocolFactory: Any) -> defer.Deferred[Any]:
        client = protocolFactory.buildProtocol(None)
        acceptor = self._node.ae.acceptor_factory().buildProtocol(None)
        self.transport, _ = join(client, acceptor, self._node.wire)
        return defer.succeed(client)


class Requestor(AE):
    """Receives what it retrieves."""

    def __init__(self, node: Archive) -> None:
        super().__init__("PEER")
        for service in (verification_scu, qr_find_scu, qr_get_scu):
            self.add_scu(service)
        self.add_scu(storage_scu, [CT_IMAGE_STORAGE])
        self.add_scp(storage_scp, [CT_IMAGE_STORAGE])
        self._reactor = node.clock
        self.received: list[bytes] = []

    def on_receive_store(self, context: Any, ds: BinaryIO) -> int:
        self.received.append(ds.read())
        return 0x0000


async def converse(asce: Any, path: Path) -> None:
    """Store, find and retrieve an instance, and release the association."""
    octets = data_of(RECORDED)
    path.write_bytes(part10_header(CT_IMAGE_STORAGE, RECORDED, EXPLICIT) + octets)
    assert await asce.get_scu(CT_IMAGE_STORAGE)(str(path)) == 0x0000
    keys = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1", "SOPInstanceUID": RECORDED}
    found = [each async for each in asce.find("IMAGE", **keys)]
    assert len(found) == 1
    final = [each async for each in asce.get("IMAGE", **keys)]
    assert final
    await asce.release()


def pdus(octets: bytes) -> Iterator[bytes]:
    """The PDUs of a stream; the last one may be cut."""
    while octets:
        end = 6 + struct.unpack_from(">I", octets, 2)[0] if len(octets) >= 6 else len(octets)
        yield octets[:end]
        octets = octets[end:]


@pytest.fixture(scope="module")
def conversation(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """All octets that the requestor has sent."""
    node = Archive(tmp_path_factory.mktemp("recorded"))
    requestor, recorder = Requestor(node), Recorder(node)
    asce = success_of(requestor.request_association(RemoteAE("NODE", recorder)))
    success_of(
        defer.Deferred.fromCoroutine(converse(asce, tmp_path_factory.mktemp("sent") / "ct.dcm"))
    )
    (received,) = requestor.received
    assert received.endswith(data_of(RECORDED))
    node.close()
    return bytes(recorder.transport.written)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Archive]:
    started = Archive(tmp_path)
    yield started
    started.close()


def replay(node: Archive, octets: bytes) -> RawPeer:
    """Send octets PDU by PDU, so that the node answers each before the next one comes."""
    peer = node.connect()
    for each in pdus(octets):
        peer.send(each)
    return peer


def acknowledged(peer: RawPeer) -> bool:
    """Whether the first response, that to the C-STORE, has come; it says Success."""
    for kind, body in peer.take():
        if kind != AC:
            # A P-DATA-TF with the command set of a response whose last element is the status or before it.
            assert b"\0\0\0\x09\2\0\0\0\0\0" in body
            return True
    return False


@pytest.mark.parametrize("end", ["loseConnection", "abortConnection"])
def test_a_conversation_may_be_lost_behind_each_octet(
    node: Archive, conversation: bytes, end: str
) -> None:
    other = node.sender()
    kept = set[str]()
    with capturedLogs() as events:
        for length in range(len(conversation) + 1):
            instance = f"1.2.3.{10000 + length}"
            octets = conversation.replace(RECORDED.encode(), instance.encode())
            peer = replay(node, octets[:length])
            getattr(peer.transport, end)()
            node.wire.run()
            assert len(node.ae.associations) == 1, "the association is over, the other one is not"
            assert is_heard(other)
            found = node.kept(instance)
            assert found in (None, data_of(instance))
            assert found is not None or not acknowledged(peer)
            if found is not None:
                kept.add(instance)
            assert not list(node.store.incoming.iterdir())
    assert [formatEvent(each) for each in events if each["log_level"] >= LogLevel.error] == []
    assert not [each for each in events if "log_failure" in each]
    assert len(kept) > len(conversation) // 4, "most of the conversation comes behind the C-STORE"
    assert {path.name for path in node.store.instances.rglob("*.dcm")} == {
        node.store.path(each).name for each in kept
    }
    assert node.lives()


def test_the_whole_conversation_ends_well(node: Archive, conversation: bytes) -> None:
    """What is replayed is what was recorded: the answer to the release comes last."""
    peer = replay(node, conversation)
    assert acknowledged(peer)
    assert node.kept(RECORDED) == data_of(RECORDED)
    assert bytes(peer.received[-10:]) == b"\6\0\0\0\0\4\0\0\0\0"
