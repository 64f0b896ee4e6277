"""What the service manager is told, on a real socket."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from twisted.internet.task import Clock

from netdicom_tx.systemd import Supervised
from support.doubles import logged_lines as noted_lines  # noqa: F401 - a fixture
from support.node import Node


class Manager:
    """The end of the service manager."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(30)

    def heard(self) -> list[dict[str, str]]:
        """The datagrams that have come."""
        found = []
        self.socket.setblocking(False)
        try:
            while True:
                found.append(self.next())
        except BlockingIOError:
            self.socket.settimeout(30)
            return found

    def next(self) -> dict[str, str]:
        """The next datagram."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def until(self, name: str) -> dict[str, str]:
        """The next datagram that has a variable."""
        while name not in (found := self.next()):
            pass
        return found


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    manager = Manager("notify")
    with closing(manager.socket):
        yield manager


def supervised(clock: Clock, environment: dict[str, str]) -> Supervised:
    async def status() -> str:
        return "serving"

    return Supervised(lambda: clock, status, environment)


def test_a_life_is_told(manager: Manager) -> None:
    clock = Clock()
    environment = {"NOTIFY_SOCKET": manager.address, "HOME": "/"}
    speaker = supervised(clock, environment)
    speaker.starting("comparing")
    assert environment == {"HOME": "/"}
    assert manager.heard() == [{"EXTEND_TIMEOUT_USEC": "60000000", "STATUS": "comparing"}]
    clock.advance(10)
    assert manager.heard() == [{"EXTEND_TIMEOUT_USEC": "60000000", "STATUS": "comparing"}]
    speaker.ready()
    ready, status = manager.heard()
    assert ready == {"READY": "1", "MAINPID": str(os.getpid())}
    assert status == {"STATUS": "serving"}
    clock.advance(30)
    assert manager.heard() == [{"STATUS": "serving"}]
    speaker.reloading()
    speaker.reloaded()
    reloading, reloaded = manager.heard()
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert reloaded == {"READY": "1"}
    speaker.stopping("ending")
    assert manager.heard() == [
        {"STOPPING": "1"},
        {"EXTEND_TIMEOUT_USEC": "60000000", "STATUS": "ending"},
    ]
    clock.advance(10)
    assert [each["STATUS"] for each in manager.heard()] == ["ending"]
    speaker.stop()
    assert clock.getDelayedCalls() == []
    speaker.reloading()
    speaker.ready()
    assert manager.heard() == []
    assert clock.getDelayedCalls() == []


def test_the_reactor_feeds_the_watchdog_twice_in_its_time(manager: Manager) -> None:
    """A reactor that is stuck does not, and the process is restarted."""
    clock = Clock()
    speaker = supervised(
        clock,
        {
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": "20000000",
            "WATCHDOG_PID": str(os.getpid()),
        },
    )
    speaker.starting("comparing")
    assert "WATCHDOG" not in str(manager.heard())
    speaker.ready()
    assert {"WATCHDOG": "1"} in manager.heard()
    clock.advance(9.9)
    assert {"WATCHDOG": "1"} not in manager.heard()
    clock.advance(0.1)
    assert {"WATCHDOG": "1"} in manager.heard()
    speaker.stopping("ending")
    manager.heard()
    clock.advance(10)
    assert {"WATCHDOG": "1"} in manager.heard()
    speaker.stop()


def test_the_watchdog_of_another_process_is_left_alone(manager: Manager) -> None:
    speaker = supervised(
        Clock(),
        {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"},
    )
    speaker.starting("comparing")
    speaker.ready()
    assert "WATCHDOG" not in str(manager.heard())
    speaker.stop()


def test_a_reload_during_the_start_does_not_say_that_the_node_is_ready(manager: Manager) -> None:
    speaker = supervised(Clock(), {"NOTIFY_SOCKET": manager.address})
    speaker.starting("comparing")
    manager.heard()
    speaker.reloading()
    speaker.reloaded()
    assert manager.heard() == []
    speaker.stop()


def test_a_socket_may_be_in_the_abstract_namespace() -> None:
    manager = Manager(f"@netdicom-{uuid4()}")
    with closing(manager.socket):
        speaker = supervised(Clock(), {"NOTIFY_SOCKET": manager.address})
        speaker.starting("comparing")
        assert manager.heard()[0]["STATUS"] == "comparing"
        speaker.stop()


def test_nothing_is_said_without_a_manager() -> None:
    clock = Clock()
    speaker = supervised(clock, {"WATCHDOG_USEC": "20000000"})
    speaker.starting("comparing")
    speaker.ready()
    speaker.reloading()
    speaker.reloaded()
    speaker.stopping("ending")
    assert clock.getDelayedCalls() == []
    speaker.stop()


def test_a_manager_that_is_gone_is_one_line(tmp_path: Path, lines: list[str]) -> None:
    clock = Clock()
    address = str(tmp_path / "gone")
    speaker = supervised(clock, {"NOTIFY_SOCKET": address})
    speaker.starting("comparing")
    speaker.ready()
    clock.advance(30)
    (line,) = [each for each in lines if "service manager" in each]
    assert line == (
        f"the service manager does not take messages at NOTIFY_SOCKET={address}: "
        "[Errno 2] No such file or directory"
    )
    speaker.stop()


@pytest.mark.slow
def test_a_node_tells_of_its_life(tmp_path: Path) -> None:
    manager = Manager(f"@netdicom-{uuid4()}")
    with closing(manager.socket):
        node = Node(tmp_path, NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="200000")
        node.start()
        try:
            assert manager.until("READY")["MAINPID"] == str(node.pid)
            for _ in range(3):
                manager.until("WATCHDOG")
            os.kill(node.pid, signal.SIGHUP)
            manager.until("RELOADING")
            manager.until("READY")
        finally:
            node.stop()
        assert manager.until("STOPPING") == {"STOPPING": "1"}


def test_a_full_socket_does_not_hold_up_the_node(manager: Manager) -> None:
    """Its queue holds a few datagrams only while nobody reads."""
    clock = Clock()
    speaker = supervised(clock, {"NOTIFY_SOCKET": manager.address})
    speaker.starting("comparing")
    speaker.ready()
    for _ in range(2000):
        clock.advance(30)
    speaker.stop()
    assert 0 < len(manager.heard()) < 2000
