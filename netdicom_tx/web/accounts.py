"""The users of the status page: the present content of the password file, and which users may use the buttons."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ..exceptions import LocalProtocolError
from ..logs import Logger
from ..passwords import read_passwords

__all__ = ["Accounts"]

_Mark = tuple[int, int, int, int]


class Accounts:
    """The users of a password file. It is read again when it has changed, so that a session can end with its password.

    Args:
        path: The password file.
        operators: The users who may use the buttons; empty means all of them.
    """

    _log = Logger()

    def __init__(self, path: str, operators: Collection[str] = ()) -> None:
        self._path = Path(path)
        self._operators = frozenset(operators)
        self._mark: _Mark | None = None
        self._hashes: dict[str, str] = {}
        self._is_told = False

    def hash_of(self, user: str) -> str | None:
        """The hash of the password that a user has now; None for somebody who is not a user."""
        try:
            found = os.stat(self._path)
            mark = found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
            if mark != self._mark:
                # A file that is changed in between is read once more at the next look.
                self._hashes, self._mark = read_passwords(self._path), mark
                self._is_told = False
        except (OSError, LocalProtocolError) as error:
            # With a file that cannot be read nobody logs in; it may be about to be written.
            self._hashes, self._mark = {}, None
            if not self._is_told:
                self._is_told = True
                self._log.error(
                    "status page: nobody can use it, because its password file cannot be read: {error}",
                    error=error,
                )
        return self._hashes.get(user)

    def may_operate(self, user: str) -> bool:
        """Whether a user may use the buttons."""
        return not self._operators or user in self._operators
