"""The URL of the database of an index, and the password that may be in it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

import sqlalchemy as sa

__all__ = ["PASSWORD_SEEN", "has_password", "read", "shown"]

#: What is said of a password in a command line.
PASSWORD_SEEN: Final = (
    "the password of the database stands in the command line, where every user of this machine can read it: put the "
    "URL into a file that url_file in [database] names, or the password into the file that PGPASSFILE names"
)
# The parameters of libpq that are secret.
_SECRET: Final = ("password", "sslpassword")
# Those that every connection has, as open_engine() sets them.
_OF_CONNECTIONS: Final = (
    "connect_timeout",
    "fallback_application_name",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
)


def read(text: str) -> sa.URL:
    """Read a URL.

    Raises:
        sqlalchemy.exc.ArgumentError: It is not one.
        ValueError: Likewise.
    """
    url = sa.make_url(text)
    if url.drivername == "postgresql" and find_spec("psycopg") is not None:
        # SQLAlchemy 2.0 means psycopg2 by it.
        url = url.set(drivername="postgresql+psycopg")
    return url


def has_password(text: str | None) -> bool:
    """Whether a URL has a password in it."""
    if not text:
        return False
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        return False  # whoever opens the database says what is wrong
    return bool(url.password) or any(each in url.query for each in _SECRET)


def shown(url: sa.URL) -> str:
    """A URL for people to read, with stars for its password, and without what every connection is told."""
    url = url.difference_update_query(_OF_CONNECTIONS)
    hidden = dict.fromkeys(url.query.keys() & set(_SECRET), "***")
    # The stars of a parameter are escaped otherwise.
    return url.update_query_dict(hidden).render_as_string().replace("%2A", "*")
