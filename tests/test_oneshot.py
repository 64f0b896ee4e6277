"""One call, one association: the functions for scripts, over associations in memory."""

from __future__ import annotations

import gc
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from twisted.internet import defer

import netdicom_tx
from netdicom_tx import AE, RemoteAE, StatusError, uids, verification_scp
from netdicom_tx.exceptions import (
    AssociationRejectedError,
    ClassNotSupportedError,
    LocalProtocolError,
)
from netdicom_tx.testing import Pair, failure_of, success_of
from support.serving import FILES, Archive, study

_T = TypeVar("_T")


class Net:
    def __init__(self) -> None:
        self.ae, self.archive = AE("SCRIPT"), Archive()
        self.pair = Pair(self.ae, self.archive)

    @property
    def peer(self) -> RemoteAE:
        return self.pair.remote()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return success_of(defer.Deferred.fromCoroutine(work))

    def proposed(self) -> set[str]:
        """The abstract syntaxes of the association that is open."""
        (asce,) = self.archive.associations
        assert asce.request_pdu is not None
        return {each.abstract_syntax for each in asce.request_pdu.presentation_contexts}


@pytest.fixture
def net() -> Net:
    return Net()


def test_echo_needs_one_line(net: Net) -> None:
    assert success_of(netdicom_tx.echo(net.peer, ae=net.ae)) == 0x0000
    assert not net.archive.associations


def test_a_refusal_fails_the_deferred(net: Net) -> None:
    net.archive.calling_ae_titles = frozenset({"OTHER"})
    failed = netdicom_tx.echo(net.peer, ae=net.ae)
    failures: list[Any] = []
    failed.addErrback(failures.append)
    assert failures[0].check(AssociationRejectedError)


def test_find_gives_the_list_or_one_after_the_other(net: Net) -> None:
    net.archive.matches = [study(PatientID="1"), study(PatientID="2")]

    async def both() -> tuple[list[str], list[str]]:
        found = await netdicom_tx.find(net.peer, PatientID="*", ae=net.ae)
        stream = netdicom_tx.find(net.peer, PatientID="*", ae=net.ae)
        read = []
        async for each in stream:
            assert net.proposed() == {uids.StudyRootQueryRetrieveInformationModelFind}
            read.append(each.PatientID)
        assert stream.stream is not None
        assert stream.stream.final is not None
        return [each.PatientID for each in found], read

    assert net.run(both()) == (["1", "2"], ["1", "2"])
    assert not net.archive.associations


def test_a_failure_is_raised_and_the_association_ends(net: Net) -> None:
    net.archive.matches = [0xA700]

    async def work() -> None:
        with pytest.raises(StatusError):
            await netdicom_tx.find(net.peer, PatientID="*", ae=net.ae)

    net.run(work())
    assert not net.archive.associations


def test_leaving_the_block_early_ends_query_and_association(net: Net) -> None:
    net.archive.matches = (study(PatientID=str(n)) for n in range(10_000))

    async def work() -> str:
        async with netdicom_tx.find(net.peer, PatientID="*", ae=net.ae) as matches:
            async for each in matches:
                return str(each.PatientID)
        raise AssertionError("there was no match")

    assert net.run(work()) == "0"
    net.pair.advance(1)
    assert not net.archive.associations


def test_an_exception_in_the_block_aborts(net: Net) -> None:
    net.archive.matches = [study(PatientID="1")]

    async def work() -> None:
        async with netdicom_tx.find(net.peer, PatientID="*", ae=net.ae) as matches:
            await anext(matches)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        net.run(work())
    assert not net.archive.associations


def test_a_stream_that_has_ended_stays_at_its_end(net: Net) -> None:
    """After its last item, and after an association that was not opened."""

    async def work() -> None:
        net.archive.matches = [study(PatientID="1")]
        async with netdicom_tx.find(net.peer, PatientID="*", ae=net.ae) as matches:
            assert [each.PatientID async for each in matches] == ["1"]
            assert [each async for each in matches] == []
        net.archive.calling_ae_titles = frozenset({"OTHER"})
        refused = netdicom_tx.find(net.peer, PatientID="*", ae=net.ae)
        with pytest.raises(AssociationRejectedError):
            await anext(refused)
        assert [each async for each in refused] == []

    net.run(work())
    assert not net.archive.associations


def test_a_block_that_asks_for_nothing_opens_no_association(net: Net) -> None:
    async def work() -> None:
        async with netdicom_tx.find(net.peer, PatientID="*", ae=net.ae) as matches:
            assert matches.stream is None

    net.run(work())
    assert not net.pair.network.connections


def test_a_stream_has_one_reader(net: Net) -> None:
    """A second one would open another association, and get another half of the answer."""
    undecided: defer.Deferred[None] = defer.Deferred()
    net.archive.on_association_request = lambda asce, assoc: undecided  # type: ignore[method-assign,assignment,return-value]
    net.archive.matches = [study(PatientID=str(number)) for number in range(3)]
    stream = netdicom_tx.find(net.peer, PatientID="*", ae=net.ae)

    async def following() -> str:
        return str((await anext(stream)).PatientID)

    async def all_of_it() -> list[Dataset]:
        return await stream

    first = defer.Deferred.fromCoroutine(following())
    for other in (following(), all_of_it()):
        error = failure_of(defer.Deferred.fromCoroutine(other))  # type: ignore[arg-type]
        assert str(error) == "the stream is being read already"
    assert len(net.archive.associations) == 1
    undecided.callback(None)
    assert success_of(first) == "0"
    assert len(success_of(defer.Deferred.fromCoroutine(all_of_it()))) == 2
    error = failure_of(defer.Deferred.fromCoroutine(all_of_it()))
    assert "has been read already" in str(error)
    assert not net.archive.associations


@pytest.mark.parametrize(
    "call",
    [
        lambda net: netdicom_tx.find(net.peer, PatientID="*", ae=net.ae),
        lambda net: netdicom_tx.get(net.peer, StudyInstanceUID="1.2", ae=net.ae, into="unused"),
        lambda net: netdicom_tx.move(net.peer, StudyInstanceUID="1.2", to="ME", ae=net.ae),
    ],
)
def test_a_call_that_cannot_be_made_ends_the_association(net: Net, call: Any) -> None:
    """At once, and not when the error is forgotten, which holds all that led to it."""
    net.archive.supported_scp = AE("OTHER").add_scp(verification_scp).supported_scp

    async def work() -> None:
        await call(net)

    error = failure_of(defer.Deferred.fromCoroutine(work()))
    assert isinstance(error, ClassNotSupportedError)
    assert not net.archive.associations
    assert not net.ae.associations


@pytest.mark.slow
def test_a_stream_that_is_dropped_leaves_no_association_behind(net: Net) -> None:
    net.archive.matches = [study(PatientID="1")]

    async def work() -> None:
        await anext(netdicom_tx.find(net.peer, PatientID="*", ae=net.ae))

    net.run(work())
    gc.collect()
    net.pair.advance(1)
    assert not net.archive.associations


def test_get_writes_files_named_by_their_instances(net: Net, tmp_path: Path) -> None:
    async def work() -> list[Path]:
        return await netdicom_tx.get(
            net.peer, StudyInstanceUID="1.2.3", into=tmp_path / "study", ae=net.ae
        )

    written = net.run(work())
    assert [path.name for path in written] == [
        f"{dcmread(each).SOPInstanceUID}.dcm" for each in FILES
    ]
    assert all(dcmread(path).SOPInstanceUID == path.stem for path in written)
    assert sorted((tmp_path / "study").iterdir()) == sorted(written)


def test_a_store_may_be_ended_early(net: Net) -> None:
    async def work() -> int:
        results = netdicom_tx.store(net.peer, FILES, ae=net.ae)
        status = (await anext(results)).status
        await results.aclose()
        assert status is not None
        return int(status)

    assert net.run(work()) == 0x0000
    net.pair.advance(1)
    assert not net.archive.associations


def test_awaiting_a_get_without_a_directory_says_what_to_do(net: Net) -> None:
    async def work() -> None:
        with pytest.raises(LocalProtocolError, match="async for"):
            await netdicom_tx.get(net.peer, StudyInstanceUID="1.2.3", ae=net.ae)

    net.run(work())
    assert not net.archive.associations


def test_move_gives_the_final_counts_or_the_failure(net: Net) -> None:
    async def work() -> None:
        with pytest.raises(StatusError) as raised:
            await netdicom_tx.move(net.peer, to="NOWHERE", StudyInstanceUID="1.2.3", ae=net.ae)
        assert raised.value.status == 0xA801

    net.run(work())


@pytest.mark.parametrize("form", ["list", "one", "data set"])
def test_store_takes_one_or_many(net: Net, form: str) -> None:
    files: Any = {"list": FILES, "one": FILES[0], "data set": dcmread(FILES[0])}[form]

    async def work() -> list[Any]:
        return await netdicom_tx.store(net.peer, files, ae=net.ae)

    results = net.run(work())
    assert [each.status for each in results] == [0x0000] * (len(FILES) if form == "list" else 1)


def test_store_tells_of_each_file(net: Net, tmp_path: Path) -> None:
    """A failure of one instance never stops the others."""

    async def work() -> list[bool]:
        results = netdicom_tx.store(net.peer, [tmp_path / "absent.dcm", *FILES], ae=net.ae)
        return [each.is_stored async for each in results]

    assert sorted(net.run(work())) == [False, True, True, True]


@pytest.mark.parametrize(
    "call",
    [
        lambda peer: netdicom_tx.find(peer, PatientNam="X"),
        lambda peer: netdicom_tx.find(peer, "STUDIES"),
        lambda peer: netdicom_tx.get(peer, PatientName="X"),
        lambda peer: netdicom_tx.move(peer, to="DEST"),
        lambda _: netdicom_tx.echo("nowhere"),
        lambda _: netdicom_tx.store("nowhere", []),
    ],
)
def test_a_wrong_argument_raises_before_anything_is_opened(net: Net, call: Any) -> None:
    with pytest.raises(LocalProtocolError):
        call(net.peer)


def test_a_data_set_may_be_given_instead_of_keywords(net: Net) -> None:
    given = Dataset()
    given.PatientID = "7"

    async def work() -> None:
        await netdicom_tx.find(net.peer, "STUDY", given, ae=net.ae)

    net.run(work())
    assert net.archive.asked[0][1].PatientID == "7"
