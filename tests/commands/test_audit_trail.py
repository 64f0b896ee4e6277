"""The audit trail of commands that import, export and back up (PS3.15 A.5.3.4, A.5.3.5)."""

import os
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest

from netdicom_tx.commands import run as netdicom
from netdicom_tx.commands.common import audit
from support.archive.part10_files import write
from support.audit_schema import checked
from support.processes import run

EXPORT, IMPORT = "110106", "110107"


class Kept:
    """Files of two studies, and the configuration of a node without instances."""

    def __init__(self, directory: Path, audit: str) -> None:
        self.files, self.storage = directory / "in", directory / "archive"
        self.trail = directory / "audit.xml"
        self.config = directory / "node.toml"
        self.config.write_text(
            f"[node]\naet = 'ARCHIVE'\n[storage]\ndirectory = '{self.storage}'\n[audit]\n{audit}\n"
        )
        for number in range(3):
            write(
                self.files / f"{number}.dcm",
                f"1.{number}",
                StudyInstanceUID=f"2.{number % 2}",
                SeriesInstanceUID=f"3.{number % 2}",
                PatientID=f"P{number % 2}",
            )
        (self.files / "notes.txt").write_text("not an instance")

    def run(self, command: str, *arguments: str) -> int:
        return netdicom([command, *arguments, "--config", str(self.config), "-q"])

    def taken(self) -> list[Element]:
        """The messages since the last call."""
        octets = self.trail.read_bytes() if self.trail.exists() else b""
        self.trail.unlink(missing_ok=True)
        return [checked(each) for each in octets.splitlines()]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path, f"file = '{tmp_path / 'audit.xml'}'")


def told(messages: list[Element]) -> Counter[tuple[str, str, str, str]]:
    """Event, medium, study and patient of each message, with the number of instances."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for each in messages:
        (code,) = (one.attrib["csd-code"] for one in each.iter("EventID"))
        _, _, medium = (one.attrib["UserID"] for one in each.findall("ActiveParticipant"))
        study, patient = (
            one.attrib["ParticipantObjectID"]
            for one in each.findall("ParticipantObjectIdentification")
        )
        count = sum(int(one.attrib["NumberOfInstances"]) for one in each.iter("SOPClass"))
        found[code, medium, study, patient] += count
    return found


def test_an_import_is_audited_by_study(kept: Kept) -> None:
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    messages = kept.taken()
    place = kept.files.as_uri()
    assert told(messages) == {
        (IMPORT, place, "2.0", "P0"): 2,
        (IMPORT, place, "2.1", "P1"): 1,
    }
    person, node, _ = messages[0].findall("ActiveParticipant")
    assert person.attrib["UserIsRequestor"] == "true"
    assert node.attrib["UserID"] == "ARCHIVE"
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    assert kept.taken() == []  # all of it was there


def test_an_export_is_audited_by_study(kept: Kept, tmp_path: Path) -> None:
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    kept.taken()
    out = tmp_path / "out"
    assert kept.run("export", "-k", "PatientID=P0", "-o", str(out)) == 0
    assert told(kept.taken()) == {(EXPORT, out.as_uri(), "2.0", "P0"): 2}
    archive = tmp_path / "all.zip"
    assert kept.run("export", "--all", "--dicomdir", "--zip", str(archive)) == 0
    assert told(kept.taken()) == {
        (EXPORT, archive.as_uri(), "2.0", "P0"): 2,
        (EXPORT, archive.as_uri(), "2.1", "P1"): 1,
    }


def test_an_instance_that_cannot_be_read_was_not_exported(kept: Kept, tmp_path: Path) -> None:
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    kept.taken()
    damaged = sorted(kept.storage.glob("instances/*/*.dcm"))[0]
    damaged.write_bytes(damaged.read_bytes()[:200])
    out = tmp_path / "out"
    assert kept.run("export", "--all", "-o", str(out)) == 1
    assert sum(told(kept.taken()).values()) == 2


def test_a_backup_is_audited_as_far_as_its_files_are_new(kept: Kept, tmp_path: Path) -> None:
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    kept.taken()
    target = tmp_path / "backup"
    assert kept.run("backup", str(target), "--files", "copy") == 0
    assert told(kept.taken()) == {
        (EXPORT, target.as_uri(), "2.0", "P0"): 2,
        (EXPORT, target.as_uri(), "2.1", "P1"): 1,
    }
    assert kept.run("backup", str(target)) == 0
    assert kept.taken() == []


def test_a_backup_that_only_lists_is_audited_too(kept: Kept, tmp_path: Path) -> None:
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    kept.taken()
    target = tmp_path / "backup"
    assert kept.run("backup", str(target)) == 0
    assert sum(told(kept.taken()).values()) == 3
    assert kept.run("backup", str(target)) == 0
    assert kept.taken() == []


@pytest.mark.parametrize("error", [KeyError("uid not found"), OSError("no user")])
def test_a_user_without_a_name_is_a_number(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container; the exception depends on the version of Python."""

    def unknown() -> str:
        raise error

    monkeypatch.setattr(audit, "getuser", unknown)
    assert audit.this_user() == f"uid {os.getuid()}"


def test_many_instances_are_told_in_groups(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("netdicom_tx.commands.common.audit._GROUP", 1)
    monkeypatch.setattr("netdicom_tx.commands.common.audit._AT_ONCE", 1)
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    messages = kept.taken()
    assert len(messages) == 3
    assert sum(told(messages).values()) == 3


def test_a_trail_that_cannot_be_written_ends_the_command_before_it_begins(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent" / "audit.xml")
    assert kept.run("import", str(kept.files), "--audit", absent) == 11
    assert "cannot be written" in capsys.readouterr().err
    assert not kept.storage.exists()


def test_messages_that_are_lost_later_are_counted(
    kept: Kept, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_octets = os.write

    def full(descriptor: int, octets: bytes) -> int:
        if b"AuditMessage" in bytes(octets):
            raise OSError(28, "No space left on device")
        return write_octets(descriptor, octets)

    monkeypatch.setattr("netdicom_tx.audit_trails.os.write", full)
    assert kept.run("import", str(kept.files), "--jobs", "1") == 0
    assert "it lacks 2 messages" in capsys.readouterr().err


def test_syslog_servers_get_the_messages_at_the_end(tmp_path: Path) -> None:
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while octets := connection.recv(65536):
                    got.append(octets)

        serving = threading.Thread(target=serve)
        serving.start()
        kept = Kept(tmp_path, f"syslog = ['tcp://127.0.0.1:{server.getsockname()[1]}']")
        done = run(
            *(sys.executable, "-m", "netdicom_tx", "import", str(kept.files)),
            *("--config", str(kept.config), "--jobs", "1"),
        )
        assert done.returncode == 0, done.stdout
        serving.join(30)
    messages = [b"<AuditMessage>" + each for each in b"".join(got).split(b"<AuditMessage>")[1:]]
    ends = [each.index(b"</AuditMessage>") + len(b"</AuditMessage>") for each in messages]
    found = [checked(each[:end]) for each, end in zip(messages, ends, strict=True)]
    assert sum(told(found).values()) == 3


def test_a_syslog_server_that_is_away_is_told(tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound, and it does not listen
        nobody.bind(("127.0.0.1", 0))
        kept = Kept(tmp_path, f"syslog = ['tcp://127.0.0.1:{nobody.getsockname()[1]}']")
        done = run(
            *(sys.executable, "-m", "netdicom_tx", "import", str(kept.files)),
            *("--config", str(kept.config), "--jobs", "1"),
        )
    assert done.returncode == 0, done.stdout
    assert "2 audit messages are lost" in done.stdout
