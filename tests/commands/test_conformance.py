"""``netdicom conformance``: the statement of a configured node."""

import json
import re
from pathlib import Path

import pytest

from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import ExitCode

Captured = pytest.CaptureFixture[str]

#: The sections of PS3.2 Annex N, without those of the application entity and the operations.
SECTIONS = [
    *("1", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7"),
    *("2",),
    *("3", "3.1", "3.2", "3.3", "3.4", "3.5", "3.6"),
    *("4", "4.1", "4.1.1"),
    *("5", "5.1", "5.2", "5.3", "5.4", "5.5", "5.6", "5.7"),
    *("6", "6.1", "6.2", "6.3", "6.4", "6.5", "6.6"),
    *(
        "7",
        "7.1",
        "7.1.1",
        "7.2",
        "7.2.1",
        "7.2.1.1",
        "7.2.1.2",
        "7.2.1.3",
        "7.2.1.4",
        "7.3",
        "7.3.1",
        "7.3.2",
    ),
    *("8", "8.1", "8.2", "8.3", "8.4", "8.5", "8.6", "8.7"),
    *("A", "A.A", "A.B", "A.C", "A.D", "A.E"),
]


def printed(capsys: Captured, *options: str) -> str:
    assert run(["conformance", *options]) == ExitCode.OK
    return capsys.readouterr().out


def configured(capsys: Captured, text: str, *options: str) -> str:
    Path("node.toml").write_text(text)
    return printed(capsys, "--config", "node.toml", *options)


@pytest.fixture(autouse=True)
def in_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_statement_has_the_sections_of_the_standard(capsys: Captured) -> None:
    """PS3.2 Annex N; none of them is empty."""
    text = printed(capsys)
    numbers = re.findall(r"^#{2,} ([\dA-E.]+) ", text, re.MULTILINE)
    assert [each for each in numbers if not each.startswith("7.3.2.")] == SECTIONS
    for number, depth in ((each, each.count(".") + 2) for each in SECTIONS):
        assert f"\n{'#' * depth} {number} " in text
    assert "CT Image Storage | `1.2.840.10008.5.1.4.1.1.2` | yes | yes |" in text
    assert "| Verification SOP Class | `1.2.840.10008.1.1` | no | yes |" in text
    assert list(Path().iterdir()) == []  # nothing of a node is made


def test_no_table_is_broken(capsys: Captured) -> None:
    """Every row of a table has as many cells as its head, also with a bar in a name."""
    text = configured(capsys, '[node]\naet = "A|B"\n')
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", row)[1:-1] for row in table.splitlines()]
        assert {len(row) for row in rows} == {len(rows[0])}
        assert all(cell.strip() for row in rows for cell in row), table


def test_the_same_as_json(capsys: Captured) -> None:
    document = json.loads(printed(capsys, "--format", "json"))
    assert document["ae_title"] == "NETDICOM"
    assert {each["name"] for each in document["services"]} >= {"Verification", "Storage"}
    used = {uid for each in document["services"] for uid in each["sop_classes"]}
    assert document["names"].keys() >= used
    assert document["names"]["1.2.840.10008.1.1"] == "Verification SOP Class"


def test_peers_and_what_they_may_do(capsys: Captured) -> None:
    text = configured(
        capsys,
        '[node]\naet = "PACS"\nlisten = ["tcp:104"]\nmax_associations_per_title = 2\n'
        '[storage]\nduplicates = "replace"\nunknown_sop_classes = true\n'
        "[database]\nmatch_unknown = true\n"
        '[access]\ndefault = "none"\nstrict_peers = true\nusers = ["alice"]\nrequire_identity = true\n'
        '[worklist]\nforward_mpps = ["RIS"]\nnotify_mpps = ["RIS"]\nnotify_availability = ["RIS"]\n'
        '[audit]\nfile = "audit.xml"\n'
        '[[peer]]\ntitle = "RIS"\nhost = "ris.example"\nport = 104\nallow = []\n'
        '[[peer]]\ntitle = "*"\nnetworks = ["192.0.2.0/24"]\nallow = ["echo", "store"]\n',
    )
    assert "| `RIS` | ris.example:104 | no | every address | nothing | required | nothing |" in text
    assert (
        "| every title from these networks | it is not called | no | 192.0.2.0/24 | echo, store | required | nothing |"
        in text
    )
    assert (
        "every other peer | it is not called | no | every address | nothing: its associations"
        in text
    )
    assert "| called AE title | `PACS` |" in text
    assert "| the same for one calling AE title | 2 |" in text
    assert "replaces the first one" in text
    assert "matches every key, except unique keys" in text
    assert "that PS3.6 does not register are accepted" in text
    assert "The audit messages of PS3.15 A.5 are written" in text
    assert "types 1, 2 and 5" in text
    for activity in (
        "Forward performed procedure steps",
        "Report events of performed procedure steps",
        "Announce that instances are available",
    ):
        assert f"**{activity}.**" in text
    assert re.search(r"Instance Availability Notification SOP Class .* \| yes \| no \|", text)


def test_what_is_agreed_on_with_one_peer_alone(capsys: Captured) -> None:
    text = configured(
        capsys,
        '[[peer]]\ntitle = "OLDWS"\nwindow = 1\nmax_pdu = 16384\ntransfer_syntaxes = ["ImplicitVRLittleEndian"]\n',
    )
    (row,) = (line for line in text.splitlines() if line.startswith("| `OLDWS` |"))
    assert row.endswith(
        "| outstanding requests: 1; longest P-DATA-TF: 16384 octets; "
        "transfer syntaxes: Implicit VR Little Endian |"
    )


def test_a_wrong_configuration(capsys: Captured) -> None:
    Path("node.toml").write_text("[nod]\n")
    assert run(["conformance", "--config", "node.toml"]) == ExitCode.CONFIGURATION
    assert "did you mean node?" in capsys.readouterr().err
