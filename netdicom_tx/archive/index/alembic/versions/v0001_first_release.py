"""Version 1: the tables of the first release. New databases are made at the newest version, so this is never run."""

from __future__ import annotations

from typing import Final

revision: Final = "0001"
down_revision: Final = None


def upgrade() -> None:
    """Change nothing: a database without a version is a new one."""
