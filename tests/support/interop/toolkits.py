"""Toolkits of others as peers: CTN, dcmjs-dimse, GDCM, odil and PixelMed.

Each is a requestor, by its own programs or by a small program here that does nothing but call it, and most are an
acceptor as well. As acceptors they listen on every interface, because none of them can be told otherwise; they hold
pydicom's files, which are public. How each differs from the standard is in ``docs/howto/peers.md``.
"""

import functools
import json
import os
import re
import subprocess
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import dcmwrite

from ..node import Address
from ..processes import (
    Process,
    absent,
    eventually,
    free_port,
    program,
    run,
    succeed,
)

_HERE = Path(__file__).parent


class Requestor:
    """What the toolkits have in common as requestors.

    The methods that a toolkit has are named in ``can``; each fails when the toolkit does not say that it worked.

    Attributes:
        ae_title: As which it calls, and is called.
        can: What it does, by the names of the methods.
    """

    ae_title: str
    can: frozenset[str] = frozenset()

    def echo(self, to: Address) -> None:
        raise NotImplementedError

    def store(self, to: Address, paths: Sequence[Path]) -> None:
        """Send files on one association or on one for each."""
        raise NotImplementedError

    def find(self, to: Address, patient_id: str) -> set[str]:
        """The Study Instance UIDs of a patient's studies."""
        raise NotImplementedError

    def get(self, to: Address, study: str, directory: Path) -> None:
        """Retrieve a study by C-GET, into a directory."""
        raise NotImplementedError

    def move(self, to: Address, study: str, destination: str) -> None:
        """Let a study be sent to an AE title."""
        raise NotImplementedError

    def worklist(self, to: Address, directory: Path) -> set[str]:
        """The Patient IDs of all steps of a worklist; the directory is for a file of its own."""
        raise NotImplementedError


class GDCM(Requestor):
    """``gdcmscu``.

    Debian's 3.0.21 ends by SIGABRT whenever an association has ended, even where it could not connect; so what it has
    received is read from its debugging output, and its exit status says nothing.
    """

    ae_title = "GDCM"
    can = frozenset(("echo", "store"))

    def _run(self, to: Address, *words: str | Path) -> str:
        names = ("--aetitle", self.ae_title, "--call", to.ae_title)
        # It would leave a core in the directory of the tests.
        command = (program("prlimit"), "--core=0", program("gdcmscu"), "-D")
        printed = run(*command, *words, *to.arguments, *names).stdout
        statuses = re.findall(r"\(0000,0900\) \?\? \(US\) (\d+)", printed)
        assert statuses, printed
        assert set(statuses) <= {"0", "65280"}, printed
        return printed

    def echo(self, to: Address) -> None:
        self._run(to, "--echo")

    def store(self, to: Address, paths: Sequence[Path]) -> None:
        for path in paths:
            self._run(to, "--store", "-i", path)

    def matches(self, to: Address, patient_id: str) -> int:
        """How many studies of a patient it is told of; it does not come to showing them."""
        keys = ("--key", f"10,20={patient_id}", "--key", "20,d=")
        printed = self._run(to, "--find", "--studyroot", "--study", *keys)
        # 0xFF00, which it prints twice.
        return printed.count("(US) 65280") // 2

    def move_here(self, to: Address, study: str, port: int, directory: Path) -> None:
        """Let a study be sent to itself, as the AE title GDCM at a port."""
        key = ("--key", f"20,d={study}")
        here = ("--port-scp", str(port), "-o", directory)
        self._run(to, "--move", "--studyroot", "--study", *key, *here)


class Odil(Requestor):
    """The command ``odil``."""

    ae_title = "ODIL"
    can = frozenset(("echo", "store", "find", "get"))

    def _run(
        self, command: str, to: Address, *words: str | Path, options: Sequence[str] = ()
    ) -> str:
        names = (self.ae_title, to.ae_title)
        return succeed(program("odil"), command, *options, *to.arguments, *names, *words)

    def echo(self, to: Address) -> None:
        self._run("echo", to)

    def store(self, to: Address, paths: Sequence[Path]) -> None:
        self._run("store", to, *paths)

    def find(self, to: Address, patient_id: str) -> set[str]:
        keys = ("QueryRetrieveLevel=STUDY", f"PatientID={patient_id}", "StudyInstanceUID")
        printed = self._run("find", to, "study", *keys)
        return set(re.findall(r"0020,000d UI \['([\d.]+)'\]", printed))

    def get(self, to: Address, study: str, directory: Path) -> None:
        keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}")
        printed = self._run("get", to, "study", *keys, options=("--directory", str(directory)))
        assert "failed: 0, warning: 0" in printed, printed


class CTN(Requestor):
    """The programs of the Central Test Node that need no database."""

    ae_title = "CTN"
    can = frozenset(("echo", "store", "worklist"))

    def _run(
        self, command: str, to: Address, *words: str | Path, options: Sequence[str] = ()
    ) -> str:
        names = ("-a", self.ae_title, "-c", to.ae_title)
        return succeed(program(command), *names, *options, *to.arguments, *words)

    def echo(self, to: Address) -> None:
        assert "Verification Status:     0000" in self._run("dicom_echo", to)

    def store(self, to: Address, paths: Sequence[Path]) -> None:
        # On one association it sends all instances of a SOP class in the context of the first of them.
        for path in paths:
            printed = self._run("send_image", to, path)
            assert "Status:         0000" in printed, printed

    def worklist(self, to: Address, directory: Path) -> set[str]:
        # Its own query has no keys, so that its answers would be empty.
        query = Dataset()
        query.PatientName = query.PatientID = ""
        step = Dataset()
        step.Modality = ""
        query.ScheduledProcedureStepSequence = [step]
        path = directory / "query"
        dcmwrite(path, query, implicit_vr=True, little_endian=True)
        printed = self._run("mwlQuery", to, options=("-f", str(path)))
        assert re.search(r"Status: +0000", printed), printed
        return set(re.findall(r"0010 0020 .*//(.*?) *$", printed, re.MULTILINE))


class PixelMed(Requestor):
    """The ``main`` methods of the PixelMed Java DICOM Toolkit."""

    ae_title = "PIXELMED"
    can = frozenset(("echo", "store", "move"))

    def echo(self, to: Address) -> None:
        names = (self.ae_title, to.ae_title)
        printed = succeed(
            *java("network.VerificationSOPClassSCU"), *to.arguments, *names, "NONSECURE"
        )
        assert "was successful" in printed, printed

    def store(self, to: Address, paths: Sequence[Path]) -> None:
        left = {path: read_file_meta_info(path).MediaStorageSOPClassUID for path in paths}
        while left:
            # On one association it sends instances of a SOP class in any context of that class.
            together = {sop_class: path for path, sop_class in left.items()}.values()
            self._store(to, together)
            left = {path: sop_class for path, sop_class in left.items() if path not in together}

    def _store(self, to: Address, paths: Iterable[Path]) -> None:
        # With "-" it reads the names from its standard input, and sends all on one association.
        names = (to.ae_title, self.ae_title, "-")
        done = subprocess.run(
            [*java("network.StorageSOPClassSCU"), *to.arguments, *names],
            input="".join(f"{path}\n" for path in paths),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=True,
        )
        assert "Exception" not in done.stdout, done.stdout

    #: The study and the series of the query that is built into its ``main``.
    built_in = (
        "1.2.840.113619.2.5.1762386977.1328.985934491.590",
        "1.2.840.113619.2.5.1762386977.1328.985934491.643",
    )

    def find_built_in(self, to: Address) -> set[str]:
        """The SOP Instance UIDs of the series that it asks for."""
        names = (to.ae_title, self.ae_title)
        printed = succeed(*java("network.FindSOPClassSCU"), *to.arguments, *names)
        return set(re.findall(r"\(0x0008,0x0018\).*<([\d.]+)\0?>", printed))

    def move(self, to: Address, study: str, destination: str) -> None:
        names = (to.ae_title, self.ae_title, destination)
        printed = succeed(*java("network.MoveSOPClassSCU"), *to.arguments, *names, "STUDY", study)
        assert "final status = 0x0" in printed, printed


class Dcmjs(Requestor):
    """dcmjs-dimse, by ``dcmjs_peer.js``."""

    ae_title = "DCMJS"
    can = frozenset(("echo", "store", "find", "get", "move", "worklist"))

    def _run(self, command: str, to: Address, *words: str | Path) -> list[Any]:
        printed = succeed(*dcmjs(command), str(to.port), *words, **node_environment())
        return [json.loads(line) for line in printed.splitlines()]

    def echo(self, to: Address) -> None:
        assert self._run("echo", to) == [{"status": 0}]

    def store(self, to: Address, paths: Sequence[Path]) -> None:
        assert self._run("store", to, *paths) == [
            {"file": each.name, "status": 0} for each in paths
        ]

    def find(self, to: Address, patient_id: str) -> set[str]:
        *answers, last = self._run("find", to, f"PatientID={patient_id}", "StudyInstanceUID=")
        assert last == {"status": 0}
        return {answer["StudyInstanceUID"] for answer in answers}

    def get(self, to: Address, study: str, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        [counts] = self._run("get", to, study, directory)
        assert (counts["status"], counts["failed"], counts["warning"]) == (0, 0, 0)

    def move(self, to: Address, study: str, destination: str) -> None:
        [counts] = self._run("move", to, study, destination)
        assert (counts["status"], counts["failed"], counts["warning"]) == (0, 0, 0)

    def worklist(self, to: Address, directory: Path) -> set[str]:
        *answers, last = self._run("worklist", to)
        assert last == {"status": 0}
        return {answer["PatientID"] for answer in answers}


REQUESTORS: tuple[Requestor, ...] = (CTN(), Dcmjs(), GDCM(), Odil(), PixelMed())


class Acceptor:
    """What the toolkits have in common as acceptors.

    Attributes:
        can: What is asked of it, by the names of the commands of ``netdicom``.
    """

    ae_title: str
    can: frozenset[str] = frozenset(("echo", "store"))
    directory: Path

    @contextmanager
    def listening(self) -> Iterator[Address]:
        """Its address, for one association."""
        raise NotImplementedError

    def stored(self, instance: str) -> Path | None:
        """The file of an instance; its name begins with the SOP Instance UID."""
        return next(iter(self.directory.rglob(f"{instance}*")), None)

    def close(self) -> None:
        """End it at once; it keeps nothing."""


class _Server(Acceptor):
    """A program that goes on after an association."""

    def __init__(
        self, directory: Path, port: int, *command: str | Path, **environment: str
    ) -> None:
        self._address = Address(self.ae_title, port)
        self._process = Process(directory / f"{self.ae_title}.log", *command, **environment)
        self._process.ready(lambda: _listens(port), self.ae_title)

    @contextmanager
    def listening(self) -> Iterator[Address]:
        yield self._address

    def close(self) -> None:
        self._process.kill()


class SimpleStorage(_Server):
    """CTN's ``simple_storage``."""

    ae_title = "CTN"

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "stored"
        self.directory.mkdir(parents=True)
        port = free_port()
        command = (program("simple_storage"), "-s", "-c", self.ae_title, "-x", self.directory)
        super().__init__(directory, port, *command, str(port))


class DcmjsServer(_Server):
    """dcmjs-dimse as a small archive, by ``dcmjs_peer.js``."""

    ae_title = "DCMJS"
    can = frozenset(("echo", "store", "find", "get", "worklist"))

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "stored"
        self.directory.mkdir(parents=True)
        port = free_port()
        command = (*dcmjs("serve"), str(port), self.directory)
        super().__init__(directory, port, *command, **node_environment())


class PixelMedServer(_Server):
    """PixelMed's ``DicomAndWebStorageServer``: an archive with its own database."""

    ae_title = "PIXELMED"
    can = frozenset(("echo", "store", "find", "get", "move"))

    def __init__(self, directory: Path, destinations: Iterable[Address] = ()) -> None:
        self.directory = directory / "stored"
        self.directory.mkdir(parents=True)
        port, web = free_port(), free_port()
        properties = {
            "Dicom.ListeningPort": port,
            "Dicom.CalledAETitle": self.ae_title,
            "Dicom.CallingAETitle": self.ae_title,
            "Dicom.PrimaryDeviceType": "ARCHIVE",
            "Dicom.RemoteAEs": " ".join(each.ae_title for each in destinations),
            "Application.DatabaseFileName": directory / "database",
            "Application.SavedImagesFolderName": self.directory,
            "WebServer.ListeningPort": web,
        }
        for each in destinations:
            remote = f"Dicom.RemoteAEs.{each.ae_title}."
            properties[remote + "CalledAETitle"] = each.ae_title
            properties[remote + "HostNameOrIPAddress"] = "127.0.0.1"
            properties[remote + "Port"] = each.port
        path = directory / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
        command = java("server.DicomAndWebStorageServer", jar=_without_libraries(directory))
        super().__init__(directory, port, *command, path)


class OdilServer(Acceptor):
    """odil, by ``odil_peer.py``: one process for each association."""

    ae_title = "ODIL"
    can = frozenset(("echo", "store", "find", "get"))

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "stored"
        self.directory.mkdir(parents=True)

    @contextmanager
    def listening(self) -> Iterator[Address]:
        port = free_port()
        process = Process(
            self.directory.parent / "odil.log",
            *(_system_python_with_odil(), "-I", _HERE / "odil_peer.py"),
            *(str(port), self.directory),
        )
        try:
            process.ready(lambda: _listens(port), "odil")
            yield Address(self.ae_title, port)
            eventually(process.ended, "end of odil's association")
            assert "released" in process.text(), process.text()
        finally:
            process.kill()


ACCEPTORS: tuple[type[Acceptor], ...] = (DcmjsServer, OdilServer, PixelMedServer, SimpleStorage)


def netdicom_peer(address: Address) -> str:
    """An address as ``netdicom`` takes it."""
    return f"{address.ae_title}@127.0.0.1:{address.port}"


def _listens(port: int) -> bool:
    """Whether somebody listens on a port.

    Without a connection: it would be odil's only one, and simple_storage ends when one has no association.
    """
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    lines = [line for path in tables if path.exists() for line in path.read_text().splitlines()[1:]]
    sockets = [line.split() for line in lines]
    # 0A: LISTEN, as in the kernel's tcp_states.h.
    return any(each[1].endswith(f":{port:04X}") and each[3] == "0A" for each in sockets)


@functools.cache
def _imports(interpreter: str, *code: str) -> bool:
    done = run(interpreter, *code, **node_environment())
    return done.returncode == 0


def _system_python_with_odil() -> str:
    # Debian's bindings are for Debian's Python, and the tests run in a virtual environment.
    interpreter = "/usr/bin/python3"
    if not Path(interpreter).exists() or not _imports(interpreter, "-I", "-c", "import odil"):
        absent("python3-odil is not installed")
    return interpreter


def node_environment() -> dict[str, str]:
    """Where ``node`` finds dcmjs-dimse: in ``NODE_PATH``, or where ``npm install`` put it beside ``package.json``."""
    here = _HERE / "node_modules"
    return {"NODE_PATH": os.pathsep.join([str(here), os.environ.get("NODE_PATH", "")])}


def dcmjs(command: str) -> tuple[str | Path, ...]:
    """The beginning of a command that runs ``dcmjs_peer.js``."""
    node = program("node")
    if not _imports(node, "--eval", "require('dcmjs-dimse')"):
        absent("dcmjs-dimse is not installed (npm install in tests/support/interop)")
    return (node, _HERE / "dcmjs_peer.js", command)


_JAVA = Path("/usr/share/java")


def java(name: str, jar: Path = _JAVA / "pixelmed.jar") -> tuple[str, ...]:
    """The beginning of a command that runs a class of PixelMed."""
    interpreter = program("java")
    if not (_JAVA / "pixelmed.jar").exists():
        absent("libpixelmed-java is not installed")
    libraries = [_JAVA / f"{each}.jar" for each in ("hsqldb", "vecmath", "commons-codec")]
    classes = os.pathsep.join(str(each) for each in (jar, *libraries))
    # The second option halves the time of a short run: nothing is compiled twice.
    options = ("-Djava.awt.headless=true", "-XX:TieredStopAtLevel=1")
    return (interpreter, *options, "-cp", classes, f"com.pixelmed.{name}")


def _without_libraries(directory: Path) -> Path:
    """PixelMed without the class path that its manifest has.

    On that is JmDNS, with which the server tells the network about itself; without it, it says so and goes on.
    """
    path = directory / "pixelmed.jar"
    with zipfile.ZipFile(_JAVA / "pixelmed.jar") as whole, zipfile.ZipFile(path, "w") as ours:
        for entry in whole.infolist():
            if not entry.filename.startswith("META-INF/"):
                ours.writestr(entry.filename, whole.read(entry))
    return path
