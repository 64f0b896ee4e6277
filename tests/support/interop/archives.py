"""DCMTK's archive, and DCMTK's and pynetdicom's query tools as functions."""

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from ..node import Address, Node
from ..processes import (
    Process,
    accepts_connections,
    free_port,
    need_pynetdicom,
    program,
    run,
    succeed,
)
from .peers import StoreSCP
from .population import Population, write_part10
from .samples import quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The node with its population, and where it may send to.

    Attributes:
        storescp: Takes everything and keeps it as it comes.
        refusing: Rejects every association.
        here: The port for a destination inside the test, called ``HERE``.
        dead: Nobody listens there; called ``DEAD``.
    """

    node: Node
    population: Population
    storescp: StoreSCP
    refusing: StoreSCP
    here: int

    @property
    def address(self) -> Address:
        return self.node.address


_CONFIGURATION = """
NetworkTCPPort = {port}
MaxPDUSize = 131072
MaxAssociations = 16
HostTable BEGIN
{hosts}
known = {known}
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
{title} {directory} RW (500, 200mb) known
AETable END
"""


class Dcmqrscp:
    """DCMTK's ``dcmqrscp``, on a directory of its own.

    It cannot be told to listen on loopback only; so it knows only the callers below, each from this
    machine.

    Args:
        directory: Where it keeps what it is sent; made when missing.
        known: The AE titles that it answers.
        destinations: Of C-MOVE.
    """

    ae_title = "DCMQRSCP"

    def __init__(
        self, directory: Path, *, known: Iterable[str], destinations: Iterable[Address] = ()
    ) -> None:
        executable = program("dcmqrscp")
        storage = directory / "dcmqrscp"
        storage.mkdir(parents=True)
        port = free_port()
        self.address = Address(self.ae_title, port)
        hosts = [(title.lower(), title, 104) for title in known]
        hosts += [(each.ae_title.lower(), each.ae_title, each.port) for each in destinations]
        configuration = directory / "dcmqrscp.cfg"
        configuration.write_text(
            _CONFIGURATION.format(
                port=port,
                hosts="\n".join(
                    f"{name} = ({title}, localhost, {at})" for name, title, at in hosts
                ),
                known=", ".join(name for name, _, _ in hosts),
                title=self.ae_title,
                directory=storage,
            )
        )
        self._process = Process(
            directory / "dcmqrscp.log",
            executable,
            *("--config", configuration),
            TCP_NODELAY="1",
        )
        self._process.ready(lambda: accepts_connections(port), "dcmqrscp")

    def close(self) -> None:
        """End it at once; it keeps nothing that is needed again."""
        self._process.kill()


def dcmsend(address: Address, paths: Iterable[Path], caller: str) -> None:
    """Send files with DCMTK's ``dcmsend``: one sender, a context for each kind of instance.

    Raises:
        AssertionError: It failed, or the archive refused one.
    """
    succeed(
        program("dcmsend"),
        *("--aetitle", caller, "--call", address.ae_title, "--no-uid-checks"),
        *("--decompress-never", *address.arguments),
        *paths,
        TCP_NODELAY="1",
    )


_MODELS = {"P": "--patient", "S": "--study", "O": "--psonly", "W": "--worklist"}


def findscu(
    address: Address,
    model: str,
    identifier: Dataset,
    directory: Path,
    prefix: Iterable[str] = (),
) -> list[Dataset]:
    """The answers to a query of DCMTK's ``findscu``.

    Args:
        model: P, S, O or W: the patient root, the study root, patient/study only, the worklist.
        identifier: Goes to it as a file, so that it is sent as it is encoded here.
        directory: An empty one, for its files.
        prefix: What runs it.

    Raises:
        AssertionError: It did not end with Success.
    """
    directory.mkdir(parents=True)
    query = directory / "query.dcm"
    write_part10(identifier, query)
    printed = succeed(
        *prefix,
        program("findscu"),
        *("--verbose", _MODELS[model], "--extract", "--output-directory", directory),
        *("--call", address.ae_title, "--dimse-timeout", "30", *address.arguments),
        query,
        TCP_NODELAY="1",
    )
    assert "Received Final Find Response (Success)" in printed, printed
    return answers(directory, "rsp*.dcm")


def findscu_status(address: Address, model: str, identifier: Dataset, directory: Path) -> str:
    """What ``findscu`` prints about a query that may fail."""
    directory.mkdir(parents=True)
    query = directory / "query.dcm"
    write_part10(identifier, query)
    return run(
        program("findscu"),
        *("--verbose", _MODELS[model], "--call", address.ae_title, *address.arguments),
        query,
        TCP_NODELAY="1",
    ).stdout


def pynetdicom_findscu(
    address: Address, model: str, identifier: Dataset, directory: Path, *options: str
) -> list[Dataset]:
    """The answers to a query of pynetdicom's ``findscu``, which negotiates what PS3.4 C.5 offers."""
    need_pynetdicom()
    directory.mkdir(parents=True)
    query = directory / "query.dcm"
    write_part10(identifier, query)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pynetdicom", "findscu", "--verbose", f"-{model}", "--write"),
            *("-aec", address.ae_title, "--file", str(query), *options, *address.arguments),
        ],
        cwd=directory,  # where it writes to
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "Find SCP Result: 0x0000 (Success)" in printed, printed
    return answers(directory, "rsp*.dcm")


def answers(directory: Path, pattern: str) -> list[Dataset]:
    """The identifiers in files."""
    with quiet():
        return [pydicom.dcmread(path, force=True) for path in sorted(directory.glob(pattern))]
