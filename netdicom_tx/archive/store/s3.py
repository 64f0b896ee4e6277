"""The objects of a shared store in a bucket, through the API of Amazon S3 (extra ``s3``).

The package obstore is the client. It signs each request, sends a digest with each object, repeats requests that failed
for a passing reason, and uploads a large object in parts. The object exists when its last part has arrived.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from .objects import (
    ObjectDamagedError,
    ObjectMissingError,
    ObjectStoreError,
    ObjectsUnusableError,
    Stored,
    check_url,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["S3Objects", "S3Options"]

#: The size of the parts of a larger object, in octets.
PART: Final = 1 << 23
# How many parts of an object are uploaded at a time; they are in memory.
_PARTS: Final = 4
# After how many seconds without progress a request has failed, and for how many it is repeated, while senders wait.
_STALLED: Final = 10.0
_REPEATED: Final = 10.0
_PAGE: Final = 1000
_WHY: Final = {
    "NoSuchBucket": "the bucket does not exist: create it, or correct [storage] url",
    "InvalidAccessKeyId": "the access key is not known there: correct [s3] access_key",
    "SignatureDoesNotMatch": "the secret key is wrong: correct [s3] secret_key_file",
    "AccessDenied": "access is denied: the key needs the rights to list, get, put and delete there",
    "AllAccessDisabled": "access is denied: the key needs the rights to list, get, put and delete there",
    "ExpiredToken": "the session token has expired",
    "RequestTimeTooSkewed": "the clock of this machine differs too much from that of the server",
    "PermanentRedirect": "the bucket is in another region: correct [s3] region",
    "AuthorizationHeaderMalformed": "the bucket is in another region: correct [s3] region",
    "IllegalLocationConstraintException": "the bucket is in another region: correct [s3] region",
    "InvalidBucketName": "the name of the bucket is not valid: correct [storage] url",
    "QuotaExceeded": "the quota of the bucket is used up",
    "SlowDown": "the server asks for fewer requests",
    "ServiceUnavailable": "the server is overloaded or out of service",
    "InternalError": "the server has failed",
    "NotImplemented": "the server does not support what is configured under [s3]",
}

# The same for errors without a code, by words of the client.
_WORDS: Final = (
    (
        ("credential", "instance metadata", "169.254."),
        "there are no credentials: set [s3] access_key",
    ),
    (("301 ", "moved permanently", "incorrectly configured region"), _WHY["PermanentRedirect"]),
    (("403", "forbidden"), _WHY["AccessDenied"]),
    (("dns", "resolve"), "the host name of the endpoint is not known"),
    (("connection refused", "tcp connect"), "the endpoint cannot be reached"),
    (("timed out", "timeout", "deadline"), "the endpoint does not answer in time"),
    (("certificate", "tls"), "the certificate of the server is not trusted"),
    (("error sending request", "connection"), "the endpoint cannot be reached"),
)


class S3Options(NamedTuple):
    """The options for a bucket.

    Attributes:
        endpoint: The URL of the server; empty for Amazon's server of the region.
        region: The region; empty for the region of the environment.
        access_key: The access key; empty for the key of the environment, of ``~/.aws/credentials`` or of the machine.
        secret_key: The secret key that belongs to it.
        session_token: The token of a temporary key.
        is_virtual: Whether the bucket is a part of the host name; otherwise it is a part of the path.
        encryption: How the server encrypts: ``AES256``, ``aws:kms`` or ``aws:kms:dsse``; empty for its default.
        kms_key: The key for ``aws:kms``.
        checksum: The checksum that is sent with each part, ``sha256`` or ``crc64nvme``; empty for none.
        authorities: A PEM file with further authorities for the certificate of the server.
        timeout: How many seconds a request may take.
    """

    endpoint: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    is_virtual: bool = False
    encryption: str = ""
    kms_key: str = ""
    checksum: str = "sha256"
    authorities: str = ""
    timeout: float = 30.0


def _credentials_of_file(environment: dict[str, str]) -> dict[str, str]:
    """The keys in the file of credentials that Amazon's tools use; empty when there are none."""
    path = environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    profile = environment.get("AWS_PROFILE", "default")
    parser = configparser.RawConfigParser()
    try:
        parser.read(Path(path).expanduser(), "utf-8")
    except (configparser.Error, OSError, ValueError, RuntimeError):
        return {}
    if not parser.has_section(profile):
        return {}
    given = dict(parser.items(profile))
    names = {
        "aws_access_key_id": "access_key_id",
        "aws_secret_access_key": "secret_access_key",
        "aws_session_token": "session_token",
    }
    return {own: given[name] for name, own in names.items() if given.get(name)}


class S3Objects:
    """Objects in a bucket.

    Args:
        url: ``s3://bucket/prefix``; the prefix may be missing.
        options: The options for the bucket.
    """

    def __init__(self, url: str, options: S3Options | None = None) -> None:
        parts = urlsplit(check_url(url))
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._options = options or S3Options()
        self._store: Any = None  # an obstore.store.S3Store

    @property
    def place(self) -> str:
        """The URL of the bucket, and the server if it is not Amazon's."""
        where = "/".join(each for each in (self._bucket, self._prefix) if each)
        at = f" at {self._options.endpoint}" if self._options.endpoint else ""
        return f"s3://{where}{at}"

    # -- opening -------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the client, and ask for a list."""
        try:
            import obstore
        except ImportError as error:
            raise ObjectsUnusableError(
                "s3:// needs the package obstore: pip install 'netdicom-tx[s3]'"
            ) from error
        self._api = obstore
        try:
            make: Any = obstore.store.S3Store  # whose types want literals
            self._store = make(
                self._bucket,
                prefix=self._prefix or None,
                config=self._config(),
                client_options=self._client_options(),
                retry_config={
                    "max_retries": 10,
                    "retry_timeout": timedelta(seconds=min(_REPEATED, self._options.timeout)),
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=2),
                        "base": 2,
                    },
                },
            )
        except (obstore.exceptions.BaseError, ValueError, OSError) as error:
            raise ObjectsUnusableError(f"{self.place} cannot be used: {error}") from error
        try:
            for _ in obstore.list(self._store, "instances", chunk_size=1):
                break
        except Exception as error:  # obstore and its signing raise several kinds
            self._store = None
            raise ObjectsUnusableError(
                f"{self.place} cannot be used: {self._why(error)}"
            ) from error

    def _config(self) -> dict[str, Any]:
        options = self._options
        config: dict[str, Any] = {"virtual_hosted_style_request": options.is_virtual}
        environment = dict(os.environ)
        if options.endpoint:
            config["endpoint"] = self._endpoint(options)
        if options.region:
            config["region"] = options.region
        elif not {"AWS_REGION", "AWS_DEFAULT_REGION"} & environment.keys():
            config["region"] = "us-east-1"
        if options.access_key:
            config["access_key_id"] = options.access_key
            config["secret_access_key"] = options.secret_key
            if options.session_token:
                config["session_token"] = options.session_token
        elif "AWS_ACCESS_KEY_ID" not in environment:
            config |= _credentials_of_file(environment)
        if options.encryption:
            config["server_side_encryption"] = options.encryption
        if options.kms_key:
            config["sse_kms_key_id"] = options.kms_key
        if options.checksum:
            config["checksum_algorithm"] = options.checksum
        return config

    def _endpoint(self, options: S3Options) -> str:
        if not options.is_virtual:
            return options.endpoint
        parts = urlsplit(options.endpoint)
        return urlunsplit(parts._replace(netloc=f"{self._bucket}.{parts.netloc}"))

    def _client_options(self) -> dict[str, Any]:
        seconds = self._options.timeout
        found: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=min(5.0, seconds)),
            "read_timeout": timedelta(seconds=min(_STALLED, seconds)),
            "timeout": timedelta(seconds=seconds),
            "allow_http": self._options.endpoint.startswith("http:"),
        }
        if self._options.authorities:
            found["root_certificate"] = Path(self._options.authorities).read_bytes()
        return found

    def close(self) -> None:
        """Forget the client."""
        self._store = None

    # -- objects ---------------------------------------------------------------------------------------

    def put(self, key: str, pieces: Iterable[ReadableBuffer], size: int) -> None:
        """Put an object, in parts when it is large."""
        source: Any = _exactly(pieces, size, key)
        try:
            if size <= PART:
                source = b"".join(source)
            self._api.put(
                self._client(),
                key,
                source,
                use_multipart=size > PART,
                chunk_size=PART,
                max_concurrency=_PARTS,
            )
        except Exception as error:  # obstore documents no closed set
            raise self._translated(error, key) from error

    def read(self, key: str, start: int, end: int) -> bytes:
        """Read a part of an object."""
        if end <= start:
            return b""
        try:
            octets = bytes(self._api.get_range(self._client(), key, start=start, end=end))
        except Exception as error:
            raise self._translated(error, key) from error
        if len(octets) != end - start:
            raise ObjectDamagedError(f"{key} ends before octet {end}")
        return octets

    def size(self, key: str) -> int:
        """The size of an object."""
        return int(self._head(key)["size"])

    def modified(self, key: str) -> float:
        """When an object was put."""
        return float(self._head(key)["last_modified"].timestamp())

    def _head(self, key: str) -> Any:
        try:
            return self._api.head(self._client(), key)
        except FileNotFoundError:
            # The answer to HEAD has no body, which would tell a missing object from a missing bucket.
            self.read(key, 0, 1)
            raise ObjectMissingError(key, self.place) from None
        except Exception as error:
            raise self._translated(error, key) from error

    def delete(self, keys: Collection[str]) -> None:
        """Delete objects, one by one: not every server can delete several at once."""
        for key in keys:
            try:
                self._api.delete(self._client(), key)
            except FileNotFoundError:
                continue
            except Exception as error:
                raise self._translated(error, key) from error

    def list(self, prefix: str) -> Iterator[Stored]:
        """The objects with a prefix."""
        try:
            for page in self._api.list(self._client(), prefix.rstrip("/"), chunk_size=_PAGE):
                for each in page:
                    yield Stored(each["path"], each["size"], each["last_modified"].timestamp())
        except Exception as error:
            raise self._translated(error, prefix) from error

    def document(self, name: str) -> bytes | None:
        """A small object."""
        try:
            return bytes(self._api.get(self._client(), name).bytes())
        except FileNotFoundError:
            return None
        except Exception as error:
            raise self._translated(error, name) from error

    def put_document(self, name: str, octets: bytes) -> bytes:
        """Put a small object, unless it exists."""
        try:
            self._api.put(self._client(), name, octets, mode="create")
        except self._api.exceptions.AlreadyExistsError:
            pass
        except Exception as error:
            if "NotImplemented" not in str(error):
                raise self._translated(error, name) from error
            # The server knows no conditions. Nodes of one database that start at once for the first time write the
            # same, because the database has decided before; of two databases, the last one counts, and the other one
            # is refused.
            if self.document(name) is None:
                self._api.put(self._client(), name, octets)
        return self.document(name) or octets

    # -- errors ----------------------------------------------------------------------------------------

    def _client(self) -> Any:
        if self._store is None:
            raise ObjectStoreError(f"{self.place} is not open")
        return self._store

    def _translated(self, error: Exception, key: str) -> OSError:
        if isinstance(error, ObjectStoreError):
            return error
        why = self._why(error)
        if isinstance(error, FileNotFoundError) and why != _WHY["NoSuchBucket"]:
            return ObjectMissingError(key, self.place)
        return ObjectStoreError(f"{self.place} refuses: {why}")

    def _why(self, error: BaseException) -> str:
        """The reason for an error, in one sentence without the request."""
        text = str(error)
        code = re.search(r"<Code>(\w+)</Code>", text)
        known = _WHY.get(code[1]) if code is not None else None
        if known is not None:
            return known
        if code is not None:
            return f"the server says {code[1]}"
        # The client writes how it repeats requests, too.
        lowered = text.lower().replace("retry_timeout", "")
        for words, reason in _WORDS:
            if any(each in lowered for each in words):
                return reason
        status = re.search(r"status (?:code )?(\d{3}\b[\w ]*)", text)
        if status is not None:
            return f"the server says {status[1]}"
        return (text.splitlines() or [type(error).__name__])[0][:200]


def _exactly(pieces: Iterable[ReadableBuffer], size: int, key: str) -> Iterator[ReadableBuffer]:
    """The pieces of an object, of which nobody sees anything when they are not so many octets."""
    found = 0
    for piece in pieces:
        found += memoryview(piece).nbytes
        yield piece
    if found != size:
        raise ObjectStoreError(f"{key} has {found} octets instead of {size}")
