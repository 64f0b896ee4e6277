"""The configuration file."""

from pathlib import Path

import pytest

from netdicom_tx.commands.common.addresses import Address, TLSFiles, find_peer
from netdicom_tx.commands.common.config import load_config
from netdicom_tx.commands.common.failures import CommandError, ExitCode
from netdicom_tx.quirks import NO_QUIRKS, Quirks


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


NODE = """
[node]
aet = "ARCHIVE"
max_associations = 7
[tls]
authorities = "ca.pem"
fingerprints = ["00"]
[[peer]]
title = "CT1"
host = "ct1.example"
port = 104
window = 1
[[peer]]
title = "CLOUD"
name = "cloud"
host = "pacs.example"
port = 2762
tls = true
[[peer]]
title = "SENDS"
"""


def test_the_file_of_a_node_names_us_and_the_peers(tmp_path: Path) -> None:
    """One file for the node and the commands: only those that can be called are peers."""
    config = load_config(write(tmp_path / "node.toml", NODE))
    assert config.ae_title == "ARCHIVE"
    assert config.peers == {
        "CT1": Address("CT1", "ct1.example", 104, quirks=Quirks(window=1)),
        "cloud": Address(
            "CLOUD",
            "pacs.example",
            2762,
            tls=TLSFiles(trust="ca.pem", fingerprint=("00",)),
            quirks=NO_QUIRKS,
        ),
    }
    assert find_peer("ct1", config.peers).ae_title == "CT1"


def test_both_forms_can_stand_in_one_file(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path / "node.toml", 'ae_title = "ME"\npeers.old = "OLD@old:104"\n' + NODE)
    )
    assert set(config.peers) == {"old", "CT1", "cloud"}
    assert config.ae_title == "ME"


def test_a_mistake_of_a_table_is_told_with_its_line(tmp_path: Path) -> None:
    """And those of the other form with it."""
    path = write(tmp_path / "node.toml", 'ae_title = 3\n[node]\naett = "X"\n')
    with pytest.raises(CommandError) as caught:
        load_config(path)
    assert caught.value.problem.evidence.splitlines() == [
        "line 3: [node] aett: is not a known key; did you mean aet?",
        "ae_title: expected a string, not a number",
    ]


def test_a_variable_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for the node, and its own variables count."""
    monkeypatch.setenv("NETDICOM_CONFIG", write(tmp_path / "node.toml", NODE))
    monkeypatch.setenv("NETDICOM_NODE_AET", "OTHER")
    assert load_config().ae_title == "OTHER"


@pytest.mark.parametrize("name", ["a b", "-x", "a@b", "h:1", ""])
def test_a_name_that_cannot_be_one(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "node.toml", f'[[peer]]\ntitle = "A"\nname = "{name}"\n')
    with pytest.raises(CommandError) as caught:
        load_config(path)
    assert "is not a name of a peer" in caught.value.problem.evidence


def test_a_name_is_given_once(tmp_path: Path) -> None:
    text = '[[peer]]\ntitle = "A"\nname = "x"\n[[peer]]\ntitle = "B"\nname = "x"\n'
    with pytest.raises(CommandError) as caught:
        load_config(write(tmp_path / "node.toml", text))
    assert "line 6: [[peer]] 2 name: another peer has the name x too" in str(
        caught.value.problem.evidence
    )


def test_what_only_the_node_reads_need_not_be_there(tmp_path: Path) -> None:
    """Somebody else may call its peers who may not read its secrets."""
    file = tmp_path / "node.toml"
    text = '[[peer]]\ntitle = "PACS"\nhost = "pacs"\nport = 104\n'
    file.write_text(
        f'{text}[database]\nurl_file = "none"\n[s3]\nsecret_key_file = "none"\n'
        '[worklist]\ndirectory = "none"\n'
    )
    assert str(load_config(str(file)).peers["PACS"]) == "PACS@pacs:104"
    file.write_text(f'{text}[database]\nurl = "postgresql+nodriver://host/index"\n')
    assert "PACS" in load_config(str(file)).peers
    file.write_text(f'{text}[database]\nurl_file = "none"\nulr = "x"\n')
    with pytest.raises(CommandError) as caught:
        load_config(str(file))
    assert "line 7: [database] ulr" in caught.value.problem.evidence
    assert "url_file" not in caught.value.problem.evidence
    # Editors of Windows write a byte order mark.
    file.write_bytes(b"\xef\xbb\xbfae_title = 'US'\r\n")
    assert load_config(str(file)).ae_title == "US"
    file.write_text("x = " + "[" * 100_000)
    with pytest.raises(CommandError, match="cannot be used"):
        load_config(str(file))
