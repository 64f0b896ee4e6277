"""Who may do what, as DCMTK and pynetdicom see it."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
import trustme
from pydicom import dcmread

from netdicom_tx.passwords import write_password
from support.interop.peers import StoreSCP
from support.interop.samples import Sample
from support.node import Address, Node
from support.processes import eventually, free_port, need_pynetdicom, program, run, succeed

pytestmark = pytest.mark.interop

KEY = "a key of thirty-two octets, or a few more"
STUDY = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID")


@pytest.fixture
def ct(samples: tuple[Sample, ...]) -> Sample:
    return next(each for each in samples if each.name == "CT_small.dcm")


@pytest.fixture
def start(tmp_path: Path, start_node: Callable[..., Node]) -> Callable[[str], Node]:
    """Start a node with a configuration file."""

    def begin(text: str) -> Node:
        path = tmp_path / "node.toml"
        path.write_text(text)
        return start_node("--config", str(path))

    return begin


def status(node: Node, tool: str, title: str, *more: str | Path) -> int:
    """The exit status of a tool of DCMTK that calls with this AE title."""
    address = ("-aet", title, "-aec", node.ae_title, *node.address.arguments)
    options = [each for each in more if not isinstance(each, Path)]
    files = [each for each in more if isinstance(each, Path)]
    return run(program(tool), *options, *address, *files).returncode


def test_each_peer_may_do_what_its_table_says(
    start: Callable[[str], Node], start_storescp: Callable[..., StoreSCP], ct: Sample
) -> None:
    """PS3.8 9.3.3.2 and 9.3.4: DCMTK fails without an accepted context, and when it is rejected."""
    viewer, other = start_storescp(), start_storescp()
    node = start(
        f"""
        [access]
        default = "none"

        [[peer]]
        title = "CT1"
        networks = ["127.0.0.0/8"]
        allow = ["echo", "store"]

        [[peer]]
        title = "WS1"
        allow = ["find", "move"]
        move_to = ["VIEWER"]

        [[peer]]
        title = "ELSEWHERE"
        networks = ["192.0.2.0/24"]

        [[peer]]
        title = "VIEWER"
        host = "127.0.0.1"
        port = {viewer.address.port}

        [[peer]]
        title = "OTHER"
        host = "127.0.0.1"
        port = {other.address.port}
        """
    )
    assert status(node, "echoscu", "CT1") == 0
    assert status(node, "storescu", "CT1", ct.path) == 0
    assert status(node, "findscu", "CT1", "-S", *STUDY) != 0
    assert status(node, "movescu", "CT1", "-S", "-aem", "VIEWER", *STUDY) != 0

    assert status(node, "echoscu", "WS1") != 0
    assert status(node, "storescu", "WS1", ct.path) != 0
    assert status(node, "findscu", "WS1", "-S", *STUDY) == 0
    study = f"StudyInstanceUID={_study(ct)}"
    moving = ("-S", "-k", "QueryRetrieveLevel=STUDY", "-k", study)
    assert status(node, "movescu", "WS1", "-aem", "OTHER", *moving) != 0
    assert other.instances() == {}
    assert status(node, "movescu", "WS1", "-aem", "VIEWER", *moving) == 0
    assert ct.instance in viewer.instances()

    for stranger in ("NEW", "ELSEWHERE", "ct1"):
        assert status(node, "echoscu", stranger) != 0
    log = node.log
    assert "refused NEW at 127.0.0.1" in log
    assert "expected it from 192.0.2.0/24" in log
    assert "0x0124 (not authorized) to WS1" in log


def _study(sample: Sample) -> str:
    return str(dcmread(sample.path, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)


def test_rules_change_while_the_node_runs(start: Callable[[str], Node], tmp_path: Path) -> None:
    node = start('[access]\ndefault = "all"\n')
    assert status(node, "echoscu", "NEW") == 0
    (tmp_path / "node.toml").write_text('[access]\ndefault = "none"\n')
    os.kill(node.pid, signal.SIGHUP)
    eventually(lambda: "Read" in node.log, "line")
    assert status(node, "echoscu", "NEW") != 0


# -- users -------------------------------------------------------------------------------------------


def test_dcmtk_names_its_user(start: Callable[[str], Node], tmp_path: Path, ct: Sample) -> None:
    """PS3.7 D.3.3.7; with --pos-response storescu wants an answer."""
    write_password(tmp_path / "users", "alice", "a good passcode")
    (tmp_path / "key").write_text(KEY)
    node = start(
        f"""
        [access]
        require_identity = true
        password_file = "{tmp_path}/users"
        users = ["bob"]
        jwt_key_file = "{tmp_path}/key"
        jwt_algorithms = ["HS256"]
        """
    )
    for name, key in (("good", KEY), ("bad", KEY[::-1])):
        token = jwt.encode({"sub": "alice", "exp": 4_000_000_000}, key, "HS256")
        (tmp_path / name).write_text(token)

    def storescu(*options: str) -> int:
        return status(node, "storescu", "CT1", *options, ct.path)

    user = ("--user", "alice", "--password")
    assert storescu(*user, "a good passcode") == 0
    assert storescu(*user, "a good passcode", "--pos-response") == 0
    assert storescu(*user, "a marked passcode") != 0
    assert storescu("--user", "alice") != 0
    assert storescu("--user", "bob") == 0
    assert storescu("--user", "bob", "--pos-response") == 0
    assert storescu("--user", "marked-user") != 0
    assert storescu("--jwt", str(tmp_path / "good"), "--pos-response") == 0
    assert storescu("--jwt", str(tmp_path / "bad")) != 0
    assert storescu() != 0
    assert "marked" not in node.log
    assert "good passcode" not in node.log


PYNETDICOM = """
import sys
from pynetdicom import AE
from pynetdicom.pdu_primitives import UserIdentityNegotiation

item = UserIdentityNegotiation()
item.user_identity_type = 2
item.primary_field = b"alice"
item.secondary_field = sys.argv[2].encode()
item.positive_response_requested = True
ae = AE("CT1")
ae.add_requested_context("1.2.840.10008.1.1")
asce = ae.associate("127.0.0.1", int(sys.argv[1]), ext_neg=[item])
if asce.is_rejected:
    rejection = asce.acceptor.primitive
    print("rejected", rejection.result, rejection.result_source, rejection.diagnostic)
else:
    print("answered", asce.acceptor.user_identity is not None, asce.send_c_echo().Status)
    asce.release()
"""


@pytest.mark.parametrize(
    ("passcode", "expected"), [("right", "answered True 0"), ("wrong", "rejected 1 2 1")]
)
def test_pynetdicom_names_its_user(
    start: Callable[[str], Node], tmp_path: Path, passcode: str, expected: str
) -> None:
    """PS3.7 D.3.3.7: permanent, ACSE service-provider, no reason given."""
    need_pynetdicom()
    write_password(tmp_path / "users", "alice", "right")
    node = start(f'[access]\npassword_file = "{tmp_path}/users"\n')
    program_ = tmp_path / "scu.py"
    program_.write_text(PYNETDICOM)
    out = succeed(sys.executable, program_, str(node.address.port), passcode)
    assert expected in out


# -- certificates ------------------------------------------------------------------------------------


@pytest.fixture
def certificates(tmp_path: Path) -> Callable[[str], tuple[Path, Path]]:
    """The files of a new key and of its certificate, for a name."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def issue(name: str) -> tuple[Path, Path]:
        made = authority.issue_cert(name, "localhost", "127.0.0.1")
        key, certificate = tmp_path / f"{name}.key", tmp_path / f"{name}.pem"
        made.private_key_pem.write_to_path(str(key))
        made.cert_chain_pems[0].write_to_path(str(certificate))
        return key, certificate

    return issue


@pytest.fixture
def secured(
    start: Callable[[str], Node], certificates: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> tuple[Node, Address]:
    """A node that binds the title CT1 to a certificate, and where it serves TLS."""
    key, certificate = certificates("node.example")
    secure = Address("NETDICOM", free_port())
    node = start(
        f"""
        [node]
        tls_listen = ["tcp:{secure.port}:interface=127.0.0.1"]
        [tls]
        key = "{key}"
        certificate = "{certificate}"
        authorities = "{tmp_path}/ca.pem"
        [[peer]]
        title = "CT1"
        certificate = "ct1.example"
        """
    )
    return node, secure


def test_a_title_is_bound_to_a_certificate(
    secured: tuple[Node, Address],
    certificates: Callable[[str], tuple[Path, Path]],
    tmp_path: Path,
) -> None:
    """With another certificate of the same authority, or without TLS, nobody calls as CT1."""
    node, secure = secured

    def echoscu(title: str, name: str) -> int:
        key, certificate = certificates(name)
        files = ("+tls", key, certificate, "+cf", tmp_path / "ca.pem")
        return run(program("echoscu"), *files, "-aet", title, *secure.arguments).returncode

    assert echoscu("CT1", "ct1.example") == 0
    assert echoscu("CT1", "ct2.example") != 0
    assert echoscu("CT2", "ct2.example") == 0
    assert status(node, "echoscu", "CT1") != 0
    assert "calling AE title 'CT1' with a certificate for" in node.log
    assert "ct2.example" in node.log
