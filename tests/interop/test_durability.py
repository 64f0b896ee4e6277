"""What ``twistd dicom`` has acknowledged is there: after a restart, a duplicate, a crash."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, storage_scu
from netdicom_tx.exceptions import ConnectionLostError
from support.interop.dcmtk import storescu
from support.interop.ours import changed, store
from support.interop.peers import OUR_SCU
from support.interop.samples import Sample, copies, one_of_each
from support.node import Node
from support.processes import Process, eventually, program, run

pytestmark = pytest.mark.interop


# storescu prints its progress dots into the same lines.
_SAID = re.compile(r"I: Sending file: (\S+)|I: Received Store Response \(Success\)")


def named(samples: tuple[Sample, ...], name: str) -> Sample:
    """The sample made of this file of pydicom's."""
    return next(sample for sample in samples if sample.name == name)


def test_a_restarted_node_has_what_it_had(node: Node, dcmtk_samples: tuple[Sample, ...]) -> None:
    """Nothing changes by stopping and starting it."""
    sent = one_of_each(dcmtk_samples)
    storescu(node.address, sent)
    before = node.instances()
    assert changed(sent, before) == []
    node.stop()
    assert node.instances() == before
    node.start()
    assert node.instances() == before
    assert changed(sent, node.instances()) == []


def test_the_same_instance_again_is_a_success_and_one_copy(
    node: Node, dcmtk_samples: tuple[Sample, ...]
) -> None:
    """A sender retries after a lost response.

    ``by_instance`` fails when two files have one SOP Instance UID.
    """
    sent = one_of_each(dcmtk_samples)
    storescu(node.address, sent)
    first = node.instances()
    printed = storescu(node.address, sent, "--repeat", "2")
    assert printed.count("Received Store Response (Success)") == 2 * len(sent)
    assert node.instances() == first
    assert changed(sent, first) == []


class ConflictTests(TestCase):
    """Another data set under a SOP Instance UID that the node has."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, node: Node, dcmtk_samples: tuple[Sample, ...], tmp_path: Path) -> None:
        self.node = node
        self.first = named(dcmtk_samples, "MR_small.dcm")
        self.next = named(dcmtk_samples, "CT_small.dcm")
        octets = bytearray(self.first.path.read_bytes())
        octets[-1] ^= 1  # in Pixel Data
        path = tmp_path / "other.dcm"
        path.write_bytes(octets)
        self.other = replace(self.first, path=path)

    async def test_it_is_refused_and_the_first_is_kept(self) -> None:
        """PS3.7 Annex C: 0x0111, duplicate SOP instance; the association goes on."""
        statuses = await store(self.node.address, [self.first, self.other, self.next])
        assert list(statuses.values()) == [0x0000, 0x0111, 0x0000]
        kept = self.node.instances()
        assert kept.keys() == {self.first.instance, self.next.instance}
        assert changed([self.first, self.next], kept) == []

    def test_storescu_is_told(self) -> None:
        """DCMTK takes it for a failure, and says its number."""
        storescu(self.node.address, [self.first])
        done = run(
            program("storescu"),
            "--verbose",
            "--required",
            *self.node.address.arguments,
            self.other.path,
        )
        assert "Received Store Response (Unknown Status: 0x111)" in done.stdout
        assert changed([self.first], self.node.instances()) == []


def assert_whole(node: Node, sent: Sequence[Sample], acknowledged: Sequence[Sample]) -> None:
    """All that was acknowledged is kept, and what is kept is whole, acknowledged or not."""
    kept = node.instances()
    assert changed(acknowledged, kept) == []
    assert kept.keys() <= {sample.instance for sample in sent}
    assert changed([sample for sample in sent if sample.instance in kept], kept) == []
    assert [path for path in node.storage.glob("incoming/**/*") if path.is_file()] == []


@pytest.mark.parametrize("enough", [1, 60])
def test_a_killed_node_has_what_it_told_storescu(
    node: Node, samples: tuple[Sample, ...], tmp_path: Path, enough: int
) -> None:
    """SIGKILL while three storescu send; then the node starts again and takes the rest."""
    sent = copies(named(samples, "examples_overlay.dcm"), 150, tmp_path / "copies")
    by_path = {str(sample.path): sample for sample in sent}
    senders = [
        Process(
            tmp_path / f"storescu-{number}.log",
            program("storescu"),
            *("--verbose", "--required", "--propose-little", *node.address.arguments),
            *(sample.path for sample in sent[number::3]),
        )
        for number in range(3)
    ]

    def acknowledged() -> list[Sample]:
        """What storescu has printed a success for."""
        found = []
        for sender in senders:
            for said in _SAID.finditer(sender.text()):
                if said[1]:
                    path = said[1]
                else:
                    found.append(by_path[path])
        return found

    eventually(lambda: len(acknowledged()) >= enough, "acknowledgement", every=0.001)
    node.kill()
    for sender in senders:
        eventually(sender.ended, "end of storescu")
    told = acknowledged()
    assert len(told) < len(sent), "the node was killed too late to be interrupted"

    node.start()
    assert_whole(node, sent, told)
    printed = storescu(node.address, sent)
    assert printed.count("Received Store Response (Success)") == len(sent)
    assert_whole(node, sent, sent)


class CrashTests(TestCase):
    """The same with our SCU, whose Deferreds fail."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, node: Node, samples: tuple[Sample, ...], tmp_path: Path) -> None:
        self.node = node
        self.sent = copies(named(samples, "examples_overlay.dcm"), 60, tmp_path / "copies")

    async def test_a_killed_node_has_what_it_told_our_scu(self) -> None:
        """Killed at an acknowledgement, while the two other associations send."""
        told: list[Sample] = []

        async def send(queue: Sequence[Sample]) -> None:
            ae = AE(OUR_SCU).add_scu(storage_scu, [queue[0].sop_class])
            remote = RemoteAE(self.node.ae_title, self.node.address.endpoint)
            async with await ae.request_association(remote) as asce:
                for sample in queue:
                    assert await asce.get_scu(sample.sop_class)(sample.path) == 0x0000
                    told.append(sample)
                    if len(told) == 20:
                        self.node.kill()

        sending = [Deferred.fromCoroutine(send(self.sent[number::3])) for number in range(3)]
        for each in sending:
            with pytest.raises(ConnectionLostError):
                await each
        self.node.start()
        assert_whole(self.node, self.sent, told)
