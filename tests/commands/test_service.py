"""``netdicom service``: the systemd units of a node."""

import json
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from netdicom_tx.commands import run
from netdicom_tx.commands.common.failures import ExitCode

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A directory of the test's, with a configuration file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    # The tests may run without an installed package; then there is no command beside the interpreter.
    program = tmp_path / "python" / "netdicom"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    (tmp_path / "node.toml").write_text('[node]\naet = "PACS"\n')
    return tmp_path


def installed(*options: str) -> int:
    return run(["service", "install", "--config", "node.toml", "--to", "units", *options])


def read(path: Path | str) -> ConfigParser:
    """A unit; of a key that comes twice, the last one."""
    unit = ConfigParser(strict=False, interpolation=None, delimiters="=")
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys of units have capitals
    unit.read(path)
    return unit


def analyzed(path: Path) -> str:
    """What systemd-analyze says against a unit."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        [program, "verify", "--man=no", path], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_the_unit_runs_the_node_with_its_configuration(home: Path, capsys: Captured) -> None:
    assert installed() == ExitCode.OK
    unit = read("units/netdicom.service")
    program, *words = unit["Service"]["ExecStart"].split()
    assert Path(program).name == "netdicom"
    assert words == ["serve", "--config", str(home / "node.toml")]
    assert unit["Service"]["User"] == "netdicom"
    assert (unit["Service"]["Type"], unit["Service"]["WatchdogSec"]) == ("notify", "60")
    assert "AF_UNIX" in unit["Service"]["RestrictAddressFamilies"].split()
    assert unit["Service"]["NoNewPrivileges"] == "yes"
    assert unit["Service"]["RestartPreventExitStatus"] == "78"
    assert unit["Service"]["CapabilityBoundingSet"] == ""
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert not Path("units/netdicom.socket").exists()
    said = capsys.readouterr().err
    assert "systemctl daemon-reload && systemctl enable --now netdicom.service" in said


@pytest.mark.parametrize(
    "options", [[], ["--socket", "104"], ["--user"], ["--user", "--socket", "11112"]], ids=" ".join
)
def test_systemd_finds_nothing_wrong(home: Path, options: list[str]) -> None:
    (home / "my 100% images").mkdir()
    (home / "node.toml").write_text(
        f"[storage]\ndirectory = '{home / 'my 100% images'}'\n[audit]\nfile = '{home / 'audit.xml'}'\n"
    )
    assert installed(*options) == ExitCode.OK
    assert analyzed(home / "units/netdicom.service") == ""


def test_systemd_opens_the_port(home: Path, capsys: Captured) -> None:
    """So the node needs no capability for port 104, and no listen of the file is used."""
    (home / "node.toml").write_text('[node]\nlisten = ["tcp:104"]\n')
    assert installed("--socket", "104") == ExitCode.OK
    unit = read("units/netdicom.service")
    assert unit["Service"]["ExecStart"].endswith(" --listen systemd:domain=INET:name=dicom")
    assert unit["Service"]["CapabilityBoundingSet"] == ""
    socket = read("units/netdicom.socket")
    assert socket["Socket"]["ListenStream"] == "0.0.0.0:104"
    assert socket["Socket"]["FileDescriptorName"] == "dicom"
    assert "enable --now netdicom.socket netdicom.service" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["tcp:104", "tcp:port=104:interface=0.0.0.0", "tcp6:104"])
def test_a_node_that_opens_a_low_port_itself_may_do_that(home: Path, port: str) -> None:
    (home / "node.toml").write_text(f'[node]\nlisten = ["{port}"]\n')
    assert installed() == ExitCode.OK
    unit = read("units/netdicom.service")
    assert unit["Service"]["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"
    assert unit["Service"]["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"


def test_the_node_may_write_where_the_file_says(home: Path, capsys: Captured) -> None:
    """With spaces and the specifiers of systemd in it; a relative path is below the state directory."""
    (home / "node.toml").write_text(
        "[storage]\ndirectory = '/data/my 100% $HOME'\n[audit]\nfile = '/var/lib/netdicom/audit.xml'\n"
    )
    assert installed() == ExitCode.OK
    unit = read("units/netdicom.service")
    assert unit["Service"]["ReadWritePaths"] == '"/data/my 100%% $$HOME"'
    assert unit["Unit"]["RequiresMountsFor"] == '"/data/my 100%% $$HOME"'
    assert "install -d -o netdicom -m 700 '/data/my 100% $HOME'" in capsys.readouterr().err
    (home / "node.toml").write_text("[storage]\ndirectory = 'images'\n")
    assert installed("--force") == ExitCode.OK
    unit = read("units/netdicom.service")
    assert "ReadWritePaths" not in unit["Service"]
    assert unit["Service"]["WorkingDirectory"] == "%S/netdicom"
    assert unit["Service"]["StateDirectory"] == "netdicom"


def test_a_home_directory_that_is_used_is_not_hidden(home: Path) -> None:
    (home / "node.toml").write_text("[storage]\ndirectory = '/home/pacs/images'\n")
    assert installed() == ExitCode.OK
    assert read("units/netdicom.service")["Service"]["ProtectHome"] == "read-only"


def test_a_user_needs_neither_root_nor_an_account(home: Path, capsys: Captured) -> None:
    assert run(["service", "install", "--user", "--config", "node.toml"]) == ExitCode.OK
    unit = read(home / "config/systemd/user/netdicom.service")
    assert "User" not in unit["Service"]
    assert "ProtectSystem" not in unit["Service"]
    assert unit["Install"]["WantedBy"] == "default.target"
    assert "systemctl --user daemon-reload" in capsys.readouterr().err
    assert run(["service", "remove", "--user"]) == ExitCode.OK
    assert not (home / "config/systemd/user/netdicom.service").exists()


def test_nothing_is_overwritten_without_force(capsys: Captured) -> None:
    assert installed("--name", "second") == ExitCode.OK
    Path("units/second.service").write_text("mine\n")
    assert installed("--name", "second") == ExitCode.USAGE
    assert "second.service is there already" in capsys.readouterr().err
    assert Path("units/second.service").read_text() == "mine\n"
    assert run(["service", "remove", "--name", "second", "--to", "units"]) == ExitCode.USAGE
    assert "was not written by netdicom service install" in capsys.readouterr().err
    assert installed("--name", "second", "--force") == ExitCode.OK
    assert "StateDirectory=second" in Path("units/second.service").read_text()


def test_show_and_a_dry_run_write_nothing(capsys: Captured) -> None:
    assert run(["service", "show", "--config", "node.toml", "--socket", "104"]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert installed("--socket", "104", "--dry-run") == ExitCode.OK
    said = capsys.readouterr()
    assert said.out == shown
    assert "would write 2 files: units/netdicom.service and units/netdicom.socket" in said.err
    assert not Path("units").exists()
    assert installed("--socket", "104") == ExitCode.OK
    texts = [Path("units", each).read_text() for each in ("netdicom.service", "netdicom.socket")]
    assert "\n".join(texts) == shown


def test_the_units_as_json(capsys: Captured) -> None:
    assert run(["service", "show", "--config", "node.toml", "--json"]) == ExitCode.OK
    assert list(json.loads(capsys.readouterr().out)) == ["netdicom.service"]
    assert installed("--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"written": ["units/netdicom.service"]}
    remove = ["service", "remove", "--to", "units", "--json"]
    assert run([*remove, "--dry-run"]) == ExitCode.OK
    assert Path("units/netdicom.service").exists()
    capsys.readouterr()
    assert run(remove) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {
        "removed": ["units/netdicom.service"],
        "dry_run": False,
    }


def test_removing_what_is_not_there(capsys: Captured) -> None:
    assert run(["service", "remove", "--to", "units"]) == ExitCode.NOTHING
    assert "there is no netdicom.service in units" in capsys.readouterr().err


def test_a_wrong_configuration_is_not_installed(home: Path, capsys: Captured) -> None:
    (home / "node.toml").write_text('[node]\naett = "PACS"\n')
    assert installed() == ExitCode.CONFIGURATION
    said = capsys.readouterr().err
    assert "line 2" in said
    assert "did you mean aet?" in said
    assert run(["service", "show", "--config", "none.toml"]) == ExitCode.CONFIGURATION
    assert "netdicom config init" in capsys.readouterr().err


def test_a_name_that_is_not_one_of_a_unit(capsys: Captured) -> None:
    assert installed("--name", "../etc") == ExitCode.USAGE
    assert "cannot be the name of a unit" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written(capsys: Captured) -> None:
    below_a_file = ["--to", "node.toml/units"]
    assert (
        run(["service", "install", "--config", "node.toml", *below_a_file]) == ExitCode.LOCAL_DISK
    )
    assert (
        "run this as root, or install for your own account with --user" in capsys.readouterr().err
    )


def test_an_interpreter_without_the_command(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sys, "executable", str(home / "elsewhere" / "python"))
    assert installed() == ExitCode.USAGE
    assert "netdicom is missing" in capsys.readouterr().err
