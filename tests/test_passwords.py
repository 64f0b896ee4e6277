"""Password files: hashes that scrypt makes, one line for each user."""

import os
import stat
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netdicom_tx import passwords
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.passwords import hashed, is_right, read_passwords, write_password


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The costs are for attackers, not for tests."""
    monkeypatch.setattr(passwords, "_LOG_N", 4)


def test_a_password_is_right_or_wrong() -> None:
    made = hashed("correct horse")
    assert made.startswith("$scrypt$ln=4,r=8,p=3$")
    assert is_right(b"correct horse", made)
    assert not is_right(b"battery staple", made)
    assert not is_right(b"", made)
    assert hashed("correct horse") != made


def test_the_function_is_that_of_the_rfc() -> None:
    """RFC 7914 12, the third example: its first 32 octets."""
    digest = bytes.fromhex("7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2")
    salt = b64encode(b"SodiumChloride").decode()
    hash_ = f"$scrypt$ln=14,r=8,p=1${salt}${b64encode(digest).decode()}"
    assert is_right(b"pleaseletmein", hash_)


@pytest.mark.parametrize("password", [b"x", b"", b"A" * 43])
def test_an_unknown_user_has_no_password(password: bytes) -> None:
    assert not is_right(password, None)


def test_a_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "users"
    assert write_password(path, "alice", "one")
    assert write_password(path, "bob", "two")
    assert not write_password(path, "alice", "three")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.partition(":")[0] for each in path.read_text().splitlines()] == ["alice", "bob"]
    found = read_passwords(path)
    assert is_right(b"three", found["alice"])
    assert not is_right(b"one", found["alice"])
    assert is_right(b"two", found["bob"])
    assert [each.name for each in tmp_path.iterdir()] == ["users"]


def test_comments_and_permissions_stay(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("# radiology\n\n")
    path.chmod(0o640)
    write_password(path, "alice", "one")
    assert path.read_text().startswith("# radiology\n\nalice:$scrypt$")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("user", ["", "a:b", "a\nb", " a", "a ", "#a"])
def test_a_name_that_cannot_stand_in_the_file_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(LocalProtocolError, match="is not the name of a user"):
        write_password(tmp_path / "users", user, "one")
    with pytest.raises(LocalProtocolError, match="the password is empty"):
        write_password(tmp_path / "users", "alice", "")
    assert list(tmp_path.iterdir()) == []


GOOD = "$scrypt$ln=4,r=8,p=3$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "="


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alice:secret", r"line 1: expected user:\$scrypt\$"),
        ("# x\nalice", "line 2: expected"),
        ("alice:" + GOOD.replace("ln=4", "ln=40"), "line 1: expected"),
        ("alice:" + GOOD.replace("r=8", "r=0"), "line 1: expected"),
        ("alice:" + GOOD[:-9], "line 1: expected"),
        (f"alice:{GOOD}\nalice:{GOOD}", "line 2: this user has a line already"),
    ],
)
def test_a_wrong_file_is_refused_without_telling_its_content(
    tmp_path: Path, text: str, says: str
) -> None:
    """A password in clear text must not come into the log."""
    path = tmp_path / "users"
    path.write_text(text)
    with pytest.raises(LocalProtocolError, match=says) as caught:
        read_passwords(path)
    assert "secret" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="No such file"):
        read_passwords(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"\xe4:x")
    with pytest.raises(LocalProtocolError, match="is not UTF-8"):
        read_passwords(tmp_path / "latin")


@given(st.from_regex(passwords._HASH, fullmatch=True) | st.text(), st.binary())
def test_any_hash_is_compared(hash_: str, password: bytes) -> None:
    """A line that is wrong lets nobody in, and takes neither memory nor time."""
    assert not is_right(password, hash_)


def test_a_file_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "users"
    write_password(path, "alice", "one")
    before = path.read_text()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write_password(path, "alice", "two")
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["users"]


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """A rename puts a file in its place, which root is allowed to do in /dev."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(LocalProtocolError, match="is not a file"):
        write_password(pipe, "anna", "secret")
    assert pipe.is_fifo()
