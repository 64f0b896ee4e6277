"""The users of peers (PS3.7 D.3.3.7): which are accepted, what is answered, and what is never logged."""

import datetime as dt
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import crypto
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet import defer
from zope.interface import implementer

from netdicom_tx import AE, AssociationRejectedError, passwords, verification_scp
from netdicom_tx.access import Access, Certificate, Profile, Rule
from netdicom_tx.exceptions import LocalProtocolError
from netdicom_tx.identity import (
    Identities,
    IJSONWebToken,
    IKerberosTicket,
    ISAMLAssertion,
    IUser,
    JSONWebTokens,
    PasswordFile,
    UnfitKeyError,
    User,
    UserNames,
    peer_certificate,
)
from netdicom_tx.userdataitems import MaximumLength, UserIdentity, UserIdentityResponse
from support.doubles import AC, Node, RawPeer, request
from support.doubles import logged_failures as logged_failures
from support.doubles import logged_lines as logged_lines

NAME, PASSCODE, KERBEROS, SAML, TOKEN = 1, 2, 3, 4, 5
SECRET = b"correct horse battery staple"
KEY = "a key of thirty-two octets, or a few more"
NEEDED = Access(default=Profile(require_identity=True))


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The costs are for attackers, not for tests."""
    monkeypatch.setattr(passwords, "_LOG_N", 4)


def at_once(call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
    """Do the work of a thread in this one."""
    return defer.maybeDeferred(call, *arguments)


@pytest.fixture
def users(tmp_path: Path) -> Identities:
    """Knows alice with a password, bob without one, and tokens."""
    path = tmp_path / "users"
    passwords.write_password(path, "alice", SECRET.decode())
    return Identities(
        [PasswordFile(path, at_once), UserNames(["bob"]), JSONWebTokens(KEY, ["HS256"])]
    )


def call(
    identity: UserIdentity | None, kind: type[AE] = AE, **options: Any
) -> tuple[Node, RawPeer]:
    node = Node(kind("NODE", **options).add_scp(verification_scp))
    peer = node.connect()
    peer.send(request(None, MaximumLength(0), *([identity] if identity is not None else [])))
    return node, peer


def response(node: Node) -> UserIdentityResponse | None:
    answer = node.association().response_pdu
    assert answer is not None
    return answer.user_item(UserIdentityResponse)


def token(seconds: int = 86_400, key: str = KEY, **claims: Any) -> bytes:
    now = dt.datetime.now(dt.UTC)
    content = {"sub": "alice", "exp": now + dt.timedelta(seconds=seconds)} | claims
    return jwt.encode(content, key, "HS256").encode()


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize(
    ("identity", "name"),
    [
        ((PASSCODE, b"alice", SECRET), "alice"),
        ((NAME, b"bob"), "bob"),
        ((TOKEN, token()), "alice"),
    ],
)
def test_a_known_user_is_accepted_and_answered_only_where_that_is_asked(
    users: Identities, identity: tuple[Any, ...], name: str, asks: bool
) -> None:
    """PS3.7 D.3.3.7.2: the server response is empty for user names."""
    node, peer = call(
        replace(UserIdentity(*identity), positive_response_requested=asks), identities=users
    )
    assert peer.kinds() == [AC]
    assert response(node) == (UserIdentityResponse() if asks else None)
    user = node.association().user
    assert user is not None
    assert user.name == name
    assert name not in repr(user)


@pytest.mark.parametrize(
    "identity",
    [
        (PASSCODE, b"alice", b"wrong-passcode"),
        (PASSCODE, b"alice", b""),
        (PASSCODE, b"marker-user", SECRET),
        (PASSCODE, b"\xff\xfe", SECRET),
        (NAME, b"alice"),
        (NAME, b"marker-user"),
        (TOKEN, token(-1)),
        (TOKEN, token(key=KEY[::-1])),
        (TOKEN, token(aud="other")),
        (TOKEN, b"marker-user"),
        (TOKEN, urlsafe_b64encode(b'{"a":' + b"[" * 30_000) + b".e30.AA"),
    ],
)
def test_a_wrong_identity_is_rejected_and_not_logged(
    users: Identities, lines: list[str], identity: tuple[Any, ...]
) -> None:
    """PS3.7 D.3.3.7: permanent, ACSE service-provider, no reason given."""
    _, peer = call(UserIdentity(*identity), identities=users)
    assert peer.rejection() == (1, 2, 1)
    log = "\n".join(lines)
    assert "refused PEER" in log
    assert "user identity" in log or "came that is not accepted" in log
    for part in identity[1:]:
        if part:
            assert part.decode("utf-8", "replace") not in log


def test_an_identity_that_nothing_checks_is_ignored() -> None:
    """PS3.7 D.3.3.7.2: no response; the requestor decides whether it goes on."""
    node, peer = call(UserIdentity(PASSCODE, b"alice", SECRET, True))
    assert peer.kinds() == [AC]
    assert response(node) is None
    assert node.association().user is None


def test_a_type_that_nothing_checks_is_ignored(users: Identities) -> None:
    for kind in (KERBEROS, SAML, 77):
        node, peer = call(UserIdentity(kind, b"ticket", b"", True), identities=users)
        assert peer.kinds() == [AC]
        assert response(node) is None


@pytest.mark.parametrize(
    "identity", [None, UserIdentity(KERBEROS, b"ticket"), UserIdentity(77, b"x")]
)
def test_a_user_may_be_required(
    users: Identities, lines: list[str], identity: UserIdentity | None
) -> None:
    _, peer = call(identity, identities=users, access=NEEDED)
    assert peer.rejection() == (1, 2, 1)
    assert sum("refused PEER" in each for each in lines) == 1


def test_a_user_may_be_required_of_some_peers_only(users: Identities) -> None:
    """Modalities often cannot send one."""
    access = Access((Rule(title="PEER"), Rule(title="WS1", profile=Profile(require_identity=True))))
    _, peer = call(None, identities=users, access=access)
    assert peer.kinds() == [AC]


# -- hooks and checkers of a program -------------------------------------------------------------------


class Kerberized(AE):
    """Knows one ticket."""

    async def on_user_identity(self, asce: Any, identity: UserIdentity) -> User | None:
        if identity.primary == b"forged":
            raise AssociationRejectedError(1, 2, 1)
        if identity.primary == b"broken":
            raise ZeroDivisionError("a bug")
        return User("alice", b"server ticket") if identity.primary == b"ticket" else None


def test_a_hook_is_asked_about_what_no_checker_is_for(users: Identities, failures: Any) -> None:
    node, peer = call(UserIdentity(KERBEROS, b"ticket", b"", True), Kerberized, identities=users)
    assert peer.kinds() == [AC]
    assert response(node) == UserIdentityResponse(b"server ticket")
    _, peer = call(UserIdentity(KERBEROS, b"forged"), Kerberized)
    assert peer.rejection() == (1, 2, 1)
    node, peer = call(UserIdentity(KERBEROS, b"other"), Kerberized)
    assert peer.kinds() == [AC]
    assert node.association().user is None
    _, peer = call(UserIdentity(KERBEROS, b"other"), Kerberized, access=NEEDED)
    assert peer.rejection() == (1, 2, 1)
    _, peer = call(UserIdentity(PASSCODE, b"ticket", b"wrong"), Kerberized, identities=users)
    assert peer.rejection() == (1, 2, 1)
    assert failures.texts() == []


def test_a_hook_that_fails_lets_nobody_in(failures: Any) -> None:
    _, peer = call(UserIdentity(KERBEROS, b"broken"), Kerberized)
    assert peer.rejection() == (2, 1, 1)
    assert failures.texts() == ["a bug"]


def test_a_program_brings_its_own_checkers() -> None:
    """Those of twisted.cred fit; a checker may return the answer to the identity with the user."""

    class Tickets:
        credentialInterfaces = (IKerberosTicket, ISAMLAssertion)

        def requestAvatarId(self, credentials: Any) -> Any:
            if credentials.token != b"good":
                raise UnauthorizedLogin
            kind = "saml" if ISAMLAssertion.providedBy(credentials) else "kerberos"
            return User("alice", kind.encode())

    database = InMemoryUsernamePasswordDatabaseDontUse(alice=SECRET)
    own = Identities([Tickets(), database])
    node, _ = call(UserIdentity(SAML, b"good", b"", True), identities=own)
    assert response(node) == UserIdentityResponse(b"saml")
    node, _ = call(UserIdentity(KERBEROS, b"good", b"", True), identities=own)
    assert response(node) == UserIdentityResponse(b"kerberos")
    _, peer = call(UserIdentity(SAML, b"bad"), identities=own)
    assert peer.rejection() == (1, 2, 1)
    node, peer = call(UserIdentity(PASSCODE, b"alice", SECRET), identities=own)
    assert peer.kinds() == [AC]
    _, peer = call(UserIdentity(PASSCODE, b"alice", b"x"), identities=own)
    assert peer.rejection() == (1, 2, 1)


def test_a_portal_of_a_program_is_used() -> None:
    @implementer(IRealm)
    class Realm:
        def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
            assert interfaces == (IUser,)
            return IUser, User(f"{avatarId.decode()} of radiology"), lambda: None

    portal = Portal(Realm(), [UserNames(["alice"])])
    node, _ = call(UserIdentity(NAME, b"alice"), identities=Identities(portal=portal))
    user = node.association().user
    assert user is not None
    assert user.name == "alice of radiology"


def test_a_password_file_that_is_gone_lets_nobody_in(
    tmp_path: Path, users: Identities, failures: Any
) -> None:
    (tmp_path / "users").unlink()
    _, peer = call(UserIdentity(PASSCODE, b"alice", SECRET), identities=users)
    assert peer.rejection() == (2, 1, 1)
    (told,) = failures.texts()
    assert SECRET.decode() not in told


def test_a_peer_that_leaves_while_its_user_is_checked_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "users"
    passwords.write_password(path, "alice", "one")
    waiting: list[defer.Deferred[Any]] = []

    def never(*_: Any) -> defer.Deferred[Any]:
        waiting.append(defer.Deferred())
        return waiting[-1]

    node, peer = call(
        UserIdentity(PASSCODE, b"alice", b"one"), identities=Identities([PasswordFile(path, never)])
    )
    peer.transport.abortConnection()
    node.advance(0)
    assert not node.ae.associations
    assert len(waiting) == 1


def test_peers_that_come_and_go_take_no_more_threads(tmp_path: Path) -> None:
    """Each attempt takes 32 MiB until its thread has ended, whether somebody still waits for it or not."""
    path = tmp_path / "users"
    passwords.write_password(path, "alice", "one")
    at_work: list[defer.Deferred[Any]] = []

    def begin(*_: Any) -> defer.Deferred[Any]:
        at_work.append(defer.Deferred(lambda _: None))
        return at_work[-1]

    users = Identities([PasswordFile(path, begin)])
    ae = AE("NODE", identities=users).add_scp(verification_scp)
    node = Node(ae)
    identity = UserIdentity(PASSCODE, b"alice", b"one")
    for _ in range(9):
        peer = node.connect()
        peer.send(request(None, MaximumLength(0), identity))
        peer.transport.abortConnection()
        node.advance(0)
    assert len(at_work) == 2
    peer = node.connect()
    peer.send(request(None, MaximumLength(0), identity))
    assert len(at_work) == 2
    at_work[0].callback("alice")
    assert len(at_work) == 3  # for the one that is still there, and not for those that left
    at_work[2].callback("alice")
    assert peer.kinds() == [AC]


@pytest.mark.parametrize("algorithms", [["none"], ["XS256"]])
def test_an_algorithm_has_to_be_known(algorithms: list[str]) -> None:
    with pytest.raises(LocalProtocolError, match="is not an algorithm"):
        JSONWebTokens(KEY, algorithms)


@pytest.mark.parametrize(
    ("kind", "algorithms", "is_usable"),
    [
        ("public RSA", ["RS256", "ES256"], True),
        ("public EC", ["RS256", "ES256"], True),
        ("public EC", ["RS256"], False),
        ("private RSA", ["RS256", "ES256"], False),
        ("encrypted RSA", ["RS256", "ES256"], False),
        ("public RSA", ["HS256"], False),  # a secret that everybody knows
        ("octets", ["RS256", "ES256"], False),
        ("octets", ["HS256"], True),
    ],
)
def test_a_key_that_can_check_no_token_is_refused_at_once(
    kind: str, algorithms: list[str], is_usable: bool
) -> None:
    """And not only when the first token comes; a public key fits the algorithms of its kind."""
    key = _key(kind)
    if is_usable:
        JSONWebTokens(key, algorithms)
    else:
        with pytest.raises(UnfitKeyError, match=f"the key fits none of {', '.join(algorithms)}; e"):
            JSONWebTokens(key, algorithms)


def _key(kind: str) -> bytes:
    if kind == "octets":
        return bytes(range(1, 128, 2))
    what, _, algorithm = kind.partition(" ")
    private = (
        rsa.generate_private_key(65537, 2048)
        if algorithm == "RSA"
        else ec.generate_private_key(ec.SECP256R1())
    )
    if what == "public":
        return private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    return private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret")
        if what == "encrypted"
        else serialization.NoEncryption(),
    )


def test_tokens_are_checked_for_audience_and_issuer() -> None:
    checker = JSONWebTokens(KEY, ["HS256"], audience="NODE", issuer="https://login.example")
    own = Identities([checker])
    assert IJSONWebToken in checker.credentialInterfaces
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"aud": "NODE", "iss": "https://login.example"}, True),
        ({"aud": "NODE"}, False),
        ({"iss": "https://login.example"}, False),
    ]
    for claims, is_accepted in cases:
        _, peer = call(UserIdentity(TOKEN, token(**claims)), identities=own)
        assert (peer.kinds() == [AC]) is is_accepted


def test_tokens_need_an_extra_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    with pytest.raises(LocalProtocolError, match=r"pip install 'netdicom-tx\[jwt\]'"):
        JSONWebTokens(KEY)


# -- certificates ------------------------------------------------------------------------------------


class Secure:
    """A transport that speaks TLS."""

    def __init__(self, certificate: Any) -> None:
        self._certificate = certificate

    def getPeerCertificate(self) -> Any:
        return self._certificate


def test_the_rules_look_at_fingerprint_and_names_of_a_certificate() -> None:
    """RFC 5280 4.1.2.6 and 4.2.1.6: the subject, and its alternative names."""
    made = trustme.CA().issue_cert(
        "ct1.example", "192.0.2.17", "ops@example.org", common_name="CT 1"
    )
    pem = made.cert_chain_pems[0].bytes()
    found = peer_certificate(Secure(crypto.load_certificate(crypto.FILETYPE_PEM, pem)))
    assert found is not None
    assert set(found.names) == {"CT 1", "ct1.example", "192.0.2.17", "ops@example.org"}
    own = x509.load_pem_x509_certificate(pem)
    assert found.fingerprint == own.fingerprint(hashes.SHA256()).hex()
    assert found.is_called("CT1.example")


def test_a_certificate_may_have_no_name() -> None:
    authority = x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes())
    found = peer_certificate(Secure(crypto.X509.from_cryptography(authority)))
    assert found is not None
    assert found.names == ()


def test_a_certificate_that_only_openssl_can_read_has_a_fingerprint() -> None:
    """It may be one that is trusted by that alone."""
    plain = x509.load_pem_x509_certificate(trustme.CA().cert_pem.bytes())
    octets = plain.public_bytes(serialization.Encoding.DER)
    odd = octets.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x12")  # its version
    found = peer_certificate(Secure(crypto.load_certificate(crypto.FILETYPE_ASN1, odd)))
    assert found == Certificate(sha256(odd).hexdigest(), ())


def test_a_peer_without_tls_or_without_a_certificate_has_none() -> None:
    assert peer_certificate(object()) is None
    assert peer_certificate(Secure(None)) is None
