"""Which peer may do what: rules by calling AE title, address and certificate.

:class:`Access` is asked when a peer requests an association, and again for each operation, so a new one takes effect at
once. It knows these permissions:

==============  =====================================================================================
permission      allows a peer
==============  =====================================================================================
``echo``        C-ECHO
``store``       C-STORE
``find``        C-FIND, except for worklists
``get``         C-GET
``move``        C-MOVE, to the destinations in ``move_to``
``worklist``    C-FIND of the Modality Worklist
``mpps``        N-CREATE, N-SET and N-GET of performed procedure steps
``commit``      N-ACTION of storage commitment
``delete``      nothing yet; the name is reserved
``other``       every other operation, of services that a program has added
==============  =====================================================================================

What a peer may not use is refused with its presentation context (user-rejection, PS3.8 9.3.3.2). What is seen only in
the operation is answered with 0x0124, not authorized (PS3.7 Annex C).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from . import uids
from .exceptions import LocalProtocolError, printable
from .negotiation import Offer

__all__ = [
    "ANY_TITLE",
    "EVERYTHING",
    "Access",
    "Caller",
    "Certificate",
    "Denied",
    "Network",
    "Permission",
    "Profile",
    "Rule",
    "includes",
    "needed_for",
    "network",
    "restricted",
]

Network = IPv4Network | IPv6Network

#: A rule with this title holds for every title that has no rule of its own.
ANY_TITLE: Final = "*"


class Permission(StrEnum):
    """What a peer may be allowed to do; the module's table says what each means."""

    ECHO = "echo"
    STORE = "store"
    FIND = "find"
    GET = "get"
    MOVE = "move"
    WORKLIST = "worklist"
    MPPS = "mpps"
    COMMIT = "commit"
    DELETE = "delete"
    OTHER = "other"


_BY_SOP_CLASS: Final[Mapping[str, Permission]] = {
    uids.VERIFICATION_SOP_CLASS: Permission.ECHO,
    **dict.fromkeys(uids.STORAGE_SOP_CLASSES, Permission.STORE),
    **dict.fromkeys(uids.FIND_SOP_CLASSES, Permission.FIND),
    **dict.fromkeys(uids.GET_SOP_CLASSES, Permission.GET),
    uids.COMPOSITE_INSTANCE_ROOT_GET_SOP_CLASS: Permission.GET,
    uids.WITHOUT_BULK_DATA_GET_SOP_CLASS: Permission.GET,
    **dict.fromkeys(uids.MOVE_SOP_CLASSES, Permission.MOVE),
    uids.COMPOSITE_INSTANCE_ROOT_MOVE_SOP_CLASS: Permission.MOVE,
    uids.MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS: Permission.WORKLIST,
    uids.ModalityPerformedProcedureStep: Permission.MPPS,
    uids.ModalityPerformedProcedureStepRetrieve: Permission.MPPS,
    uids.ModalityPerformedProcedureStepNotification: Permission.MPPS,
    uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS: Permission.COMMIT,
    uids.StorageCommitmentPullModel: Permission.COMMIT,
}
# Private and unknown SOP classes are known by their operation only.
_BY_OPERATION: Final = {
    "C-ECHO": Permission.ECHO,
    "C-STORE": Permission.STORE,
    "C-FIND": Permission.FIND,
    "C-GET": Permission.GET,
    "C-MOVE": Permission.MOVE,
}


def needed_for(abstract_syntax: str, operations: Iterable[str] = ()) -> Permission:
    """The permission that a peer needs for an operation.

    Args:
        abstract_syntax: The abstract syntax of the presentation context.
        operations: The operation, or those of the service, such as ``["C-STORE"]``; they count for SOP classes that
            the table of this module does not cover.
    """
    if abstract_syntax in _BY_SOP_CLASS:
        return _BY_SOP_CLASS[abstract_syntax]
    return next(
        (_BY_OPERATION[each] for each in operations if each in _BY_OPERATION), Permission.OTHER
    )


# The IPv4 addresses in IPv6 notation (RFC 4291 2.5.5.2).
_MAPPED: Final = IPv6Network("::ffff:0:0/96")


def network(text: str) -> Network:
    """A network in CIDR notation, or one address.

    IPv4 addresses in IPv6 notation (RFC 4291 2.5.5.2) become IPv4 ones, as those of peers do.

    Raises:
        LocalProtocolError: The text is neither, or has a zone.
    """
    if "%" in text:
        raise LocalProtocolError(
            f"{text!r} has a zone, which is not compared; expected an address without it, such as fe80::1"
        )
    try:
        found = ip_network(text)
        if isinstance(found, IPv6Network) and found.subnet_of(_MAPPED):
            octets = found.network_address.packed[-4:]
            return IPv4Network((octets, found.prefixlen - _MAPPED.prefixlen))
        return found
    except ValueError as error:
        raise LocalProtocolError(
            f"{text!r} is not a network; expected an address, or a network such as 192.0.2.0/24 "
            "without bits behind the prefix"
        ) from error


@lru_cache(maxsize=1024)
def _address(host: str) -> IPv4Address | IPv6Address | None:
    """An address of the Internet; None for another host, such as a local socket.

    A socket for both versions gives an IPv4 address as an IPv6 one (RFC 4291 2.5.5.2).
    """
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def includes(networks: Iterable[Network], host: str) -> bool:
    """Whether a host is in one of the networks; a local socket is in none."""
    address = _address(host)
    return address is not None and any(address in each for each in networks)


@dataclass(frozen=True, slots=True)
class Profile:
    """What one peer may do.

    Attributes:
        allow: The permissions.
        move_to: The AE titles to which the peer may have instances moved; None means every destination that is
            known.
        require_identity: Whether the user of the peer must be known (PS3.7 D.3.3.7).
    """

    allow: frozenset[Permission] = frozenset(Permission)
    move_to: frozenset[str] | None = None
    require_identity: bool = False

    def may(self, permission: Permission, destination: str | None = None) -> bool:
        """Whether an operation is allowed.

        Args:
            permission: What the operation needs.
            destination: The AE title of the destination of a C-MOVE.
        """
        if permission not in self.allow:
            return False
        return destination is None or self.move_to is None or destination in self.move_to


#: The profile that allows every operation.
EVERYTHING: Final = Profile()


_FINGERPRINT: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the rules look at in the certificate of a TLS peer.

    Attributes:
        fingerprint: The SHA-256 in 64 lower-case hexadecimal digits.
        names: The common names of the subject, and the names of the subject alternative name.
    """

    fingerprint: str
    names: tuple[str, ...] = ()

    def is_called(self, expected: str) -> bool:
        """Whether it has this fingerprint, or this name."""
        digits = expected.replace(":", "").replace(" ", "").lower()
        if _FINGERPRINT.fullmatch(digits):
            return (
                digits == self.fingerprint
            )  # another certificate may have these digits as its name
        return expected.casefold() in map(str.casefold, self.names)


@dataclass(frozen=True, slots=True)
class Caller:
    """A peer that asks for something.

    Attributes:
        title: The calling AE title.
        host: The address; empty when there is none, as at a local socket.
        certificate: The certificate that it has shown; None without TLS, or without a certificate.
    """

    title: str
    host: str = ""
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a peer is not served.

    Attributes:
        came: What came.
        expected: What was expected.
        advice: What to do about it.
        kind: A short word for the reason; the log has one line a minute for each.
    """

    came: str
    expected: str
    advice: str
    kind: str = "calling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The rule for a peer.

    Attributes:
        title: The calling AE title, or :data:`ANY_TITLE`, which needs networks.
        networks: Where the peer may call from; empty means everywhere.
        profile: What it may do.
        certificate: The SHA-256 of its certificate, or a name in it; empty asks for no certificate.
    """

    title: str
    networks: tuple[Network, ...] = ()
    profile: Profile = EVERYTHING
    certificate: str = ""

    def __post_init__(self) -> None:
        if self.title == ANY_TITLE and not self.networks:
            raise LocalProtocolError(
                "a rule for every title needs networks; for all other peers there is the default profile"
            )

    def includes(self, host: str) -> bool:
        """Whether a peer of this rule may call from a host."""
        return not self.networks or includes(self.networks, host)

    def _prefix(self, host: str) -> int:
        """The length of the longest prefix that includes a host."""
        address = _address(host)
        return max(
            (each.prefixlen for each in self.networks if address is not None and address in each),
            default=0,
        )

    def judge(self, caller: Caller) -> Profile | Denied:
        """The profile of a caller that has the title of this rule, or why it is not served."""
        title = printable(self.title if self.title != ANY_TITLE else caller.title)
        if not self.includes(caller.host):
            return Denied(
                f"calling AE title {title!r} from {printable(caller.host or 'a local socket')}",
                f"it from {' or '.join(map(str, self.networks))}",
                "add the address to the peer in the configuration, if it is the peer's",
                "calling, address",
            )
        if self.certificate and not (
            caller.certificate is not None and caller.certificate.is_called(self.certificate)
        ):
            return Denied(
                f"calling AE title {title!r} with {_shown(caller.certificate)}",
                f"the certificate {printable(self.certificate, 100)}",
                "let the peer call over TLS with its own certificate, or correct the certificate of the peer in the "
                "configuration",
                "calling, certificate",
            )
        return self.profile


def _shown(certificate: Certificate | None) -> str:
    if certificate is None:
        return "no certificate"
    names = ", ".join(printable(each) for each in certificate.names[:3])
    return f"a certificate for {names or 'nobody'} (SHA-256 {certificate.fingerprint})"


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of a node.

    Attributes:
        rules: The rules. A title has at most one; among those for :data:`ANY_TITLE` the longest prefix counts.
        default: The profile of peers without a rule; None means that they are not served.

    Raises:
        LocalProtocolError: Two rules have the same title.
    """

    rules: tuple[Rule, ...] = ()
    default: Profile | None = EVERYTHING
    _by_title: dict[str, Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found: dict[str, Rule] = {}
        for rule in self.rules:
            if rule.title in found:
                raise LocalProtocolError(f"the AE title {rule.title} has two rules; give it one")
            if rule.title != ANY_TITLE:
                found[rule.title] = rule
        object.__setattr__(self, "_by_title", found)

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything."""
        return self.default == EVERYTHING and all(
            rule.profile == EVERYTHING and not rule.networks and not rule.certificate
            for rule in self.rules
        )

    def judge(self, caller: Caller) -> Profile | Denied:
        """The profile of a caller, or why it is not served.

        A title that has a rule is never served by another one: who calls with it from another address, or with another
        certificate, is somebody else.
        """
        own = self._by_title.get(caller.title)
        if own is not None:
            return own.judge(caller)
        shared = [
            rule for rule in self.rules if rule.title == ANY_TITLE and rule.includes(caller.host)
        ]
        if shared:
            return max(shared, key=lambda rule: rule._prefix(caller.host)).judge(caller)
        if self.default is not None:
            return self.default
        return Denied(
            f"calling AE title {printable(caller.title)!r} from {printable(caller.host or 'a local socket')}",
            "a known peer",
            "correct the AE title in the configuration of the peer, or add it to the peers that are served here",
        )

    def may(self, caller: Caller, permission: Permission, destination: str | None = None) -> bool:
        """Whether a caller may do something; the arguments are those of :meth:`Profile.may`."""
        found = self.judge(caller)
        return isinstance(found, Profile) and found.may(permission, destination)


def restricted(offer: Offer, needed: Permission, profile: Profile) -> Offer:
    """What is left of an offer for a peer with this profile.

    Args:
        offer: What the AE offers for an abstract syntax.
        needed: The permission that this abstract syntax needs.
        profile: What the peer may do.
    """
    as_scp = offer.as_scp and needed in profile.allow
    # A C-GET stores at its requestor (PS3.4 C.4.3), which needs no permission to store here.
    brings = Permission.GET if needed is Permission.STORE else needed
    as_scu = offer.as_scu and brings in profile.allow
    is_refused = (as_scp, as_scu) != (offer.as_scp, offer.as_scu)
    return Offer(offer.transfer_syntaxes, as_scp, as_scu, is_refused)
