"""The configuration file of a running node: read again at SIGHUP, and refused at the start when it is wrong."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, AssociationRejectedError, RemoteAE, verification_scu
from netdicom_tx.access import Access, Caller, Denied, Permission, Profile
from netdicom_tx.amounts import Amount
from netdicom_tx.archive.retention import Rules
from netdicom_tx.config import ConfigurationError
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.reloading import Reloaded
from netdicom_tx.tap import NodeService, Options, makeService
from netdicom_tx.uids import VERIFICATION_SOP_CLASS
from support.doubles import logged_lines as logged_lines
from support.node import Node
from support.processes import eventually
from test_tap_process import dicom, refused

OPEN = '[access]\ndefault = "all"\n'
CLOSED = '[access]\ndefault = "none"\n[[peer]]\ntitle = "CT1"\nallow = ["echo"]\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "node.toml"


def service(path: Path, text: str, *more: str) -> NodeService:
    path.write_text(text)
    options = Options()
    options.parseOptions(["--config", str(path), *more])
    return makeService(options)


def rules_of(node: NodeService) -> Access | None:
    return node.ae.access


def titles_of(node: NodeService) -> Any:
    """The AE titles that are called and that call, or None for any."""
    return node.ae.called_ae_titles, node.ae.calling_ae_titles


def test_peers_and_access_take_effect_at_once(path: Path) -> None:
    node = service(path, OPEN + '[[peer]]\ntitle = "OLD"\nhost = "old"\nport = 104\n')
    known_to_services = node.ae.peers
    assert rules_of(node) is None
    assert set(node.ae.peers) == {"OLD"}
    path.write_text(CLOSED + 'host = "ct1"\nport = 104\n')
    assert node.reload() == str(path)
    assert node.ae.peers is known_to_services
    assert node.ae.peers == {"CT1": RemoteAE("CT1", "tcp:ct1:104")}
    assert node.ae.access is not None
    assert node.ae.access.judge(Caller("CT1")) == Profile(frozenset([Permission.ECHO]))
    assert isinstance(node.ae.access.judge(Caller("OLD")), Denied)


def test_strict_peers_take_effect_at_once(path: Path) -> None:
    node = service(path, '[[peer]]\ntitle = "CT1"\n')
    assert titles_of(node) == (None, None)
    path.write_text('[access]\nstrict_peers = true\n[[peer]]\ntitle = "CT1"\n')
    node.reload()
    assert titles_of(node) == ({"NETDICOM"}, {"CT1"})
    path.write_text(
        "[access]\nstrict_peers = true\n[[peer]]\ntitle = '*'\nnetworks = ['192.0.2.0/24']\n"
    )
    node.reload()
    assert titles_of(node) == ({"NETDICOM"}, None)
    assert node.ae.access is not None
    assert isinstance(node.ae.access.judge(Caller("CT1")), Denied)


def test_what_needs_a_restart_is_told(path: Path, lines: list[str]) -> None:
    node = service(path, OPEN)
    path.write_text(OPEN + '[node]\naet = "OTHER"\n[storage]\nduplicates = "replace"\n')
    found = node.reloaded()
    assert lines == [
        f"{path} has other values for [node] aet, [storage] duplicates, which take effect when the node is restarted"
    ]
    assert found == Reloaded((str(path),), (), ("[node] aet", "[storage] duplicates"))
    assert node.ae.ae_title == "NETDICOM"
    assert node.reloaded() == found


def test_a_key_without_an_option_needs_a_restart_too(path: Path) -> None:
    """And is told until the node has been restarted."""
    node = service(path, OPEN)
    path.write_text(
        f"{OPEN}[database]\nlock_timeout = 30\n[storage]\nparallel = 4\n[node]\ndrain = 1\n"
    )
    found = node.reloaded()
    assert found.applied == ("[node] drain",)
    assert found.waiting == ("[storage] parallel", "[database] lock_timeout")
    assert node.reloaded().waiting == found.waiting


def test_limits_routes_and_the_log_take_effect_at_once(path: Path, lines: list[str]) -> None:
    """And are told once."""
    ris = '[[peer]]\ntitle = "RIS"\nhost = "ris"\nport = 104\n'
    node = service(path, ris)
    node._set_up_logging()
    path.write_text(
        "[node]\nmax_associations = 7\nmax_associations_per_host = 6\nmax_associations_per_title = 5\n"
        'log_level = "warn"\n[limits]\nmove_associations = 3\n[worklist]\nforward_mpps = ["RIS"]\n'
        + ris
    )
    keys = (
        "[node] log_level",
        "[node] max_associations",
        "[node] max_associations_per_host",
        "[node] max_associations_per_title",
        "[limits] move_associations",
    )
    assert set(node.reloaded().applied) == {*keys, "[worklist] forward_mpps"}
    assert node.reloaded().applied == ()
    ae = node.ae
    assert (ae.max_associations, ae.max_associations_per_host) == (7, 6)
    assert (ae.max_associations_per_title, ae.move_associations) == (5, 3)
    assert ae.workflow.steps._forward_to == ("RIS",)
    lines.clear()
    node._log.info("not any more")
    assert lines == []
    path.write_text(CLOSED + 'host = "ct1"\nport = 104\n')
    assert node.reloaded().applied[0] == "[access] and [[peer]]"


def test_retention_takes_effect_at_once(path: Path) -> None:
    """Also when the table goes."""
    node = service(path, "[retention]\nmax_age = 30\nquota = '80 %'\n")
    assert node.ae.keeper.rules == Rules(max_age=30, quota=Amount(share=0.8))
    text = "[retention]\nmax_study_age = 3650\nprotect_calling = ['RESEARCH']\n"
    path.write_text(f"[storage]\nreserve = '10 GiB'\n{text}protect_called = ['TEACHING']\n")
    assert node.reloaded().applied == ("[retention]", "[storage] reserve")
    assert node.ae.keeper.rules == Rules(
        max_study_age=3650, protect_calling=("RESEARCH",), protect_called=("TEACHING",)
    )
    assert node.ae.store.reserve == Amount(octets=10 << 30)
    assert node.reloaded().applied == ()
    path.write_text("")
    node.reload()
    assert not node.ae.keeper.rules.deletes


def test_a_wrong_file_changes_nothing(path: Path) -> None:
    node = service(path, CLOSED)
    before = node.ae.access
    path.write_text('[acess]\ndefault = "all"\n')
    with pytest.raises(ConfigurationError, match="did you mean access"):
        node.reload()
    assert node.ae.access is before
    path.unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        node.reload()
    assert node.ae.access is before


def test_an_option_that_has_become_wrong_changes_nothing(path: Path, tmp_path: Path) -> None:
    worklist = tmp_path / "worklist"
    worklist.mkdir()
    node = service(path, OPEN, "--worklist", str(worklist))
    worklist.rmdir()
    with pytest.raises(LocalProtocolError, match="--worklist"):
        node.reload()


def test_the_command_line_still_wins(path: Path, lines: list[str]) -> None:
    node = service(path, OPEN, "--max-associations", "5")
    path.write_text(OPEN + "[node]\nmax_associations = 7\n")
    assert node.reloaded() == Reloaded((str(path),))
    assert lines == []


def test_a_file_is_found_from_another_directory(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runner changes the directory when it goes into the background."""
    monkeypatch.chdir(tmp_path)
    path.write_text(OPEN)
    options = Options()
    options.parseOptions(["--config", path.name])
    node = makeService(options)
    monkeypatch.chdir("/")
    path.write_text(CLOSED)
    node.reload()
    assert node.ae.access is not None


def test_without_a_file_there_is_nothing_to_read() -> None:
    options = Options()
    options.parseOptions([])
    assert makeService(options).reload() == ""


def test_tables_and_options_for_peers_exclude_each_other(path: Path) -> None:
    """The option would replace the tables, and their permissions with them."""
    path.write_text(CLOSED)
    with pytest.raises(Exception, match=r"has \[\[peer\]\] tables, which it would replace"):
        Options().parseOptions(["--config", str(path), "--peer", "CT2@ct2:104"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[node]\ntls_listen = ['tcp:0']", "line 2: [node] tls_listen: needs the PEM file of the"),
        ("[tls]\ncertificate = '/none.pem'", "line 2: [tls] certificate: /none.pem: No such file"),
        ("[worklist]\nforward_mpps = ['RIS']", "line 2: [worklist] forward_mpps: RIS is not a pe"),
        ("[access]\nstrict_peers = true", "line 2: [access] strict_peers: nobody would be served"),
    ],
)
def test_what_does_not_fit_together_is_a_mistake_of_the_file(
    path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    path.write_text(text)
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--config", str(path)])
    assert caught.value.code == 78
    assert says in capsys.readouterr().err


# -- processes ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_a_node_with_a_wrong_file_refuses_to_start(path: Path, runner: str) -> None:
    """EX_CONFIG of sysexits.h, by which systemd knows that another attempt is of no use."""
    path.write_text('[node]\nlistn = ["tcp:0"]\n[storage]\nfsync = 1\n')
    done = dicom("--config", path, runner=runner)
    refused(done, "line 4: [storage] fsync: expected true or false, got 1", 78)
    assert "line 2: [node] listn: is not a known key; did you mean listen?" in done.stdout


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


def have_gone_on(senders: list[Sender], counts: list[int]) -> bool:
    return all(each.count > count for each, count in zip(senders, counts, strict=True))


@pytest.mark.slow
class ProcessTests(TestCase):
    """``twistd -n dicom --config`` as a process."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "node.toml"
        self.path.write_text(OPEN)
        self.running = Node(tmp_path, "--config", str(self.path))
        yield
        self.running.kill()

    async def reload(self, text: str, line: str) -> None:
        """Write the file, send SIGHUP, and wait for one more line in the log."""

        def found() -> int:
            return len(re.findall(line, self.running.log))

        before = found()
        self.path.write_text(text)
        os.kill(self.running.pid, signal.SIGHUP)
        await self.until(lambda: found() > before)

    async def until(self, condition: Callable[[], bool]) -> None:
        await deferToThread(eventually, condition, "change")

    async def test_eight_senders_notice_nothing_of_a_reload(self) -> None:
        self.running.start()
        remote = RemoteAE("X", self.running.address.endpoint)
        senders = [Sender() for _ in range(8)]
        running = [defer.ensureDeferred(each.run(remote)) for each in senders]
        for text in (CLOSED, OPEN, CLOSED):
            counts = [each.count for each in senders]
            await self.until(partial(have_gone_on, senders, counts))
            await self.reload(text, r"Received SIGHUP\. Read \S*node\.toml again")
        stranger = AE("OTHER").add_scu(verification_scu)
        with pytest.raises(AssociationRejectedError, match="calling AE title"):
            await stranger.request_association(remote)
        await self.reload(
            "[node", "the former options stay in effect: .*node.toml: line 1: Expected"
        )
        with pytest.raises(AssociationRejectedError, match="calling AE title"):
            await stranger.request_association(remote)
        for each in senders:
            each.is_over = True
        await defer.gatherResults(running)
        assert "refused OTHER at 127.0.0.1" in self.running.log
        await deferToThread(self.running.stop)
        assert "Traceback" not in self.running.log
