"""A database of one's own, for who has no index open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.index.database import EngineDatabase
from netdicom_tx.archive.workflow.worklist_sources import worklist_item
from support.archive.databases import database_url

ROW = {"study_instance_uid": "1.2.3", "step_id": "S1", "data": b"x"}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[EngineDatabase]:
    database = EngineDatabase(database_url(tmp_path / "index.db"))
    yield database
    database.close()


def count(database: EngineDatabase) -> int:
    with database.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(worklist_item)) or 0


@pytest.mark.sqlite
def test_what_a_call_writes_is_committed_before_its_future_is_done(
    database: EngineDatabase,
) -> None:
    assert (
        database.write(lambda writer: writer.execute(worklist_item.insert(), ROW).rowcount).result()
        == 1
    )
    assert count(database) == 1


def test_a_call_that_fails_leaves_nothing_behind(database: EngineDatabase) -> None:
    def call(connection: sa.Connection) -> None:
        connection.execute(worklist_item.insert(), ROW)
        raise ValueError("at fault")

    with pytest.raises(ValueError, match="at fault"):
        database.write(call).result()
    assert count(database) == 0
