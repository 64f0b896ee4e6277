"""A node whose store others share: what it accepts, answers, keeps and sends is what every other node does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer

from netdicom_tx.archive.store import fetching
from netdicom_tx.archive.store.objects import ObjectMissingError, ObjectStoreError
from netdicom_tx.archive.store.s3 import S3Objects, S3Options
from netdicom_tx.archive.store.sharedstore import SharedStore
from netdicom_tx.uids import IMPLICIT_VR_LITTLE_ENDIAN
from support.archive.archives import Archive, store_rq, stored
from support.archive.buckets import Simulated
from support.archive.data_sets import EXPLICIT
from support.archive.groups import SharedArchive, of_study
from support.archive.objectstore import ObjectStore
from support.doubles import LoggedFailures
from support.doubles import logged_failures as logged_failures
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture

from .query.test_retrieval import (  # noqa: F401 - they use the fixtures of this module
    GET,
    Net,
    test_a_compressed_instance_is_decompressed_for_a_destination_that_takes_it_only_so,
    test_a_compressed_instance_is_decompressed_for_a_peer_that_takes_it_only_so,
    test_a_compressed_instance_stays_so_for_a_destination_that_takes_it,
    test_an_instance_that_cannot_be_decompressed_fails_alone,
    test_bulk_data_is_left_out_at_every_depth,
    test_without_its_bulk_data_a_compressed_instance_is_sent_uncompressed,
)
from .test_node import (  # noqa: F401 - likewise
    test_a_broken_real_file_is_refused,
    test_a_disk_that_is_full_to_its_reserve_refuses_before_anything_is_written,
    test_an_index_that_is_away_is_out_of_resources,
    test_an_unknown_sop_class_is_refused,
    test_every_storage_sop_class_is_accepted,
    test_what_no_program_could_read_is_refused,
    test_whatever_is_none_is_refused,
)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Archive]:
    opened = SharedArchive(tmp_path / "group" / "one")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    opened = SharedArchive(tmp_path_factory.mktemp("group") / "one")
    yield opened
    opened.close()


@pytest.fixture(params=["", "cached"])
def net(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Net]:
    made = Net(SharedArchive(tmp_path / "one", cache=1 << 30 if request.param else 0))
    yield made
    made.pair.close()
    made.node.close()


def keep(net: Net, count: int, pixels: int = 512) -> list[str]:
    """Instances of one study; their SOP Instance UIDs."""
    uids = [f"1.2.{number}" for number in range(count)]
    sender = net.node.sender()
    for uid in uids:
        assert stored(sender, of_study(uid, pixels), uid) == 0x0000
    return uids


def retrieved(net: Net, *syntaxes: str) -> tuple[list[str], int]:
    from netdicom_tx.userdataitems import RoleSelection
    from support.archive.data_sets import CT_IMAGE_STORAGE

    asce = net.associate(
        contexts=[
            (GET, [IMPLICIT_VR_LITTLE_ENDIAN]),
            (CT_IMAGE_STORAGE, list(syntaxes or [EXPLICIT.transfer_syntax])),
        ],
        roles=[RoleSelection(CT_IMAGE_STORAGE, True, True)],
    )
    came, status = net.get(asce, StudyInstanceUID="1.9")
    return [str(ds.SOPInstanceUID) for _, ds in came], status


def getting(net: Net) -> tuple[Any, list[str], list[int]]:
    """Begin a C-GET of the study: its stream, what has come, and the final status when it has."""
    from netdicom_tx.exceptions import StatusError
    from netdicom_tx.userdataitems import RoleSelection
    from support.archive.data_sets import CT_IMAGE_STORAGE

    asce = net.associate(
        contexts=[
            (GET, [IMPLICIT_VR_LITTLE_ENDIAN]),
            (CT_IMAGE_STORAGE, [EXPLICIT.transfer_syntax]),
        ],
        roles=[RoleSelection(CT_IMAGE_STORAGE, True, True)],
    )
    came: list[str] = []
    final: list[int] = []

    stream = asce.get(StudyInstanceUID="1.9")

    async def work() -> None:
        try:
            async for each in stream:
                came.append(str(each.dataset().SOPInstanceUID))
        except StatusError as error:
            final.append(int(error.status or 0))
        else:
            final.append(0x0000)

    defer.Deferred.fromCoroutine(work()).addErrback(lambda _: final.append(-1))
    net.pair.advance(0)
    return stream, came, final


def store_of(net: Net) -> SharedStore:
    assert isinstance(net.node.store, SharedStore)
    return net.node.store


@pytest.mark.parametrize("pixels", [512, 3 << 20], ids=["small", "large"])
def test_instances_are_retrieved(net: Net, pixels: int) -> None:
    uids = keep(net, 3, pixels)
    for _ in range(2):
        assert retrieved(net) == (uids, 0x0000)
    assert list(store_of(net).incoming.iterdir()) == []


@pytest.mark.parametrize("pixels", [512, 3 << 20], ids=["small", "large"])
def test_instances_are_encoded_again_for_a_peer(net: Net, pixels: int) -> None:
    uids = keep(net, 2, pixels)
    assert retrieved(net, IMPLICIT_VR_LITTLE_ENDIAN) == (uids, 0x0000)


@pytest.mark.parametrize("pixels", [512, 3 << 20], ids=["small", "large"])
@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_an_object_that_is_gone_or_damaged_is_a_failed_sub_operation(
    net: Net, pixels: int, fault: str, lines: list[str]
) -> None:
    uids = keep(net, 3, pixels)
    ref = net.node.index.get(uids[1])
    assert ref is not None
    objects = store_of(net).objects
    if fault == "missing":
        objects.delete([str(ref.path)])
    else:
        objects.put(str(ref.path), [bytes(ref.size)], ref.size)
    _, came, final = getting(net)
    net.pair.advance(10)
    assert (came, len(final)) == ([uids[0], uids[2]], 1)
    (line,) = [each for each in lines if uids[1] in each]
    assert ("has no object" if fault == "missing" else "is damaged") in line


def away(*_: Any) -> bytes:
    raise ObjectStoreError("the store is away")


@pytest.mark.parametrize("pixels", [512, 3 << 20], ids=["small", "large"])
def test_a_retrieve_waits_for_a_store_that_is_away_for_a_short_time(
    net: Net, monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    uids = keep(net, 3, pixels)
    with monkeypatch.context() as patch:
        patch.setattr(store_of(net).objects, "read", away)
        _, came, final = getting(net)
        net.pair.advance(30)
        assert (came, final) == ([], [])
    net.pair.advance(10)
    assert (sorted(came), final) == (uids, [0x0000])


def test_an_object_that_a_server_did_not_find_for_a_moment_is_sent(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server of objects may say so while it is overloaded."""
    uids = keep(net, 3)
    objects = store_of(net).objects

    def missing(key: str, *_: Any) -> bytes:
        raise ObjectMissingError(key, objects.place)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "read", missing)
        _, came, final = getting(net)
        assert final == []
    net.pair.advance(3)
    assert (sorted(came), final) == (uids, [0x0000])


def test_a_store_that_stays_away_fails_each_sub_operation(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = keep(net, 2)
    store_of(net).patience = 5
    with monkeypatch.context() as patch:
        patch.setattr(store_of(net).objects, "read", away)
        _, came, final = getting(net)
        net.pair.advance(15)
        assert (came, final) == ([], [0xA702])
    assert retrieved(net) == (uids, 0x0000)


def test_the_instances_of_a_retrieve_do_not_wait_one_after_the_other(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is given up once, and not again for each instance."""
    keep(net, 9)
    store = store_of(net)
    now = net.pair.clock.seconds
    monkeypatch.setattr(fetching, "monotonic", now)
    store.patience = 20
    monkeypatch.setattr(store.objects, "read", away)
    _, _, final = getting(net)
    net.pair.advance(30)
    assert final == [0xA702]


def test_while_the_store_stays_away_it_is_seldom_asked(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request to a server that does not answer takes ten seconds."""
    uids = keep(net, 9)
    store = store_of(net)
    now = net.pair.clock.seconds
    monkeypatch.setattr(fetching, "monotonic", now)
    store.patience = 20
    tried: list[str] = []

    def read(key: str, *_: Any) -> bytes:
        tried.append(key)
        return away()

    with monkeypatch.context() as patch:
        patch.setattr(store.objects, "read", read)
        getting(net)
        net.pair.advance(30)
        before = len(tried)
        _, _, final = getting(net)
        assert final == [0xA702]
        assert len(tried) - before <= 1
    net.pair.advance(5)
    assert retrieved(net) == (uids, 0x0000)


def test_a_store_that_failed_long_ago_is_waited_for(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has asked it since; the next failure is the first one."""
    uids = keep(net, 3)
    store = store_of(net)
    now = net.pair.clock.seconds
    monkeypatch.setattr(fetching, "monotonic", now)
    with monkeypatch.context() as patch:
        patch.setattr(store.objects, "read", away)
        getting(net)
        for asce in net.scu.associations:
            asce.abort()
        net.pair.advance(3600)
        _, came, final = getting(net)
        net.pair.advance(30)
        assert final == []
    net.pair.advance(5)
    assert (sorted(came), final) == (uids, [0x0000])


def test_a_peer_that_cancels_is_answered_while_the_store_is_away(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(net, 2)
    monkeypatch.setattr(store_of(net).objects, "read", away)
    stream, came, final = getting(net)
    stream.cancel()
    net.pair.advance(3)
    assert (came, len(final), stream.final.status) == ([], 1, 0xFE00)


def test_a_peer_that_leaves_ends_the_wait_for_the_store(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(net, 2)
    tried: list[str] = []

    def read(key: str, *_: Any) -> bytes:
        tried.append(key)
        return away()

    monkeypatch.setattr(store_of(net).objects, "read", read)
    _, _, final = getting(net)
    for asce in net.scu.associations:
        asce.abort()
    net.pair.advance(0)
    before = len(tried)
    net.pair.advance(30)
    assert len(final) == 1
    assert len(tried) - before <= 2


def test_the_next_instances_are_read_while_one_is_sent(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(net, 3)
    store, asked = store_of(net), []
    real = store.ahead

    def ahead(refs: Any, start: int) -> None:
        asked.append(start)
        real(refs, start)

    monkeypatch.setattr(store, "ahead", ahead)
    retrieved(net)
    assert asked == [1, 2, 3]
    assert not store._ahead
    assert store._ahead_octets == 0


def test_what_was_read_ahead_for_nobody_is_bounded(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = keep(net, 8)
    store = store_of(net)
    refs = [ref for ref in map(net.node.index.get, uids) if ref is not None]
    monkeypatch.setattr(fetching, "_AHEAD_OCTETS", 2 * refs[0].size)
    for start in range(8):
        store.ahead(refs, start)
    assert len(store._ahead) <= 2
    assert store._ahead_octets <= 2 * refs[0].size


# -- a bucket ------------------------------------------------------------------------------------------


@pytest.fixture
def in_bucket(tmp_path: Path) -> Iterator[SharedArchive]:
    bucket = Simulated.running().bucket()
    options = S3Options(
        endpoint=bucket.endpoint, access_key="key", secret_key="secret", region="x", timeout=0.3
    )
    opened = SharedArchive(tmp_path / "one", objects=S3Objects(bucket.url, options))
    yield opened
    opened.close()


def test_a_bucket_that_refuses_for_a_while_is_two_lines(
    in_bucket: SharedArchive, lines: list[str], failures: LoggedFailures
) -> None:
    sender = in_bucket.sender()
    assert stored(sender, of_study("1.1"), "1.1") == 0x0000
    with Simulated.running().answering(503, "<Error><Code>SlowDown</Code></Error>"):
        assert stored(sender, of_study("1.2"), "1.2") == 0xA700
        sender.send(store_rq(of_study("1.3"), "1.3"))
        (refused,) = sender.messages()
    assert (refused.status, refused.error_comment) == (
        0xA700,
        "out of resources: the shared store refuses",
    )
    assert stored(sender, of_study("1.2"), "1.2") == 0x0000
    said = [each for each in lines if "kept" in each]
    assert len(said) == 2
    assert "the server asks for fewer requests" in said[0]
    assert "instances are kept again; 2 were refused" in said[1]
    assert in_bucket.kept("1.1") == of_study("1.1")
    assert in_bucket.kept("1.3") is None
    assert len(failures.texts()) == 1


@pytest.mark.interop
@pytest.mark.slow
def test_a_real_bucket_that_is_away_loses_nothing(tmp_path: Path, failures: LoggedFailures) -> None:
    server = ObjectStore.running()
    bucket = server.bucket()
    options = S3Options(
        endpoint=bucket.endpoint,
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
        timeout=0.5,
    )
    node = SharedArchive(tmp_path / "one", objects=S3Objects(f"{bucket.url}/a", options))
    sender = node.sender()
    assert stored(sender, of_study("1.1", 3 << 20), "1.1") == 0x0000
    server.refuse()
    try:
        assert stored(sender, of_study("1.2"), "1.2") == 0xA700
    finally:
        server.serve()
    assert stored(sender, of_study("1.2"), "1.2") == 0x0000
    assert node.kept("1.1") == of_study("1.1", 3 << 20)
    assert node.kept("1.2") == of_study("1.2")
    assert len(failures.texts()) == 1
    node.close()
