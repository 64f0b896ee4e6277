"""PostgreSQL finds what queries ask for by indexes: no table that grows with the archive is read as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from netdicom_tx.archive.index.index import Index
from support.archive.databases import PostgreSQL
from support.archive.many import QUERIES, fill, scans, statements

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    path: Path = tmp_path_factory.mktemp("plans")
    with Index(PostgreSQL.running().url(str(path))) as opened:
        fill(opened, 60)
        yield opened


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_reads_no_table_as_a_whole(index: Index, name: str) -> None:
    with statements(index) as found:
        list(QUERIES[name](index))
    assert found
    assert scans(index, found, forced=True) == []
