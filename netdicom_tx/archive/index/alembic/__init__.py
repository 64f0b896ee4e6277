"""The revisions of the index's tables, for Alembic; :mod:`netdicom_tx.archive.index.migrations` applies them."""
