"""``netdicom echo`` against a peer of this package, and what goes for every command."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.commands.running import Netdicom, Peer, three_lines
from support.processes import eventually, free_port

pytestmark = pytest.mark.slow

STUDY = "StudyInstanceUID=1.2.3"


def test_echo_says_how_long_it_took_and_who_answered(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("echo", peer.address())
    assert (done.returncode, done.stderr) == (0, "")
    head, row = (line.split("\t") for line in done.stdout.splitlines())
    answer = dict(zip(head, row, strict=True))
    assert answer["peer"] == peer.address()
    assert answer["status"] == "Success (0x0000)"
    assert float(answer["ms"]) > 0
    assert "NETDICOM_TX" in answer["implementation"]


def test_echo_asks_several_peers_at_once(netdicom: Netdicom, peer: Peer) -> None:
    """Exit code 1: one of them was not there."""
    done = netdicom(
        *("echo", peer.address(), f"127.0.0.1:{free_port()}", peer.address("OTHER")),
        *("-n", 2, "--interval", 0.01, "--json"),
    )
    assert done.returncode == 1
    one, two, three = json.loads(done.stdout)
    assert len(one["milliseconds"]) == len(three["milliseconds"]) == 2
    assert two["error"]["code"] == 3
    assert three_lines(done.stderr)


def test_echo_that_is_refused_has_its_code(netdicom: Netdicom, peer: Peer) -> None:
    done = netdicom("echo", peer.address("NOECHO"), "-n", 3)
    assert done.returncode == 8
    assert "0x0122" in done.stderr
    assert three_lines(done.stderr)


def test_ctrl_c_between_two_echoes_says_what_there_was(
    netdicom: Netdicom, start_peer: Callable[[], Peer]
) -> None:
    peer = start_peer()
    with netdicom.start("echo", peer.address(), "-n", 9, "--interval", 60, "--json") as run:
        eventually(lambda: "echo" in peer.log, "C-ECHO")
        run.interrupt()
        code, out, err = run.end()
    assert code == 130, err
    assert len(json.loads(out)["milliseconds"]) == 1
    eventually(lambda: "end AssociationReleasedError" in peer.log, "release at the peer")


def test_ctrl_c_while_nobody_answers_gives_up(
    netdicom: Netdicom, start_peer: Callable[[], Peer]
) -> None:
    """There is no association yet that could be released."""
    peer = start_peer()
    with netdicom.start("find", peer.address("SILENT")) as run:
        eventually(lambda: "association" in peer.log, "association request")
        run.interrupt()
        code, out, err = run.end()
    assert (code, out) == (130, ""), err
    assert "Traceback" not in err


def test_a_peer_may_be_a_name_of_the_configuration_file(netdicom: Netdicom, peer: Peer) -> None:
    (netdicom.directory / "netdicom.toml").write_text(
        f'ae_title = "HERE"\n[peers.archive]\naddress = "{peer.address("NAMED")}"\nae_title = "KNOWN"\n'
        f'[peers.other]\naddress = "{peer.address("OTHER")}"\n'
    )
    assert netdicom("echo", "archive", "other").returncode == 0
    assert netdicom("echo", "archive", "-aet", "OPTION", "-aec", "CALLED").returncode == 0
    for said in ("KNOWN NAMED", "HERE OTHER", "OPTION CALLED"):
        assert f"association {said}\n" in peer.log


@pytest.mark.parametrize(
    ("title", "code"), [("STRICT", 4), ("SILENT", 7)], ids=["rejected", "no answer"]
)
def test_an_association_that_does_not_come_about_has_its_code(
    netdicom: Netdicom, peer: Peer, title: str, code: int
) -> None:
    done = netdicom("echo", peer.address(title), "-ta", 0.5, within=15)
    assert (done.returncode, done.stdout) == (code, "")
    assert three_lines(done.stderr)


@pytest.mark.parametrize("command", ["echo", "find", "worklist", "store", "get", "move"])
def test_a_request_that_is_not_answered_has_its_code(
    netdicom: Netdicom, peer: Peer, command: str, instances: Path
) -> None:
    """A timeout means what it says: nothing else is waited for, such as the release or the peer's end."""
    more = {
        "find": ["-k", STUDY],
        "store": [instances / "ct0.dcm"],
        "get": ["-k", STUDY],
        "move": ["-k", STUDY, "--to", "X"],
    }.get(command, [])
    done = netdicom(command, peer.address("NUMB"), *more, "-td", 0.5, within=15)
    assert done.returncode == 7
    assert "no answer within 0.5 s (timeout 'response')" in done.stderr
    assert three_lines(done.stderr)


@pytest.mark.parametrize(
    ("answer", "like"),
    [(b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP"), (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH")],
)
def test_a_port_of_another_protocol_is_told_at_once(
    netdicom: Netdicom, answer: bytes, like: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)
                connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        done = netdicom("echo", f"ANY@127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert done.returncode == 6
    assert "does not speak DICOM" in done.stderr
    assert f"(this looks like {like})" in done.stderr
    assert three_lines(done.stderr)


def test_a_port_that_says_nothing_is_given_up_after_ten_seconds(netdicom: Netdicom) -> None:
    """Other commands have more patience: a busy archive may take its time, but nobody waits for an echo."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        done = netdicom("echo", f"ANY@127.0.0.1:{server.getsockname()[1]}")
    assert done.returncode == 7
    assert "no answer within 10 s (timeout 'associate')" in done.stderr


@pytest.mark.parametrize("command", ["echo", "find", "worklist", "store", "get", "move"])
def test_a_dead_port_has_its_code(netdicom: Netdicom, command: str, instances: Path) -> None:
    more = {
        "store": [instances],
        "get": ["-k", STUDY],
        "move": ["-k", STUDY, "--to", "X"],
    }.get(command, [])
    done = netdicom(command, f"NOBODY@127.0.0.1:{free_port()}", *more)
    assert done.returncode == 3
    assert "nobody listens" in done.stderr
    assert three_lines(done.stderr)
