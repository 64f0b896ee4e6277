"""Arguments: what is said about them before anybody is called."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from pydicom.data import get_testdata_file

from netdicom_tx.commands import COMMANDS, cli, main, run
from netdicom_tx.commands.common.failures import ExitCode
from support.commands.running import ROOT, Netdicom, Peer, environment
from support.measuring import variables

CT = str(get_testdata_file("CT_small.dcm"))
# The commands that call, or are called.
NETWORK = ("echo", "store", "commit", "find", "get", "move", "receive", "worklist")
# Nobody is called in these tests: port 1 would refuse.
NOBODY = "NOBODY@127.0.0.1:1"

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No configuration but the test's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", [[], *([each] for each in COMMANDS)])
def test_help_has_an_example(command: list[str], capsys: Captured) -> None:
    assert run([*command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Examples:\n    netdicom {' '.join(command)}" in text.replace(
        "\n  netdicom", "\n    netdicom"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_list_can_be_called(command: str, capsys: Captured) -> None:
    """The list is made without loading them."""
    assert run([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: netdicom {command} ")


@pytest.mark.parametrize("option", ["-aet", "-aec", "-to", "-ta", "-td", "-pdu", "--json", "-v"])
@pytest.mark.parametrize("command", NETWORK)
def test_every_command_knows_the_common_options(
    command: str, option: str, capsys: Captured
) -> None:
    """DCMTK's spellings."""
    run([command, "--help"])
    assert f"{option}," in capsys.readouterr().out.replace("--json ", "--json,")


@pytest.mark.parametrize("command", NETWORK)
def test_every_option_is_in_the_reference(command: str, capsys: Captured) -> None:
    run([command, "--help"])
    said = re.findall(r"^  (-\S.*?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    options = {word.rstrip(",") for line in said for word in line.split() if word[0] == "-"}
    assert len(options) > 15
    page = (ROOT / "docs/reference/netdicom.md").read_text()
    assert {option for option in options - {"-h", "--help"} if option not in page} == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_reference(command: str) -> None:
    """Which is also the man page."""
    page = (ROOT / "docs/reference/netdicom.md").read_text()
    assert re.search(rf"`(netdicom )?{command}[ `]", page)


def test_the_exit_codes_are_in_the_reference() -> None:
    page = (ROOT / "docs/reference/netdicom.md").read_text()
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)] == list(ExitCode)


@pytest.mark.parametrize("arguments", [[], ["find"], ["store"]])
def test_without_arguments_the_help_is_said(arguments: list[str], capsys: Captured) -> None:
    assert run(arguments) == 2
    assert "Examples:" in capsys.readouterr().err


def test_the_version_is_said(capsys: Captured) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("netdicom 0.")


def test_the_command_exits_with_the_code() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["echo", "nobody"])
    assert caught.value.code == 2


BAD = {
    "no such command": ["ecko"],
    "no number of jobs": ["store", NOBODY, CT, "--jobs", "many"],
    "too many jobs": ["store", NOBODY, CT, "--jobs", "65"],
    "no count": ["echo", NOBODY, "-n", "0"],
    "no limit": ["find", NOBODY, "--limit", "1.5"],
    "no interval": ["echo", NOBODY, "--interval", "-1"],
    "a date of another form": ["find", NOBODY, "-k", "StudyDate=2026-11-01"],
    "a reversed range": ["worklist", NOBODY, "--date", "20261130-20261101"],
    "no such option": ["echo", NOBODY, "--frobnicate"],
    "no path": ["store", NOBODY],
    "an unknown peer": ["echo", "archive"],
    "a bad address": ["find", "ARCHIVE@host"],
    "a bad calling title": ["echo", NOBODY, "-aet", "x" * 17],
    "a bad called title": ["echo", NOBODY, "-aec", "a\\b"],
    "no number of seconds": ["echo", NOBODY, "-to", "soon"],
    "no seconds": ["echo", NOBODY, "-td", "0"],
    "a tiny PDU": ["echo", NOBODY, "-pdu", "16"],
    "no keyword": ["find", NOBODY, "-k", "PatientNme=X"],
    "no keyword for get": ["get", NOBODY, "-k", "Foo=1"],
    "no level": ["find", NOBODY, "--level", "FRAME"],
    "no root": ["find", NOBODY, "--root", "X"],
    "nothing to get": ["get", NOBODY],
    "nothing to move": ["move", NOBODY, "--to", "X", "-k", "PatientID"],
    "a bad date to get": ["get", NOBODY, "-k", "StudyDate=2025*"],
    "no destination": ["move", NOBODY, "-k", "StudyInstanceUID=1"],
    "a bad destination": ["move", NOBODY, "-k", "StudyInstanceUID=1", "--to", "x" * 17],
    "a bad endpoint": ["move", NOBODY, "-k", "StudyInstanceUID=1", "--receive=x:y"],
    "no transfer syntax": ["get", NOBODY, "-k", "StudyInstanceUID=1", "-x", "JPEG3000"],
    "no SOP class": ["get", NOBODY, "-k", "StudyInstanceUID=1", "--sop-class", "CTImage"],
    "a bad place to listen": ["receive", "--listen", "here"],
    "a file that is not there": ["store", NOBODY, "absent.dcm"],
    "a file that is not DICOM": ["store", NOBODY, CT, __file__],
    "a journal that cannot be": ["store", NOBODY, CT, "--resume", "absent/journal"],
    "no path to commit": ["commit", NOBODY],
    "a file that cannot be committed": ["commit", NOBODY, CT, __file__],
    "no place for a report": ["commit", NOBODY, CT, "--listen", "here"],
    "no time for a report": ["commit", NOBODY, CT, "--timeout", "0"],
    "a worklist key": ["worklist", NOBODY, "-k", "Modalty=CT"],
    "no fingerprint": ["echo", NOBODY, "--tls-fingerprint", "abc"],
    "no certificate": ["echo", NOBODY, "--tls-ca", "absent.pem"],
}
# These are seen when the reactor runs, which it does once in a process.
_LATE = {"no fingerprint", "no certificate"}


@pytest.mark.parametrize("name", [each for each in BAD if each not in _LATE])
def test_bad_input_is_told_in_three_lines(name: str, capsys: Captured, tmp_path: Path) -> None:
    """Exit code 2, what to do, and nothing is left behind."""
    assert run(BAD[name]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert [line[:7] for line in lines] == ["error: ", "       ", "hint:  "], err
    assert all(line[7:].strip() for line in lines)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["store", "commit"])
def test_nothing_to_send_has_its_own_code(command: str, capsys: Captured) -> None:
    """Exit code 10, before anybody is called."""
    arguments = [command, NOBODY, ".", *(["--dry-run"] if command == "store" else [])]
    assert run(arguments) == 10
    heads = [line[:7] for line in capsys.readouterr().err.splitlines()[-3:]]
    assert heads == ["error: ", "       ", "hint:  "]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(_LATE))
def test_bad_input_that_is_seen_late_is_told_as_well(name: str, netdicom: Netdicom) -> None:
    done = netdicom(*BAD[name])
    assert (done.returncode, done.stdout) == (2, "")
    assert [line[:7] for line in done.stderr.splitlines()] == ["error: ", "       ", "hint:  "]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["stoer"], "hint:  did you mean store?"),
        (["ehco", NOBODY], "did you mean echo?"),
        (["store", NOBODY, CT, "--josb", "2"], "did you mean --jobs?"),
        (["find", NOBODY, "--pateint", "DOE"], "hint:  netdicom find --help shows an example"),
        (["work-list"], "did you mean worklist?"),
        (["queue", "lst"], "did you mean list?"),
        (["find", NOBODY, "--jsn"], "did you mean --json?"),
        (["find", NOBODY, "--xyzzy"], "netdicom find --help shows an example"),
        (["serve", "--strict-pers"], "did you mean --strict-peers?"),
        (["schedule", "ad"], "did you mean add?"),
        (["xyzzy"], "netdicom --help shows the commands"),
        (["store", NOBODY, CT, "--jobs", "many"], "'many' is not a whole number of 1 to 64"),
        (["echo", NOBODY, "-n", "0"], "'0' is not a whole number of 1 or more"),
        (["find", "archive"], "no peer is called 'archive'"),
        (["find", "192.0.2.1"], "hint:  a host needs its port: 192.0.2.1:104 or"),
        (["receive", "11112"], "--listen 11112"),
    ],
)
def test_a_mistake_is_told_with_what_was_meant(
    arguments: list[str], says: str, capsys: Captured
) -> None:
    assert run(arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no such option", "an unknown peer", "no keyword"])
def test_bad_input_is_told_in_json_too(name: str, capsys: Captured) -> None:
    assert run([*BAD[name], "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == 2


def test_a_bad_configuration_has_its_own_code(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "netdicom.toml").write_text("[peers]\na = 1\nb = 2\n")
    assert run(["echo", "a"]) == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[1].strip().startswith("peers.a:")
    assert lines[2].strip().startswith("peers.b:")


def test_interrupted_before_anything_runs_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("netdicom_tx.commands.cli.main", pressed)
    assert run(["echo", NOBODY]) == 130


@pytest.mark.parametrize(("is_ignored", "code"), [(False, -signal.SIGINT), (True, 5)])
def test_ctrl_c_while_modules_are_imported_shows_no_traceback(
    tmp_path: Path, is_ignored: bool, code: int
) -> None:
    """It ends the process, unless the signal is ignored, as for a job in the background of a script."""
    (tmp_path / "click.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nraise SystemExit(5)\n"
    )
    surroundings = environment(tmp_path)
    surroundings["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{surroundings['PYTHONPATH']}"
    trap = 'trap "" INT; ' if is_ignored else ""
    done = subprocess.run(
        ["sh", "-c", f'{trap}exec "$0" -m netdicom_tx --help', sys.executable],
        env=surroundings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_commands_are_completed_in_the_order_of_the_list() -> None:
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)


def test_a_host_and_a_port_in_two_words_are_put_right(capsys: Captured) -> None:
    """As DCMTK has them."""
    assert run(["find", "127.0.0.1", "104"]) == 2
    assert "a peer is one word: AET@host:port" in capsys.readouterr().err


def test_peers_are_completed_in_the_shell(tmp_path: Path) -> None:
    """click's completion, with the names of the configuration file."""
    (tmp_path / "netdicom.toml").write_text('[peers]\narchive = "A@h:1"\nother = "B@h:1"\n')
    done = subprocess.run(
        [sys.executable, "-c", "from netdicom_tx.commands import main; main()"],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(ROOT),
            "HOME": str(tmp_path),
            "_NETDICOM_COMPLETE": "bash_complete",
            "COMP_WORDS": "netdicom echo ar",
            "COMP_CWORD": "2",
            **variables(),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["plain,archive"], done.stderr


#: What takes longer to load than a person waits for a help text.
HEAVY = {"OpenSSL", "alembic", "cryptography", "pydicom", "rich", "sqlalchemy", "twisted", "zope"}


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a run of ``netdicom`` in a process of its own has loaded at its end."""
    program = (
        "import sys\n"
        "from netdicom_tx.commands import run\n"
        "run(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--help",),
        ("--version",),
        *((name, "--help") for name in COMMANDS),
        ("queue", "list", "--help"),
        ("schedule", "add", "--help"),
        ("echo",),
        ("stoer",),
        ("find", "nowhere"),
        ("store", NOBODY, "--jobs", "many"),
    ],
    ids=" ".join,
)
def test_a_help_text_or_a_usage_error_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    """It is shown at once: the library is loaded when a command begins its work."""
    assert HEAVY.intersection(loaded_by(*arguments)) == set()


#: What a command does not load when it looks into no data set: pydicom, numpy, a database, a console.
NOT_FOR_OCTETS = {"PIL", "alembic", "numpy", "pydicom", "requests", "rich", "sqlalchemy"}


@pytest.mark.slow
def test_an_echo_loads_no_library_for_data_sets(peer: Peer) -> None:
    """The library loads pydicom when the first data set is encoded or decoded; half of the start would be its own."""
    loaded = loaded_by("echo", peer.address())
    assert "netdicom_tx.sopclass.verification" in loaded
    assert NOT_FOR_OCTETS.intersection(loaded) == set()
    services = {each for each in loaded if each.startswith("netdicom_tx.sopclass.")}
    assert services == {"netdicom_tx.sopclass.base", "netdicom_tx.sopclass.verification"}


@pytest.mark.slow
def test_a_store_loads_no_library_for_data_sets(peer: Peer) -> None:
    """A file goes out as it is, when the peer accepts its transfer syntax."""
    loaded = loaded_by("store", peer.address(), CT)
    assert "netdicom_tx.sopclass.sending" in loaded
    assert NOT_FOR_OCTETS.intersection(loaded) == set()


def test_the_list_of_commands_loads_no_command() -> None:
    loaded = loaded_by("--help")
    assert "netdicom_tx.commands.common.options" in loaded
    assert "netdicom_tx.commands.find" not in loaded
