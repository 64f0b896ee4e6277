"""A group of nodes as processes: PostgreSQL, the object store, HAProxy and N nodes on this machine.

Everything listens on free ports of 127.0.0.1 and works in one folder, which the end of the group deletes. Every part
can fail and come back: that is what the group is for.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from support.archive.databases import PostgreSQL
from support.archive.objectstore import Bucket, ObjectStore
from support.interop.haproxy import Behind, HAProxy
from support.processes import CHECKOUT, Process, free_port, run

__all__ = ["Front", "Group", "GroupNode", "Peer", "Shape"]

AE_TITLE = "ARCHIVE"
_PREFIX = "group"
# Seconds for the start of a node: on a busy machine all parts of a group start at once.
_STARTING = 90.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of a group.

    Attributes:
        nodes: The number of nodes.
        database: A SQLite file, which only one node can have, or PostgreSQL.
        store: Files in the node's own directory (for one node), files in a directory that all share, or S3.
        proxy: Whether HAProxy stands in front of the nodes.
    """

    nodes: int = 3
    database: Literal["sqlite", "postgresql"] = "postgresql"
    store: Literal["local", "shared", "s3"] = "s3"
    proxy: bool = True

    def __post_init__(self) -> None:
        if self.nodes > 1 and (self.database == "sqlite" or self.store == "local"):
            raise ValueError(f"{self.nodes} nodes need PostgreSQL and a store that they share")

    def __str__(self) -> str:
        what = f"{self.nodes} node{'s' * (self.nodes > 1)}, {self.database}, {self.store}"
        return what + (", proxy" if self.proxy else "")


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that the nodes know, and may send to."""

    title: str
    port: int


class GroupNode:
    """One node of the group, always at the same ports; it may be started again."""

    def __init__(
        self, name: str, folder: Path, tables: dict[str, dict[str, Any]], peers: Sequence[Peer]
    ) -> None:
        self.name = name
        self.port = free_port()
        self.http_port = free_port()
        self.direct_port = 0
        self.folder = folder
        self._process: Process | None = None
        folder.mkdir()
        merged = {each: dict(keys) for each, keys in tables.items()}
        merged.setdefault("node", {}).update(
            aet=AE_TITLE, listen=[f"tcp:{self.port}:interface=127.0.0.1"]
        )
        merged.setdefault("storage", {})["directory"] = str(folder / "archive")
        merged["http"] = {"listen": f"tcp:{self.http_port}:interface=127.0.0.1"}
        self.configuration = folder / "node.toml"
        self.configuration.write_text(_toml(merged, peers))

    @property
    def address(self) -> str:
        """Where this node is reached, and no other one."""
        return f"{AE_TITLE}@127.0.0.1:{self.direct_port or self.port}"

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and not self._process.ended()

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    def log(self) -> str:
        """All that it has logged, over all its starts."""
        return (self.folder / "node.log").read_text(errors="replace")

    def warnings(self) -> list[str]:
        """The lines of its log that are warnings or errors."""
        return [line for line in self.log().splitlines() if "#warn]" in line or "#error]" in line]

    def start(self) -> None:
        """Start it, and wait until it listens and is ready."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it without waiting, so that several start at once."""
        assert not self.runs, f"{self.name} is running"
        self._process = Process(
            self.folder / "node.log",
            sys.executable,
            Path(sys.executable).with_name("twistd"),
            *("--pidfile=", "-n", "dicom", "--config", str(self.configuration)),
            PYTHONPATH=os.pathsep.join(
                filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
            ),
        )

    def wait_ready(self) -> None:
        """Wait until peers are served and instances can be kept."""
        assert self._process is not None, f"{self.name} is not running"
        self._process.ready(self.is_ready, f"ready {self.name}", within=_STARTING)

    def is_ready(self) -> bool:
        """Whether its ``/ready`` says so."""
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}/ready", timeout=5
            ) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def kill(self) -> None:
        """End it as a power switch would (SIGKILL)."""
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()

    def stop(self) -> int:
        """End it as an operator does (SIGTERM); the exit status."""
        assert self._process is not None, f"{self.name} is not running"
        process, self._process = self._process, None
        return process.stop(within=60)


class Front(HAProxy):
    """HAProxy in front of the nodes, with the configuration of the documentation, and ways to each single node.

    The nodes take connections from the proxy alone, so whoever wants a certain node comes this way, too.
    """

    def __init__(self, folder: Path, nodes: Sequence[GroupNode]) -> None:
        behind = {node.name: Behind(plain=node.port, http=node.http_port) for node in nodes}
        more = ""
        for node in nodes:
            node.direct_port = free_port()
            more += _DIRECT.format(name=node.name, port=node.direct_port)
        super().__init__(folder, behind, more=more)

    @property
    def address(self) -> str:
        """The address of the group, for senders and others."""
        return f"{AE_TITLE}@127.0.0.1:{self.port}"

    def drain(self, node: str) -> None:
        """Give a node no new associations; those that it has go on."""
        self.command(f"set server nodes/{node} state drain")

    def undrain(self, node: str) -> None:
        """Give the node associations again."""
        self.command(f"set server nodes/{node} state ready")

    def wait_until_up(self, node: str) -> None:
        """Wait until the proxy gives associations to a node."""
        self.wait_for("nodes", node, "UP")


class Group:
    """All parts of a shape, started by ``with`` and ended by its end.

    Args:
        shape: The parts.
        peers: Whom the nodes know.
        settings: Further keys of each node's configuration, by table.
        durable: Whether PostgreSQL syncs its commits to the disk.

    Attributes:
        postgresql: The server of the database; None with SQLite.
        objectstore: The server of the objects; None without S3.
        proxy: HAProxy; None without.
        nodes: The nodes, in their order.
    """

    def __init__(
        self,
        shape: Shape,
        peers: Sequence[Peer] = (),
        *,
        settings: dict[str, dict[str, Any]] | None = None,
        durable: bool = False,
    ) -> None:
        self.shape = shape
        self.postgresql: PostgreSQL | None = None
        self.objectstore: ObjectStore | None = None
        self.bucket: Bucket | None = None
        self.proxy: Front | None = None
        self.nodes: list[GroupNode] = []
        self._peers = peers
        self._settings = settings or {}
        self._durable = durable
        self._parts = ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="group-"))

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            parts.callback(shutil.rmtree, self.folder, ignore_errors=True)
            tables = self._shared(parts)
            for each in range(1, self.shape.nodes + 1):
                name = f"node{each}"
                own = {table: dict(keys) for table, keys in tables.items()}
                if self.shape.store != "local":
                    own.setdefault("node", {})["name"] = name
                if self.shape.proxy:
                    own.setdefault("node", {}).update(proxy_protocol=True, proxies=[_PROXY])
                node = GroupNode(name, self.folder / name, own, self._peers)
                self.nodes.append(node)
                parts.callback(node.kill)
            # The first makes the tables; that several do it at once is for tests of its own.
            self.nodes[0].start()
            for node in self.nodes[1:]:
                node.launch()
            for node in self.nodes[1:]:
                node.wait_ready()
            if self.shape.proxy:
                self.proxy = Front(self.folder, self.nodes)
                parts.callback(self.proxy.close)
                self.proxy.start()
                for node in self.nodes:
                    self.proxy.wait_until_up(node.name)
            self._parts = parts.pop_all()
        # A reactor that is told to end forgets the coroutine that has the group.
        atexit.register(self._parts.close)
        return self

    def __exit__(self, *_: object) -> None:
        atexit.unregister(self._parts.close)
        self._parts.close()

    @property
    def address(self) -> str:
        """Where the group is reached: the proxy, or the only node."""
        return self.nodes[0].address if self.proxy is None else self.proxy.address

    def states(self) -> dict[str, str]:
        """What ``netdicom node list`` says of each node, such as alive or dead."""
        assert self.postgresql is not None, "a node alone is not in the list"
        netdicom = Path(sys.executable).with_name("netdicom")
        url = self.postgresql.url("group")
        words = ("node", "list", "--json", "--database", url)
        lines = run(netdicom, *words, PYTHONPATH=str(CHECKOUT)).stdout.splitlines()
        members = [json.loads(line) for line in lines if line.startswith("{")]
        return {each["name"]: each["state"] for each in members}

    def objects(self) -> list[str]:
        """The keys of all instances in the store that the nodes share."""
        if self.bucket is None:
            folder = self.folder / "shared"
            return [str(path.relative_to(folder)) for path in folder.glob("instances/**/*.dcm")]
        # Only a group with a bucket needs the client.
        import obstore
        from obstore.store import S3Store

        store = S3Store(
            self.bucket.name,
            prefix=_PREFIX,
            endpoint=self.bucket.endpoint,
            region=self.bucket.region,
            access_key_id=self.bucket.access_key,
            secret_access_key=self.bucket.secret_key,
            client_options={"allow_http": True},
        )
        found = [each["path"] for batch in obstore.list(store, "instances") for each in batch]
        return [path for path in found if path.endswith(".dcm")]

    def _shared(self, parts: ExitStack) -> dict[str, dict[str, Any]]:
        """Start what the nodes share; the tables of the configuration that say so."""
        tables = {table: dict(keys) for table, keys in self._settings.items()}
        storage = tables.setdefault("storage", {})
        if self.shape.database == "postgresql":
            self.postgresql = PostgreSQL(durable=self._durable)
            parts.callback(self.postgresql.end)
            tables.setdefault("database", {})["url"] = self.postgresql.url("group")
        if self.shape.store == "shared":
            (self.folder / "shared").mkdir()
            storage["url"] = f"file://{self.folder / 'shared'}"
        elif self.shape.store == "s3":
            self.objectstore = ObjectStore()
            parts.callback(self.objectstore.end)
            bucket = self.bucket = self.objectstore.bucket("archive")
            storage["url"] = f"{bucket.url}/{_PREFIX}"
            tables["s3"] = {
                "endpoint": bucket.endpoint,
                "region": bucket.region,
                "access_key": bucket.access_key,
                "secret_key": bucket.secret_key,
                "addressing": "path",
                **tables.get("s3", {}),
            }
        return tables


# The address that HAProxy has for nodes of tests.
_PROXY = "127.0.0.9"

_DIRECT = """
frontend only-{name}
    bind 127.0.0.1:{port}
    default_backend only-{name}
backend only-{name}
    server {name} {name}:11112 send-proxy-v2
"""


def _toml(tables: dict[str, dict[str, Any]], peers: Sequence[Peer]) -> str:
    lines = []
    for table, keys in tables.items():
        if not keys:
            continue
        lines.append(f"[{table}]")
        lines += [f"{key} = {_value(value)}" for key, value in keys.items()]
    for peer in peers:
        lines += [
            "[[peer]]",
            f'title = "{peer.title}"',
            'host = "127.0.0.1"',
            f"port = {peer.port}",
        ]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
