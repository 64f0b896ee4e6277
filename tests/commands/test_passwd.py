"""``netdicom passwd``: the users of a node."""

import io
import json
from pathlib import Path
from unittest.mock import Mock

import click
import pytest

from netdicom_tx import passwords
from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import ExitCode
from netdicom_tx.passwords import is_right, read_passwords

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The costs are for attackers, not for tests; and no configuration but the test's."""
    monkeypatch.setattr(passwords, "_LOG_N", 4)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_password_is_asked_for_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    asked: list[tuple[str, bool, bool]] = []

    def prompt(text: str, *, hide_input: bool, confirmation_prompt: bool, err: bool) -> str:
        asked.append((text, hide_input, confirmation_prompt))
        return "a secret"

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr("sys.stdin", Mock(isatty=lambda: True))
    assert run(["passwd", "users", "alice"]) == 0
    assert asked == [("New password for alice", True, True)]
    out, err = capsys.readouterr()
    assert "added alice in users" in err
    assert "a secret" not in out + err
    assert is_right(b"a secret", read_passwords(tmp_path / "users")["alice"])


@pytest.mark.parametrize(
    ("user", "says"), [("alice", "nobody can be asked"), ("a:b", "is not the name of a user")]
)
def test_nobody_is_asked_in_vain(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, user: str, says: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert run(["passwd", "users", user]) == ExitCode.USAGE
    assert says in capsys.readouterr().err


def test_a_password_comes_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    for is_new, text in ((True, "one\nmore\n"), (False, "two")):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert run(["passwd", "users", "alice", "--stdin", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document == {"file": "users", "user": "alice", "is_new": is_new}
    assert is_right(b"two", read_passwords(tmp_path / "users")["alice"])


@pytest.mark.parametrize(
    ("user", "text", "says"),
    [("a:b", "x", "is not the name of a user"), ("alice", "\n", "the password is empty")],
)
def test_what_cannot_be_set_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured, user: str, text: str, says: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert run(["passwd", "users", user, "--stdin"]) == ExitCode.USAGE
    assert says in capsys.readouterr().err


def test_a_directory_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("x"))
    assert run(["passwd", "none/users", "alice", "--stdin"]) == ExitCode.LOCAL_DISK
    assert "none/users cannot be written" in capsys.readouterr().err
