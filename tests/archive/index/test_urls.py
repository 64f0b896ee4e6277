"""The password in the URL of a database is not shown, and whoever puts it into a command line is told."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from netdicom_tx.archive.index.index import Index
from netdicom_tx.archive.index.urls import has_password, read, shown


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me:secret@host/archive", True),
        ("postgresql://me@host/archive?password=secret", True),
        ("postgresql://me@host/archive?sslpassword=secret", True),
        ("postgresql://me@host/archive", False),
        ("sqlite:////data/index.db", False),
        ("postgresql://me:secret@host:port/archive", False),
        ("nothing", False),
        (None, False),
    ],
)
def test_a_password_is_found(url: str | None, expected: bool) -> None:
    assert has_password(url) is expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:secret@host/archive",
        "postgresql+psycopg://me@host/archive?password=secret&sslmode=require",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    assert "secret" not in shown(sa.make_url(url))
    assert "secret" not in Index(url).url
    assert "***" in Index(url).url


def test_postgresql_means_the_driver_of_the_extra() -> None:
    """``pip install 'netdicom-tx[postgres]'`` installs psycopg 3."""
    assert read("postgresql://host/archive").drivername == "postgresql+psycopg"
    assert read("postgresql+psycopg2://host/archive").drivername == "postgresql+psycopg2"
