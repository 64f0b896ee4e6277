"""The status page as a service of the node: its port, and what happens when it fails."""

import json
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError
from twisted.trial.unittest import TestCase

from netdicom_tx import AE, RemoteAE, verification_scu
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.options import Options
from netdicom_tx.passwords import write_password
from netdicom_tx.tap import NodeService, StartError, makeService
from netdicom_tx.uids import VERIFICATION_SOP_CLASS
from netdicom_tx.web.server import WebOptions, WebService
from support.archive.archives import Archive
from support.doubles import LoggedFailures
from support.doubles import logged_failures as noted_failures  # noqa: F401 - a fixture

LOOPBACK = "tcp:0:interface=127.0.0.1"


class ServedPageTests(TestCase):
    """The node in this process, with its real threads and sockets."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    def node(self, *arguments: str) -> NodeService:
        options = Options()
        storage = str(self.directory / "archive")
        options.parseOptions(["--storage", storage, "--listen", LOOPBACK, *arguments])
        node = makeService(options)

        def stop() -> Any:  # None or a Deferred, as addCleanup takes it
            return node.stopService() if node.running else None

        self.addCleanup(stop)
        return node

    def started(self, *arguments: str) -> NodeService:
        node = self.node(*arguments)
        node.privilegedStartService()
        node.startService()
        return node

    def address(self, node: NodeService) -> str:
        web: Any = node.web
        return f"http://127.0.0.1:{web.port.getHost().port}"

    async def fetch(self, address: str) -> tuple[int, str]:
        """The status and the text of a page."""

        def fetch() -> tuple[int, str]:
            try:
                with urlopen(address, timeout=30) as response:
                    return response.status, response.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        return await deferToThread(fetch)

    async def echo(self, node: NodeService) -> int:
        port = node.services[0].ports[0].getHost().port
        ae = AE("SCU").add_scu(verification_scu)
        remote = RemoteAE("X", f"tcp:127.0.0.1:{port}")
        async with await ae.request_association(remote) as asce:
            return int(await asce.get_scu(VERIFICATION_SOP_CLASS)())

    async def test_the_page_is_served_beside_peers(self) -> None:
        node = self.started("--http", LOOPBACK, "--http-anonymous", "--http-title", "A title")
        code, text = await self.fetch(f"{self.address(node)}/")
        assert code == 200
        assert "A title" in text
        code, text = await self.fetch(f"{self.address(node)}/studies")
        assert (code, "no studies yet" in text) == (200, True)
        assert await self.echo(node) == 0

    async def test_a_page_is_followed(self) -> None:
        """Over a socket, an event comes before the response is over."""
        node = self.started("--http", LOOPBACK)

        def first() -> bytes:
            with urlopen(f"{self.address(node)}/events?page=/", timeout=30) as response:
                while not (line := response.readline()).startswith(b"data: "):
                    pass
                return bytes(line)

        line = await deferToThread(first)
        assert json.loads(line.partition(b": ")[2]).keys() == {"name", "html"}

    async def test_the_node_stops_while_pages_are_open(self) -> None:
        node = self.started("--http", LOOPBACK)
        response = await deferToThread(
            lambda: urlopen(f"{self.address(node)}/events?page=/", timeout=30)
        )
        await node.stopService()
        await deferToThread(response.read)
        response.close()
        web: Any = node.web
        assert web.port is None

    async def test_what_is_too_long_is_answered(self) -> None:
        """RFC 9110 15.5.15, RFC 6585 5: and not by a connection that is closed without a word."""
        address = self.address(self.started("--http", LOOPBACK))
        assert (await self.fetch(f"{address}/studies?name={'A' * 60_000}"))[0] == 414

        def asked() -> int:
            request = Request(f"{address}/", headers={"X-Long": "A" * 60_000})
            with pytest.raises(HTTPError) as caught:
                urlopen(request, timeout=60)
            caught.value.close()
            return caught.value.code

        assert await deferToThread(asked) == 431
        assert (await self.fetch(f"{address}/live"))[0] == 200

    def test_a_public_address_without_users_is_refused(self) -> None:
        with pytest.raises(UsageError, match="could be reached from the network"):
            self.node("--http", "tcp:0")
        # The address of a name is known when the port is open.
        with patch("netdicom_tx.options.may_be_public", lambda _: False):
            node = self.node("--http", "tcp:0")
        with pytest.raises(StartError, match="could be reached from the network") as caught:
            node.privilegedStartService()
        assert "--http-anonymous" in str(caught.value)

    async def test_a_public_address_is_served_to_users(self) -> None:
        users = self.directory / "users"
        write_password(users, "anna", "secret")
        node = self.started("--http", "tcp:0", "--http-users", str(users))
        code, text = await self.fetch(f"{self.address(node)}/")
        assert code == 200
        assert 'type="password"' in text

    async def test_a_public_address_is_served_when_the_operator_allows_it(self) -> None:
        node = self.started("--http", "tcp:0", "--http-anonymous")
        code, _ = await self.fetch(f"{self.address(node)}/studies")
        assert code == 200

    async def test_a_port_in_use_is_a_sentence_and_an_exit(self) -> None:
        first = self.started("--http", LOOPBACK)
        port = self.address(first).rpartition(":")[2]
        self.directory = self.directory / "second"
        self.directory.mkdir()
        second = self.node("--http", f"tcp:{port}:interface=127.0.0.1")
        with pytest.raises(StartError, match=r"the status page: .*in use"):
            second.privilegedStartService()


class _Endpoint:
    """Opens its port when the test says so."""

    def __init__(self) -> None:
        self.opening: defer.Deferred[Any] = defer.Deferred()

    def listen(self, factory: object) -> defer.Deferred[Any]:
        return self.opening


def test_a_port_that_fails_later_is_logged(node: Archive, failures: LoggedFailures) -> None:
    """The node goes on without the page."""
    service = WebService(node.ae, WebOptions(listen=LOOPBACK), threads=0)
    endpoint = _Endpoint()
    service._endpoint = cast(Any, endpoint)
    service.startService()
    endpoint.opening.errback(CannotListenError("127.0.0.1", 8042, OSError("gone")))
    (line,) = failures.texts()
    assert "the status page cannot be served" in line
    service.stopService()


def test_a_port_that_is_opened_too_late_is_given_up(node: Archive) -> None:
    service = WebService(node.ae, WebOptions(listen=LOOPBACK), threads=0)
    endpoint = _Endpoint()
    service._endpoint = cast(Any, endpoint)
    service.startService()
    service.stopService()
    assert endpoint.opening.called


def test_templates_are_compiled_before_anybody_visits(node: Archive) -> None:
    """Otherwise the first visitor of each page would hold up the peers of the node."""
    service = WebService(node.ae, WebOptions(listen=LOOPBACK), threads=0)
    endpoint = _Endpoint()
    service._endpoint = cast(Any, endpoint)
    service.startService()
    cache: Any = service.web.templates.cache
    compiled = {name for _, name in cache.keys()}  # noqa: SIM118 - not a dict
    assert compiled == set(service.web.templates.list_templates())
    service.stopService()


def test_a_password_file_that_is_gone_is_a_refused_login(node: Archive, tmp_path: Path) -> None:
    """And one that is missing at the start is a mistake."""
    with pytest.raises(LocalProtocolError, match="No such file"):
        WebService(node.ae, WebOptions(listen=LOOPBACK, users_file=str(tmp_path / "none")))


def options(*arguments: str) -> Options:
    found = Options()
    found.parseOptions(list(arguments))
    return found


def test_options_of_the_page_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, said in (
        (("--http", "8042"), "--http: '8042'"),
        (
            ("--http", LOOPBACK, "--http-users", str(tmp_path / "none")),
            "--http-users: .*No such file",
        ),
    ):
        with pytest.raises(Exception, match=said):
            options(*arguments)
    monkeypatch.setattr("netdicom_tx.options.find_spec", lambda _: None)
    with pytest.raises(Exception, match=r"pip install 'netdicom-tx\[web\]'"):
        options("--http", LOOPBACK)


def test_a_mistake_in_the_file_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[http]\nlisten = "tcp:8042"\nusers_file = "none"\nallow_anonymus = true\n')
    with pytest.raises(SystemExit):
        options("--config", str(path))
    assert (
        "line 4: [http] allow_anonymus: is not a known key; did you mean allow_anonymous?"
        in capsys.readouterr().err
    )
    path.write_text('[http]\nlisten = "tcp:8042"\nusers_file = "none"\n')
    with pytest.raises(SystemExit):
        options("--config", str(path))
    assert "line 3: [http] users_file: " in capsys.readouterr().err
