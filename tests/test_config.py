"""The configuration file: its model, and what is said about a wrong one."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from twisted.python import usage

from netdicom_tx.access import EVERYTHING, Permission, Profile, network
from netdicom_tx.amounts import Amount
from netdicom_tx.archive import Duplicates
from netdicom_tx.config import (
    TABLES,
    Config,
    ConfigurationError,
    Peer,
    lines_of,
    read,
    read_leniently,
)
from netdicom_tx.passwords import write_password
from netdicom_tx.tap import Options
from netdicom_tx.userdataitems import UserIdentity


def write(directory: Path, text: str) -> str:
    path = directory / "node.toml"
    path.write_text(text, "utf-8")
    return str(path)


def told(directory: Path, text: str) -> list[str]:
    """What is wrong with a file, one sentence for each mistake."""
    with pytest.raises(ConfigurationError) as caught:
        read(write(directory, text))
    return [str(each) for each in caught.value.mistakes]


def configured(directory: Path, text: str) -> Config:
    return read(write(directory, text)).config


FIVE_MISTAKES = """\
[node]
listn = ["tcp:11112"]

[storage]
duplicates = "repalce"
fsync = 1

[[peer]]
title = "CT1"
networks = ["10.0.0.1/8"]
allow = ["stor"]
"""


def test_five_mistakes_are_five_sentences_with_line_and_hint(tmp_path: Path) -> None:
    """An operator corrects the file once."""
    assert told(tmp_path, FIVE_MISTAKES) == [
        "line 2: [node] listn: is not a known key; did you mean listen?",
        "line 5: [storage] duplicates: expected keep, replace or keep-both, not 'repalce'; did you mean replace?",
        "line 6: [storage] fsync: expected true or false, got 1; write it without quotes",
        "line 10: [[peer]] 1 networks entry 1: '10.0.0.1/8' is not a network; expected an address, or a network such "
        "as 192.0.2.0/24 without bits behind the prefix; netdicom config init shows what each key means",
        "line 11: [[peer]] 1 allow entry 1: expected echo, store, find, get, move, worklist, mpps, commit, delete or "
        "other, not 'stor'; did you mean store?",
    ]


def test_an_error_names_the_file_and_lists_its_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path, FIVE_MISTAKES)
    with pytest.raises(ConfigurationError) as caught:
        read(path)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{path} has 5 mistakes:"
    assert [each[:8] for each in lines] == [
        "  line 2",
        "  line 5",
        "  line 6",
        "  line 1",
        "  line 1",
    ]


def test_a_file_is_read_into_tables(tmp_path: Path) -> None:
    config = configured(
        tmp_path,
        """
        [node]
        aet = "ARCHIVE"
        listen = ["tcp:11112"]
        max_associations = 7

        [storage]
        directory = "/srv/dicom"
        duplicates = "keep-both"
        fsync = false

        [tls]
        clients = "optional"
        fingerprints = ["00"]

        [access]
        default = ["echo"]

        [[peer]]
        title = " CT1 "
        host = "ct1.example"
        port = 104
        networks = ["192.0.2.0/24", "2001:db8::7"]
        allow = ["store", "move"]
        move_to = ["CT1"]
        certificate = "ct1.example"

        [[peer]]
        title = "*"
        networks = ["198.51.100.0/24"]
        """,
    )
    assert (config.node.aet, config.node.listen, config.node.max_associations) == (
        "ARCHIVE",
        ("tcp:11112",),
        7,
    )
    assert config.storage.duplicates is Duplicates.KEEP_BOTH
    assert config.rules().default == Profile(frozenset([Permission.ECHO]))
    ct1, other = config.peer
    assert ct1.address == "CT1@ct1.example:104"
    assert ct1.rule().networks == (network("192.0.2.0/24"), network("2001:db8::7"))
    assert ct1.rule().profile == Profile(
        frozenset([Permission.STORE, Permission.MOVE]), frozenset(["CT1"])
    )
    assert (other.address, other.rule().profile) == (None, EVERYTHING)
    assert config.rules(["NEW"]).rules[-1].title == "NEW"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('default = "all"', EVERYTHING),
        ('default = "none"', None),
        ("default = []", Profile(frozenset())),
    ],
)
def test_the_default_profile_is_a_word_or_a_list(
    tmp_path: Path, text: str, expected: Profile | None
) -> None:
    assert configured(tmp_path, f"[access]\n{text}").rules().default == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[node\n", "line 1: Expected ']' at the end of a table declaration, at column 6; see"),
        ("[peers]", "line 1: peers: is not a known key; did you mean peer?"),
        (
            "max-assocations = 7",
            "line 1: max-assocations: is not a known key; did you mean max-ass",
        ),
        ("[node]\nmax-associations = 7", "did you mean max_associations?"),
        ("[node]\nx = 1", "line 2: [node] x: is not a known key"),
        ("node = 7", "line 1: node: expected a table; write [node] on a line of its own"),
        (
            "[node]\nlisten = 'tcp:1'",
            "line 2: [node] listen: expected a list of strings, got 'tcp:1'",
        ),
        ("aet = 'A'\n[node]\naet = 'A'", "line 1: aet: is given twice, here and as [node] aet"),
        ("[access]\ndefault = 7", 'expected "all", "none" or a list of permissions, got 7'),
        ("[tls]\nprofile = 'bcp196'", "line 2: [tls] profile: expected bcp195, bcp195-modified"),
        ("[tls]\nclients = 'requird'", "not 'requird'; did you mean required?"),
        ("[[peer]]", "line 1: [[peer]] 1: has no title; add title = …"),
        ("[[peer]]\ntitle = ''", "line 2: [[peer]] 1 title: an AE title is 1 to 16"),
        ("[[peer]]\ntitle = '*'", 'line 2: [[peer]] 1 title: title "*" needs networks'),
        ("[[peer]]\ntitle = 'A'\nhost = 'h'", "line 3: [[peer]] 1 host: host without port"),
        ("[[peer]]\ntitle = 'A'\nport = 104", "line 3: [[peer]] 1 port: port without host"),
        ("[[peer]]\ntitle = 'A'\nport = true", "line 3: [[peer]] 1 port: expected a whole number"),
        ("[[peer]]\ntitle='*'\nnetworks=['::1']\nhost='h'\nport=1", 'title "*" cannot be called'),
        ("[[peer]]\ntitle = 'A'\n[[peer]]\ntitle = 'A'", "line 4: [[peer]] 2 title: another peer"),
        ("[[peer]]\ntitle = 'A'\nnetworks = []", "line 3: [[peer]] 1 networks: networks is empty"),
        ("[[peer]]\ntitle = 'A'\ncertificate = ' '", "1 certificate: certificate is empty"),
        (
            "[[peer]]\ntitle='*'\nnetworks=['::1', '::/8']\n[[peer]]\ntitle='*'\nnetworks=['::/8']",
            'line 6: [[peer]] 2 networks entry 1: another peer "*" has the network ::/8 too',
        ),
        ("[[peer]]\ntitle = 'A'\nnetworks = ['fe80::1%eth0']", "has a zone, which is not compared"),
        ('[storage]\ndirectory = "a\\u0000b"', "line 2: [storage] directory: a string with NUL"),
        ("[node]\nmax_associations = " + "1" * 5000, "4300 digits"),
        ("x = " + "[" * 100_000, "nested too deeply"),
        ("#" * 1_000_000, "is too large"),
        (
            "[[peer]]\ntitle = 'PACS'\nhost='h'\nport=1\nmove_to = ['PACKS']",
            "line 5: [[peer]] 1 move_to: PACKS is not a peer with host and port; did you mean PACS?",
        ),
    ],
)
def test_a_mistake_says_what_to_write(tmp_path: Path, text: str, says: str) -> None:
    (found,) = told(tmp_path, text)
    assert says in found


MANY_MISTAKES = """\
[nodes]
[node]
aet = "ARCHIVE-OF-THE-HOSPITAL"
listen = ["tcp:104", "tcp:104"]
tls_listen = ["tcp:2762"]
workers = 4
max_associations = 2
drain = 99999999
[http]
listen = "tcp:8042"
hosts = ["https://pacs.example/"]
[database]
url_file = "empty"
[s3]
secret_key_file = "/dev/zero"
[access]
require_identity = true
password_file = "nobody"
jwt_key_file = "no-key"
[worklist]
forward_mpps = ["B"]
[retention]
quota = "9999999999 PB"
[[peer]]
title = "A"
host = "a"
unknown = 1
networks = []
[[peer]]
title = "A"
name = "C"
move_to = ["NOBODY"]
[[peer]]
title = "C"
port = 104
"""


def test_every_mistake_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that only the node finds, and those of values that do not go together; each with line and hint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    options = Options()
    with pytest.raises(ConfigurationError) as caught:
        options.parse(["--config", write(tmp_path, MANY_MISTAKES)])
    found = caught.value.mistakes
    assert [each.line for each in found] == [
        *(1, 3, 4, 5, 7, 8, 10, 11, 13, 15),
        *(18, 19, 23, 26, 27, 28, 30, 31, 32, 35),
    ]
    assert all(each.hint for each in found)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('[tls]\nkey = "key.pem"', 2, "there is no certificate for this key"),
        ('[tls]\nclients = "required"', 2, "nothing says which are trusted"),
        ('[tls]\nprofile="bcp195"\nauthorities = "no.pem"', 3, "No such file"),
        ('[tls]\nfingerprints = ["zz"]', 2, "is not a fingerprint"),
        ('[http]\nlisten = "tcp:8042"', 2, "could be reached from the network by everybody"),
        ('[http]\nlisten = "tcp:80:interface=0.0.0.0"', 2, "could be reached"),
        ('[http]\nlisten = "tcp:80:0.0.0.0"', 2, "could be reached"),
        ('[node]\nlisten = ["tcp:104", "tcp:104:interface=127.0.0.1"]', 2, "port 104"),
        ('[storage]\ndirectory = "users"', 2, "users is not a directory"),
        ('[database]\nurl = "nonsense"', 2, "the database URL cannot be read"),
        ("[node]\nworkers = 65", 2, "[node] workers: expected at most 64, not 65"),
        ('[access]\njwt_key_file = "users"', 2, "users is empty"),
        ('[access]\njwt_key_file = "note.txt"', 2, "note.txt: the key fits none of RS256, ES256"),
        ('[tls]\nprofile = "bcp195"\nauthorities = "users"', 3, "users holds no certificate"),
        ('[audit]\nfile = "."', 2, ". is a directory"),
        ('[s3]\nauthorities = "none.pem"', 2, "none.pem: No such file"),
        ("[[peer]]\ntitle = 'A'\nhost = 'a:104'\nport = 104", 3, "'a:104' is not the name or"),
        ("[[peer]]\ntitle = 'A'\nhost = ''\nport = 104", 3, "'' is not the name or"),
    ],
)
def test_what_would_keep_a_node_from_starting_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users").write_text("")
    (tmp_path / "key.pem").write_text("")
    (tmp_path / "note.txt").write_text("not a key")
    with pytest.raises(ConfigurationError) as caught:
        Options().parse(["--config", write(tmp_path, text)])
    (found,) = caught.value.mistakes
    assert says in str(found)
    assert found.line == line
    assert found.hint


def test_a_port_may_be_served_in_both_families_of_addresses(tmp_path: Path) -> None:
    options = Options()
    path = write(tmp_path, '[node]\nlisten = ["tcp:104", "tcp6:104", "tcp:0", "tcp:0"]')
    options.parse(["--config", path])
    assert len(options["listen"]) == 4


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (b"", "is empty"),
        (b"one\ntwo\n", "has more than one line"),
        (b"p\xe4ss", "is not UTF-8"),
    ],
)
def test_the_file_of_a_secret_holds_one_line(tmp_path: Path, secret: bytes, says: str) -> None:
    (tmp_path / "secret").write_bytes(secret)
    (found,) = told(tmp_path, f'[s3]\nsecret_key_file = "{tmp_path}/secret"')
    assert says in found
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbf word \r\n")
    path = write(tmp_path, f'[s3]\nsecret_key_file = "{tmp_path}/secret"')
    assert read(path).config.s3.secret_key == "word"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[node]\nAET = 'A'", "line 2: [node] AET: is not a known key; did you mean aet?"),
        (
            '[node]\n"a\\u001b[31m" = 1',
            '[node] "a\\u001b[31m": is not a known key; expected one of',
        ),
        ("a.b.c = 1", "line 1: a: is not a known key; expected one of node, storage"),
        ("[node]\naet = ARCHIVE", "line 2: Invalid value, at column 7; write text in quotes"),
        ("[node]\naet = 2026-01-01", "got the date or time 2026-01-01; write it in quotes"),
        (
            "[node]\naet = 'A'\naet = 'B'",
            "line 3: Cannot overwrite a value (at end of document); this key",
        ),
        ("[node]\n[node]", "line 2: Cannot declare ('node',) twice, at column 6; this table"),
        ("aet = 'x", 'line 1: Expected "\'" (at end of document); see'),
        ("[peer]\ntitle = 'A'", "line 1: peer: expected a list"),
        (
            "[s3]\nsecret_key = 12345",
            "secret_key: expected a string without NUL; write it in quotes",
        ),
        ("peer = ['A@h:1', {title = 'B'}]", "expected a table; write [[peer]] on a line"),
    ],
)
def test_the_form_of_a_mistake_is_one_that_people_know(
    tmp_path: Path, text: str, says: str
) -> None:
    (found,) = told(tmp_path, text)
    assert says in found


def test_a_file_that_cannot_be_read_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: No such file"):
        read(str(tmp_path / "none.toml"))
    (tmp_path / "latin.toml").write_bytes(b'aet = "\xe4"')
    with pytest.raises(
        ConfigurationError, match="line 1: octet 0xe4 is not UTF-8; save the file as"
    ):
        read(str(tmp_path / "latin.toml"))


def test_a_file_may_begin_with_the_mark_of_an_editor(tmp_path: Path) -> None:
    """Editors of Windows write a byte order mark."""
    assert configured(tmp_path, "\ufeff[node]\naet = 'A'").node.aet == "A"


def test_the_proxy_protocol_needs_proxies(tmp_path: Path) -> None:
    """Whoever may send a header says who calls, and the access rules believe it."""
    assert told(tmp_path, "[node]\nproxy_protocol = true\n") == [
        "line 2: [node] proxy_protocol: needs proxies, because whoever may send a header may call itself as it likes; "
        'add the addresses of the proxies: proxies = ["192.0.2.10"]'
    ]
    text = '[node]\nproxy_protocol = true\nproxies = ["192.0.2.10", "2001:db8::/32"]\n'
    node = configured(tmp_path, text).node
    assert node.proxies == (network("192.0.2.10"), network("2001:db8::/32"))


def test_a_header_comes_before_tls(tmp_path: Path) -> None:
    """At an endpoint of Twisted that speaks TLS itself, it would come within."""
    path = write(tmp_path, '[node]\nproxy_protocol = true\nproxies = ["192.0.2.10"]\n')
    certificate = tmp_path / "node.pem"
    authority = trustme.CA()
    authority.issue_cert("pacs.example").private_key_and_cert_chain_pem.write_to_path(
        str(certificate)
    )
    with pytest.raises(usage.UsageError, match=r"proxy_protocol needs an endpoint of tcp, tcp6"):
        Options().parse(["--config", path, "--listen", f"ssl:2762:privateKey={certificate}"])


def test_amounts_have_units(tmp_path: Path) -> None:
    text = "[storage]\nreserve = '5 %'\n[retention]\nquota = '500 GB'\n"
    config = configured(tmp_path, text)
    assert (config.storage.reserve, config.retention.quota) == (
        Amount(share=0.05),
        Amount(octets=500 * 10**9),
    )
    assert told(tmp_path, "[retention]\nquota = '500'\nmax_age = 0\n") == [
        'line 2: [retention] quota: expected an amount such as "500 GB", "1 GiB" or "80 %", not \'500\'; '
        "netdicom config init shows what each key means",
        "line 3: [retention] max_age: expected a whole number from 1 to 36500, not '0'; "
        "netdicom config init shows what each key means",
    ]


def test_every_option_of_the_node_has_a_field() -> None:
    """But for the two that a file does not repeat: the file itself, and the peers, which have tables."""
    options = Options()
    options.parseOptions([])
    derived = {"tls", "peers"}
    assert Config().options().keys() == options.keys() - derived - {"peer"}


def test_the_defaults_of_the_file_are_those_of_the_options() -> None:
    options = Options()
    options.parseOptions([])
    for name, value in Config().options().items():
        if name != "listen":  # the default port is that of a node without any other
            assert (list(value) if isinstance(value, tuple) else value) == options[name], name


@pytest.mark.parametrize(
    "page", ["howto/access.md", "howto/run.md", "howto/delete-and-retention.md"]
)
def test_the_examples_of_the_documentation_are_right(tmp_path: Path, page: str) -> None:
    text = (Path(__file__).parent.parent / "docs" / page).read_text("utf-8")
    examples = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert examples
    for each in examples:
        read(write(tmp_path, each))


def test_the_reference_has_every_key() -> None:
    page = (Path(__file__).parent.parent / "docs/reference/configuration.md").read_text("utf-8")
    sections = dict(each.split("\n", 1) for each in page.split("## `")[1:])
    expected = {f"[{name}]`": kind for name, kind in TABLES.items()} | {"[[peer]]`": Peer}
    assert sections.keys() == expected.keys()
    for title, kind in expected.items():
        keys = re.findall(r"^\| `(\w+)` \|", sections[title].partition("\n## ")[0], re.MULTILINE)
        assert keys == [each.name for each in attrs.fields(kind)]


KEYS = st.sampled_from(["a", "b-c", '"d e"', "'f'", "g"])
VALUES = st.sampled_from(
    [
        "1",
        '"x"',
        "'y = 1'",
        "[\n  1, # one\n  2,\n]",
        '"""\n[no]\nt = 1\n"""',
        "'''\n[[no]]\n'''",
        "{ k = 1, l = [2] }",
        '"# \\" ["  # ]',
    ]
)


@given(st.lists(st.tuples(KEYS, VALUES), unique_by=lambda each: each[0].strip("'\""), max_size=5))
def test_the_line_of_a_key_is_found_behind_any_value(pairs: list[tuple[str, str]]) -> None:
    """Strings and arrays may be longer than a line and look like keys."""
    text, expected = "# file\n[table]\n", {}
    for key, value in pairs:
        expected[("table", key.strip("'\""))] = text.count("\n") + 1
        text += f"{key} = {value}\n"
    found: dict[Any, int] = dict(lines_of(text))
    assert found.pop(("table",)) == 2
    assert found == expected


def test_tables_of_an_array_are_counted() -> None:
    text = '[[peer]]\ntitle = "A"\n[peer.tls]\nx.y = 1\n[[peer]]\ntitle = "B"\n'
    assert lines_of(text) == {
        ("peer",): 1,
        ("peer", 0): 1,
        ("peer", 0, "title"): 2,
        ("peer", 0, "tls"): 3,
        ("peer", 0, "tls", "x"): 4,
        ("peer", 0, "tls", "x", "y"): 4,
        ("peer", 1): 5,
        ("peer", 1, "title"): 6,
    }


def test_a_peer_with_an_ipv6_address_is_called_in_brackets(tmp_path: Path) -> None:
    (peer,) = configured(
        tmp_path, "[[peer]]\ntitle = 'A'\nhost = '::1'\nport = 104\ntls = true"
    ).peer
    assert peer.address == "dicoms://A@[::1]:104"


# -- users -------------------------------------------------------------------------------------------


def test_users_are_checked_as_the_file_says(tmp_path: Path) -> None:
    write_password(tmp_path / "users", "alice", "one")
    (tmp_path / "key.pem").write_text("a secret of thirty-two octets, or more")
    table = configured(
        tmp_path,
        f"""
        [access]
        require_identity = true
        users = ["bob"]
        password_file = "{tmp_path}/users"
        jwt_key_file = "{tmp_path}/key.pem"
        jwt_algorithms = ["HS256"]

        [[peer]]
        title = "CT1"
        require_identity = false

        [[peer]]
        title = "WS1"
        """,
    )
    found = table.access.identities()
    assert found is not None
    assert [found.checks(UserIdentity(kind, b"x")) for kind in range(1, 6)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    rules = table.rules()
    assert [each.profile.require_identity for each in rules.rules] == [False, True]
    assert rules.default is not None
    assert rules.default.require_identity
    assert Config().access.identities() is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "password_file = '/none'",
            "line 2: [access] password_file: /none: No such file or directory",
        ),
        (
            "jwt_key_file = '/none'",
            "line 2: [access] jwt_key_file: /none: No such file or directory",
        ),
        ("require_identity = true", "require_identity would let nobody in, because no user is kno"),
    ],
)
def test_users_that_cannot_be_checked_are_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        Options().parseOptions(["--config", write(tmp_path, f"[access]\n{text}")])
    assert caught.value.code == 78
    assert says in capsys.readouterr().err


def test_lines_are_given_as_far_as_the_text_is_understood() -> None:
    """What tomllib accepts and the search for lines does not must not stop a start."""
    assert lines_of("a = 1\n?\nb = 2\n") == {("a",): 1}
    assert lines_of('a = 1\nb = "x') == {("a",): 1, ("b",): 2}


def test_a_former_key_beside_a_table_that_is_none_is_told_once(tmp_path: Path) -> None:
    assert told(tmp_path, "aet = 'A'\nnode = 7") == [
        "line 2: node: expected a table; write [node] on a line of its own"
    ]


def test_what_is_wrong_can_be_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
max-associations = 0
[node]
listen = ["tcp:104", 7, "tcp:105", 8]
unknown = 1
[storage]
directory = "a"
fsync = "no"
[[peer]]
title = "A"
networks = [1, "10.0.0.0/8", 2]
host = 7
[[peer]]
host = "127.0.0.1"
port = 104
[[peer]]
title = "B"
""",
    )
    source, mistakes = read_leniently(path)
    # Within a table, cattrs has them in the order of its own.
    assert sorted(each.line for each in mistakes) == [2, 4, 4, 5, 8, 11, 11, 12, 13]
    (first,) = (each for each in mistakes if each.line == 2)
    assert first.key == ("node", "max_associations")
    config = source.config
    assert (config.node.max_associations, config.node.listen) == (100, ("tcp:104", "tcp:105"))
    assert (config.storage.directory, config.storage.fsync) == ("a", True)
    assert [each.title for each in config.peer] == ["B"]


_KEYS = sorted({each.name for kind in TABLES.values() for each in attrs.fields(kind)} | {"x"})
_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["title", "host", "listen", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(
    tables=st.dictionaries(
        st.sampled_from([*TABLES, "peer", "other", "max-associations"]),
        _VALUES | st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=3),
        max_size=4,
    )
)
def test_anything_wrong_can_be_left_out(tables: dict[str, Any]) -> None:
    """The rest of a document is one without a mistake, whatever was in it."""
    with patch("netdicom_tx.config.reading._document", lambda *_: tables):
        read_leniently("node.toml", text="")
