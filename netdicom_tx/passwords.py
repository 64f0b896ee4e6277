"""Password files: one line ``user:hash`` for each user, hashed with scrypt (RFC 7914).

A hash has the form of the PHC string format, ``$scrypt$ln=15,r=8,p=3$SALT$HASH``, so its costs can be raised for new
passwords while old ones stay valid. Lines that are empty or begin with ``#`` are ignored.
"""

from __future__ import annotations

import hmac
import os
import re
import tempfile
from base64 import b64decode, b64encode
from hashlib import scrypt
from pathlib import Path
from typing import Final

from .exceptions import LocalProtocolError

__all__ = ["check_user", "hashed", "is_right", "read_passwords", "write_password"]

# 32 MiB and about 0.2 seconds for each attempt, as OWASP recommends for N = 2^15.
_LOG_N, _R, _P = 15, 8, 3
_MEMORY: Final = 256 << 20
_HASH = re.compile(
    r"\$scrypt\$ln=(?P<ln>\d{1,2}),r=(?P<r>\d{1,2}),p=(?P<p>\d{1,2})\$(?P<salt>[\w+/=]+)\$(?P<hash>[\w+/=]+)",
    re.ASCII,
)


def hashed(password: str) -> str:
    """The hash of a password, with a new salt."""
    salt = os.urandom(16)
    digest = _scrypt(password.encode(), salt, _LOG_N, _R, _P)
    return (
        f"$scrypt$ln={_LOG_N},r={_R},p={_P}${b64encode(salt).decode()}${b64encode(digest).decode()}"
    )


def _scrypt(password: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return scrypt(password, salt=salt, n=1 << log_n, r=r, p=p, maxmem=_MEMORY, dklen=32)


# What an unknown user's password is compared with, so that the time does not tell which users there are.
_NOBODY: Final = f"$scrypt$ln={_LOG_N},r={_R},p={_P}${'A' * 22}==${'A' * 43}="


def is_right(password: bytes, hash_: str | None) -> bool:
    """Whether a password has a hash; takes as long for an unknown user, whose hash is None."""
    found = _parts(_NOBODY if hash_ is None else hash_)
    if found is None:
        return False
    digest = _scrypt(
        password, b64decode(found["salt"]), int(found["ln"]), int(found["r"]), int(found["p"])
    )
    return hmac.compare_digest(digest, b64decode(found["hash"])) and hash_ is not None


def read_passwords(path: Path) -> dict[str, str]:
    """The hashes of a password file, by user.

    Raises:
        LocalProtocolError: The file cannot be read, or a line has another form.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise LocalProtocolError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LocalProtocolError(f"{path} is not UTF-8; expected a password file") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        user, _, hash_ = line.strip().partition(":")
        if not user or user.startswith("#"):
            continue
        if _parts(hash_) is None:
            raise LocalProtocolError(
                f"{path}, line {number}: expected user:$scrypt$…; write it with netdicom passwd"
            )
        if user in found:
            raise LocalProtocolError(f"{path}, line {number}: this user has a line already")
        found[user] = hash_
    return found


def _parts(text: str) -> re.Match[str] | None:
    """The parts of a hash; None when it is not one that this module would make."""
    found = _HASH.fullmatch(text)
    if found is None:
        return None
    log_n, r, p = int(found["ln"]), int(found["r"]), int(found["p"])
    # A wrong line must not take the memory of the node, or its time.
    if not (1 <= log_n <= 17 and 1 <= r <= 8 and 1 <= p <= 8):
        return None
    try:
        salt, digest = (b64decode(found[each], validate=True) for each in ("salt", "hash"))
    except ValueError:
        return None
    return found if salt and len(digest) == 32 else None


def check_user(user: str) -> None:
    """Check the name of a user.

    Raises:
        LocalProtocolError: It cannot stand in a password file.
    """
    if (
        not user
        or user != user.strip()
        or user.startswith("#")
        or not user.isprintable()
        or ":" in user
    ):
        raise LocalProtocolError(
            f"{user!r:.80} is not the name of a user; expected printable characters without a colon"
        )


def write_password(path: Path, user: str, password: str) -> bool:
    """Set the password of a user; the file is made if there is none, readable for its owner only.

    Returns:
        Whether the user is new.

    Raises:
        LocalProtocolError: The name cannot stand in a password file, the password is empty, or the file is wrong.
        OSError: The file cannot be written.
    """
    if not password:
        raise LocalProtocolError("the password is empty; expected one character or more")
    check_user(user)
    if path.exists() and not path.is_file():
        raise LocalProtocolError(f"{path} is not a file; expected a password file")
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    is_new = not (path.exists() and user in read_passwords(path))
    line = f"{user}:{hashed(password)}"
    kept = [line if each.strip().partition(":")[0] == user else each for each in lines]
    if is_new:
        kept.append(line)
    # A rename is atomic: a node that reads meanwhile sees the one file or the other.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write("".join(f"{each}\n" for each in kept))
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(name, path.stat().st_mode & 0o7777)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return is_new
