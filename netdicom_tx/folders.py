"""Folders below a directory that is open, which no symbolic link leads out of."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

__all__ = ["FOLDER", "entered"]

#: How a folder is opened: it has to be one, and not a link to one.
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def entered(root: int, names: Iterable[str]) -> int:
    """Open a folder below a directory; those that do not exist are made, and their names are on the disk for good.

    Args:
        root: A descriptor of the directory; it stays open.
        names: The folder below it, and the one below that; each is one name.

    Returns:
        A descriptor of the last one, which the caller closes.

    Raises:
        OSError: A folder cannot be made or opened, or is a link.
    """
    here = os.dup(root)
    try:
        for name in names:
            try:
                os.mkdir(name, dir_fd=here)
            except FileExistsError:
                pass
            else:
                os.fsync(here)
            inner = os.open(name, FOLDER, dir_fd=here)
            os.close(here)
            here = inner
    except BaseException:
        os.close(here)
        raise
    return here
