"""``netdicom reload``: a running node reads its configuration again."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from twisted.internet import defer
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, verification_scu
from netdicom_tx.commands import reload
from netdicom_tx.commands import run as netdicom
from netdicom_tx.commands.common.failures import ExitCode
from netdicom_tx.uids import VERIFICATION_SOP_CLASS
from support.node import Node
from support.processes import eventually, run

Captured = pytest.CaptureFixture[str]
OPEN = '[access]\ndefault = "all"\n'
_COMMAND = (sys.executable, "-m", "netdicom_tx", "reload")
CLOSED = '[access]\ndefault = "none"\n[[peer]]\ntitle = "CT1"\nallow = ["echo"]\n'


@pytest.fixture(autouse=True)
def in_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node with a file, which also names its directory."""
    path = tmp_path / "node.toml"
    path.write_text(f'[storage]\ndirectory = "{tmp_path / "archive"}"\n{OPEN}')
    made = Node(tmp_path, "--config", str(path))
    made.start()
    yield made
    made.kill()


def config(node: Node, more: str) -> str:
    """Write the file of a node."""
    path = node.storage.parent / "node.toml"
    path.write_text(f'[storage]\ndirectory = "{node.storage}"\n{more}')
    return str(path)


@pytest.mark.slow
def test_it_says_what_took_effect_and_what_waits(node: Node, capsys: Captured) -> None:
    path = config(node, f'duplicates = "replace"\n[node]\nlog_level = "warn"\n{CLOSED}')
    assert netdicom(["reload", "--config", path]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines() == [
        f"the node has read {path}",
        "took effect: [access] and [[peer]]",
        "took effect: [node] log_level",
        "needs a restart: [storage] duplicates",
    ]
    path = config(node, f'[node]\nlog_level = "warn"\n{CLOSED}')
    assert netdicom(["reload", "--json", "--config", path]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"read": [path], "applied": [], "waiting": []}
    assert netdicom(["reload", "--storage", str(node.storage)]) == ExitCode.OK
    assert "no value has changed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_wrong_file_is_refused_before_the_node_hears_of_it(node: Node, capsys: Captured) -> None:
    """And by the node itself, when the command does not read the file."""
    path = config(node, "[acess]\n")
    assert netdicom(["reload", "--config", path]) == ExitCode.CONFIGURATION
    assert "did you mean access?" in capsys.readouterr().err
    assert netdicom(["reload", "--storage", str(node.storage)]) == ExitCode.CONFIGURATION
    said = capsys.readouterr().err
    assert "the node keeps the configuration that it has" in said
    assert "did you mean access?" in said


def test_no_node_is_found(tmp_path: Path, capsys: Captured) -> None:
    assert netdicom(["reload", "--storage", str(tmp_path / "none")]) == ExitCode.NOT_CONNECTED
    assert f"no node runs on {tmp_path / 'none'}" in capsys.readouterr().err


def test_a_node_without_a_socket_gets_the_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(reload, "pid_of_node", lambda _: 4711)
    monkeypatch.setattr(os, "kill", lambda *given: sent.append(given))
    assert netdicom(["reload", "--storage", "none"]) == ExitCode.OK
    assert sent == [(4711, signal.SIGHUP)]
    assert "its log says what came of it" in capsys.readouterr().err

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refuse)
    assert netdicom(["reload", "--storage", "none"]) == ExitCode.SOME_FAILED
    assert "Operation not permitted" in capsys.readouterr().err


class Sender:
    """Echoes on one association until it is told to end."""

    def __init__(self) -> None:
        self.count = 0
        self.is_over = False

    async def run(self, remote: RemoteAE) -> None:
        ae = AE("CT1").add_scu(verification_scu)
        async with await ae.request_association(remote) as asce:
            while not self.is_over:
                assert await asce.get_scu(VERIFICATION_SOP_CLASS)() == 0x0000
                self.count += 1


@pytest.mark.slow
class SendersTests(TestCase):
    """Eight senders while the command reloads the node."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, node: Node) -> None:
        self.node = node

    async def test_eight_senders_notice_nothing(self) -> None:
        remote = RemoteAE("X", self.node.address.endpoint)
        senders = [Sender() for _ in range(8)]
        running = [defer.ensureDeferred(each.run(remote)) for each in senders]
        for text, code in ((CLOSED, 0), ("[acess]\n", 78), (OPEN, 0)):
            counts = [each.count for each in senders]
            path = config(self.node, text)
            done = await deferToThread(run, *_COMMAND, "--config", path)
            assert done.returncode == code, done.stdout
            await deferToThread(eventually, partial(_have_gone_on, senders, counts), "echoes")
        for each in senders:
            each.is_over = True
        await defer.gatherResults(running)


def _have_gone_on(senders: list[Sender], counts: list[int]) -> bool:
    return all(each.count > count for each, count in zip(senders, counts, strict=True))
