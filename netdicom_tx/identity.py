"""Who a peer is, beyond its AE title: the certificate that it has shown, and its user (PS3.7 D.3.3.7).

An :class:`~netdicom_tx.AE` with :class:`Identities` asks :mod:`twisted.cred` about the user identity of an association
request. Each type of identity is a kind of credentials, and a checker of ``twisted.cred`` says which kinds it checks:

====  =====================  =================================================  =======================================
type  identity               credentials                                        checker here
====  =====================  =================================================  =======================================
1     user name              :class:`IUserName`                                 :class:`UserNames`
2     user name, passcode    ``twisted.cred.credentials.IUsernamePassword``     :class:`PasswordFile`
3     Kerberos ticket        :class:`IKerberosTicket`                           a checker of the program
4     SAML assertion         :class:`ISAMLAssertion`                            a checker of the program
5     JSON Web Token         :class:`IJSONWebToken`                             :class:`JSONWebTokens`, extra ``jwt``
====  =====================  =================================================  =======================================

What no checker is for is passed to the hook ``on_user_identity``. An identity that is checked and not accepted is
answered with A-ASSOCIATE-RJ, result 1, source 2, reason 1. Neither passwords nor tickets nor user names are logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import ICredentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm, Portal
from twisted.internet import defer
from twisted.internet.threads import deferToThread
from zope.interface import Attribute, Interface, implementer

from .access import Certificate
from .exceptions import AssociationRejectedError, LocalProtocolError
from .passwords import is_right, read_passwords
from .refusals import Refusal
from .userdataitems import UserIdentity, UserIdentityType

__all__ = [
    "IJSONWebToken",
    "IKerberosTicket",
    "ISAMLAssertion",
    "IUser",
    "IUserName",
    "Identities",
    "JSONWebTokens",
    "NotAuthenticatedError",
    "PasswordFile",
    "Token",
    "UnfitKeyError",
    "User",
    "UserNames",
    "UserRealm",
    "kind_of",
    "peer_certificate",
]

# scrypt takes 32 MiB for each attempt.
_ATTEMPTS_AT_ONCE: Final = 2


# -- certificates ------------------------------------------------------------------------------------


def peer_certificate(transport: Any) -> Certificate | None:
    """What the rules look at in the certificate of a TLS peer; None without TLS, or without a certificate.

    Args:
        transport: The transport of the association. Those that speak TLS have ``getPeerCertificate``.
    """
    get = getattr(transport, "getPeerCertificate", None)
    found = None if get is None else get()
    if found is None:
        return None
    from cryptography import x509

    digest = found.digest("sha256").decode("ascii").replace(":", "").lower()
    try:
        certificate = found.to_cryptography()
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = (*(str(each.value) for each in common), *_alternative_names(certificate))
    except Exception:  # `cryptography` documents no closed set
        names = ()  # OpenSSL reads certificates that this parser does not; they have a fingerprint all the same
    return Certificate(digest, names)


def _alternative_names(certificate: Any) -> list[str]:
    from cryptography import x509

    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):  # there is none, or it cannot be read
        return []
    names: list[str] = []
    for kind in (x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier):
        names += found.get_values_for_type(kind)
    return [*names, *map(str, found.get_values_for_type(x509.IPAddress))]


# -- users -------------------------------------------------------------------------------------------


class IUser(Interface):
    """The user of an association, as :mod:`twisted.cred` calls the avatar."""

    name = Attribute("The name of the user.")


@implementer(IUser)
@dataclass(frozen=True, slots=True)
class User:
    """The user of an association, whose identity has been checked.

    Attributes:
        name: The name; it does not appear in logs.
        response: The answer to the identity: a Kerberos ticket of the server, a SAML response or a JSON Web Token.
            It is sent only when the peer has asked for an answer, and is empty for user names (PS3.7 D.3.3.7.2).
    """

    name: str = field(repr=False)
    response: bytes = field(default=b"", repr=False)


class IUserName(ICredentials):
    """A user name that nothing proves (type 1)."""

    username = Attribute("The user name, in octets of UTF-8.")


class _IToken(ICredentials):
    token = Attribute("The octets that the peer has sent.")


class IKerberosTicket(_IToken):
    """A Kerberos service ticket (type 3)."""


class ISAMLAssertion(_IToken):
    """A SAML assertion (type 4)."""


class IJSONWebToken(_IToken):
    """A JSON Web Token (type 5)."""


@implementer(IUserName)
@dataclass(frozen=True, slots=True)
class _UserName:
    username: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """The octets of a ticket, an assertion or a token; it provides the interface of its type.

    Attributes:
        token: The octets that the peer has sent.
    """

    token: bytes = field(repr=False)


@implementer(IKerberosTicket)
class _Kerberos(Token):
    pass


@implementer(ISAMLAssertion)
class _SAML(Token):
    pass


@implementer(IJSONWebToken)
class _JWT(Token):
    pass


_TOKENS: Final = {
    UserIdentityType.KERBEROS: _Kerberos,
    UserIdentityType.SAML: _SAML,
    UserIdentityType.JWT: _JWT,
}
_WORDS: Final = {
    1: "a user name",
    2: "a user name and passcode",
    3: "a Kerberos ticket",
    4: "a SAML assertion",
    5: "a JSON Web Token",
}


def kind_of(identity: UserIdentity) -> str:
    """The type of an identity in words, without anything of its content."""
    return _WORDS.get(identity.identity_type, f"a user identity of type {identity.identity_type}")


def _credentials(
    identity: UserIdentity,
) -> Any:  # of one of the interfaces; None for an unknown type
    if identity.identity_type == UserIdentityType.USERNAME:
        return _UserName(identity.primary)
    if identity.identity_type == UserIdentityType.USERNAME_PASSCODE:
        return UsernamePassword(identity.primary, identity.secondary)
    made = _TOKENS.get(identity.identity_type)  # type: ignore[call-overload]  # an IntEnum equals its number
    return None if made is None else made(identity.primary)


@implementer(IRealm)
class UserRealm:
    """The realm in which every avatar is a :class:`User`: a checker returns one, or the name of one."""

    def requestAvatar(
        self, avatarId: Any, mind: object, *interfaces: Any
    ) -> tuple[Any, User, Callable[[], None]]:
        if isinstance(avatarId, bytes):
            avatarId = avatarId.decode("utf-8", "replace")
        user = avatarId if isinstance(avatarId, User) else User(avatarId)
        return IUser, user, lambda: None


class Identities:
    """Checks the identities of users.

    Args:
        checkers: The checkers of :mod:`twisted.cred`, each for other credentials. They return the name of the user,
            or a :class:`User`, or a Deferred of it.
        portal: A portal of the program, whose realm gives an :class:`IUser`; the checkers are added to it.
    """

    def __init__(self, checkers: Iterable[Any] = (), portal: Portal | None = None) -> None:
        self._portal = portal or Portal(UserRealm())
        for each in checkers:
            self._portal.registerChecker(each)

    def checks(self, identity: UserIdentity) -> bool:
        """Whether there is a checker for an identity of this type."""
        credentials = _credentials(identity)
        return credentials is not None and any(
            kind.providedBy(credentials) for kind in self._portal.listCredentialsInterfaces()
        )

    async def check(self, identity: UserIdentity) -> User | None:
        """The user with an identity; None when a checker does not accept it, or there is none."""
        credentials = _credentials(identity)
        if credentials is None:
            return None
        try:
            _, user, _ = await self._portal.login(credentials, None, IUser)
        except (LoginFailed, UnhandledCredentials):
            return None
        return cast(User, user)


# -- checkers ----------------------------------------------------------------------------------------


class NotAuthenticatedError(AssociationRejectedError):
    """The user of an association is not known.

    PS3.7 D.3.3.7 lets the ACSE service-provider reject the association for good, without a reason.

    Attributes:
        refusal: What the log says, without anything of the identity.
    """

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(1, 2, 1)
        self.refusal = refusal

    @classmethod
    def because(cls, kind: str, came: str, expected: str, advice: str) -> NotAuthenticatedError:
        """An error with a refusal of these words."""
        return cls(Refusal(f"user identity, {kind}", came, expected, advice))


@implementer(ICredentialsChecker)
class UserNames:
    """Accepts the user names of a list. Nothing proves them, so they only say who is held responsible.

    Args:
        names: The user names.
    """

    credentialInterfaces = (IUserName,)

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(each.encode() for each in names)

    def requestAvatarId(self, credentials: Any) -> defer.Deferred[Any]:
        if credentials.username in self._names:
            return defer.succeed(credentials.username)
        return defer.fail(UnauthorizedLogin("unknown user"))


@implementer(ICredentialsChecker)
class PasswordFile:
    """Accepts the users of a password file, which is read for each attempt; see :mod:`netdicom_tx.passwords`.

    Args:
        path: The file.
        in_thread: Runs a call in a thread; two attempts at most run at once, and others wait.

    Raises:
        LocalProtocolError: The file cannot be used.
    """

    credentialInterfaces = (IUsernamePassword,)

    def __init__(
        self, path: str | Path, in_thread: Callable[..., Awaitable[str]] = deferToThread
    ) -> None:
        self._path = Path(path)
        self._in_thread = in_thread
        self._places = defer.DeferredSemaphore(_ATTEMPTS_AT_ONCE)
        read_passwords(self._path)

    def requestAvatarId(self, credentials: Any) -> defer.Deferred[Any]:
        answer: defer.Deferred[Any] = defer.Deferred()

        async def attempt() -> str | None:
            if answer.called:
                return None  # the peer went away while it waited for a place
            return await self._in_thread(self._attempt, credentials.username, credentials.password)

        # Cancelling the answer does not end the thread. The attempt keeps its place until then, because otherwise a
        # peer that comes and goes could have any number of them at work.
        self._places.run(lambda: defer.ensureDeferred(attempt())).addCallbacks(
            answer.callback, answer.errback
        )
        return answer

    def _attempt(self, username: bytes, password: bytes) -> str:
        user = username.decode("utf-8", "replace")
        if not is_right(password, read_passwords(self._path).get(user)):
            raise UnauthorizedLogin("wrong user or password")
        return user


class UnfitKeyError(LocalProtocolError):
    """No accepted algorithm can check a JSON Web Token with this key: it is damaged, private, or of another kind."""


def _fits(key: str | bytes, algorithm: Any) -> bool:
    """Whether an algorithm of PyJWT can check a signature with a key."""
    import jwt

    try:
        # A wrong signature is False; a key that cannot be used raises, the private key of RSA only in verify().
        algorithm.verify(b"", algorithm.prepare_key(key), b"")
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError):
        return False
    return True


@implementer(ICredentialsChecker)
class JSONWebTokens:
    """Accepts JSON Web Tokens that have been signed with a key and have not expired; the user is their ``sub``.

    Args:
        key: The public key in PEM form, or the secret for an ``HS…`` algorithm.
        algorithms: The algorithms that are accepted.
        audience: What ``aud`` has to name; None accepts only tokens without it.
        issuer: What ``iss`` has to be; None accepts every issuer.

    Raises:
        UnfitKeyError: No algorithm of these can check a signature with the key.
        LocalProtocolError: The package PyJWT is missing, or an algorithm is not one.
    """

    credentialInterfaces = (IJSONWebToken,)

    def __init__(
        self,
        key: str | bytes,
        algorithms: Sequence[str] = ("RS256", "ES256"),
        *,
        audience: str | None = None,
        issuer: str | None = None,
    ) -> None:
        try:
            import jwt
        except ImportError as error:
            raise LocalProtocolError(
                "JSON Web Tokens need an extra package: pip install 'netdicom-tx[jwt]'"
            ) from error
        known = jwt.algorithms.get_default_algorithms()
        for each in algorithms:
            if each == "none" or each not in known:
                raise LocalProtocolError(f"{each!r} is not an algorithm for tokens, such as RS256")
        # A public key is of one kind, so it fits some of the algorithms only.
        if not any(_fits(key, known[each]) for each in algorithms):
            raise UnfitKeyError(
                f"the key fits none of {', '.join(algorithms)}; expected a public key in PEM form, "
                "or a secret for HS256"
            )
        self._key = key
        self._algorithms = list(algorithms)
        self._audience = audience
        self._issuer = issuer

    def requestAvatarId(self, credentials: Any) -> defer.Deferred[Any]:
        import jwt

        try:
            claims = jwt.decode(
                credentials.token,
                self._key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                options={"require": ["exp", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            # The last three: a key that does not fit, and JSON that is nested too deeply.
            return defer.fail(UnauthorizedLogin("the token is not valid"))
        return defer.succeed(User(str(claims["sub"])))
