"""The database of an index under test: SQLite, or a PostgreSQL server that the tests start.

``pytest --database postgresql`` runs the tests of the archive on PostgreSQL. Debian's package ``postgresql`` has the
server. Each process of tests starts one, in a folder of its own and without a port, and ends it.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import quote

import sqlalchemy as sa

from support.processes import absent

__all__ = ["KINDS", "PostgreSQL", "database_url", "is_sqlite", "use"]

KINDS = ("sqlite", "postgresql")
_chosen = "sqlite"


def use(kind: str) -> None:
    """Choose the kind of the databases that this process of tests uses."""
    global _chosen
    _chosen = kind


def is_sqlite() -> bool:
    """Whether the databases are files."""
    return _chosen == "sqlite"


def database_url(path: Path | str) -> str:
    """The URL of a database. The same path names the same database, which is empty at first."""
    if is_sqlite():
        return f"sqlite:///{path}"
    return PostgreSQL.running().url(str(path))


class PostgreSQL:
    """A PostgreSQL server without a network; a schema of its database stands for a database.

    Args:
        durable: Whether commits are synced to the disk. Tests need that as little as they need the server itself the
            next day; measurements need it.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._durable = durable
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not programs:
            absent("PostgreSQL is not installed (Debian's postgresql)")
        self._programs = programs[-1]
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        # The server refuses to run as root, and Debian's package makes a user for it.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        atexit.register(self.end)
        self._data = str(self._folder / "data")
        words = ("--auth=trust", "--username=tests", "--encoding=UTF8", "--no-sync")
        self._run("initdb", *words, "-D", self._data)
        self.start()
        self._url = self.uri().replace("postgresql:", "postgresql+psycopg:", 1)
        self._engine = sa.create_engine(self._url, poolclass=sa.NullPool)

    @staticmethod
    @cache
    def running() -> PostgreSQL:
        """The server of this process, which is started when it is asked for first."""
        return PostgreSQL()

    def start(self) -> None:
        """Start the server, and wait until it serves."""
        settings = "-c listen_addresses= -c max_connections=300"
        if not self._durable:
            # It lives as long as the tests: nothing has to survive a power cut.
            settings += " -F"
        settings += f" -c unix_socket_directories={self._folder}"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", log, "-o", settings)

    def stop(self) -> None:
        """End the server as a crash would, and with it all connections."""
        self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._data)

    @property
    def pid(self) -> int:
        """The process ID of the server; its children serve the connections."""
        return int((self._folder / "data/postmaster.pid").read_text("ascii").split()[0])

    def uri(self, database: str = "postgres") -> str:
        """The URI of a database, as programs that use libpq want it."""
        return f"postgresql://tests@/{database}?host={quote(str(self._folder))}"

    @property
    def socket(self) -> str:
        """The path of the socket at which the server listens."""
        return str(self._folder / ".s.PGSQL.5432")

    def url(self, name: str, *, port: int | None = None, options: str = "") -> str:
        """The URL of the database with this name, which is empty at first.

        Args:
            port: A port of this machine from which something forwards to the socket.
            options: More options of the server, such as ``-c work_mem=1MB``.
        """
        schema = "t" + hashlib.sha256(name.encode()).hexdigest()[:24]
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        said = quote(f"-csearch_path={schema} {options}".strip())
        if port is None:
            return f"{self._url}&options={said}"
        place = f"tests@127.0.0.1:{port}/postgres?sslmode=disable&gssencmode=disable"
        return f"postgresql+psycopg://{place}&options={said}"

    def secure(self, user: str, password: str) -> str:
        """Make a user who has to give a password, soon; returns the URL of the user's database without it."""
        rules = Path(self._data) / "pg_hba.conf"
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")
            rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text('utf-8')}", "utf-8")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        return self.url(user).replace("://tests@", f"://{user}@")

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [str(self._programs / program), *words],
            check=True,
            user=self._user,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )

    def end(self) -> None:
        """End the server, and delete all that it has."""
        if (self._folder / "data/postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
