"""The archives that the node is compared with: Orthanc, ``dcmqrscp``, pynetdicom's ``qrscp``.

Orthanc and ``dcmqrscp`` cannot be bound to the loopback interface, so they are configured to answer only known
AE titles on this machine.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers import (
    LARGEST_PDU,
    ROOT,
    Peer,
    dcmtk_environment,
    free_port,
    listens,
    running,
    tool,
    until,
)

#: The AE titles that call the archives, all from this machine.
CALLERS = ("RAW", "BENCH", "PYNETDICOM", "STORESCU", "FINDSCU")

_PLUGINS = "/usr/share/orthanc/plugins"


@contextmanager
def orthanc(
    storage: Path,
    sink: Peer | None = None,
    *,
    postgresql: str | None = None,
    with_files: bool = False,
) -> Iterator[Peer]:
    """Run Orthanc with its defaults: SQLite, and every file flushed to disk (``SyncStorageArea``).

    Args:
        sink: The destination of C-MOVE.
        postgresql: The URI of the database that has the index instead; needs Debian's ``orthanc-postgresql``.
        with_files: Whether that database has the files, too.
    """
    storage.mkdir(parents=True)
    dicom, http = free_port(), free_port()
    modalities = {title: [title, "127.0.0.1", 104] for title in CALLERS}
    if sink is not None:
        modalities["sink"] = [sink.ae_title, "127.0.0.1", sink.port]
    plugin = {}
    if postgresql is not None:
        parts = ("Index", "Storage") if with_files else ("Index",)
        of_plugins = {"ConnectionUri": postgresql, "Lock": False}
        plugin = {
            "Plugins": [f"{_PLUGINS}/libOrthancPostgreSQL{part}.so" for part in parts],
            "PostgreSQL": of_plugins | {f"Enable{part}": True for part in parts},
        }
    configuration = storage.with_suffix(".json")
    configuration.write_text(
        json.dumps(
            {
                "StorageDirectory": str(storage),
                "IndexDirectory": str(storage),
                "Plugins": [],
                "HttpPort": http,
                "HttpBindAddresses": ["127.0.0.1"],
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomAet": "ORTHANC",
                "DicomPort": dicom,
                "MaximumPduLength": LARGEST_PDU,
                "DicomCheckModalityHost": True,
                "DicomModalities": modalities,
                **plugin,
            }
        ),
        "utf-8",
    )
    command = [tool("Orthanc"), str(configuration)]
    with running(command, storage, dcmtk_environment(tuned=True)) as (started, log):
        until(lambda: listens(dicom) or None, "Orthanc", started, log)
        yield Peer(name="orthanc", ae_title="ORTHANC", pid=started.pid, port=dicom, storage=storage)


@contextmanager
def dcmqrscp(storage: Path, sink: Peer | None = None) -> Iterator[Peer]:
    """Run DCMTK's ``dcmqrscp``, which never flushes to disk."""
    storage.mkdir(parents=True)
    port = free_port()
    hosts = [(title, 104) for title in CALLERS]
    if sink is not None:
        hosts.append((sink.ae_title, sink.port))
    configuration = storage.with_suffix(".cfg")
    configuration.write_text(
        "\n".join(
            [
                f"NetworkTCPPort = {port}",
                f"MaxPDUSize = {LARGEST_PDU}",
                "MaxAssociations = 100",
                "HostTable BEGIN",
                *(f"{title.lower()} = ({title}, localhost, {at})" for title, at in hosts),
                f"known = {', '.join(title.lower() for title, _ in hosts)}",
                "HostTable END",
                "VendorTable BEGIN",
                "VendorTable END",
                "AETable BEGIN",
                f"DCMQRSCP {storage} RW (500, 20000mb) known",
                "AETable END",
                "",
            ]
        ),
        "utf-8",
    )
    command = [tool("dcmqrscp"), "-c", str(configuration)]
    with running(command, storage, dcmtk_environment(tuned=True)) as (started, log):
        until(lambda: listens(port) or None, "dcmqrscp", started, log)
        yield Peer(
            name="dcmqrscp", ae_title="DCMQRSCP", pid=started.pid, port=port, storage=storage
        )


@contextmanager
def qrscp(storage: Path) -> Iterator[Peer]:
    """Run pynetdicom's ``qrscp``."""
    storage.mkdir(parents=True)
    port = free_port()
    command = [
        *(sys.executable, "-m", "pynetdicom", "qrscp", "-q", "--port", str(port)),
        *("-ba", "127.0.0.1", "-pdu", str(LARGEST_PDU)),
        *("--database-location", str(storage / "db.sqlite")),
        *("--instance-location", str(storage / "instances")),
    ]
    with running(command, storage, dcmtk_environment(tuned=False)) as (started, log):
        until(lambda: listens(port) or None, "qrscp", started, log)
        yield Peer(name="qrscp", ae_title="QRSCP", pid=started.pid, port=port, storage=storage)


@contextmanager
def program(name: str, storage: Path, *words: str) -> Iterator[Peer]:
    """Run ``tests.bench.scus`` as an SCP; its last argument is the port."""
    storage.mkdir(parents=True)
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.scus", *words, str(port)]
    environment = dcmtk_environment(tuned=False) | {"PYTHONPATH": str(ROOT)}
    with running(command, storage, environment) as (started, log):
        until(lambda: listens(port) or None, name, started, log)
        yield Peer(name=name, ae_title="ANY-SCP", pid=started.pid, port=port, storage=storage)


@contextmanager
def sink(storage: Path) -> Iterator[Peer]:
    """Run ``storescp --ignore``, which accepts everything and keeps nothing, with a process for each association."""
    storage.mkdir(parents=True)
    port = free_port()
    command = [tool("storescp"), "--ignore", "--fork", "--max-pdu", str(LARGEST_PDU), str(port)]
    with running(command, storage, dcmtk_environment(tuned=True)) as (started, log):
        until(lambda: listens(port) or None, "storescp", started, log)
        yield Peer(name="sink", ae_title="SINK", pid=started.pid, port=port, storage=storage)
