"""twistd dicom: its options, and the service that they make."""

from pathlib import Path

import pytest
from twisted.python import usage

from netdicom_tx import RemoteAE
from netdicom_tx.archive import Duplicates
from netdicom_tx.archive.index.engine import Settings
from netdicom_tx.archive.store.s3 import S3Options
from netdicom_tx.archive.store.sharedstore import Durability, SharedStore
from netdicom_tx.config import ConfigurationError
from netdicom_tx.endpoints import is_public
from netdicom_tx.log_output import LogFormat
from netdicom_tx.logs import Level, LogUIDs
from netdicom_tx.passwords import write_password
from netdicom_tx.tap import Options, makeService
from twisted.plugins import netdicom_tx_plugin

LOOPBACK = "tcp:0:interface=127.0.0.1"


def parse(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(list(arguments))
    return options


def test_no_option_is_a_working_node() -> None:
    """Loopback only: like PostgreSQL's, the node is opened to the network on purpose."""
    assert dict(parse()) == {
        "aet": "NETDICOM",
        "listen": ["tcp:11112:interface=127.0.0.1"],
        "storage": "netdicom-archive",
        "database": None,
        "storage-url": None,
        "durability": None,
        "cache": None,
        "worklist": None,
        "forward-mpps": [],
        "notify-mpps": [],
        "notify-availability": [],
        "max-associations": 100,
        "max-associations-per-host": 20,
        "max-associations-per-title": None,
        "tls-listen": [],
        "tls-certificate": None,
        "tls-key": None,
        "tls-authorities": None,
        "tls-clients": None,
        "tls-profile": None,
        "tls-fingerprint": [],
        "tls-more-certificate": [],
        "tls": None,
        "audit": None,
        "audit-syslog": [],
        "workers": 1,
        "move-associations": 1,
        "scrub": 1,
        "duplicates": Duplicates.KEEP,
        "log-uids": LogUIDs.PLAIN,
        "log-level": Level.INFO,
        "log-format": LogFormat.TEXT,
        "peer": [],
        "peers": {},
        "unknown-sop-classes": 0,
        "match-unknown": 0,
        "no-fsync": 0,
        "strict-peers": 0,
        "http": None,
        "http-users": None,
        "http-anonymous": 0,
        "http-host": [],
        "http-operator": [],
        "http-title": None,
    }


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--aet", "PACS"], "aet", "PACS"),
        (["-a", " PACS 1 "], "aet", "PACS 1"),
        (["--storage", "/srv/dicom"], "storage", "/srv/dicom"),
        (["-s", "x"], "storage", "x"),
        (["--listen", "tcp:104"], "listen", ["tcp:104"]),
        (["-l", "tcp:104", "--listen", "unix:/x"], "listen", ["tcp:104", "unix:/x"]),
        (["--max-associations", "1"], "max-associations", 1),
        (["-m", "7"], "max-associations", 7),
        (["--max-associations-per-host", "5"], "max-associations-per-host", 5),
        (["--max-associations-per-title", "5"], "max-associations-per-title", 5),
        (["--audit", "x"], "audit", "x"),
        (["--audit-syslog", "udp://192.0.2.1"], "audit-syslog", ["udp://192.0.2.1"]),
        (["--move-associations", "4"], "move-associations", 4),
        (["--scrub", "0"], "scrub", 0),
        (["--audit", "audit.xml"], "audit", "audit.xml"),
        (["--audit-syslog", "udp://127.0.0.1:514"], "audit-syslog", ["udp://127.0.0.1:514"]),
        (["--log-uids", "digest"], "log-uids", LogUIDs.DIGEST),
        (["--duplicates", "keep-both"], "duplicates", Duplicates.KEEP_BOTH),
        (["--database", "sqlite:///x.db"], "database", "sqlite:///x.db"),
        (["--duplicates", "replace"], "duplicates", Duplicates.REPLACE),
        (["-d", "keep"], "duplicates", Duplicates.KEEP),
        (["--unknown-sop-classes"], "unknown-sop-classes", 1),
        (["-u"], "unknown-sop-classes", 1),
        (["--no-fsync"], "no-fsync", 1),
        (["--peer", "A@b:104", "--strict-peers"], "strict-peers", 1),
        (
            ["--peer", "PACS 1@pacs.example:104", "-p", "LOCAL@[::1]:11113"],
            "peers",
            {
                "PACS 1": RemoteAE("PACS 1", "tcp:pacs.example:104"),
                "LOCAL": RemoteAE("LOCAL", "tcp:\\:\\:1:11113"),
            },
        ),
    ],
)
def test_each_option_is_taken(arguments: list[str], name: str, value: object) -> None:
    """Long and short."""
    assert parse(*arguments)[name] == value


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--aet", ""], "--aet: "),
        (["--aet", "SEVENTEEN LETTERS"], "--aet: "),
        (["--aet", "A\\B"], "--aet: "),
        (
            ["--max-associations", "0"],
            "--max-associations: expected a whole number of 1 or more, not '0'",
        ),
        (["--move-associations", "0"], "--move-associations: expected a whole number of 1"),
        (["--tls-listen", "tcp:2762"], "--tls-listen needs --tls-certificate"),
        (
            ["--tls-certificate", "/none.pem"],
            "--tls-certificate: /none.pem: No such file or directory",
        ),
        (["--tls-clients", "maybe"], "--tls-…: clients is 'maybe'; expected 'required'"),
        (["--tls-profile", "old"], "--tls-…: profile is 'old'; expected bcp195, bcp195-modified"),
        (
            ["--tls-fingerprint", "00"],
            "--tls-fingerprint: '00' is not a fingerprint; expected 64 digits",
        ),
        (
            ["--tls-clients", "required"],
            "--tls-clients: client certificates are required, but nothing says which",
        ),
        (["--strict-peers"], "--strict-peers would serve nobody, because there is no --peer"),
        (["--peer", "PACS"], "--peer: expected AET@host:port, not 'PACS'"),
        (["--peer", "PACS@host"], "--peer: expected AET@host:port, not 'PACS@host'"),
        (["--peer", "PACS@:104"], "--peer: expected AET@host:port, not 'PACS@:104'"),
        (["--peer", "PACS@host:0"], "--peer: expected AET@host:port, not 'PACS@host:0'"),
        (["--peer", "PACS@host:65536"], "--peer: expected AET@host:port, not 'PACS@host:65536'"),
        (["--peer", "PACS@host:dicom"], "--peer: expected AET@host:port, not 'PACS@host:dicom'"),
        (["--peer", "SEVENTEEN LETTERS@host:104"], "--peer SEVENTEEN LETTERS@host:104: "),
        (["--max-associations", "-1"], "--max-associations: expected a whole number of 1"),
        (["-m", "many"], "--max-associations: expected a whole number of 1 or more, not 'many'"),
        (["--scrub", "-1"], "--scrub: expected a whole number of 0 or more, not '-1'"),
        (["--move-associations", "1.5"], "--move-associations: expected a whole number of 1"),
        (
            ["--worklist", "/none/such"],
            "--worklist: /none/such is not a directory; create it first",
        ),
        (["-w", __file__], "is not a directory"),
        (
            ["-p", "A@one:104", "-p", "B@two:104", "-p", "A@three:104"],
            "--peer A@three:104: another --peer has the AE title A too",
        ),
        (["-p", "A@one:104", "-p", " A @two:104"], "another --peer has the AE title A too"),
        (
            ["--duplicates", "both"],
            "--duplicates: expected keep, replace or keep-both, not 'both'",
        ),
        (["--log-uids", "hash"], "--log-uids: expected plain or digest, not 'hash'"),
        (
            ["--listen", "carrier-pigeon:1"],
            "--listen: 'carrier-pigeon:1' is not a Twisted server endpoint such as "
            "tcp:11112:interface=127.0.0.1: Unknown endpoint type: 'carrier-pigeon'",
        ),
        (["--listen", "tcp"], "--listen: 'tcp' has no port"),
        (["--listen", "tcp:dicom"], "--listen: 'tcp:dicom' has no port"),
        (["-l", "tcp:104", "-l", "tcp:99999"], "--listen: 'tcp:99999' has no port"),
        (["--listen", "tcp:1:colour=red"], "--listen: 'tcp:1:colour=red' is not"),
        (["--listen", ""], "--listen: '' is not"),
        (["--listen", "ssl:1:privateKey=/none"], "'ssl:1:privateKey=/none' cannot be used: "),
        (["-l", f"ssl:1:privateKey={__file__}"], "a private key and its certificate in PEM form"),
        (["--listen", "systemd:domain=INET:index=0"], "'systemd:domain=INET:index=0' is not"),
        (["--colour"], "option --colour not recognized"),
    ],
)
def test_a_wrong_option_is_a_sentence(arguments: list[str], says: str) -> None:
    """It names the option, and what was expected where that is not plain."""
    with pytest.raises(usage.UsageError) as caught:
        parse(*arguments)
    assert says in str(caught.value)


def config(tmp_path: Path, text: str) -> str:
    """A configuration file."""
    path = tmp_path / "node.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("127.0.0.1", False),
        ("::1", False),
        ("", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.1", True),
        ("fe80::1%eth0", True),
    ],
)
def test_an_address_that_others_reach_is_told_apart(host: str, public: bool) -> None:
    """A local socket has none."""
    assert is_public(host) is public


def test_options_can_come_from_a_file(tmp_path: Path) -> None:
    """The keys are the options' names."""
    path = config(
        tmp_path,
        """
        aet = "PACS"
        storage = "/srv/dicom"
        database = "postgresql://db/pacs"
        listen = ["tcp:104", "tcp:11112"]
        peer = ["A@a:104", "B@b:104"]
        max-associations = 7
        max-associations-per-host = 5
        max-associations-per-title = 4
        move-associations = 3
        scrub = 5
        workers = 2
        log-uids = "digest"
        log-level = "warn"
        log-format = "json"
        audit = "/srv/audit.xml"
        audit-syslog = ["tls://logs.example.org:6514"]
        duplicates = "replace"
        unknown-sop-classes = true
        match-unknown = true
        no-fsync = true
        strict-peers = true
        worklist = "."
        forward-mpps = ["A"]
        notify-mpps = ["A", "B"]
        notify-availability = ["B"]
        http = "tcp:8042"
        http-anonymous = true
        http-host = ["pacs.example.org"]
        http-title = "The PACS"
        """,
    )
    assert dict(parse("--config", path)) == {
        "config": path,
        "http": "tcp:8042",
        "http-users": None,
        "http-anonymous": True,
        "http-host": ["pacs.example.org"],
        "http-operator": [],
        "http-title": "The PACS",
        "aet": "PACS",
        "storage": "/srv/dicom",
        "database": "postgresql://db/pacs",
        "storage-url": None,
        "durability": None,
        "cache": None,
        "listen": ["tcp:104", "tcp:11112"],
        "peer": ["A@a:104", "B@b:104"],
        "peers": {"A": RemoteAE("A", "tcp:a:104"), "B": RemoteAE("B", "tcp:b:104")},
        "max-associations": 7,
        "max-associations-per-host": 5,
        "max-associations-per-title": 4,
        "tls-listen": [],
        "tls-certificate": None,
        "tls-key": None,
        "tls-authorities": None,
        "tls-clients": None,
        "tls-profile": None,
        "tls-fingerprint": [],
        "tls-more-certificate": [],
        "tls": None,
        "audit": "/srv/audit.xml",
        "audit-syslog": ["tls://logs.example.org:6514"],
        "workers": 2,
        "move-associations": 3,
        "scrub": 5,
        "duplicates": Duplicates.REPLACE,
        "log-uids": LogUIDs.DIGEST,
        "log-level": Level.WARN,
        "log-format": LogFormat.JSON,
        "unknown-sop-classes": True,
        "match-unknown": True,
        "no-fsync": True,
        "strict-peers": True,
        "worklist": ".",
        "forward-mpps": ["A"],
        "notify-mpps": ["A", "B"],
        "notify-availability": ["B"],
    }


# -- a store that nodes share --------------------------------------------------------------------------

SHARED = """
[storage]
directory = "{directory}"
url = "{url}"
{more}
[database]
url = "{database}"
"""


def shared(tmp_path: Path, **more: str) -> str:
    """A file of a node that shares its store, with what is different."""
    words = {
        "directory": str(tmp_path / "node"),
        "url": "file:///mnt/shared",
        "database": "postgresql://user@host/name",
        "more": "",
    }
    return config(tmp_path, SHARED.format(**(words | more)))


def test_a_store_can_be_shared(tmp_path: Path) -> None:
    plan = parse(
        *("-c", shared(tmp_path, more='durability = "node"\ncache = "20 GB"\nparallel = 3'))
    ).store_plan()
    assert plan.url == "file:///mnt/shared"
    assert (plan.durability, plan.cache, plan.parallel) == (Durability.NODE, 20_000_000_000, 3)
    store = plan.store()
    assert isinstance(store, SharedStore)
    assert store.objects.place == "/mnt/shared"


def test_options_can_share_a_store() -> None:
    plan = parse(
        *("--storage-url", "file:///mnt/shared", "--database", "postgresql://host/name"),
        *("--durability", "node", "--cache", "1 GiB"),
    ).store_plan()
    assert (plan.url, plan.durability, plan.cache) == (
        "file:///mnt/shared",
        Durability.NODE,
        1 << 30,
    )


def test_a_bucket_is_described_by_a_table(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    table = f"""
        [s3]
        endpoint = "http://127.0.0.1:9000"
        region = "eu-west-1"
        access_key = "key"
        secret_key_file = "{secret}"
        addressing = "virtual"
        encryption = "AES256"
        checksum = "none"
        timeout = 5
    """
    path = shared(tmp_path, url="s3://bucket/a", more=table)
    options = parse("-c", path)
    plan = options.store_plan()
    assert plan.s3 == S3Options(
        endpoint="http://127.0.0.1:9000",
        region="eu-west-1",
        access_key="key",
        secret_key="hidden",
        is_virtual=True,
        encryption="AES256",
        checksum="",
        timeout=5.0,
    )
    assert "hidden" not in repr(plan) + repr(options.configured)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"database": "sqlite:///index.db"}, "nodes cannot share an SQLite database"),
        ({"url": "http://host"}, "is not the URL of a shared store"),
        ({"more": "[node]\nworkers = 2"}, "start more nodes instead"),
        ({"more": '[retention]\nquota = "80 %"'}, "a shared store is not a disk"),
        ({"more": 'cache = "80 %"'}, 'expected an amount such as "20 GB"'),
        ({"more": '[s3]\nendpoint = "host:9000"'}, "is not the URL of a server"),
        ({"more": '[s3]\naddressing = "host"'}, "expected path or virtual"),
    ],
)
def test_what_does_not_fit_a_shared_store_is_told(
    tmp_path: Path, more: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Options().parse(["-c", shared(tmp_path, **more)])


@pytest.mark.parametrize("option", ["--durability=node", "--cache=1GB"])
def test_what_is_for_a_shared_store_needs_one(option: str) -> None:
    with pytest.raises(usage.UsageError, match="needs --storage-url"):
        parse(option)


@pytest.mark.parametrize("name", ["forward-mpps", "notify-mpps", "notify-availability"])
def test_what_is_sent_to_must_be_a_peer(name: str) -> None:
    """No address is taken from anywhere else."""
    with pytest.raises(usage.UsageError, match=f"--{name} RIS: add --peer RIS@host:port"):
        parse(f"--{name}", "RIS")


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    """What the file says of others stays."""
    path = config(
        tmp_path, 'aet = "PACS"\nlisten = ["tcp:104"]\nmax-associations = 7\nno-fsync = false'
    )
    options = parse("-c", path, "--aet", "OTHER", "--listen", "tcp:105", "--no-fsync")
    assert (options["aet"], options["listen"]) == ("OTHER", ["tcp:105"])
    assert (options["max-associations"], options["no-fsync"]) == (7, 1)


def test_an_option_with_the_value_of_its_default_wins_over_the_file(tmp_path: Path) -> None:
    """Given is given."""
    path = config(tmp_path, 'aet = "PACS"\nmax-associations = 7')
    options = parse("--config", path, "--aet", "NETDICOM", "--max-associations", "100")
    assert (options["aet"], options["max-associations"]) == ("NETDICOM", 100)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("aet = ", "Invalid value"),
        ('colour = "red"', "line 1: colour: is not a known key"),
        ("aet = 7", "aet: expected a string, got 7"),
        ('listen = "tcp:104"', "listen: expected a list of strings, got 'tcp:104'"),
        ('max-associations = "7"', "max-associations: expected a whole number, got '7'"),
        ("max-associations = true", "max-associations: expected a whole number, got true"),
        ("no-fsync = 1", "no-fsync: expected true or false, got 1"),
        (
            "aet = 7\nx = 1",
            "line 1: aet: expected a string, got 7; write it in quotes\n  line 2: x: is not a known key",
        ),
        ("max-associations = 0", "max-associations: expected a whole number of 1 or more"),
        ('listen = ["x"]', "'x' is not"),
        ('worklist = "/none"', "worklist: /none is not a directory; create it first"),
        ("peer = [7]", "[[peer]] 1: expected a string, got 7"),
        ('peer = ["7"]', "line 1: peer: expected AET@host:port, not '7'"),
    ],
)
def test_a_wrong_file_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    """All that is wrong with it at once, and the status of sysexits.h for a configuration."""
    path = config(tmp_path, text)
    with pytest.raises(SystemExit) as caught:
        parse("--config", path)
    assert caught.value.code == 78
    assert says in capsys.readouterr().err


def test_the_help_tells_of_every_option() -> None:
    """And of what happens without any."""
    printed = str(Options())
    for name in set(parse()) - {"peers"} | {"config"}:
        assert f"--{name}" in printed
    assert "127.0.0.1, port 11112, as" in " ".join(printed.split())


def test_the_service_is_made_as_the_options_say(tmp_path: Path) -> None:
    """Nothing is opened before it is started."""
    options = parse(
        *("--aet", "PACS", "--storage", str(tmp_path / "a"), "--max-associations", "3"),
        *("--duplicates", "replace", "--unknown-sop-classes", "--no-fsync", "--listen", LOOPBACK),
    )
    service = makeService(options)
    ae = service.ae
    assert (ae.ae_title, ae.max_associations) == ("PACS", 3)
    assert ae.store.root == tmp_path / "a"
    assert ae.store.duplicates is Duplicates.REPLACE
    assert ae.index is not None
    assert ae.index.url == f"sqlite:///{tmp_path}/a/index.db"
    assert ae.supported_scp.find("1.2.3.4.5") is not None
    assert (ae.called_ae_titles, ae.calling_ae_titles) == (None, None)
    assert not ae.store.root.exists()
    assert makeService(parse()).ae.supported_scp.find("1.2.3.4.5") is None


def test_strict_peers_serves_the_named_ones_only_and_under_its_own_title() -> None:
    """Without it, anybody under any title: DCMTK's tools say ANY-SCP."""
    ae = makeService(parse("--peer", "A@a:104", "--peer", "B@b:104", "--strict-peers")).ae
    assert ae.called_ae_titles == {"NETDICOM"}
    assert ae.calling_ae_titles == {"A", "B"}
    assert ae.peers.keys() == {"A", "B"}


def test_a_password_of_the_database_is_not_told() -> None:
    """The line at the start goes into logs."""
    ae = makeService(parse("--database", "postgresql://me:secret@db/pacs", "-s", "/x")).ae
    assert ae.about() == ", storage /x, index postgresql://me:***@db/pacs"


def test_a_password_in_the_command_line_is_noticed(tmp_path: Path) -> None:
    """Every user of the machine sees the command line, and the owner alone sees the file."""
    url = "postgresql://me:secret@db/pacs"
    assert parse("--database", url).shows_password
    assert not parse("--database", "postgresql://me@db/pacs").shows_password
    path = config(tmp_path, f"[database]\nurl = '{url}'\n")
    assert not parse("--config", str(path)).shows_password


def test_the_database_is_told_the_timeouts_and_the_name_of_the_node(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        """
        [node]
        aet = "PACS"
        [database]
        url = "postgresql://db/pacs"
        statement_timeout = 7
        lock_timeout = 0
        """,
    )
    index = makeService(parse("--config", str(path))).ae.index
    assert index is not None
    assert index.settings == Settings(
        statement_timeout=7.0, lock_timeout=0.0, idle_timeout=300.0, application="netdicom PACS"
    )


def test_the_database_is_told_the_name_that_no_other_node_has(tmp_path: Path) -> None:
    text = """
        [node]
        aet = "PACS"
        name = "archive-1"
        [database]
        url = "postgresql://db/pacs"
        """
    index = makeService(parse("--config", str(config(tmp_path, text)))).ae.index
    assert index is not None
    assert index.settings.application == "netdicom archive-1"


def test_the_plugin_names_what_there_is() -> None:
    """``twistd`` imports the module by this name, and takes these two from it."""
    maker = netdicom_tx_plugin.dicom
    assert (maker.tapname, maker.module) == ("dicom", "netdicom_tx.tap")
    assert maker.options is Options
    assert maker.makeService is makeService


@pytest.mark.parametrize(
    ("rate", "services"), [("0", ["retention"]), ("3", ["scrub", "retention"])]
)
def test_a_scrub_runs_with_the_node_unless_it_is_off(
    tmp_path: Path, rate: str, services: list[str]
) -> None:
    node = makeService(parse("--storage", str(tmp_path), "--listen", LOOPBACK, "--scrub", rate))
    assert [each.name for each in node.services if each.name] == services


def test_a_mistyped_option_is_told_with_what_was_meant() -> None:
    with pytest.raises(usage.UsageError, match="not recognized; did you mean --max-associations"):
        parse("--max-asociations", "7")
    with pytest.raises(usage.UsageError, match=r"option --zzz not recognized$"):
        parse("--zzz")


def test_operators_of_the_status_page_are_users(tmp_path: Path) -> None:
    users = tmp_path / "users"
    write_password(users, "anna", "secret")
    arguments = ("--http", "tcp:0:interface=127.0.0.1", "--http-operator", "anna")
    assert parse(*arguments, "--http-users", str(users))["http-operator"] == ["anna"]
    with pytest.raises(usage.UsageError, match="--http-operator needs --http-users"):
        parse(*arguments)
