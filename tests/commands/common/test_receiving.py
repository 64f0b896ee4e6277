"""An AE that receives into a directory: its answers, and what its watcher is told."""

import errno
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.logger import capturedLogs

from netdicom_tx import AE
from netdicom_tx.commands.common.directory import Arrived, OutputDirectory
from netdicom_tx.commands.common.receiving import ReceivingAE, serve
from netdicom_tx.dimsemessages import CStoreRQ
from netdicom_tx.dsutils import encode
from netdicom_tx.exceptions import StatusError
from netdicom_tx.testing import Pair, success_of
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN

CLASS, UID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3.4"


def octets() -> bytes:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CLASS, UID
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    made.PatientComments = "x" * 2000
    return encode(made, EXPLICIT_VR_LITTLE_ENDIAN)


class Watched:
    """A receiving AE, and what it tells."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.told: list[object] = []
        self.output = OutputDirectory(str(directory))
        self.ae = ReceivingAE("INBOX", self.output, self)
        serve(self.ae, takes_all=False)
        self.pair = Pair(AE("SCU"), self.ae)

    def began(self, asce: Any) -> None:
        self.told.append("began")

    def kept(self, asce: Any, arrived: Arrived) -> None:
        self.told.append(Path(arrived.path).name)

    def refused(self, asce: Any, error: Exception) -> None:
        self.told.append(error)

    def store(self, *data_sets: bytes) -> list[int]:
        """The statuses of C-STOREs on one association."""

        async def send() -> list[int]:
            contexts = [(CLASS, (EXPLICIT_VR_LITTLE_ENDIAN,))]
            async with await self.pair.scu.request_association(
                self.pair.remote(), contexts
            ) as asce:
                statuses = []
                for data_set in data_sets:
                    request = CStoreRQ(
                        affected_sop_class_uid=CLASS,
                        affected_sop_instance_uid=UID,
                        data_set=data_set,
                    )
                    answer = await asce.request(request, asce.contexts_for(CLASS)[0])
                    statuses.append(int(answer.status or 0))
                return statuses

        return success_of(defer.Deferred.fromCoroutine(send()))


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    def at_once(_: Any, __: Any, call: Callable[..., Any], *arguments: Any) -> Any:
        return defer.maybeDeferred(call, *arguments)

    monkeypatch.setattr("netdicom_tx.commands.common.receiving.deferToThreadPool", at_once)
    made = Watched(tmp_path / "inbox")
    monkeypatch.setattr(made.ae.reactor, "getThreadPool", lambda: None, raising=False)
    return made


def test_an_instance_is_kept_and_told(watched: Watched) -> None:
    assert watched.store(octets()) == [0x0000]
    assert watched.told == ["began", f"{UID}.dcm"]


@pytest.mark.parametrize("cut", [2, 1000, 2000], ids=lambda cut: f"cut by {cut}")
def test_a_data_set_that_is_cut_off_is_answered_as_the_node_does(
    watched: Watched, cut: int
) -> None:
    """PS3.4 B.2.3: 0xC000. It was Success before, for what could not be read again."""
    assert watched.store(octets()[:-cut], octets()) == [0xC000, 0x0000]
    _, refusal, kept = watched.told
    assert isinstance(refusal, StatusError)
    assert refusal.status == 0xC000
    assert kept == f"{UID}.dcm"


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file can have more than 1000 octets."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("no_room")
def test_a_disk_that_is_full_is_told_for_each_instance_and_logged_once(watched: Watched) -> None:
    """0xA700, whether the instance is still coming or is already complete."""
    with capturedLogs() as events:
        assert watched.store(octets() * 200, octets()) == [0xA700, 0xA700]
    _, *refusals = watched.told
    assert [getattr(each, "errno", None) for each in refusals] == [errno.EFBIG] * 2
    ours = [each for each in events if "cannot write to" in each.get("log_format", "")]
    assert [each["reason"] for each in ours] == ["File too large"]
    assert list(watched.directory.iterdir()) == []


def test_a_directory_that_has_gone_is_the_disks_failure(watched: Watched) -> None:
    watched.directory.rmdir()
    assert watched.store(octets()) == [0xA700]
    assert isinstance(watched.told[-1], FileNotFoundError)
