"""Where to listen."""

from types import SimpleNamespace

import pytest
from twisted.internet import defer

from netdicom_tx.commands.common.addresses import Address, TLSFiles
from netdicom_tx.commands.common.failures import CommandError
from netdicom_tx.commands.common.listening import endpoint_string, listen, where
from netdicom_tx.commands.move import _listen_at
from netdicom_tx.testing import failure_of


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("11112", "tcp:11112"),
        ("0", "tcp:0"),
        ("127.0.0.1:11112", "tcp:11112:interface=127.0.0.1"),
        ("[::1]:11112", r"tcp6:11112:interface=\:\:1"),
        ("tcp:11112:interface=127.0.0.1", "tcp:11112:interface=127.0.0.1"),
        ("systemd:domain=INET:name=dicom", "systemd:domain=INET:name=dicom"),
    ],
)
def test_a_place_has_three_forms(text: str, endpoint: str) -> None:
    """A port, on every interface; host:port; a Twisted endpoint."""
    assert endpoint_string(text) == endpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("11112", "tcp:11112:interface=127.0.0.1"),
        ("0.0.0.0:11112", "tcp:11112:interface=0.0.0.0"),
        ("tcp:11112", "tcp:11112"),
    ],
)
def test_a_port_alone_may_mean_an_interface(text: str, endpoint: str) -> None:
    """``receive`` opens nothing to the network unless an interface is named."""
    assert endpoint_string(text, interface="127.0.0.1") == endpoint


@pytest.mark.parametrize("text", ["", "here", "host:", "host:dicom", "70000", "1:2:x"])
def test_what_is_no_place_is_told(text: str) -> None:
    with pytest.raises(CommandError) as caught:
        endpoint_string(text)
    assert caught.value.problem.code == 2


@pytest.mark.parametrize(
    ("host", "text", "endpoint"),
    [
        ("127.0.0.1", "here", "tcp:11112:interface=127.0.0.1"),
        ("10.0.0.5", "here", "tcp:11112"),
        ("127.0.0.1", "104", "tcp:104"),
    ],
)
def test_a_move_is_received_where_its_peer_can_reach(host: str, text: str, endpoint: str) -> None:
    """Nothing is opened to the network for a peer on this machine, unless it is said."""
    assert _listen_at(text, Address("A", host, 104)) == endpoint


def test_a_port_is_shown_with_its_host() -> None:
    host = SimpleNamespace(host="127.0.0.1", port=104)
    assert where(SimpleNamespace(getHost=lambda: host)) == "127.0.0.1:104"


@pytest.mark.parametrize(
    ("text", "tls", "evidence", "hint"),
    [
        ("tcp:99999", None, "'tcp:99999' has no port", "0.0.0.0:11112"),
        ("ssl:0:privateKey=/none", None, "/none: No such file", "privateKey=KEY.pem"),
        ("tcp:0", TLSFiles(certificate="/none"), "/none: No such file", "--tls options"),
        ("tcp:0", TLSFiles(), "needs a certificate", "--tls options"),
    ],
)
def test_a_place_that_cannot_be_opened_is_told_with_what_to_write(
    text: str, tls: TLSFiles | None, evidence: str, hint: str
) -> None:
    failure = failure_of(defer.Deferred.fromCoroutine(listen(None, None, text, tls)))
    assert isinstance(failure, CommandError)
    problem = failure.problem
    assert (problem.code, problem.what) == (2, f"cannot listen at {text}")
    assert evidence in problem.evidence
    assert hint in problem.hint
