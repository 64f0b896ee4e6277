"""The tables through which nodes find their archive and each other.

================  ===========================================================================
archive_identity  one row: the ID of the database
store             one row for each store that has files of the database
node              one row for each node: its last heartbeat, and what it does
duty              one row for each duty: which node has it, and until when
================  ===========================================================================

All times are seconds since 1970 by the clock of the database, see :func:`~..index.together.moment`.
"""

from __future__ import annotations

import sqlalchemy as sa

from ..index.schema import metadata

__all__ = ["duty_table", "identity_table", "node_table", "store_table"]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False, server_default="")


def _time(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=False, server_default="0")


identity_table = sa.Table(
    "archive_identity",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("uuid", sa.Text, nullable=False),
    _time("made"),
)
store_table = sa.Table(
    "store",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("uuid", sa.Text, nullable=False, unique=True),
    # "directory" or "shared".
    _text("kind"),
    # Where it is, for people to read.
    _text("place"),
    _time("made"),
    # 1 when the store has its document, so that a store without one is not this store.
    sa.Column("marked", sa.Integer, nullable=False, server_default="0"),
)
node_table = sa.Table(
    "node",
    metadata,
    sa.Column("uuid", sa.Text, primary_key=True),
    _text("name"),
    _text("host"),
    # Its own directory.
    _text("place"),
    _text("address"),
    _text("version"),
    # The newest schema version that it knows.
    sa.Column("schema", sa.Integer, nullable=False, server_default="0"),
    # Another value for each start of the node.
    _text("run"),
    _time("started"),
    _time("seen"),
    _text("state"),
    # JSON.
    _text("doing"),
)
duty_table = sa.Table(
    "duty",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    _text("node"),
    # Since when this node has it.
    _time("since"),
    _time("until"),
)
