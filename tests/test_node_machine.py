"""A machine that uses the archive node at random, and a model of what it holds.

Peers store, store again, find, retrieve and move; they abort and lose their connections anywhere, also in the middle
of a C-STORE; an operator deletes, also while somebody retrieves; and the node is stopped and started again on its
directory. Nothing that was acknowledged is ever lost, nothing that was deleted comes back, and every answer is what the
model says. All is in memory, but for store and index, which are on the disk.

``NETDICOM_TX_NODE_MACHINE_EXAMPLES`` is the number of runs, and ``--hypothesis-seed`` makes them the same again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from zope.interface import implementer

import support.strategies  # noqa: F401 - its Hypothesis profile
from netdicom_tx import AE, RemoteAE, StatusError, applicationentity, uids, verification_scu
from netdicom_tx.archive import ArchiveAE
from netdicom_tx.archive.index.schema import Level
from netdicom_tx.archive.store.sharing import Lease
from netdicom_tx.dsutils import encode
from netdicom_tx.memory import Wire, join
from netdicom_tx.sopclass import qr_find_scu, qr_get_scu, qr_move_scu, storage_scp, storage_scu
from netdicom_tx.testing import success_of
from support.archive.archives import archive, data_set
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import data_set as made
from support.doubles import AC, RawPeer, message, request, store_rq

EXAMPLES = int(os.environ.get("NETDICOM_TX_NODE_MACHINE_EXAMPLES", "10"))
STEPS = 40
EXPLICIT = uids.EXPLICIT_VR_LITTLE_ENDIAN
#: Two studies of one patient, one of another; four instances each.
NUMBERS = range(12)
_T = TypeVar("_T")


def study_of(number: int) -> str:
    return f"1.2.3.{number // 4}"


def patient_of(number: int) -> str:
    return f"P{number // 8}"


def uid_of(number: int) -> str:
    return f"1.2.3.{number // 4}.1.{number}"


def instance(number: int, text: str = "") -> Dataset:
    """An instance; the text makes it another one of the same UID."""
    ds = made(
        SOPClassUID=CT_IMAGE_STORAGE,
        SOPInstanceUID=uid_of(number),
        PatientName=f"Name^{patient_of(number)}",
        PatientID=patient_of(number),
        StudyInstanceUID=study_of(number),
        SeriesInstanceUID=f"{study_of(number)}.1",
        Modality="CT",
        ImageComments=text or "first",
    )
    ds.PixelData = bytes([number]) * 3000
    ds["PixelData"].VR = "OW"
    return ds


def octets_of(number: int, text: str = "") -> bytes:
    return encode(instance(number, text), EXPLICIT)


@implementer(IStreamClientEndpoint)
class Line:
    """An endpoint of an AE in memory."""

    def __init__(self, wire: Wire, ae: applicationentity.AE) -> None:
        self._wire, self._ae = wire, ae

    def connect(self, protocolFactory: Any) -> defer.Deferred[Any]:
        client = protocolFactory.buildProtocol(None)
        join(client, self._ae.acceptor_factory().buildProtocol(None), self._wire)
        return defer.succeed(client)


class Viewer(AE):
    """Asks the node for everything, and keeps what it is sent."""

    def __init__(self, title: str, clock: Clock) -> None:
        super().__init__(title)
        for service in (verification_scu, qr_find_scu, qr_get_scu, qr_move_scu):
            self.add_scu(service)
        self.add_scu(storage_scu, [CT_IMAGE_STORAGE])
        self.add_scp(storage_scp, [CT_IMAGE_STORAGE])
        self._reactor = clock
        self.received: dict[str, bytes] = {}

    def on_receive_store(self, context: Any, ds: BinaryIO) -> int:
        octets = ds.read()
        # What comes is a file; its header ends where the data set begins with the SOP class.
        start = octets.index(b"\x08\0\x16\0UI")
        uid = octets[start:].split(b"\x08\0\x18\0UI", 1)[1]
        length = int.from_bytes(uid[:2], "little")
        self.received[uid[2 : 2 + length].decode().rstrip("\0")] = octets[start:]
        return 0x0000


def finished(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of what needs no time in memory."""
    return success_of(defer.Deferred.fromCoroutine(work))


async def everything(stream: AsyncIterator[_T]) -> list[_T]:
    return [each async for each in stream]


class NodeMachine(RuleBasedStateMachine):
    """The node, its peers, and what the node has to hold.

    Attributes:
        kept: What was acknowledged, by number.
        maybe: What was sent whole, but not acknowledged before the connection was lost.
        deleted: What was deleted, and may still have a file.
        leases: Of retrieves that are under way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.kept: dict[int, bytes] = {}
        self.maybe: dict[int, bytes] = {}
        self.deleted: set[int] = set()
        self.leases: list[Lease] = []
        self.peers: list[Any] = []
        self.raw: list[RawPeer] = []

    @initialize()
    def begin(self) -> None:
        self._start()

    def _start(self) -> None:
        self.clock = Clock()
        self.wire = Wire(self.clock)
        self.viewer = Viewer("VIEWER", self.clock)
        destination = RemoteAE("VIEWER", Line(self.wire, self.viewer))
        self.ae: ArchiveAE = archive(self.folder, threads=0, peers={"VIEWER": destination})
        self.ae._reactor = self.clock
        self.ae.start()
        self.wire.run()
        self.peers.clear()
        self.raw.clear()

    def teardown(self) -> None:
        if hasattr(self, "ae"):
            self._end()
        shutil.rmtree(self.folder)

    def _end(self) -> None:
        for asce in tuple(self.ae.associations | self.viewer.associations):
            asce.drop()
        self.wire.run()
        success_of(self.ae.pause())
        while self.leases:
            self.leases.pop().release()
        self.ae.stop()
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def _peer(self, number: int) -> Any:
        """An open association, or a new one."""
        self.peers = [each for each in self.peers if each.error is None]
        if not self.peers or (number % 5 == 0 and len(self.peers) < 4):
            node = RemoteAE("NODE", Line(self.wire, self.ae))
            self.peers.append(success_of(self.viewer.request_association(node)))
        return self.peers[number % len(self.peers)]

    # -- what peers do -----------------------------------------------------------------------------

    @rule(number=st.sampled_from(NUMBERS), which=st.integers(0, 9))
    def store(self, number: int, which: int) -> None:
        """The first one is kept, and the same one again is Success."""
        status = success_of(self._peer(which).get_scu(CT_IMAGE_STORAGE)(instance(number)))
        if self._settle(number) in (None, octets_of(number)):
            assert status == 0x0000
            self.kept[number] = octets_of(number)
        else:
            assert status != 0x0000

    @rule(number=st.sampled_from(NUMBERS), which=st.integers(0, 9))
    def store_another(self, number: int, which: int) -> None:
        """Another data set with the same UID is refused, or the first one."""
        ds = instance(number, "another")
        status = success_of(self._peer(which).get_scu(CT_IMAGE_STORAGE)(ds))
        if self._settle(number) in (None, octets_of(number, "another")):
            assert status == 0x0000
            self.kept[number] = octets_of(number, "another")
        else:
            assert status != 0x0000

    @rule(which=st.integers(0, 9))
    def echo(self, which: int) -> None:
        scu = self._peer(which).get_scu(uids.VERIFICATION_SOP_CLASS)
        assert success_of(scu()) == 0x0000

    @rule(which=st.integers(0, 9), patient=st.sampled_from(["P0", "P1", "P*", "P2"]))
    def find_studies(self, which: int, patient: str) -> None:
        self._settle_all()
        keys = {
            "PatientID": patient,
            "StudyInstanceUID": None,
            "NumberOfStudyRelatedInstances": None,
        }
        answers = finished(everything(self._peer(which).find("STUDY", **keys)))
        found = {each.StudyInstanceUID: int(each.NumberOfStudyRelatedInstances) for each in answers}
        expected: dict[str, int] = {}
        for number in self.kept:
            if patient in ("P*", patient_of(number)):
                expected[study_of(number)] = expected.get(study_of(number), 0) + 1
        assert found == expected
        assert len(answers) == len(found)

    @rule(which=st.integers(0, 9), number=st.sampled_from(NUMBERS))
    def find_instances(self, which: int, number: int) -> None:
        self._settle_all()
        keys = {"StudyInstanceUID": study_of(number), "SeriesInstanceUID": f"{study_of(number)}.1"}
        stream = self._peer(which).find("IMAGE", **keys, SOPInstanceUID=None)
        found = {each.SOPInstanceUID for each in finished(everything(stream))}
        assert found == {uid_of(each) for each in self._of_study(number)}

    @rule(which=st.integers(0, 9), number=st.sampled_from(NUMBERS))
    def get(self, which: int, number: int) -> None:
        self._settle_all()
        self.viewer.received.clear()
        stream = self._peer(which).get("STUDY", StudyInstanceUID=study_of(number))
        finished(everything(stream))
        self._check_received(number)

    @rule(which=st.integers(0, 9), number=st.sampled_from(NUMBERS))
    def move(self, which: int, number: int) -> None:
        self._settle_all()
        self.viewer.received.clear()
        stream = self._peer(which).move("STUDY", StudyInstanceUID=study_of(number), to="VIEWER")
        finished(everything(stream))
        self._check_received(number)

    @rule(which=st.integers(0, 9))
    def move_elsewhere(self, which: int) -> None:
        stream = self._peer(which).move("STUDY", StudyInstanceUID="1.2.3.0", to="NOWHERE")
        with pytest.raises(StatusError) as caught:
            finished(everything(stream))
        assert caught.value.status == 0xA801

    # -- what an operator does ---------------------------------------------------------------------

    @rule(
        number=st.sampled_from(NUMBERS),
        level=st.sampled_from([Level.STUDY, Level.SERIES, Level.IMAGE]),
        is_sent=st.booleans(),
    )
    def delete(self, number: int, level: Level, is_sent: bool) -> None:
        """With ``is_sent``, somebody retrieves it at the moment, so its files stay for a while."""
        self._settle_all()
        key = {
            Level.STUDY: study_of(number),
            Level.SERIES: f"{study_of(number)}.1",
            Level.IMAGE: uid_of(number),
        }[level]
        gone = {number} if level is Level.IMAGE else self._of_study(number)
        if is_sent:
            self.leases.append(self.ae.store.leases.take())
        done = self.ae.deleter.delete_named(level, key)
        assert set(done.uids) == {uid_of(each) for each in gone & self.kept.keys()}
        assert done.waiting == (done.instances if self.leases else 0)
        self.deleted.update(gone & self.kept.keys() if self.leases else ())
        for each in gone:
            self.kept.pop(each, None)

    @rule()
    def finish_deletions(self) -> None:
        """The retrieves have ended."""
        while self.leases:
            self.leases.pop().release()
        self.ae.deleter.finish()
        self.deleted.clear()

    # -- how they end ------------------------------------------------------------------------------

    @precondition(lambda self: self.peers)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["release", "abort", "drop"]))
    def end_association(self, which: int, how: str) -> None:
        asce = self.peers.pop(which % len(self.peers))
        if asce.error is not None:
            return  # the node has ended it, because it was idle
        ended = getattr(asce, how)()
        if isinstance(ended, defer.Deferred):
            success_of(ended)
        self.wire.run()

    @rule(
        number=st.sampled_from(NUMBERS),
        text=st.sampled_from(["", "another"]),
        share=st.floats(0, 1),
        end=st.sampled_from(["loseConnection", "abortConnection", "A-ABORT", None]),
    )
    def store_in_part(self, number: int, text: str, share: float, end: str | None) -> None:
        """A C-STORE that comes in part, or whole and without anybody who hears the answer."""
        peer = RawPeer()
        join(peer, self.ae.acceptor_factory().buildProtocol(None), self.wire)
        peer.send(request({CT_IMAGE_STORAGE: [EXPLICIT]}))
        assert peer.kinds() == [AC]
        data = octets_of(number, text)
        whole = message(store_rq(1, data, uid_of(number)))
        sent = whole[: round(share * len(whole))]
        if end == "A-ABORT" and len(whole) - len(sent) <= 10:
            sent = whole  # otherwise the octets of the A-ABORT would be the rest of the data set
        self._settle_all()
        peer.send(sent)
        if sent == whole:
            self.maybe.setdefault(number, data)
        if end == "A-ABORT":
            peer.send(bytes.fromhex("07000000000400000000"))
        elif end is not None:
            getattr(peer.transport, end)()
        else:
            self.raw.append(peer)
        self.wire.run()

    @rule(has_index=st.booleans())
    def restart(self, has_index: bool) -> None:
        """The node ends, whatever is open, and begins again on its directory, perhaps without its index."""
        if not has_index:
            # What is being deleted is known to the index alone.
            self.finish_deletions()
        self._end()
        self.deleted.clear()
        if not has_index:
            for path in self.folder.glob("index.db*"):
                path.unlink()
        self._start()

    @rule(seconds=st.sampled_from([1, 20, 400]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)
        self.wire.run()

    # -- the model ---------------------------------------------------------------------------------

    def _settle(self, number: int) -> bytes | None:
        """What was kept of a number before; one that nobody has heard of counts if it is there."""
        if number in self.maybe:
            assert self.ae.index is not None
            # The file of one that was deleted may still be there.
            is_there = number not in self.kept and self.ae.index.get(uid_of(number)) is not None
            found = self._on_disk(number) if is_there else None
            maybe = self.maybe.pop(number)
            if found is not None:
                assert found in (maybe, octets_of(number), octets_of(number, "another"))
                self.kept[number] = found
        return self.kept.get(number)

    def _settle_all(self) -> None:
        for number in tuple(self.maybe):
            self._settle(number)

    def _of_study(self, number: int) -> set[int]:
        return {each for each in self.kept if study_of(each) == study_of(number)}

    def _check_received(self, number: int) -> None:
        assert self.viewer.received == {
            uid_of(each): self.kept[each] for each in self._of_study(number)
        }

    def _on_disk(self, number: int) -> bytes | None:
        path = self.ae.store.path(uid_of(number))
        return data_set(path) if path.exists() else None

    @invariant()
    def everything_acknowledged_is_there(self) -> None:
        if not hasattr(self, "ae"):
            return
        assert self.ae.index is not None
        there = {path.name for path in self.ae.store.instances.rglob("*") if path.is_file()}
        for number, data in self.kept.items():
            row = self.ae.index.get(uid_of(number))
            assert row is not None
            assert self._on_disk(number) == data
            assert row.size == row.path.stat().st_size
            there.discard(row.path.name)
        left = self.maybe.keys() | self.deleted
        assert there <= {self.ae.store.path(uid_of(number)).name for number in left}


@pytest.mark.slow
def test_the_node_and_its_model_agree() -> None:
    run_state_machine_as_test(
        NodeMachine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            # The steps of a failure are printed as they were; to look for fewer of them takes minutes.
            phases=[Phase.generate],
        ),
    )
