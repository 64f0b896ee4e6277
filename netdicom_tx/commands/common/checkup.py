"""What a node needs of its machine, checked without starting or changing anything.

Each function checks one thing and yields what it has found; :func:`checked` calls those that need no network.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .failures import explain

if TYPE_CHECKING:
    from ...config import Mistake
    from ...options import Options
    from ...remoteae import RemoteAE

__all__ = ["Finding", "Verdict", "checked", "configured", "echoed", "pid_of_node"]

# The time within which a certificate has to be replaced, in days.
_SOON = 30
# How long a sync of a small file may take, in seconds; each group of instances waits for one.
_SLOW = 0.1
_SYNCS = 5
# Free space below which an operator should look after the disk: so many times the node's own reserve.
_SCARCE = 4
# File systems whose locks or syncs a node cannot rely on, or that forget.
_REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph"})
_VOLATILE = frozenset({"tmpfs", "ramfs"})
# adjtimex(2): the kernel's clock is not synchronized. The structure has 208 octets at most.
_TIME_ERROR = 5
_TIMEX_SIZE = 512
# No netdicom_tx is older.
_OLDEST = datetime(2026, 1, 1, tzinfo=UTC)
_SECONDS = 5.0


class Verdict(StrEnum):
    """What a check has found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a checkup.

    Attributes:
        about: The thing that was checked.
        text: What was found.
        hint: What to do; empty when nothing is to be done.
    """

    verdict: Verdict
    about: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.verdict:<4}  {self.about}: {self.text}{hint}"

    def as_json(self) -> dict[str, str]:
        """The document of ``--json``."""
        return {
            "verdict": self.verdict,
            "about": self.about,
            "text": self.text,
            "hint": self.hint,
        }


def configured(options: Options, mistakes: Sequence[Mistake]) -> Iterator[Finding]:
    """What is wrong with the configuration file, a line for each mistake."""
    path = options.get("config")
    about = f"configuration {path}" if path is not None else "configuration"
    for each in mistakes:
        where = f"line {each.line}: " if each.line else ""
        yield Finding(Verdict.FAIL, about, f"{where}{each.text}", each.hint)
    if path is not None and not mistakes:
        yield Finding(Verdict.OK, about, "has no mistake")


def checked(options: Options) -> Iterator[Finding]:
    """Check all that needs no peer, apart from what the configuration has a mistake about."""
    pid = pid_of_node(Path(options["storage"]))
    checks: tuple[tuple[Callable[[], Iterator[Finding]], tuple[str, ...]], ...] = (
        (lambda: _ports(options, pid), ("",)),
        (lambda: _storage(options, pid), ("", "storage directory")),
        (lambda: _shared_store(options), ("", "storage url")),
        (lambda: _clock(), ()),
        (lambda: _descriptors(options), ("", "node max_associations")),
        (
            lambda: _database(options),
            ("", "storage directory", "database url", "database url_file"),
        ),
        (lambda: _tls(options), ()),
        (lambda: _audit(options), ()),
        (lambda: _packages(), ()),
    )
    # "" is the whole file: without it, the places of the node are unknown.
    wrong = {" ".join(map(str, each)) for each in options.wrong}
    for check, needed in checks:
        if wrong.isdisjoint(needed):
            yield from check()


def pid_of_node(storage: Path) -> int | None:
    """The process of the node that runs on a storage directory; None when there is none."""
    import fcntl

    try:
        descriptor = os.open(storage / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.read(descriptor, 32).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None  # the lock of a node that has ended


# -- ports -------------------------------------------------------------------------------------------


def _ports(options: Options, pid: int | None) -> Iterator[Finding]:
    endpoints = [*options["listen"], *options["tls-listen"]]
    if options.get("http"):
        endpoints.append(options["http"])
    for text in endpoints:
        yield _port(text, pid)


def _port(text: str, pid: int | None) -> Finding:
    about = f"port {text}"
    place = _place(text)
    if place is None:
        return Finding(Verdict.OK, about, "is not a TCP port of its own, and is not checked")
    family, host, port = place
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, port))
            made.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and pid is not None and _holds(pid, port):
            return Finding(Verdict.OK, about, f"is held by the running node (process {pid})")
        if error.errno == errno.EADDRINUSE:
            hint = f"end the other program (ss -ltnp 'sport = :{port}'), or listen elsewhere"
            return Finding(Verdict.FAIL, about, "is in use by another program", hint)
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = "let systemd open it (a socket unit), or start twistd as root with --uid"
            return Finding(Verdict.FAIL, about, "needs privileges", hint)
        return Finding(
            Verdict.FAIL,
            about,
            f"cannot be opened: {error.strerror or error}",
            "name an address of this machine",
        )
    return Finding(Verdict.OK, about, "is free")


def _place(text: str) -> tuple[int, str, int] | None:
    """The family, the address and the port of a TCP endpoint string; None for another one."""
    kind, *arguments = re.split(r"(?<!\\):", text)
    if kind not in ("tcp", "tcp6", "ssl"):
        return None
    named = dict(each.split("=", 1) for each in arguments if "=" in each)
    plain = [each for each in arguments if "=" not in each]
    port = named.get("port") or (plain or ["0"])[0]
    host = named.get("interface", "").replace("\\:", ":")
    is_v6 = kind == "tcp6" or ":" in host
    return (socket.AF_INET6 if is_v6 else socket.AF_INET), host, int(port)


def _holds(pid: int, port: int) -> bool:
    """Whether a process, or one that it has started, listens at a port; as far as this user may see."""
    inodes = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(name).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{words[9]}]")
    for process in (pid, *_children(pid)):
        with suppress(OSError):
            for descriptor in Path(f"/proc/{process}/fd").iterdir():
                with suppress(OSError):
                    if os.readlink(descriptor) in inodes:
                        return True
    return False


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


# -- disk --------------------------------------------------------------------------------------------


def _storage(options: Options, pid: int | None) -> Iterator[Finding]:
    root = Path(options["storage"]).absolute()
    about = f"storage {root}"
    if not root.exists():
        parent = next(each for each in root.parents if each.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            hint = f"make it and give it to the user of the node: install -d -m 700 -o USER {root}"
            yield Finding(Verdict.FAIL, about, f"does not exist, and {parent} is closed", hint)
            return
        yield Finding(Verdict.OK, about, "does not exist; the node makes it at its first start")
        root = parent
    elif not root.is_dir():
        yield Finding(
            Verdict.FAIL, about, "is not a directory", "name another one by [storage] directory"
        )
        return
    else:
        running = f"a node runs on it (process {pid})" if pid is not None else "no node runs on it"
        yield Finding(Verdict.OK, about, running)
    yield _written(root)
    yield _room(root)
    yield _file_system(root)


def _shared_store(options: Options) -> Iterator[Finding]:
    """Do with a small object what a node does with instances."""
    from ...archive.group.identity import DOCUMENT
    from ...archive.store.objects import ObjectStoreError, ObjectsUnusableError, probe

    objects = options.store_plan().objects()
    if objects is None:
        return
    about = f"shared store {objects.place}"
    begin = time.perf_counter()
    try:
        objects.open()
        is_new = objects.document(DOCUMENT) is None
        probe(objects)
    except (ObjectsUnusableError, ObjectStoreError) as error:
        yield Finding(Verdict.FAIL, about, str(error))
        return
    finally:
        objects.close()
    took = time.perf_counter() - begin
    text = f"an object was put, read, listed and deleted in {took * 1000:.0f} ms"
    if is_new:
        hint = "if nodes have used it, it is not mounted, or another one: correct [storage] url"
        yield Finding(Verdict.WARN, about, f"no node has used it yet; {text}", hint)
        return
    yield Finding(Verdict.OK, about, text)


def _written(root: Path) -> Finding:
    """Write and sync a file, which is deleted again."""
    about = f"disk of {root}"
    took = []
    try:
        with tempfile.TemporaryFile(dir=root) as file:
            for _ in range(_SYNCS):
                file.write(bytes(4096))
                file.flush()
                begin = time.perf_counter()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - begin)
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "run doctor as the user of the node, and give the directory to that user"
        return Finding(Verdict.FAIL, about, f"cannot be written: {reason}", hint)
    median = sorted(took)[len(took) // 2]
    text = f"takes files, and syncs one in {median * 1000:.1f} ms"
    if median > _SLOW:
        return Finding(
            Verdict.WARN,
            about,
            text,
            "senders wait for this; is the disk busy, or is it a network disk?",
        )
    return Finding(Verdict.OK, about, text)


def _room(root: Path) -> Finding:
    from ...archive import FileStore

    disk = os.statvfs(root)
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    store = FileStore(root)
    reserve = store.room().reserve if store.incoming.is_dir() else 0
    about = f"free space of {root}"
    share = free * 100 // total if total else 0
    text = f"{free / 1e9:.1f} GB of {total / 1e9:.1f} GB are free ({share} %)"
    if free <= reserve:
        hint = "delete or move instances; below its reserve the node refuses what senders send"
        return Finding(Verdict.FAIL, about, text, hint)
    if free <= _SCARCE * reserve:
        return Finding(Verdict.WARN, about, text, "make room before the node refuses instances")
    if disk.f_files and not disk.f_favail:
        return Finding(Verdict.FAIL, about, "no inode is free", "delete files")
    return Finding(Verdict.OK, about, text)


def _file_system(root: Path) -> Finding:
    about = f"file system of {root}"
    kind = _kind_of_file_system(root)
    if kind in _VOLATILE:
        hint = "use a disk; what is here is lost when the machine stops"
        return Finding(Verdict.WARN, about, f"is {kind}", hint)
    if kind in _REMOTE:
        hint = "use a local disk for the index at least: locks and syncs may mean little here"
        return Finding(Verdict.WARN, about, f"is {kind}", hint)
    return Finding(Verdict.OK, about, f"is {kind}")


def _kind_of_file_system(root: Path) -> str:
    """The type of the file system that a directory is on, by the longest mount point above it."""
    found = ("", "unknown")
    with suppress(OSError):
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, place, kind, *_ = line.split()
            place = place.replace("\\040", " ")
            if root.resolve().is_relative_to(place) and len(place) >= len(found[0]):
                found = (place, kind)
    return found[1]


# -- clock -------------------------------------------------------------------------------------------


def _clock() -> Iterator[Finding]:
    now = datetime.now(UTC)
    text = f"it is {now:%Y-%m-%d %H:%M:%S} UTC"
    if now < _OLDEST:
        yield Finding(Verdict.FAIL, "clock", text, "set it, and synchronize it: timedatectl")
    elif _is_synchronized() is False:
        hint = "start chrony or systemd-timesyncd; audit messages and certificates need the time"
        yield Finding(Verdict.WARN, "clock", f"{text}, and nothing synchronizes it", hint)
    else:
        yield Finding(Verdict.OK, "clock", text)


def _is_synchronized() -> bool | None:
    """What the kernel says; None when it says nothing."""
    try:
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


# -- descriptors -------------------------------------------------------------------------------------


def _descriptors(options: Options) -> Iterator[Finding]:
    from ...descriptors import associations_for

    wanted = options["max-associations"]
    possible = associations_for(wanted)
    if possible < wanted:
        text = f"the limit of open files is enough for {possible} associations instead of {wanted}"
        hint = "raise it for the node: LimitNOFILE= in its unit, or ulimit -n"
        yield Finding(Verdict.WARN, "open files", text, hint)
    else:
        yield Finding(Verdict.OK, "open files", f"the limit is enough for {wanted} associations")


# -- database ----------------------------------------------------------------------------------------


def _database(options: Options) -> Iterator[Finding]:
    import sqlalchemy as sa

    from ...archive.index.urls import PASSWORD_SEEN, read, shown

    root = Path(options["storage"]).absolute()
    try:
        url = read(options["database"] or f"sqlite:///{root / 'index.db'}")
    except sa.exc.ArgumentError:
        yield Finding(
            Verdict.FAIL,
            "database",
            "its URL cannot be read",
            "write one such as postgresql://user@host/name",
        )
        return
    about = f"database {shown(url)}"
    if options.shows_password:
        what, hint = PASSWORD_SEEN.split(": ", 1)
        yield Finding(Verdict.WARN, about, what, hint)
    is_sqlite = url.get_backend_name() == "sqlite"
    if is_sqlite and url.database and not Path(url.database).exists():
        yield Finding(Verdict.OK, about, "does not exist; the node makes it at its first start")
        return
    try:
        has_timeout = url.get_backend_name() in ("postgresql", "mysql", "mariadb")
        waits = {"connect_timeout": int(_SECONDS)} if has_timeout else {}
        engine = sa.create_engine(url, connect_args=waits)
    except ImportError as error:
        hint = "pip install 'netdicom-tx[postgres]', or the driver that the URL names"
        yield Finding(Verdict.FAIL, about, f"its driver is missing: {error.name}", hint)
        return
    except sa.exc.ArgumentError:
        hint = "write one such as postgresql://user@host/name"
        yield Finding(Verdict.FAIL, about, "is of an unknown kind", hint)
        return
    try:
        with engine.connect() as connection:
            yield _schema(connection, about)
            if is_sqlite:
                yield _integrity(connection, about)
            else:
                yield _database_clock(connection, about)
                yield from _database_disk(connection, about)
            yield from _belonging(connection, options, shown(url))
    except sa.exc.SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        hint = "does it run? are host, name, user and password right, and may this user read it?"
        yield Finding(Verdict.FAIL, about, f"cannot be used: {reason}", hint)
    finally:
        engine.dispose()


def _schema(connection: Any, about: str) -> Finding:
    import sqlalchemy as sa

    from ...archive.index.migrations import VERSION

    if not sa.inspect(connection).has_table("schema_version"):
        return Finding(Verdict.OK, about, "is empty; the node makes its tables at its first start")
    found = connection.exec_driver_sql("SELECT version FROM schema_version").scalar()
    text = f"has schema version {found}, and this netdicom_tx has {VERSION}"
    if found is not None and found > VERSION:
        return Finding(Verdict.FAIL, about, text, "start the netdicom_tx that wrote it, or a newer")
    if found != VERSION:
        hint = "the node changes it at its next start; make a copy before"
        return Finding(Verdict.WARN, about, text, hint)
    return Finding(Verdict.OK, about, f"can be used, and has schema version {VERSION}")


def _database_clock(connection: Any, about: str) -> Finding:
    """Compare the clock of this machine with that of the database."""
    from ...archive.group.members import SKEW_LIMIT, SKEW_TOLD, database_time

    skew = time.time() - database_time(connection)
    text = f"its clock differs by {abs(skew):.1f} s from that of this machine"
    hint = "set the clocks of both machines by NTP"
    if abs(skew) > SKEW_LIMIT:
        return Finding(Verdict.FAIL, about, text, hint)
    return Finding(Verdict.WARN if abs(skew) > SKEW_TOLD else Verdict.OK, about, text, hint)


def _database_disk(connection: Any, about: str) -> Iterator[Finding]:
    """Whether what the server commits survives a power cut."""
    if connection.dialect.name != "postgresql":
        return
    for setting in ("fsync", "full_page_writes"):
        if connection.exec_driver_sql(f"SHOW {setting}").scalar() == "off":
            yield Finding(
                Verdict.WARN,
                about,
                f"its server runs with {setting} = off, so a power cut may damage the whole database",
                f"set {setting} = on in postgresql.conf, unless its file system makes that unnecessary",
            )


def _belonging(connection: Any, options: Options, url: str) -> Iterator[Finding]:
    """Whether database and store belong together, and the node may change the database; nothing is changed."""
    from ...archive.group.identity import check
    from ...archive.group.members import check_upgrade
    from ...archive.index.engine import IndexUnusableError
    from ...archive.index.migrations import VERSION, version_of
    from ...archive.index.rights import check_rights
    from ...archive.store.objects import ObjectsUnusableError
    from ...archive.store.place import node_uuid, place_of
    from ...archive.store.sharedstore import SharedStore
    from ...archive.store.usage import check_usage

    store = options.store_plan().store()
    place = place_of(store)
    about = "archive"
    try:
        if isinstance(store, SharedStore):
            store.objects.open()
        check(connection, place, url)
        check_upgrade(connection, node_uuid(store))
        if version_of(connection) == VERSION:
            check_rights(connection, url)
            if isinstance(store, SharedStore):
                check_usage(connection, store, url)
    except IndexUnusableError as error:
        what, _, hint = str(error).partition(": ")
        yield Finding(Verdict.FAIL, about, what, hint)
    except (ObjectsUnusableError, OSError):
        return  # the store itself is looked at by itself
    else:
        yield Finding(Verdict.OK, about, f"{place.place} and its database belong together")
    finally:
        if isinstance(store, SharedStore):
            store.objects.close()


def _integrity(connection: Any, about: str) -> Finding:
    found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found == "ok":
        return Finding(Verdict.OK, about, "passes its quick check")
    hint = "stop the node, move the file away, and make a new one: netdicom reindex"
    return Finding(Verdict.FAIL, about, f"is damaged: {found}", hint)


# -- files -------------------------------------------------------------------------------------------


def _tls(options: Options) -> Iterator[Finding]:
    """The files have been read, and certificate and key fit: the configuration is refused otherwise."""
    tls = options["tls"]
    if tls is None:
        return
    if tls.certificate is not None:
        certificates = [tls.certificate, *tls.more_certificates]
        for path in certificates:
            yield _validity(Path(path))
        for path in [tls.key or tls.certificate, *tls.more_certificates]:
            yield _privacy(Path(path))
    if tls.trust is not None:
        yield _validity(Path(tls.trust))


def _validity(path: Path) -> Finding:
    from cryptography import x509

    about = f"certificate {path}"
    try:
        ends = min(
            each.not_valid_after_utc for each in x509.load_pem_x509_certificates(path.read_bytes())
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it holds no certificate"
        hint = "name a PEM file that the user of the node can read"
        return Finding(Verdict.FAIL, about, f"cannot be used: {reason}", hint)
    left = (ends - datetime.now(UTC)).days
    if left < 0:
        return Finding(Verdict.FAIL, about, f"ended on {ends:%Y-%m-%d}", "replace it, then reload")
    text = f"is valid until {ends:%Y-%m-%d}"
    if left < _SOON:
        return Finding(Verdict.WARN, about, f"{text}, {left} days", "replace it, then reload")
    return Finding(Verdict.OK, about, text)


def _privacy(path: Path) -> Finding:
    about = f"private key {path}"
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Finding(Verdict.FAIL, about, f"cannot be read: {error.strerror}", "check the path")
    if mode & 0o044:
        who = "everybody" if mode & 0o004 else "its group"
        return Finding(Verdict.WARN, about, f"can be read by {who}", f"chmod 600 {path}")
    return Finding(Verdict.OK, about, "fits its certificate, and only its owner can read it")


def _audit(options: Options) -> Iterator[Finding]:
    if not options["audit"]:
        return
    path = Path(options["audit"]).absolute()
    place = path if path.exists() else path.parent
    if os.access(place, os.W_OK):
        yield Finding(Verdict.OK, f"audit trail {path}", "can be written")
    else:
        hint = f"give {place} to the user of the node"
        yield Finding(Verdict.FAIL, f"audit trail {path}", "cannot be written", hint)


# -- packages ----------------------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    """The versions of Python and of what a node is made of, which a report of a fault should name."""
    from ... import __version__

    names = ("Twisted", "pydicom", "SQLAlchemy")
    versions = [
        f"netdicom_tx {__version__}",
        *(f"{each} {metadata.version(each)}" for each in names),
    ]
    yield Finding(Verdict.OK, f"Python {platform.python_version()}", ", ".join(versions))


# -- peers -------------------------------------------------------------------------------------------


async def echoed(title: str, remote: RemoteAE) -> Finding:
    """Ask a peer whether it is there.

    Args:
        title: The AE title of the node.
    """
    from ...dulprovider import Timeouts
    from ...exceptions import NetDICOMError
    from ...oneshot import echo
    from ...verbs import AE

    about = f"peer {remote.ae_title}"
    ae = AE(title, timeouts=Timeouts(connect=_SECONDS, associate=_SECONDS, response=_SECONDS))
    try:
        status = await echo(remote, ae=ae)
    except NetDICOMError as error:
        problem = explain(error, remote.ae_title, title, remote.ae_title)
        return Finding(Verdict.WARN, about, problem.what, problem.hint)
    if not status.is_success:
        return Finding(Verdict.WARN, about, f"answered {status}", "look in the peer's log")
    return Finding(Verdict.OK, about, "answers C-ECHO")
