"""The objects of a shared store: the same cases on a directory, on a simulated bucket and on a real one."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netdicom_tx.archive.store import disk
from netdicom_tx.archive.store import objects as objects_module
from netdicom_tx.archive.store.objects import (
    DirectoryObjects,
    ObjectMissingError,
    Objects,
    ObjectStoreError,
    ObjectsUnusableError,
    check_url,
    directory_of,
    probe,
)
from netdicom_tx.archive.store.s3 import PART, S3Objects, S3Options
from netdicom_tx.exceptions import LocalProtocolError
from support.archive.buckets import Simulated
from support.archive.objectstore import Bucket, ObjectStore
from support.archive.system import WatchedOS

KEY, OTHER = "instances/3f/one.dcm", "instances/40/two.dcm"


def of_bucket(bucket: Bucket, prefix: str = "", **more: Any) -> S3Objects:
    """The objects of a bucket that the tests have made."""
    options = S3Options(
        endpoint=bucket.endpoint,
        region=bucket.region,
        access_key=bucket.access_key,
        secret_key=bucket.secret_key,
        timeout=5.0,
    )
    return S3Objects(f"{bucket.url}{prefix}", options._replace(**more))


@pytest.fixture(params=["directory", "simulated", pytest.param("swift", marks=pytest.mark.interop)])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Objects]:
    """An open and empty store of each kind."""
    made: Objects
    if request.param == "directory":
        (tmp_path / "shared").mkdir()
        made = DirectoryObjects(tmp_path / "shared")
    elif request.param == "simulated":
        made = of_bucket(Simulated.running().bucket(), "/archive/one")
    else:
        made = of_bucket(ObjectStore.running().bucket(), "/archive")
    made.open()
    yield made
    made.close()


def test_an_object_is_read_by_ranges(objects: Objects) -> None:
    objects.put(KEY, [b"0123", memoryview(b"456789")], 10)
    assert objects.size(KEY) == 10
    assert objects.read(KEY, 0, 10) == b"0123456789"
    assert objects.read(KEY, 3, 5) == b"34"
    assert objects.read(KEY, 5, 5) == b""


def test_an_object_is_put_again(objects: Objects) -> None:
    objects.put(KEY, [b"once"], 4)
    objects.put(KEY, [b"again"], 5)
    assert objects.read(KEY, 0, 5) == b"again"


def test_a_large_object_is_put_in_parts(objects: Objects) -> None:
    piece = bytes(range(256)) * 4096
    count = 2 * PART // len(piece) + 1
    objects.put(KEY, (piece for _ in range(count)), count * len(piece))
    assert objects.size(KEY) == count * len(piece)
    assert objects.read(KEY, PART - 2, PART + 2) == b"\xfe\xff\0\1"


def test_an_object_has_the_time_at_which_it_was_put(objects: Objects) -> None:
    before = time.time()
    objects.put(KEY, [b"octets"], 6)
    (listed,) = objects.list("instances/")
    assert abs(objects.modified(KEY) - listed.modified) < 1.0
    assert objects.modified(KEY) > before - 60.0
    with pytest.raises(ObjectMissingError):
        objects.modified(OTHER)


def test_an_object_that_is_not_there_is_missing(objects: Objects) -> None:
    for call in (lambda: objects.size(KEY), lambda: objects.read(KEY, 0, 1)):
        with pytest.raises(ObjectMissingError, match=KEY):
            call()


def test_an_object_that_is_shorter_is_not_read_as_if_it_were_whole(objects: Objects) -> None:
    objects.put(KEY, [b"0123"], 4)
    with pytest.raises(ObjectStoreError, match="ends before octet 10"):
        objects.read(KEY, 0, 10)


def test_objects_are_deleted_also_when_they_are_not_there(objects: Objects) -> None:
    objects.put(KEY, [b"one"], 3)
    objects.put(OTHER, [b"two"], 3)
    objects.delete([KEY, "instances/aa/none.dcm"])
    assert [each.key for each in objects.list("instances/")] == [OTHER]


def test_objects_are_listed_in_the_order_of_their_keys(objects: Objects) -> None:
    keys = ["instances/3f/a-1.dcm", "instances/3f/b.dcm", "instances/40/a.dcm", "versions/3f/c.dcm"]
    for key in reversed(keys):
        objects.put(key, [key.encode()], len(key))
    found = list(objects.list("instances/"))
    assert [each.key for each in found] == keys[:3]
    assert [each.size for each in found] == [len(each) for each in keys[:3]]
    assert abs(found[0].modified - time.time()) < 600
    assert [each.key for each in objects.list("instances/3f/")] == keys[:2]
    assert list(objects.list("none/")) == []


def test_a_document_is_written_once(objects: Objects) -> None:
    assert objects.document("identity.json") is None
    assert objects.put_document("identity.json", b"mine") == b"mine"
    assert objects.put_document("identity.json", b"yours") == b"mine"
    assert objects.document("identity.json") == b"mine"
    assert list(objects.list("instances/")) == []


def test_an_object_of_another_size_than_was_said_is_not_there(objects: Objects) -> None:
    for pieces, size in (([b"octets"], 7), ([bytes(5 << 20), bytes(5 << 20)], 11 << 20)):
        with pytest.raises(ObjectStoreError):
            objects.put(KEY, pieces, size)
        with pytest.raises(ObjectMissingError):
            objects.size(KEY)


def test_a_probe_leaves_nothing(objects: Objects) -> None:
    probe(objects)
    assert list(objects.list("probe/")) == []


def test_threads_put_and_read_at_once(objects: Objects) -> None:
    def work(number: int) -> None:
        key = f"instances/{number:02x}/x.dcm"
        objects.put(key, [bytes([number]) * 1000], 1000)
        read.append(objects.read(key, 0, 1000) == bytes([number]) * 1000)

    read: list[bool] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert read == [True] * 8


# -- a directory -------------------------------------------------------------------------------------


def test_a_file_has_its_name_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine never opens a part of a file, and a power cut leaves all of it or nothing."""
    objects = DirectoryObjects(tmp_path)
    objects.open()
    objects.put(OTHER, [b"makes the folders"], 17)
    objects.put(KEY, [b"makes the folders"], 17)
    watched = WatchedOS()
    for module in (disk, objects_module):
        monkeypatch.setattr(module, "os", watched)
    objects.put(KEY, [b"octets"], 6)
    calls = [each.name for each in watched.calls if each.name != "open"]
    assert calls == ["fsync", "close", "rename", "fsync", "close"]
    assert watched.calls[-1].path == tmp_path / "instances/3f"


def test_a_file_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, os.strerror(28))

    objects = DirectoryObjects(tmp_path)
    objects.open()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(ObjectStoreError, match="No space left"):
            objects.put(KEY, [b"octets"], 6)
    assert list((tmp_path / ".incoming").iterdir()) == []
    assert list(objects.list("instances/")) == []


def test_a_directory_that_is_not_mounted_is_not_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(ObjectsUnusableError, match="mount it, or create it once"):
        DirectoryObjects(tmp_path / "away").open()


def test_a_directory_that_goes_away_is_not_an_empty_store(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    objects = DirectoryObjects(root)
    objects.open()
    objects.put(KEY, [b"octets"], 6)
    root.rename(tmp_path / "away")
    calls: tuple[Callable[[], object], ...] = (
        lambda: objects.size(KEY),
        lambda: list(objects.list("instances/")),
    )
    for call in calls:
        with pytest.raises(ObjectStoreError) as caught:
            call()
        assert not isinstance(caught.value, ObjectMissingError)


def test_what_a_node_left_long_ago_is_deleted_at_a_start(tmp_path: Path) -> None:
    objects = DirectoryObjects(tmp_path)
    objects.open()
    objects.put(KEY, [b"octets"], 6)
    old, new = tmp_path / ".incoming/old", tmp_path / ".incoming/new"
    for each in (old, new):
        each.write_bytes(b"part")
    os.utime(old, (0, 0))
    objects.open()
    assert new.exists()
    assert not old.exists()


# -- a bucket ----------------------------------------------------------------------------------------


@pytest.fixture
def bucket() -> Bucket:
    return Simulated.running().bucket()


def test_a_bucket_that_does_not_exist_is_named(bucket: Bucket) -> None:
    objects = of_bucket(Bucket(bucket.endpoint, "absent", "key", "secret"))
    with pytest.raises(
        ObjectsUnusableError, match=r"s3://absent at http.* the bucket does not exist"
    ):
        objects.open()


@pytest.mark.interop
def test_a_wrong_secret_is_told(tmp_path: Path) -> None:
    bucket = ObjectStore.running().bucket()
    wrong = of_bucket(Bucket(bucket.endpoint, bucket.name, bucket.access_key, "wrong"))
    with pytest.raises(ObjectsUnusableError, match="the secret key is wrong"):
        wrong.open()


def test_a_bucket_that_is_gone_is_not_a_missing_object(bucket: Bucket) -> None:
    objects = of_bucket(bucket)
    objects.open()
    objects.put(KEY, [b"octets"], 6)
    objects.delete([KEY])
    Simulated.running().remove(bucket)
    for call in (lambda: objects.size(KEY), lambda: objects.read(KEY, 0, 1)):
        with pytest.raises(ObjectStoreError, match="the bucket does not exist") as caught:
            call()
        assert not isinstance(caught.value, ObjectMissingError)


def test_the_client_is_not_loaded_before_a_bucket_is_used() -> None:
    code = "import sys, netdicom_tx.tap, netdicom_tx.commands; print('obstore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_endpoint_that_nobody_listens_at_cannot_be_reached(bucket: Bucket) -> None:
    objects = of_bucket(Bucket("http://127.0.0.1:1", "b", "key", "secret"), timeout=0.2)
    with pytest.raises(ObjectsUnusableError, match="the endpoint cannot be reached"):
        objects.open()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (403, "<Error><Code>AccessDenied</Code></Error>", "access is denied"),
        (403, "", "access is denied"),
        (400, "<Error><Code>AuthorizationHeaderMalformed</Code></Error>", "another region"),
        (301, "<Error><Code>PermanentRedirect</Code></Error>", "another region"),
        (400, "<Error><Code>Odd</Code></Error>", "the server says Odd"),
    ],
)
def test_a_refusal_is_told_in_one_sentence(
    bucket: Bucket, status: int, body: str, told: str
) -> None:
    objects = of_bucket(bucket)
    objects.open()
    with (
        Simulated.running().answering(status, body),
        pytest.raises(ObjectStoreError, match=told) as caught,
    ):
        objects.put(KEY, [b"octets"], 6)
    assert "\n" not in str(caught.value)


def test_what_fails_for_a_moment_is_tried_again(bucket: Bucket) -> None:
    objects = of_bucket(bucket)
    objects.open()
    body = "<Error><Code>SlowDown</Code></Error>"
    with Simulated.running().answering(503, body, times=2):
        objects.put(KEY, [b"octets"], 6)
    assert objects.size(KEY) == 6


def test_a_large_object_that_fails_is_not_there(bucket: Bucket) -> None:
    def pieces() -> Iterator[bytes]:
        yield bytes(PART)
        raise OSError(5, "the disk has failed")

    objects = of_bucket(bucket)
    objects.open()
    with pytest.raises(ObjectStoreError):
        objects.put(KEY, pieces(), 3 * PART)
    with pytest.raises(ObjectMissingError):
        objects.size(KEY)


def test_encryption_and_checksums_are_asked_for(bucket: Bucket) -> None:
    objects = of_bucket(bucket, encryption="AES256", checksum="sha256")
    objects.open()
    with Simulated.running().seeing() as requests:
        objects.put(KEY, [b"octets"], 6)
    (headers,) = (each for method, _, each in requests if method == "PUT")
    assert headers["x-amz-server-side-encryption"] == "AES256"
    assert headers["x-amz-checksum-sha256"]


def test_credentials_come_from_the_file_of_other_tools(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    path.write_text("[node]\naws_access_key_id = from-file\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "node")
    objects = of_bucket(bucket, access_key="", secret_key="")
    with Simulated.running().seeing() as requests:
        objects.open()
    assert "Credential=from-file/" in requests[0][2]["authorization"]


def test_a_bucket_can_be_a_part_of_the_host_name(bucket: Bucket) -> None:
    objects = of_bucket(Bucket("http://localhost:1", "b", "key", "secret"), is_virtual=True)
    assert objects._endpoint(objects._options) == "http://b.localhost:1"


# -- URLs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/b", "file:///mnt/shared"])
def test_the_url_of_a_shared_store(url: str) -> None:
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3://",
        "file:///",
        "file://host/mnt",
        "/mnt/shared",
        "http://host",
        "s3://key:secret@b",
        "s3://[",
        "s3://b?x=1",
    ],
)
def test_what_is_not_the_url_of_a_shared_store(url: str) -> None:
    with pytest.raises(LocalProtocolError, match="expected s3://bucket/prefix"):
        check_url(url)


def test_the_directory_of_a_url() -> None:
    assert directory_of("file:///mnt/a%20b") == Path("/mnt/a b")
    assert directory_of("s3://bucket") is None


def test_the_place_where_a_directory_was_mounted_is_not_an_empty_store(tmp_path: Path) -> None:
    root, away = tmp_path / "shared", tmp_path / "away"
    root.mkdir()
    objects = DirectoryObjects(root)
    objects.open()
    objects.put(KEY, (b"octets",), 6)
    objects.put_document("identity.json", b"{}")
    root.rename(away)
    root.mkdir()
    # A command looks at the directory.
    DirectoryObjects(root).open()
    probe(other := DirectoryObjects(root))
    other.close()
    assert list(root.iterdir()) == []
    for asked in (
        lambda: objects.put(OTHER, (b"octets",), 6),
        lambda: objects.put(KEY, (b"octets",), 6),
        lambda: objects.read(KEY, 0, 6),
        lambda: objects.size(KEY),
        lambda: objects.delete([KEY]),
        lambda: list(objects.list("instances/")),
    ):
        with pytest.raises(ObjectStoreError, match=r"has no identity\.json any more") as caught:
            asked()
        assert not isinstance(caught.value, ObjectMissingError)
    assert not list(root.rglob("*.dcm"))
    root.rmdir()
    away.rename(root)
    objects.put(OTHER, (b"octets",), 6)
    assert [each.key for each in objects.list("instances/")] == [KEY, OTHER]


def test_a_stale_mount_refuses_until_it_works_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server of the directory was restarted, or exports another one: each call fails with ESTALE."""
    objects = DirectoryObjects(tmp_path)
    objects.open()
    objects.put(KEY, (b"octets",), 6)
    objects.put_document("identity.json", b"{}")

    def stale(*_: Any, **__: Any) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    with monkeypatch.context() as patch:
        for name in ("open", "stat", "lstat", "scandir", "listdir", "unlink", "mkdir"):
            patch.setattr(os, name, stale)
        for asked in (
            lambda: objects.put(OTHER, (b"octets",), 6),
            lambda: objects.read(KEY, 0, 6),
            lambda: objects.size(KEY),
            lambda: objects.delete([KEY]),
            lambda: list(objects.list("instances/")),
        ):
            with pytest.raises(ObjectStoreError, match="Stale file handle") as caught:
                asked()
            assert not isinstance(caught.value, ObjectMissingError)
    assert objects.read(KEY, 0, 6) == b"octets"
