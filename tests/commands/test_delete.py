"""netdicom delete, protect and retention, on the archive of a node that runs, and of one that does not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from netdicom_tx.archive import FileStore, Index
from netdicom_tx.archive.control import NodeAnswerError
from netdicom_tx.archive.index.record import Receipt
from netdicom_tx.archive.query.identifiers import unable
from netdicom_tx.archive.query.search import Search
from netdicom_tx.archive.store.deletion import open_archive
from netdicom_tx.archive.store.filestore import FileStore as Store
from netdicom_tx.archive.store.keeping import keep_with_row
from netdicom_tx.commands import run
from netdicom_tx.dsutils import encode
from netdicom_tx.uids import EXPLICIT_VR_LITTLE_ENDIAN
from support.archive.data_sets import CT_IMAGE_STORAGE
from support.archive.patients import data_set
from support.audit_schema import checked
from support.node import Node

Captured = pytest.CaptureFixture[str]
DAY = 86400.0


class Kept:
    """An archive on which no node runs.

    ========  ======  ========  ==========================
    study     date    modality  instances
    ========  ======  ========  ==========================
    1.1       2010    CT        1.1.1, 1.1.2 (series 1.1.0)
    1.2       2020    MR        1.2.1
    1.3       2020    CT        1.3.1
    ========  ======  ========  ==========================

    The first two are of the patient P1 of the hospital A, the third is of the patient P1 of the hospital B.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = FileStore(root, fsync=False)
        self.index = Index(f"sqlite:///{root / 'index.db'}", root=root)
        open_archive(self.store, self.index)
        for uid, issuer, modality, date, days in (
            ("1.1.1", "A", "CT", "20100101", 400),
            ("1.1.2", "A", "CT", "20100101", 400),
            ("1.2.1", "A", "MR", "20200101", 20),
            ("1.3.1", "B", "CT", "20200101", 10),
        ):
            ds = data_set(
                SOPClassUID=CT_IMAGE_STORAGE,
                SOPInstanceUID=uid,
                PatientID="P1",
                IssuerOfPatientID=issuer,
                StudyInstanceUID=uid[:3],
                SeriesInstanceUID=f"{uid[:3]}.0",
                StudyDate=date,
                Modality=modality,
            )
            spool = self.store.spool(
                CT_IMAGE_STORAGE, uid, EXPLICIT_VR_LITTLE_ENDIAN, "CT1", "NODE"
            )
            spool.receipt = Receipt(time.time() - days * DAY, "CT1", "NODE")
            spool.write(encode(ds, EXPLICIT_VR_LITTLE_ENDIAN))
            _, row = keep_with_row(self.store, self.index, spool, lambda: None)
            assert row is not None
            row.result(30)
            spool.close()
        self.index.close()
        self.store.close()

    def run(self, name: str, *arguments: str) -> int:
        return run([name, *arguments, "--storage", str(self.root)])

    def uids(self) -> set[str]:
        """What rows and files have."""
        with self.index:
            rows = {each.sop_instance_uid for each in self.index.paths()}
        names = {path.name for path in self.store.instances.rglob("*.dcm")}
        assert names == {self.store.path(uid).name for uid in rows}
        return rows


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "archive")


ALL = {"1.1.1", "1.1.2", "1.2.1", "1.3.1"}


@pytest.mark.parametrize("name", ["delete", "protect", "retention"])
def test_each_has_its_help_with_an_example(name: str, capsys: Captured) -> None:
    assert run([name, "--help"]) == 0
    assert f"Examples:\n    netdicom {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (("--instance", "1.1.1"), ALL - {"1.1.1"}),
        (("--series", "1.1.0"), ALL - {"1.1.1", "1.1.2"}),
        (("--study", "1.1", "--study", "1.2"), {"1.3.1"}),
        (("--patient", "P1", "--issuer", "A"), {"1.3.1"}),
        (("-k", "Modality=CT"), {"1.2.1"}),
        (("-k", "StudyDate=-20151231"), {"1.2.1", "1.3.1"}),
        (("-k", "Modality=CT", "-k", "StudyDate=20210101-", "--level", "SERIES"), ALL),
        (("-k", "IssuerOfPatientID=A", "--level", "PATIENT"), {"1.3.1"}),
        (("-k", "SOPInstanceUID=1.1.1\\1.3.1"), {"1.1.2", "1.2.1"}),
        (("--study", "1.1", "--instance", "1.1.1", "--instance", "1.3.1"), {"1.2.1"}),
    ],
)
def test_what_is_named_goes(
    kept: Kept, capsys: Captured, arguments: tuple[str, ...], left: set[str]
) -> None:
    code = kept.run("delete", *arguments, "--yes")
    assert kept.uids() == left
    assert code == (0 if left != ALL else 10)


def test_what_is_named_twice_is_there(kept: Kept, capsys: Captured) -> None:
    """An instance of a study that is named as well counts once, and nothing is missing."""
    assert kept.run("delete", "--study", "1.1", "--instance", "1.1.1", "--yes") == 0
    assert "does not have" not in capsys.readouterr().err
    assert kept.uids() == {"1.2.1", "1.3.1"}


def test_it_says_how_much_that_is(kept: Kept, capsys: Captured) -> None:
    assert kept.run("delete", "--study", "1.1", "--study", "1.9", "--yes") == 0
    out, err = capsys.readouterr()
    head, row = [line.split("\t") for line in out.splitlines()]
    assert head == ["level", "deleted", "instances", "octets"]
    assert row[:3] == ["study", "1.1", "2"]
    assert int(row[3]) > 500
    assert "the archive does not have 1.9\n2 instances (" in err
    assert err.endswith(") of 1 study and 1 patient deleted\n")


def test_the_results_are_json_lines(kept: Kept, capsys: Captured) -> None:
    arguments = ("--patient", "P1", "--issuer", "B", "--study", "1.2", "--yes", "--json")
    assert kept.run("delete", *arguments) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["level"], each["key"], each["instances"]) for each in documents] == [
        ("STUDY", "1.2", 1),
        ("PATIENT", "P1", 1),
    ]
    assert all(each["waiting"] == 0 and each["octets"] > 200 for each in documents)


def test_a_dry_run_deletes_nothing(kept: Kept, capsys: Captured) -> None:
    assert kept.run("delete", "-k", "Modality=CT", "--dry-run") == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[:3] for line in out.splitlines()[1:]] == [
        ["study", "1.1", "2"],
        ["study", "1.3", "1"],
    ]
    assert "of 2 studies and 2 patients would be deleted" in err
    assert kept.uids() == ALL


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing says what to delete"),
        (("-k", "Modality"), "no key has a value"),
        (("-k", "SliceThickness=5", "--level", "STUDY"), "the keys cannot be used"),
        (("-k", "0009,1001=X"), "the keys cannot be used"),
        (("-k", "RequestAttributesSequence.SliceThickness=5"), "the keys cannot be used"),
        (("-k", "PatientID=\\", "-k", "PatientName=*"), "no key has a value"),
        (("--patient", "P1"), "2 patients have the ID P1"),
        (("--study", "1.1"), "nobody can be asked"),
        (
            ("--patient", "P1", "--issuer", "A", "-k", "Modality=CT", "--yes"),
            "-k cannot be combined",
        ),
        (("--study", "1.1", "-k", "Modality=CT", "--dry-run"), "-k cannot be combined"),
    ],
)
def test_what_is_not_clear_is_refused(
    kept: Kept, capsys: Captured, arguments: tuple[str, ...], said: str
) -> None:
    assert kept.run("delete", *arguments) == 2
    assert said in capsys.readouterr().err
    assert kept.uids() == ALL


@pytest.mark.parametrize("answer", [True, False])
def test_on_a_terminal_it_asks(
    kept: Kept, capsys: Captured, monkeypatch: pytest.MonkeyPatch, answer: bool
) -> None:
    def confirm(text: str, **options: Any) -> None:
        assert (text, options) == ("Delete?", {"abort": True, "err": True})
        if not answer:
            raise click.Abort

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("netdicom_tx.commands.delete.click.confirm", confirm)
    assert kept.run("delete", "--study", "1.1") == (0 if answer else 130)
    assert "2 instances (" in capsys.readouterr().err
    assert kept.uids() == ({"1.2.1", "1.3.1"} if answer else ALL)


def test_nothing_to_delete_has_its_exit_code(kept: Kept, capsys: Captured) -> None:
    assert kept.run("delete", "--patient", "P9", "--yes") == 10
    said = capsys.readouterr()
    assert "the archive does not have P9" in said.err
    assert said.out == ""


def test_a_deletion_without_a_node_is_audited(kept: Kept, tmp_path: Path) -> None:
    """PS3.15 A.5.3.8; the trail and the title are those of the configuration file."""
    trail, config = tmp_path / "audit.log", tmp_path / "node.toml"
    config.write_text(
        f"[node]\naet = 'ARCHIVE'\n[storage]\ndirectory = '{kept.root}'\n[audit]\nfile = '{trail}'\n"
    )
    assert run(["delete", "--study", "1.1", "--yes", "--config", str(config)]) == 0
    (message,) = (checked(each) for each in trail.read_bytes().splitlines())
    found = message.find("EventIdentification/EventID")
    assert found is not None
    assert found.attrib["csd-code"] == "110105"
    assert kept.run("delete", "--study", "1.2", "--yes", "--audit", str(trail)) == 0
    assert len(trail.read_bytes().splitlines()) == 2
    assert kept.run("delete", "--study", "1.3", "--yes", "--audit", str(tmp_path)) == 2
    absent = str(tmp_path / "absent" / "audit.log")
    assert kept.run("delete", "--study", "1.3", "--yes", "--audit", absent) == 11
    assert kept.uids() == {"1.3.1"}


def test_a_disk_that_refuses_has_its_exit_code(
    kept: Kept, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run of a node or of the command finishes it."""

    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "discard", refuse)
        assert kept.run("delete", "--study", "1.1", "--yes") == 11
    assert "Read-only" in capsys.readouterr().err
    assert kept.run("reindex") == 0
    assert kept.uids() == {"1.2.1", "1.3.1"}


def test_keys_that_the_index_refuses_are_refused(
    kept: Kept, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise unable("a key is too long")

    monkeypatch.setattr(Search, "find_pages", refuse)
    assert kept.run("delete", "-k", "PatientID=1", "--yes") == 2
    assert "a key is too long" in capsys.readouterr().err


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Let a node answer in this way, or fail."""

    def ask(root: Path, verb: str, **arguments: Any) -> Any:
        if verb == "status":
            return {}
        if isinstance(answer, Exception):
            raise answer
        assert arguments.pop("timeout") > 60
        assert arguments.pop("user")
        assert arguments == {"level": "STUDY", "keys": ["1.1"]}
        return answer

    monkeypatch.setattr("netdicom_tx.archive.control.ask", ask)


def test_what_waits_for_retrieves_is_told(
    kept: Kept, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, [[2, 900, 2]])
    assert kept.run("delete", "--study", "1.1", "--yes") == 0
    assert "2 files of them go when the retrieves" in capsys.readouterr().err


def test_a_node_that_refuses_is_told(
    kept: Kept, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, NodeAnswerError("the index does not answer", "refused"))
    assert kept.run("delete", "--study", "1.1", "--yes") == 1
    assert "the index does not answer" in capsys.readouterr().err


def test_a_node_of_another_user_cannot_be_asked(
    kept: Kept, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("netdicom_tx.archive.control.ask", ask)
    assert kept.run("delete", "--study", "1.1", "--yes") == 78
    assert "run this as the user of the node" in capsys.readouterr().err


@pytest.fixture
def node(kept: Kept, tmp_path: Path) -> Iterator[Node]:
    running = Node(tmp_path)
    running.start()
    yield running
    running.stop()


@pytest.mark.slow
def test_a_running_node_deletes_itself(kept: Kept, node: Node, capsys: Captured) -> None:
    """It is asked by its control socket."""
    assert node.storage == kept.root
    assert kept.run("delete", "-k", "StudyInstanceUID=1.1\\1.2", "--yes") == 0
    assert [line.split("\t")[:3] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["study", "1.1", "2"],
        ["study", "1.2", "1"],
    ]
    assert kept.uids() == {"1.3.1"}
    socket = kept.root / "control.sock"
    socket.unlink()
    assert kept.run("delete", "--study", "1.3", "--yes") == 78
    assert "in use by another node" in capsys.readouterr().err
    assert kept.uids() == {"1.3.1"}


# -- protection and retention ----------------------------------------------------------------------------


def test_studies_are_protected_and_released(kept: Kept, capsys: Captured) -> None:
    assert kept.run("protect", "1.1", "1.7", "--label", "teaching") == 0
    assert capsys.readouterr().err == (
        "the archive does not have 1.7: it is protected when it comes; check its UID\n"
        "2 studies are protected\n"
    )
    assert kept.run("protect", "1.1", "--label", "research") == 0
    assert kept.run("protect", "--json") == 0
    out, _ = capsys.readouterr()
    found = {each["study_instance_uid"]: each for each in map(json.loads, out.splitlines())}
    assert {uid: (each["label"], each["instances"]) for uid, each in found.items()} == {
        "1.1": ("research", 2),
        "1.7": ("teaching", 0),
    }
    assert kept.run("protect", "1.1", "--release") == 0
    assert kept.run("protect", "1.1", "--release") == 1
    capsys.readouterr()
    assert kept.run("protect") == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[:2] for line in out.splitlines()[1:]] == [["1.7", "teaching"]]
    assert err == "1 study protected\n"
    assert kept.run("protect", "--release") == 2


def config_of(kept: Kept, text: str) -> str:
    path = kept.root.parent / "node.toml"
    path.write_text(f"[storage]\ndirectory = '{kept.root}'\n[retention]\n{text}")
    return str(path)


def test_what_would_go_is_shown_with_the_reason(kept: Kept, capsys: Captured) -> None:
    config = config_of(kept, "max_age = 365\nquota = '500 B'\n")
    assert run(["retention", "--config", config, "--dry-run"]) == 0
    out, err = capsys.readouterr()
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    assert [(row[0], row[2], row[3], row[5]) for row in rows] == [
        ("1.1", "20100101", "2", "age"),
        ("1.2", "20200101", "1", "quota"),
    ]
    assert err.endswith("would be deleted: 1 for age, 1 for quota\n")
    assert run(["retention", "--config", config, "--dry-run", "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["study_instance_uid"], each["why"]) for each in documents] == [
        ("1.1", "age"),
        ("1.2", "quota"),
    ]
    assert kept.uids() == ALL


def test_beside_a_running_node_the_rules_are_only_shown(kept: Kept, capsys: Captured) -> None:
    """The node applies them."""
    config = config_of(kept, "max_age = 365\n")
    store = FileStore(kept.root)
    store.open()
    try:
        assert run(["retention", "--config", config]) == 78
        said = capsys.readouterr().err
        assert run(["retention", "--config", config, "--dry-run"]) == 0
    finally:
        store.close()
    assert "is in use by another node, or by another command" in said
    assert "add --dry-run" in said
    assert kept.uids() == ALL


def test_the_rules_are_applied_to_an_archive_without_a_node(kept: Kept, capsys: Captured) -> None:
    config = config_of(kept, "max_age = 365\n")
    assert run(["retention", "--config", config]) == 0
    assert "1 study with 2 instances" in capsys.readouterr().err
    assert kept.uids() == {"1.2.1", "1.3.1"}
    assert run(["retention", "--config", config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"studies": {}, "instances": 0, "octets": 0}


def test_without_rules_there_is_nothing_to_do(kept: Kept, capsys: Captured) -> None:
    assert run(["retention", "--config", config_of(kept, "protect_calling = ['X']\n")]) == 10
    assert "no rule deletes anything" in capsys.readouterr().err


def test_rules_that_the_disk_refuses_have_their_exit_code(
    kept: Kept, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Store, "discard", refuse)
    assert run(["retention", "--config", config_of(kept, "max_age = 365\n")]) == 11
    assert "Read-only" in capsys.readouterr().err
