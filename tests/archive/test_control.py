"""Commands speak to a running node, on a real socket."""

import contextlib
import json
import os
import socket
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import defer, reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from netdicom_tx.archive import control as module
from netdicom_tx.archive.control import NAME, Control, NodeAnswerError, NoNodeError, ask
from netdicom_tx.exceptions import LocalProtocolError
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture
from support.processes import eventually


class ControlTests(TestCase):
    """On the reactor of the tests."""

    @pytest.fixture(autouse=True)
    def _fixtures(self, tmp_path: Path, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = tmp_path
        self.lines = lines
        self.monkeypatch = monkeypatch

    def started(self, root: Path | None = None) -> Control:
        control = Control(root or self.root, reactor)
        control.register("double", lambda number: 2 * number)
        control.start()
        self.addCleanup(control.stop)
        return control

    def asked(self, verb: str, root: Path | None = None, **arguments: Any) -> defer.Deferred[Any]:
        """What a command in another thread gets."""
        return deferToThread(ask, root or self.root, verb, **arguments)

    def failures(self) -> int:
        """How many failures were logged."""
        return len(self.flushLoggedErrors())  # type: ignore[no-untyped-call]

    async def refusal(self, verb: str, **arguments: Any) -> tuple[str, str]:
        try:
            await self.asked(verb, **arguments)
        except NodeAnswerError as error:
            return error.kind, str(error)
        raise AssertionError("it was answered")

    async def test_a_command_gets_the_answer_of_the_node(self) -> None:
        self.started()
        assert await self.asked("double", number=21) == 42

    async def test_an_answer_may_come_later(self) -> None:
        control = self.started()
        waiting: defer.Deferred[str] = defer.Deferred()
        control.register("wait", lambda: waiting)
        answer = self.asked("wait")
        while not control._factory.connections:
            await deferToThread(lambda: None)
        waiting.callback("here")
        assert await answer == "here"

    async def test_only_the_user_of_the_node_may_open_the_socket(self) -> None:
        self.started()
        assert stat.S_IMODE((self.root / NAME).stat().st_mode) == 0o600

    async def test_the_socket_goes_with_the_node(self) -> None:
        control = self.started()
        await control.stop()
        assert not (self.root / NAME).exists()
        with pytest.raises(NoNodeError, match="no node runs on"):
            await self.asked("double", number=1)

    async def test_a_socket_that_was_left_is_replaced(self) -> None:
        """A node that was killed leaves it."""
        with closing(socket.socket(socket.AF_UNIX)) as left:
            left.bind(str(self.root / NAME))
        with pytest.raises(NoNodeError):
            await self.asked("double", number=1)
        self.started()
        assert await self.asked("double", number=1) == 2

    async def test_a_socket_that_somebody_has_removed_does_not_hold_up_the_end(self) -> None:
        control = self.started()
        (self.root / NAME).unlink()
        await control.stop()
        assert not (self.root / NAME).exists()

    async def test_a_storage_directory_may_have_a_long_path(self) -> None:
        """The path of a socket has 107 characters at most."""
        root = self.root / ("d" * 100) / ("e" * 100)
        root.mkdir(parents=True)
        control = self.started(root)
        assert (root / NAME).is_socket()
        assert await self.asked("double", root, number=2) == 4
        await control.stop()
        assert not (root / NAME).exists()
        assert str(root) not in opened()

    async def test_a_client_that_reads_nothing_does_not_hold_up_the_end(self) -> None:
        self.monkeypatch.setattr(module, "_LEAVING", 0.05)
        control = self.started()
        control.register("much", lambda: "x" * (1 << 22))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.root / NAME))
            client.sendall(b'{"verb": "much"}\n')
            while not any(
                each._waiting or each.is_connected for each in control._factory.connections
            ):
                await deferToThread(lambda: None)
            await control.stop()
            assert control._factory.connections == set()

    async def test_a_client_that_never_reads_costs_bounded_memory(self) -> None:
        """Its requests wait in the kernel, and it is dropped when it has taken nothing for a while."""
        self.monkeypatch.setattr(module, "_SILENCE", 0.5)
        control = self.started()
        calls = []
        control.register("much", lambda: calls.append(1) or "x" * (1 << 20))  # type: ignore[func-returns-value]
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.root / NAME))
            client.setblocking(False)
            request = b'{"verb": "much"}\n' * 1000
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while sent < 1 << 24:
                    sent += client.send(request)
            await deferToThread(eventually, lambda: calls, "answer")
            (connection,) = control._factory.connections
            await deferToThread(eventually, lambda: not control._factory.connections, "end")
            assert connection.ended.called
        assert len(calls) < 10

    async def test_a_client_that_reads_late_gets_all_answers(self) -> None:
        control = self.started()
        control.register("much", lambda number: f"{number}" + "x" * (1 << 18))

        def ask_much() -> list[str]:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(30)
                client.connect(str(self.root / NAME))
                lines = [json.dumps({"verb": "much", "number": each}) for each in range(20)]
                client.sendall("".join(f"{each}\n" for each in lines).encode())
                with client.makefile() as answers:
                    return [json.loads(next(answers))["result"] for _ in lines]

        found = await deferToThread(ask_much)
        assert [each.rstrip("x") for each in found] == [str(each) for each in range(20)]

    async def test_what_is_in_the_way_is_told_and_the_node_goes_on(self) -> None:
        (self.root / NAME).write_text("mine")
        control = self.started()
        (line,) = [each for each in self.lines if "cannot reach this node" in each]
        assert line == (
            f"netdicom status and netdicom reload cannot reach this node: {self.root / NAME}: "
            "[Errno 17] a file that is not a socket has this name"
        )
        await control.stop()
        assert (self.root / NAME).read_text() == "mine"

    async def test_the_reason_of_a_refusal_is_told(self) -> None:
        control = self.started()

        def refuse() -> None:
            raise LocalProtocolError("line 3: unknown key")

        control.register("reload", refuse)
        assert await self.refusal("reload") == ("refused", "line 3: unknown key")

    async def test_an_unknown_request_is_refused(self) -> None:
        self.started()
        kind, text = await self.refusal("halve")
        assert (kind, text) == (
            "request",
            "this node does not know 'halve'; expected one of double",
        )

    async def test_a_failure_is_told_and_logged(self) -> None:
        control = self.started()
        control.register("divide", lambda: 1 / 0)
        assert await self.refusal("divide") == (
            "failed",
            "divide: ZeroDivisionError: division by zero",
        )
        assert await self.refusal("double") == (
            "failed",
            "double: ControlTests.started.<locals>.<lambda>() missing 1 required positional argument: 'number'",
        )
        assert self.failures() == 2

    async def test_what_json_has_no_words_for_is_a_failure(self) -> None:
        control = self.started()
        control.register("what", object)
        kind, text = await self.refusal("what")
        assert kind == "failed"
        assert "not JSON serializable" in text
        assert self.failures() == 1

    async def test_a_node_that_does_not_answer_is_given_up(self) -> None:
        control = self.started()
        control.register("wait", lambda: defer.Deferred())
        assert await self.refusal("wait", timeout=0.05) == (
            "silent",
            f"the node on {self.root} has not answered within 0.05 s",
        )

    async def test_a_node_that_ends_meanwhile_is_told(self) -> None:
        control = self.started()

        def leave() -> defer.Deferred[None]:
            control._factory.end(reactor)
            return defer.Deferred()

        control.register("wait", leave)
        assert await self.refusal("wait") == (
            "silent",
            f"the node on {self.root} has ended before it has answered",
        )

    def spoken(self, octets: bytes, answers: int) -> defer.Deferred[list[bytes]]:
        """The lines that come back when octets are sent."""

        def speak() -> list[bytes]:
            with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as lines:
                client.settimeout(30)
                client.connect(str(self.root / NAME))
                client.sendall(octets)
                return [lines.readline() for _ in range(answers)]

        return deferToThread(speak)

    async def test_requests_on_one_connection_are_answered_in_order(self) -> None:
        self.started()
        octets = b"".join(b'{"verb": "double", "number": %d}\n' % each for each in range(3))
        answers = await self.spoken(octets, 3)
        assert [json.loads(each) for each in answers] == [{"result": 2 * each} for each in range(3)]

    async def test_what_is_not_a_request_is_refused(self) -> None:
        self.started()
        wrong = (b"GET / HTTP/1.1", b"[]", b"{}", b"1", b'{"verb": []}', b"\xff")
        for line in wrong:
            (answer,) = await self.spoken(line + b"\n", 1)
            assert json.loads(answer)["kind"] == "request"

    async def test_a_request_that_is_too_deep_is_refused(self) -> None:
        self.started()
        octets = b"[" * 50_000 + b"\n" + b'{"verb": "double", "number": 1}\n'
        first, second = await self.spoken(octets, 2)
        assert json.loads(first)["kind"] == "request"
        assert json.loads(second) == {"result": 2}

    async def test_a_line_without_an_end_is_not_kept(self) -> None:
        self.started()
        assert await self.spoken(b"x" * (1 << 17), 1) == [b""]

    async def test_a_client_that_is_silent_is_given_up(self) -> None:
        self.monkeypatch.setattr(module, "_SILENCE", 0.05)
        self.started()
        assert await self.spoken(b"", 1) == [b""]

    async def test_the_number_of_connections_is_bounded(self) -> None:
        self.monkeypatch.setattr(module, "_CONNECTIONS", 1)
        control = self.started()
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(str(self.root / NAME))
            while not control._factory.connections:
                await deferToThread(lambda: None)
            assert await self.spoken(b"", 1) == [b""]
        while control._factory.connections:
            await deferToThread(lambda: None)
        assert await self.asked("double", number=1) == 2


def opened() -> set[str]:
    """The files that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(os.readlink(f"/proc/self/fd/{name}"))
    return found


def test_a_directory_that_is_not_there_has_no_node(tmp_path: Path) -> None:
    with pytest.raises(NoNodeError):
        ask(tmp_path / "nowhere", "status")
