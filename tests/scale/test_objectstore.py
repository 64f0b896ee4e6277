"""The object store that the tests start does what a client of S3 needs, as far as Swift does."""

from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import S3Store

from support.archive.objectstore import Bucket, ObjectStore

pytestmark = pytest.mark.interop

# The least that S3 takes for a part that is not the last.
_PART = 5 * 2**20


def client(bucket: Bucket, **options: str) -> S3Store:
    """obstore's client of a bucket. It fails without retrying."""
    # Of type S3Config, which exists for type checkers alone and has no room for options of ours.
    config: Any = {
        "aws_endpoint": bucket.endpoint,
        "aws_access_key_id": bucket.access_key,
        "aws_secret_access_key": bucket.secret_key,
        "aws_region": bucket.region,
        **options,
    }
    return S3Store(
        bucket.name,
        config=config,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def test_objects_are_put_read_by_range_listed_and_deleted(bucket: Bucket) -> None:
    store = client(bucket)
    obstore.put(store, "a/one", b"0123456789")
    obstore.put(store, "a/two", b"")
    obstore.put(store, "b/one", b"other")
    assert bytes(obstore.get(store, "a/one").bytes()) == b"0123456789"
    assert bytes(obstore.get_range(store, "a/one", start=3, end=6)) == b"345"
    assert obstore.head(store, "a/one")["size"] == 10
    found = [each["path"] for batch in obstore.list(store, "a") for each in batch]
    assert sorted(found) == ["a/one", "a/two"]
    obstore.delete(store, "a/one")
    with pytest.raises(FileNotFoundError):
        obstore.head(store, "a/one")


def test_an_object_is_uploaded_in_parts_and_read_across_them(bucket: Bucket) -> None:
    store = client(bucket)
    octets = bytes(range(256)) * (2 * _PART // 256) + b"end"
    obstore.put(store, "large", octets, use_multipart=True, chunk_size=_PART)
    assert obstore.head(store, "large")["size"] == len(octets)
    around = obstore.get_range(store, "large", start=_PART - 3, end=_PART + 3)
    assert bytes(around) == octets[_PART - 3 : _PART + 3]
    assert bytes(obstore.get(store, "large").bytes()) == octets


def test_a_wrong_key_and_a_missing_bucket_are_refused(bucket: Bucket) -> None:
    with pytest.raises(PermissionDeniedError):
        obstore.put(client(bucket, aws_secret_access_key="wrong"), "a", b"")
    absent = Bucket(bucket.endpoint, "absent", bucket.access_key, bucket.secret_key)
    with pytest.raises(FileNotFoundError, match="NoSuchBucket"):
        obstore.put(client(absent), "a", b"")


def test_a_put_with_a_condition_is_not_supported(bucket: Bucket) -> None:
    """s3api 2.30: "Conditional object PUTs are not supported"."""
    with pytest.raises(GenericError, match="501 Not Implemented"):
        obstore.put(client(bucket), "a", b"", mode="create")


def test_the_object_store_can_encrypt_and_can_be_away_for_a_while() -> None:
    server = ObjectStore(encryption=True)
    try:
        store = client(server.bucket("kept"), aws_server_side_encryption="AES256")
        obstore.put(store, "a", b"0123456789")
        server.refuse()
        with pytest.raises(GenericError, match=r"[Cc]onnect|error sending request"):
            obstore.head(store, "a")
        server.serve()
        assert bytes(obstore.get_range(store, "a", start=2, end=4)) == b"23"
    finally:
        server.end()
