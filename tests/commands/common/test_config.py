"""The configuration file."""

from pathlib import Path

import pytest

from netdicom_tx.commands.common.addresses import Address, TLSFiles
from netdicom_tx.commands.common.config import load_config
from netdicom_tx.commands.common.failures import CommandError, ExitCode


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's configuration but the test's."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home" / "netdicom" / "config.toml"


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return str(path)


def test_without_a_file_there_is_nothing() -> None:
    config = load_config()
    assert (config.ae_title, config.peers, config.sources) == (None, {}, [])


def test_a_file_names_us_and_the_peers(tmp_path: Path) -> None:
    path = write(
        tmp_path / "conf" / "x.toml",
        """
        ae_title = "WORKSTATION1"
        [peers]
        archive = "ARCHIVE@10.0.0.5:104"
        v6 = "[::1]:104"
        [peers.cloud]
        address = "CLOUD@pacs.example:2762"
        ae_title = "GATEWAY"
        tls = { trust = "ca.pem", certificate = "/etc/our.pem" }
        [peers.secret]
        address = "dicoms://SECRET@host"
        [peers.also]
        address = "ALSO@host:2762"
        tls = true
        """,
    )
    config = load_config(path)
    assert config.ae_title == "WORKSTATION1"
    assert config.peers == {
        "archive": Address("ARCHIVE", "10.0.0.5", 104),
        "v6": Address("ANY-SCP", "::1", 104),
        "cloud": Address(
            "CLOUD",
            "pacs.example",
            2762,
            calling="GATEWAY",
            # Relative to the file that names it.
            tls=TLSFiles(trust=str(tmp_path / "conf" / "ca.pem"), certificate="/etc/our.pem"),
        ),
        "secret": Address("SECRET", "host", 2762, tls=TLSFiles()),
        "also": Address("ALSO", "host", 2762, tls=TLSFiles()),
    }


def test_the_file_of_this_directory_wins(home: Path) -> None:
    write(home, 'ae_title = "HOME"\n[peers]\na = "A@home:1"\nb = "B@home:1"\n')
    write(Path("netdicom.toml"), '[peers]\nb = "B@here:2"\n')
    config = load_config()
    assert config.ae_title == "HOME"
    assert {name: str(peer) for name, peer in config.peers.items()} == {
        "a": "A@home:1",
        "b": "B@here:2",
    }
    assert config.sources == [home, Path("netdicom.toml")]


def test_every_fault_is_told_with_its_path(tmp_path: Path) -> None:
    """One run is enough to mend a file."""
    path = write(
        tmp_path / "x.toml",
        """
        ae_title = "MUCH-TOO-LONG-A-TITLE"
        colour = "blue"
        [peers]
        one = "ARCHIVE@10.0.0.5"
        two = 104
        [peers.three]
        adress = "A@h:1"
        tls = "yes"
        [peers.four]
        address = 5
        [peers.five]
        address = "A@h:1"
        ae_title = ""
        tls = { cafile = "x", trust = 3 }
        """,
    )
    with pytest.raises(CommandError) as caught:
        load_config(path)
    problem = caught.value.problem
    assert problem.code == ExitCode.CONFIGURATION
    assert path in problem.what
    lines = problem.evidence.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "colour",
        "ae_title",
        "peers.one",
        "peers.two",
        "peers.three.adress",
        "peers.three.address",
        "peers.four.address",
        "peers.five.ae_title",
        "peers.five.tls.cafile",
        "peers.five.tls.trust",
    ]
    assert lines[2].endswith("the port is missing")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"peers = x", "line 1"),
        (b"ae_title = '\xff'", "UTF-8"),
        (b"peers = 3", "peers: expected a table, not a number"),
        (b"[peers.a]\naddress='A@h:1'\ntls=3", "peers.a.tls: expected true, false or a table"),
    ],
)
def test_what_is_no_configuration_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        load_config(str(path))
    assert words in caught.value.problem.evidence


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_was_named_must_be_there(name: str) -> None:
    with pytest.raises(CommandError) as caught:
        load_config(name)
    assert caught.value.problem.code == ExitCode.CONFIGURATION
