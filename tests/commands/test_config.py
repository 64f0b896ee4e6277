"""``netdicom config``: the configuration file of a node."""

import json
import tomllib
from pathlib import Path

import pytest

from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import ExitCode
from netdicom_tx.config import Config, read

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration but the test's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_right_file(capsys: Captured) -> None:
    Path("node.toml").write_text(
        '[node]\naet = "PACS"\nlisten = ["tcp:104"]\n[[peer]]\ntitle = "CT1"\nhost = "ct1"\nport = 104\n'
    )
    assert run(["config", "check", "node.toml"]) == ExitCode.OK
    assert (
        "node.toml is right: PACS at tcp:104, 1 peer that the node can call"
        in capsys.readouterr().err
    )
    assert run(["config", "check", "node.toml", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {
        "aet": "PACS",
        "listen": ["tcp:104"],
        "peers": ["CT1"],
    }


def test_five_mistakes_are_shown_with_lines_and_hints(capsys: Captured) -> None:
    """At once, and the exit code is 78 (EX_CONFIG)."""
    Path("node.toml").write_text(
        '[node]\naett = "PACS"\nmax_associations = 0\n[storage]\nduplicates = "merge"\nscrub = "fast"\n'
        '[[peer]]\ntitle = "CT1"\nport = 70000\n'
    )
    assert run(["config", "check", "node.toml"]) == ExitCode.CONFIGURATION == 78
    said = capsys.readouterr().err
    assert "5 mistakes" in said
    for line in (2, 3, 5, 6, 9):
        assert f"line {line}:" in said
    assert "did you mean aet?" in said
    assert run(["config", "check", "node.toml", "--json"]) == ExitCode.CONFIGURATION
    found = [json.loads(each) for each in capsys.readouterr().out.splitlines()]
    assert [each["line"] for each in found] == [2, 3, 5, 6, 9]


def test_what_only_the_node_checks_is_checked_too(capsys: Captured) -> None:
    """A certificate that is not there, for example."""
    Path("node.toml").write_text(
        '[node]\ntls_listen = ["tcp:2762"]\n[tls]\ncertificate = "no.pem"\n'
    )
    assert run(["config", "check", "node.toml"]) == ExitCode.CONFIGURATION
    assert "no.pem" in capsys.readouterr().err


def test_a_file_that_is_not_there(capsys: Captured) -> None:
    assert run(["config", "check", "node.toml"]) == ExitCode.CONFIGURATION
    assert "No such file" in capsys.readouterr().err


def test_a_begun_file_changes_nothing(capsys: Captured) -> None:
    """Every key is in it, as a comment; with its mark taken away, each default is read again."""
    assert run(["config", "init", "node.toml"]) == ExitCode.OK
    assert "netdicom serve --config node.toml" in capsys.readouterr().err
    text = Path("node.toml").read_text("utf-8")
    assert read("node.toml").config == Config()
    for to_the_terminal in ([], ["-"]):
        assert run(["config", "init", *to_the_terminal]) == ExitCode.OK
        assert capsys.readouterr().out == text
    assert not Path("-").exists()
    keys = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if line.startswith("[") or (" = " in line and "<…>" not in line)
    ]
    taken = tomllib.loads("\n".join(keys[: keys.index("[access]")]))
    assert taken["node"]["aet"] == "NETDICOM"
    assert len(taken) > 5
    Path("taken.toml").write_text("\n".join(keys[: keys.index("[access]")]))
    assert read("taken.toml").config == Config()


def test_a_file_that_exists_is_not_changed(capsys: Captured) -> None:
    Path("node.toml").write_text("# mine\n")
    assert run(["config", "init", "node.toml"]) == ExitCode.LOCAL_DISK
    assert Path("node.toml").read_text() == "# mine\n"
    assert "File exists" in capsys.readouterr().err


SHOWN = """
[node]
aet = "ARCHIVE"
[database]
url_file = "url"
[access]
default = ["echo"]
[[peer]]
title = "CT1"
networks = ["192.0.2.0/24"]
allow = ["store"]
"""


def test_each_value_is_shown_with_its_origin(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An option, a variable, a line of the file, or the default."""
    Path("node.toml").write_text(SHOWN)
    Path("url").write_text("postgresql://dicom:geheim@db/dicom")
    monkeypatch.setenv("NETDICOM_STORAGE_FSYNC", "false")
    arguments = ["config", "show", "node.toml", "--move-associations", "3"]
    assert run(arguments) == ExitCode.OK
    said = capsys.readouterr().out
    assert "geheim" not in said
    read_again = tomllib.loads(said)
    assert read_again["storage"]["fsync"] is False
    assert read_again["peer"] == [
        {"title": "CT1", "networks": ["192.0.2.0/24"], "allow": ["store"]}
    ]
    lines = {line.partition(" = ")[0]: " ".join(line.split()) for line in said.splitlines()}
    assert lines["aet"] == 'aet = "ARCHIVE" # node.toml:3'
    assert lines["fsync"] == "fsync = false # NETDICOM_STORAGE_FSYNC"
    assert lines["move_associations"] == "move_associations = 3 # --move-associations"
    assert lines["max_associations"] == "max_associations = 100 # default"
    assert lines["url"] == 'url = "postgresql://dicom:***@db/dicom" # node.toml:5'
    assert lines["default"] == 'default = ["echo"] # node.toml:7'
    assert "# url_file = " not in said
    assert "[[peer]] # node.toml:8" in said
    assert run([*arguments, "--json"]) == ExitCode.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["node"]["aet"] == {"value": "ARCHIVE", "from": "node.toml:3"}
    assert shown["peer"][0]["from"] == "node.toml:8"


def test_a_url_that_cannot_be_read_is_not_shown(capsys: Captured) -> None:
    assert run(["config", "show", "--database", "geheim"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "geheim" not in said
    assert '"all"' in said
    assert run(["config", "show", "--peer", "CT1@ct1:104"]) == ExitCode.OK
    assert tomllib.loads(capsys.readouterr().out)["peer"] == ["CT1@ct1:104"]


def test_a_wrong_configuration_is_not_shown(capsys: Captured) -> None:
    assert run(["config", "show", "none.toml"]) == ExitCode.CONFIGURATION
    assert run(["config", "show", "--max-associations", "many"]) == ExitCode.USAGE
    assert "expected a whole number" in capsys.readouterr().err


def test_secrets_are_not_shown(capsys: Captured) -> None:
    """Neither those of the file nor those that it names."""
    Path("key").write_text("hush-hush\n")
    Path("node.toml").write_text(
        '[s3]\naccess_key = "known"\nsecret_key_file = "key"\n[tls]\nkey_password = "hush-hush"\n'
        '[database]\nurl = "postgresql://node:hush-hush@host/index"\n'
    )
    for form in ([], ["--json"]):
        assert run(["config", "show", "node.toml", *form]) == ExitCode.OK
        shown = capsys.readouterr().out
        assert "known" in shown
        assert "hush" not in shown


def test_a_directory_is_not_a_configuration(capsys: Captured) -> None:
    Path("node.toml").mkdir()
    assert run(["config", "check", "node.toml"]) == ExitCode.CONFIGURATION
    assert "Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["conformance"],
        ["export", "--all", "-o", "out"],
        ["status"],
        ["retention"],
        ["queue", "list"],
    ],
    ids=lambda each: each[0],
)
def test_every_command_says_so(arguments: list[str], capsys: Captured) -> None:
    """That a directory is not a configuration: exit code 78, as for every other mistake."""
    Path("node.toml").mkdir()
    assert run([*arguments, "--config", "node.toml"]) == ExitCode.CONFIGURATION
    assert "node.toml: Is a directory" in capsys.readouterr().err
