"""Endpoint strings, whose mistakes are told before a port is opened."""

import builtins
from pathlib import Path
from typing import Any

import pytest
import trustme
from twisted.internet import defer
from twisted.internet.endpoints import TCP4ServerEndpoint

from netdicom_tx.endpoints import failed_at_once, server_endpoint
from netdicom_tx.exceptions import LocalProtocolError


class Files:
    """Two keys with their certificates, and a file that is neither."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.text = directory / "run.sh"
        self.text.write_text("#!/bin/sh\n")
        self.keys, self.certificates = [], []
        for name in ("one", "two"):
            made = authority.issue_cert("127.0.0.1")
            self.keys.append(directory / f"{name}.key")
            made.private_key_pem.write_to_path(str(self.keys[-1]))
            self.certificates.append(directory / f"{name}.pem")
            made.cert_chain_pems[0].write_to_path(str(self.certificates[-1]))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def refusal(text: str) -> str:
    with pytest.raises(LocalProtocolError) as caught:
        server_endpoint(object(), text)
    said = str(caught.value)
    assert repr(text) in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize(
    "text", ["tcp:11112", "tcp:0:interface=127.0.0.1", "tcp:port=65535", r"tcp6:0:interface=\:\:1"]
)
def test_an_endpoint_is_made(text: str) -> None:
    assert server_endpoint(object(), text) is not None


@pytest.mark.parametrize(
    "text",
    ["tcp:99999", "tcp:-1", "tcp:dicom", "tcp:", "tcp", "tcp:port=65536", "tcp6:1e3", "ssl:x"],
)
def test_a_port_that_is_none_is_named_with_its_endpoint(text: str) -> None:
    """Twisted fails when it opens the port, with an OverflowError that names nothing."""
    assert "has no port from 0 to 65535" in refusal(text)


@pytest.mark.parametrize(
    "text", ["11112", "nonsense:1", "", "tcp:1:2:3:4", "tcp:1:backlog=x", "tcp:1:colour=red"]
)
def test_what_is_no_endpoint_is_told_with_an_example(text: str) -> None:
    assert "tcp:11112:interface=127.0.0.1" in refusal(text)


def test_a_key_and_its_certificate_make_an_endpoint(files: Files) -> None:
    text = f"ssl:0:privateKey={files.keys[0]}:certKey={files.certificates[0]}"
    assert not isinstance(server_endpoint(object(), text), TCP4ServerEndpoint)


def test_a_file_that_is_not_there_is_named(files: Files) -> None:
    said = refusal(f"ssl:0:privateKey={files.text}.absent:certKey={files.certificates[0]}")
    assert f"{files.text}.absent: No such file" in said


@pytest.mark.parametrize(
    ("key", "certificate"), [("text", 0), (0, "text"), ("text", "text"), (0, 1)]
)
def test_a_key_that_cannot_be_used_is_one_line(
    files: Files, key: int | str, certificate: int | str
) -> None:
    """The file is not a key, or is the key of another certificate."""
    one = files.text if key == "text" else files.keys[int(key)]
    two = files.text if certificate == "text" else files.certificates[int(certificate)]
    assert "a private key and its certificate in PEM form" in refusal(
        f"ssl:0:privateKey={one}:certKey={two}"
    )


def test_an_unknown_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what Twisted and pyOpenSSL say of a string is told as a mistake in it."""

    def fail(*_: object) -> None:
        raise ArithmeticError("a bug")

    monkeypatch.setattr("netdicom_tx.endpoints.serverFromString", fail)
    with pytest.raises(ArithmeticError, match="a bug"):
        server_endpoint(object(), "tcp:1")


def test_packages_that_are_missing_are_named_with_their_extra(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        fromlist = arguments[2] if len(arguments) > 2 else ()
        if name == "twisted.internet" and "ssl" in (fromlist or ()):
            raise ImportError("No module named 'OpenSSL'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    said = refusal(f"ssl:0:privateKey={files.keys[0]}")
    assert "pip install 'netdicom-tx[tls]'" in said


def test_a_port_that_fails_at_once_is_raised_and_a_later_one_is_told() -> None:
    later: list[str] = []
    slow: defer.Deferred[None] = defer.Deferred()
    cancelled: defer.Deferred[None] = defer.Deferred()
    openings = [defer.succeed(None), slow, cancelled, defer.fail(ValueError("in use"))]
    with pytest.raises(ValueError, match="in use"):
        failed_at_once(openings, lambda failure: later.append(failure.getErrorMessage()))
    cancelled.cancel()
    slow.errback(ValueError("too late"))
    assert later == ["too late"]
    failed_at_once([defer.succeed(None)], lambda _: None)
