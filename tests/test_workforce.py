"""A node of several processes: nothing acknowledged is lost, whichever of them dies, and all act as one node."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydicom import Dataset
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults
from twisted.internet.threads import deferToThread
from twisted.python import usage
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu, verification_scu
from netdicom_tx.archive.control import ask
from netdicom_tx.archive.snapshots import Snapshot
from netdicom_tx.asceprovider import Association
from netdicom_tx.dsutils import encode, part10_header
from netdicom_tx.exceptions import AssociationError, AssociationRejectedError
from netdicom_tx.sopclass import (
    MODALITY_PERFORMED_PROCEDURE_STEP_SOP_CLASS as MPPS,
)
from netdicom_tx.sopclass import (
    ModalityPerformedProcedureStep,
    StorageCommitment,
    procedure_step_scu,
    qr_find_scu,
    storage_commitment_scu,
)
from netdicom_tx.tap import Options
from netdicom_tx.tls import TLSOptions
from netdicom_tx.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
)
from netdicom_tx.uids import (
    STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS as COMMITMENT,
)
from netdicom_tx.uids import (
    STUDY_ROOT_FIND_SOP_CLASS as FIND,
)
from netdicom_tx.uids import VERIFICATION_SOP_CLASS as VERIFICATION
from support.archive.data_sets import CT_IMAGE_STORAGE, EXPLICIT
from support.archive.databases import PostgreSQL
from support.archive.survivors import made, survivors
from support.node import Node, files
from support.processes import accepts_connections, eventually
from support.steps import UID as STEP
from support.steps import new_step
from test_tap_process import dicom, refused

SENDERS = 8


def file_of(uid: str, data_set: bytes) -> BytesIO:
    return BytesIO(part10_header(CT_IMAGE_STORAGE, uid, EXPLICIT.transfer_syntax) + data_set)


def in_study(uid: str, description: str = "") -> bytes:
    """The data set of an instance of study 1.2.3."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CT_IMAGE_STORAGE, uid
    ds.PatientID = "P"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    ds.SeriesDescription = description
    return encode(ds, EXPLICIT_VR_LITTLE_ENDIAN)


def workers_of(node: Node) -> dict[int, int]:
    """The processes that serve now, by the numbers of the workers."""
    found: dict[int, int] = {}
    for number, pid in re.findall(r"worker (\d+), process (\d+), serves", node.log_text()):
        found[int(number)] = int(pid)
    return {number: pid for number, pid in found.items() if is_running(pid)}


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


class NodeOfTwo(Node):
    """A node with two workers."""

    def __init__(self, directory: Path, *options: str) -> None:
        super().__init__(directory, "--workers", "2", *options)

    def start(self) -> None:
        """Start it, and wait until both serve."""
        super().start()
        eventually(lambda: len(workers_of(self)) == 2, "two workers")

    def worker_of(self, calling: str) -> int:
        """The number of the worker that serves an association, by its calling AE title."""
        line = eventually(
            lambda: re.search(rf"association from {calling} .* worker=(\d)", self.log_text()),
            "association in the log",
        )
        return int(line[1])


class Modality(AE):
    """Asks for commitment, and takes reports."""

    def __init__(self) -> None:
        super().__init__("MODALITY")
        self.add_scu(storage_commitment_scu).add_scp(StorageCommitment())
        self.reports: DeferredQueue[Any] = DeferredQueue()

    def on_commitment_response(self, transaction_uid: str, success: Any, failure: Any) -> None:
        self.reports.put((transaction_uid, list(success), [uid for _, uid, _ in failure]))


class Ris(AE):
    """A modality and the RIS that its steps are forwarded to."""

    def __init__(self) -> None:
        super().__init__("RIS")
        self.add_scu(procedure_step_scu).add_scp(ModalityPerformedProcedureStep())
        self.steps: DeferredQueue[str] = DeferredQueue()

    def on_mpps_create(self, uid: str, ds: Dataset) -> None:
        self.steps.put(uid)


class WorkforceTests(TestCase):
    """Real processes."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.directory = tmp_path
        self.node: Node = NodeOfTwo(tmp_path)
        self.acknowledged: set[str] = set()
        self.sent: set[str] = set()
        self.awaited = 0
        self.enough: Deferred[None] = Deferred()
        self.is_over = False
        yield
        self.node.kill()

    def remote(self) -> RemoteAE:
        return RemoteAE("X", self.node.address.endpoint)

    async def associate(self, title: str) -> Association:
        ae = AE(title).add_scu(storage_scu, [CT_IMAGE_STORAGE]).add_scu(qr_find_scu)
        return await ae.request_association(self.remote())

    async def on_both(self) -> tuple[Association, Association]:
        """Two associations, one with each worker."""
        first = await self.associate("ONE")
        second = await self.associate("TWO")
        assert isinstance(self.node, NodeOfTwo)
        assert {self.node.worker_of("ONE"), self.node.worker_of("TWO")} == {1, 2}
        return first, second

    async def store(self, asce: Association, uid: str, data_set: bytes) -> int:
        status: int = await asce.get_scu(CT_IMAGE_STORAGE)(file_of(uid, data_set))
        return status

    async def count(self, asce: Association, **keys: Any) -> int:
        """How many instances of the study a query finds."""
        wanted = Dataset()
        wanted.QueryRetrieveLevel = "STUDY"
        wanted.StudyInstanceUID = "1.2.3"
        wanted.NumberOfStudyRelatedInstances = None
        found = 0
        async for answer, _ in asce.get_scu(FIND)(wanted):
            if answer is not None:
                found += int(answer.NumberOfStudyRelatedInstances)
        return found

    def await_answers(self, count: int) -> Deferred[None]:
        self.awaited = len(self.acknowledged) + count
        self.enough = Deferred()
        return self.enough

    def goes_on(self) -> bool:
        return not self.is_over

    async def send(self, sender: int) -> None:
        """Store one instance after the other; when the association is lost, go on with another one."""
        number = 0
        while self.goes_on():
            with contextlib.suppress(AssociationError):
                asce = await self.associate(f"SENDER{sender}")
                while self.goes_on():
                    uid = f"1.{sender}.{number}"
                    number += 1
                    self.sent.add(uid)
                    answer = await self.store(asce, uid, made(uid))
                    assert answer == 0x0000, f"{answer!r} for {uid}"
                    self.acknowledged.add(uid)
                    if len(self.acknowledged) == self.awaited:
                        self.enough.callback(None)
                await asce.release()

    def check(self) -> None:
        """Check what is on the disk of a node that has stopped."""
        found = survivors(self.node.storage)
        assert found <= self.sent
        assert self.acknowledged <= found, f"lost: {self.acknowledged - found}"
        assert "Traceback" not in self.node.log, self.node.log

    async def test_nothing_is_lost_when_a_worker_is_killed(self) -> None:
        """Under eight senders; the other worker and its associations go on, and a new worker is started."""
        await deferToThread(self.node.start)
        before = workers_of(self.node)
        senders = [Deferred.fromCoroutine(self.send(each)) for each in range(SENDERS)]
        for number in (1, 2):
            await self.await_answers(60)
            os.kill(workers_of(self.node)[number], signal.SIGKILL)
            await deferToThread(
                eventually,
                lambda number=number: (
                    workers_of(self.node).get(number, before[number]) != before[number]
                ),
                "another worker",
            )
        await self.await_answers(30)
        self.is_over = True
        await gatherResults(senders, consumeErrors=True)
        asce = await self.associate("READER")
        assert await self.count(asce) == 0
        await asce.release()
        await deferToThread(self.node.stop)
        self.check()
        assert "it was ended by SIGKILL" in self.node.log

    async def test_the_workers_end_with_the_lead(self) -> None:
        """They free the port and the directory; the next start finds everything."""
        await deferToThread(self.node.start)
        workers = workers_of(self.node)
        senders = [Deferred.fromCoroutine(self.send(each)) for each in range(SENDERS)]
        await self.await_answers(60)
        port = self.node.address.port
        self.is_over = True
        self.node.kill()
        await gatherResults(senders, consumeErrors=True)
        assert not accepts_connections(port)
        await deferToThread(
            eventually, lambda: not any(map(is_running, workers.values())), "end of the workers"
        )
        await deferToThread(self.node.start)
        await deferToThread(self.node.stop)
        self.check()

    async def told(self) -> Snapshot:
        """What the node says of itself."""
        snapshot: Snapshot = await deferToThread(ask, self.node.storage, "status")
        return snapshot

    async def test_all_processes_are_told_as_one_node(self) -> None:
        """Also what a worker had counted that has ended."""
        await deferToThread(self.node.start)
        first, second = await self.on_both()
        for number, asce in enumerate((first, first, second)):
            uid = f"1.2.3.4.{number}"
            assert await self.store(asce, uid, in_study(uid)) == 0
        snapshot = await self.told()
        workers = workers_of(self.node)
        pids = {each["pid"] for each in snapshot["processes"]}
        assert pids == {self.node.pid, *workers.values()}
        assert snapshot["health"]["ready"]
        live = {each["title"]: each["pid"] for each in snapshot["associations"]["live"]}
        assert live.keys() == {"ONE", "TWO"}
        assert set(live.values()) == set(workers.values())
        assert sum(each["count"] for each in snapshot["operations"]) == 3
        os.kill(live["ONE"], signal.SIGKILL)
        await deferToThread(
            eventually,
            lambda: len(workers_of(self.node)) == 2 and workers_of(self.node) != workers,
            "another worker",
        )
        snapshot = await self.told()
        (operations,) = snapshot["operations"]
        assert (operations["operation"], operations["count"]) == ("C-STORE", 3)
        assert [each["title"] for each in snapshot["associations"]["live"]] == ["TWO"]
        await second.release()
        await deferToThread(self.node.stop)

    async def test_a_worker_that_does_not_answer_is_told_as_it_was(self) -> None:
        await deferToThread(self.node.start)
        before = await self.told()
        stuck = workers_of(self.node)[1]
        os.kill(stuck, signal.SIGSTOP)
        try:
            snapshot = await self.told()
        finally:
            os.kill(stuck, signal.SIGCONT)
        told = {each["pid"]: each["now"] for each in snapshot["processes"]}
        assert told.keys() == {each["pid"] for each in before["processes"]}
        assert told[stuck] == min(told.values())
        await deferToThread(self.node.stop)

    async def test_a_query_sees_what_the_other_worker_has_acknowledged(self) -> None:
        """At once, in both directions, and as often as it is asked."""
        await deferToThread(self.node.start)
        first, second = await self.on_both()
        for number in range(20):
            writer, reader = (first, second) if number % 2 else (second, first)
            assert await self.store(writer, f"1.2.3.4.{number}", in_study(f"1.2.3.4.{number}")) == 0
            assert await self.count(reader) == number + 1
        await gatherResults([first.release(), second.release()])
        await deferToThread(self.node.stop)

    async def test_two_workers_share_a_postgresql_database(self) -> None:
        """As they share a file: they write one after the other, and each finds what the other has acknowledged."""
        url = PostgreSQL.running().url(str(self.directory))
        self.node = NodeOfTwo(self.directory, "--database", url)
        await self.both_get_the_same()

    async def test_two_workers_get_the_same_instance(self) -> None:
        """At the same moment: the same content is kept once, and other content is refused, as by one process."""
        await self.both_get_the_same()

    async def both_get_the_same(self) -> None:
        await deferToThread(self.node.start)
        first, second = await self.on_both()
        for number in range(10):
            uid = f"1.2.3.4.{number}"
            answers = await gatherResults(
                [
                    Deferred.fromCoroutine(self.store(each, uid, in_study(uid)))
                    for each in (first, second)
                ]
            )
            assert answers == [0, 0]
            uid = f"1.2.3.5.{number}"
            answers = await gatherResults(
                [
                    Deferred.fromCoroutine(self.store(each, uid, in_study(uid, description)))
                    for each, description in ((first, "A"), (second, "B"))
                ]
            )
            assert sorted(answers) == [0, 0x0111]
        assert await self.count(first) == 20
        await gatherResults([first.release(), second.release()])
        await deferToThread(self.node.stop)
        assert len(files(self.node.storage)) == 20

    async def test_the_last_one_replaces_the_first_of_another_worker(self) -> None:
        """With ``--duplicates replace``, after which no journal brings the first one back."""
        self.node = NodeOfTwo(self.directory, "--duplicates", "replace")
        await deferToThread(self.node.start)
        first, second = await self.on_both()
        uid = "1.2.3.4.5"
        assert await self.store(first, uid, in_study(uid, "A")) == 0
        assert await self.store(second, uid, in_study(uid, "B")) == 0
        assert await self.count(first) == 1
        workers = workers_of(self.node)
        self.node.kill()
        await deferToThread(
            eventually, lambda: not any(map(is_running, workers.values())), "end of the workers"
        )
        await deferToThread(self.node.start)
        await deferToThread(self.node.stop)
        assert in_study(uid, "B") in files(self.node.storage)[uid].read_bytes()

    async def test_all_workers_read_the_configuration_again(self) -> None:
        """SIGHUP to the lead; so does a worker that is started later."""
        path = self.directory / "node.toml"
        path.write_text('[access]\ndefault = "all"\n')
        self.node = NodeOfTwo(self.directory, "--config", str(path))
        await deferToThread(self.node.start)
        path.write_text('[access]\ndefault = "none"\n[[peer]]\ntitle = "CT1"\nallow = ["echo"]\n')
        os.kill(self.node.pid, signal.SIGHUP)
        await deferToThread(
            eventually,
            lambda: len(re.findall(r"took effect.* worker=\d", self.node.log_text())) == 2,
            "reload by both workers",
        )
        await self.are_both_closed()
        before = workers_of(self.node)
        os.kill(before[1], signal.SIGKILL)
        await deferToThread(
            eventually, lambda: workers_of(self.node).get(1, before[1]) != before[1], "new worker"
        )
        await self.are_both_closed()
        await deferToThread(self.node.stop)

    async def are_both_closed(self) -> None:
        ae = AE("OTHER").add_scu(verification_scu)
        known = AE("CT1").add_scu(verification_scu)
        held = [await known.request_association(self.remote()) for _ in range(2)]
        for _ in range(2):
            with pytest.raises(AssociationRejectedError):
                await ae.request_association(self.remote())
        for each in held:
            await each.release()

    async def test_a_worker_reports_on_the_association_that_asked(self) -> None:
        """Storage commitment: the association is the worker's, and what another worker has acknowledged is there."""
        await deferToThread(self.node.start)
        first, second = await self.on_both()
        assert await self.store(first, "1.2.3.4.1", in_study("1.2.3.4.1")) == 0
        await gatherResults([first.release(), second.release()])
        modality = Modality()
        asce = await modality.request_association(self.remote())
        uids = [(CT_IMAGE_STORAGE, "1.2.3.4.1"), (CT_IMAGE_STORAGE, "1.2.3.4.2")]
        await asce.get_scu(COMMITMENT)("1.2.9.1", uids)
        assert await modality.reports.get() == ("1.2.9.1", uids[:1], [uids[1][1]])
        await asce.release()
        await deferToThread(self.node.stop)

    async def test_the_lead_sends_what_a_worker_owes(self) -> None:
        """Forwarded procedure steps; the worker only writes down that they are owed."""
        ris = Ris()
        port = await ris.listen("tcp:0:interface=127.0.0.1")
        self.addCleanup(port.stopListening)
        address: Any = port.getHost()
        options = ("--peer", f"RIS@127.0.0.1:{address.port}", "--forward-mpps", "RIS")
        self.node = NodeOfTwo(self.directory, *options)
        await deferToThread(self.node.start)
        for number in range(4):
            asce = await ris.request_association(self.remote())
            step = asce.get_scu(MPPS)()
            assert await step.create(f"{STEP}.{number}", new_step()) == 0
            await asce.release()
            assert await ris.steps.get() == f"{STEP}.{number}"
        await deferToThread(self.node.stop)

    async def test_workers_serve_tls_and_local_sockets(self) -> None:
        """The lead accepts, and a worker makes the handshake."""
        authority = trustme.CA()
        trust, certificate = self.directory / "ca.pem", self.directory / "node.pem"
        authority.cert_pem.write_to_path(str(trust))
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(certificate))
        local = self.directory / "dicom.socket"
        self.node = NodeOfTwo(
            *(self.directory, "--listen", f"unix:{local}"),
            *("--tls-listen", "tcp:0:interface=127.0.0.1", "--tls-certificate", str(certificate)),
        )
        await deferToThread(self.node.start)
        ports = re.findall(r"listening on 127\.0\.0\.1:(\d+)", self.node.log_text())
        tls = TLSOptions(trust=trust)
        ae = AE("OTHER").add_scu(verification_scu)
        for remote in (
            RemoteAE("X", f"tcp:127.0.0.1:{ports[1]}", tls=tls),
            RemoteAE("X", f"unix:{local}"),
            self.remote(),
        ):
            # One with each worker.
            held = [await ae.request_association(remote) for _ in range(2)]
            for each in held:
                assert await each.get_scu(VERIFICATION)() == 0
                await each.release()
        await deferToThread(self.node.stop)
        assert not local.exists()

    async def test_a_second_node_is_refused(self) -> None:
        await deferToThread(self.node.start)
        done = await deferToThread(
            dicom, "--listen", "tcp:0:interface=127.0.0.1", "--storage", self.node.storage
        )
        refused(done, "is in use by another node")
        await deferToThread(self.node.stop)

    async def test_a_limit_holds_for_all_workers_together(self) -> None:
        """Each has its part, and the lead gives the next association to the one with the fewest."""
        self.node = NodeOfTwo(self.directory, "--max-associations", "3")
        await deferToThread(self.node.start)
        ae = AE("HOLDER").add_scu(verification_scu)
        held = [await ae.request_association(self.remote()) for _ in range(3)]
        # The fourth one is rejected, or takes the place of one that has been silent for a second.
        with contextlib.suppress(AssociationRejectedError):
            held.append(await ae.request_association(self.remote()))
        await deferToThread(
            eventually, lambda: sum(each.is_open for each in held) <= 3, "three associations"
        )
        for each in held:
            if each.is_open:
                await each.release()
        await deferToThread(self.node.stop)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers: expected a whole number of 1 or more"),
        (["--workers", "65"], "--workers: expected at most 64, not 65"),
        (["--workers", "4", "--max-associations", "3"], "cannot be divided among --workers 4"),
        (
            ["--workers", "2", "--max-associations-per-title", "1"],
            "--max-associations-per-title 1 cannot be divided",
        ),
        (["--workers", "2", "--listen", "haproxy:tcp:104"], "needs an endpoint of tcp, tcp6"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(usage.UsageError, match=re.escape(message)):
        Options().parseOptions(options)


def test_a_worker_has_its_part_of_each_limit() -> None:
    """The parts are the whole together."""
    parts = []
    for number in (1, 2, 3):
        options = Options()
        options.part = number, 3
        options.parseOptions(["--workers", "3", "--max-associations", "100"])
        parts.append(options["max-associations"])
        assert options["max-associations-per-title"] is None
        assert options.again()["max-associations"] == parts[-1]
    assert parts == [34, 33, 33]
