"""The operating system as the archive sees it: watched, and made to fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from netdicom_tx.archive.store import disk, filestore, spool

#: The calls that change a disk, or promise that it has changed.
WATCHED = ("open", "writev", "fsync", "rename", "close")


class Call(NamedTuple):
    """A system call, with the path that it was for, also where it names a descriptor."""

    name: str
    path: Path


class WatchedOS:
    """The ``os`` module for :mod:`netdicom_tx.archive.store.filestore` and its spools.

    Args:
        fail_at: Which of the watched calls fails, from 1; None lets all succeed.
        error: With what.
        longest: Octets that one ``writev`` takes at most.
    """

    def __init__(
        self,
        fail_at: int | None = None,
        error: int = errno.ENOSPC,
        *,
        only: str | None = None,
        longest: int | None = None,
    ) -> None:
        self.calls: list[Call] = []
        self.has_failed = False
        self._fail_at = fail_at
        self._error = error
        self._only = only
        self._longest = longest
        self._paths: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:  # whatever os has
        real = getattr(os, name)
        return self._watched(name, real) if name in WATCHED else real

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            self.calls.append(Call(name, self._path(target, options)))
            counted = [each for each in self.calls if self._only in (None, each.name)]
            if len(counted) == self._fail_at and self._only in (None, name):
                self.has_failed = True
                if name == "close":
                    real(target)  # Linux closes it whatever it answers
                raise OSError(self._error, os.strerror(self._error))
            if name == "writev" and self._longest is not None:
                return os.write(target, b"".join(arguments[0])[: self._longest])
            result = real(target, *arguments, **options)
            if name == "open":
                self._paths[result] = self.calls[-1].path
            return result

        return call

    def _path(self, target: Any, options: dict[str, Any]) -> Path:
        if isinstance(target, int):
            return self._paths.get(target, Path(f"descriptor {target}"))
        folder = options.get("dir_fd")
        return Path(target) if folder is None else self._paths[folder] / target


def watch(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> WatchedOS:
    """Let the file store see a :class:`WatchedOS` from now on."""
    watched = WatchedOS(*arguments, **options)
    for module in (disk, filestore, spool):
        monkeypatch.setattr(module, "os", watched)
    return watched


def descriptors() -> set[str]:
    """What this process has open."""
    found = set()
    for each in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that listed
            found.add(f"{each} {os.readlink(f'/proc/self/fd/{each}')}")
    return found


def files(root: Path) -> set[str]:
    """All files below a storage directory, except the lock and the identity."""
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.name not in ("lock", "identity.json")
        and path.parent.name not in ("locks", "leases")
        and (path.is_symlink() or not path.is_dir())
    }
