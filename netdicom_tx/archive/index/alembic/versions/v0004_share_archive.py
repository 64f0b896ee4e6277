"""Version 4: several nodes may share the archive, and a program that knows nothing of that keeps off.

A program of version 3 has one directory. It takes an archive whose files are elsewhere for one that has lost them, and
removes all rows at its start.
"""

from __future__ import annotations

from typing import Final

revision: Final = "0004"
down_revision: Final = "0003"


def upgrade() -> None:
    """Change nothing but the number: the tables of a group are made like all that are missing."""
