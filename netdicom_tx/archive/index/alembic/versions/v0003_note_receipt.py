"""Version 3: a study has the time at which it was received, and the AE titles of its senders and receivers."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from netdicom_tx.archive.index.schema import study

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    """Add what retention asks for: when a study was received and from whom; 0 and nothing mean that it is not known."""
    connection = op.get_bind()
    for name, default in (("received", "0"), ("calling", "''"), ("called", "''")):
        kind = study.c[name].type.compile(connection.dialect)
        connection.execute(
            sa.text(f"ALTER TABLE study ADD COLUMN {name} {kind} DEFAULT {default} NOT NULL")
        )
    connection.execute(sa.text("CREATE INDEX ix_study_received ON study (received)"))
