"""The facts of a conformance statement (PS3.2), taken from a node as it is configured.

:func:`state` asks the application entity what it registers and how it answers a proposal, by the functions that
negotiation itself uses. So the statement follows the configuration, and it cannot claim what the node does not do.
``netdicom conformance`` prints it in the structure of PS3.2 Annex N.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from . import __version__, uids
from .access import Permission, needed_for
from .archive import ArchiveAE
from .dispatch import Registration
from .dulprovider import Timeouts
from .negotiation import MAXIMUM_CONTEXTS, answer_window
from .options import Options
from .quirks import NO_QUIRKS
from .sopclass.base import MessageDispatcher
from .tls import PROFILES
from .userdataitems import AsynchronousOperationsWindow

__all__ = ["Activity", "Party", "Service", "Statement", "state"]

#: What the services are called in PS3.2 Annex N, by what a peer needs to be allowed.
_NAMES: Final[Mapping[Permission, str]] = {
    Permission.ECHO: "Verification",
    Permission.STORE: "Storage",
    Permission.FIND: "Query/Retrieve: FIND",
    Permission.GET: "Query/Retrieve: GET",
    Permission.MOVE: "Query/Retrieve: MOVE",
    Permission.WORKLIST: "Basic Worklist Management",
    Permission.MPPS: "Modality Performed Procedure Step",
    Permission.COMMIT: "Storage Commitment",
    Permission.DELETE: "Deletion",
    Permission.OTHER: "Other",
}
# A SOP class that PS3.6 does not register; a service that takes it takes all others like it.
_UNREGISTERED: Final = "2.25.0"
# The largest values that an item of asynchronous operations has; what is answered to them is our own limit.
_WIDEST: Final = AsynchronousOperationsWindow(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """SOP classes that are served in the same way.

    Attributes:
        name: The name of the service, after PS3.2 Annex N.
        permission: What a peer needs to be allowed to use it, as in the configuration.
        operations: The DIMSE operations that are performed.
        sop_classes: The SOP classes.
        transfer_syntaxes: The transfer syntaxes that are accepted; the requestor's order decides.
        is_scp: Whether a requestor may be the SCU, and this AE the SCP.
        is_scu: Whether a requestor may be the SCP by role selection, and this AE the SCU.
        has_extended_negotiation: Whether SOP class extended negotiation is answered.
        takes_unknown: Whether SOP classes that PS3.6 does not register are accepted, too.
    """

    name: str
    permission: str
    operations: tuple[str, ...]
    sop_classes: tuple[str, ...]
    transfer_syntaxes: tuple[str, ...]
    is_scp: bool
    is_scu: bool
    has_extended_negotiation: bool
    takes_unknown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """A real-world activity for which the node requests associations.

    Attributes:
        name: The activity.
        when: When it happens.
        sop_classes: The SOP classes that are proposed.
        transfer_syntaxes: The transfer syntaxes that are proposed; empty for those of the instances that are sent.
        role: The role of the node: ``"SCU"`` or ``"SCP"``.
        peers: The AE titles of the peers; None for every peer that the node can call.
    """

    name: str
    when: str
    sop_classes: tuple[str, ...]
    transfer_syntaxes: tuple[str, ...]
    role: str
    peers: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A peer, or all peers without a rule of their own.

    Attributes:
        title: The AE title; ``"*"`` for every title from the networks; an empty string for all other peers.
        address: The address that the node calls; None when it never calls the peer.
        tls: Whether the node calls it over TLS.
        networks: The networks from which it may call; empty for all.
        allow: What it may do; None when it is not served.
        needs_identity: Whether it has to send the identity of its user.
        window: How many operations may be outstanding with it, in each direction; None as with all others.
        max_pdu: The longest P-DATA-TF in either direction, in octets; None as with all others.
        transfer_syntaxes: The only transfer syntaxes that are agreed on with it; empty as with all others.
    """

    title: str
    address: str | None
    tls: bool
    networks: tuple[str, ...]
    allow: tuple[str, ...] | None
    needs_identity: bool
    window: int | None = None
    max_pdu: int | None = None
    transfer_syntaxes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a node claims.

    Attributes:
        version: The version of netdicom_tx.
        ae_title: The AE title of the node.
        implementation_class_uid: The Implementation Class UID.
        implementation_version_name: The Implementation Version Name.
        application_context: The application context name.
        services: The services that the node provides.
        activities: The activities for which the node requests associations.
        parties: The peers and what they may do; the last one stands for all others.
        any_called_title: Whether the node serves under every called AE title.
        max_pdu_length: The longest P-DATA-TF that is received, in octets.
        max_contexts: How many presentation contexts an association may have.
        max_associations: How many associations peers may have open; None for any number.
        max_associations_per_host: The same for one host.
        max_associations_per_title: The same for one calling AE title.
        invoked: How many requests of a peer may be outstanding on an association; 0 for any number.
        performed: How many requests of the node may be outstanding; 0 for any number.
        timeouts: How long each wait takes, in seconds.
        listen: The endpoints without TLS.
        tls_listen: The endpoints with TLS.
        tls_profile: The TLS profile; None without TLS.
        tls_profile_section: The section of PS3.15 that has the profile.
        tls_clients: The certificates of peers that call: required, optional or none.
        checks_users: Whether the identities of users are checked.
        is_audited: Whether an audit trail is written.
        duplicates: What happens to another data set with a SOP Instance UID that is there.
        match_unknown: Whether attributes without a value match every key.
    """

    version: str
    ae_title: str
    implementation_class_uid: str
    implementation_version_name: str
    application_context: str
    services: tuple[Service, ...]
    activities: tuple[Activity, ...]
    parties: tuple[Party, ...]
    any_called_title: bool
    max_pdu_length: int
    max_contexts: int
    max_associations: int | None
    max_associations_per_host: int | None
    max_associations_per_title: int | None
    invoked: int
    performed: int
    timeouts: Mapping[str, float]
    listen: tuple[str, ...]
    tls_listen: tuple[str, ...]
    tls_profile: str | None
    tls_profile_section: str | None
    tls_clients: str
    checks_users: bool
    is_audited: bool
    duplicates: str
    match_unknown: bool

    def as_json(self) -> dict[str, Any]:
        """The statement as a document; SOP classes and transfer syntaxes have their names in ``"names"``."""
        document = asdict(self)
        kinds: tuple[Service | Activity, ...] = (*self.services, *self.activities)
        shown = {uid for each in kinds for uid in (*each.sop_classes, *each.transfer_syntaxes)}
        document["names"] = {uid: uids.name(uid) for uid in sorted(shown)}
        return document


def state(ae: ArchiveAE, options: Options) -> Statement:
    """State what a node claims.

    Args:
        ae: The node, as :func:`~netdicom_tx.tap.make_ae` makes it; it need not have been started.
        options: The options that it was made from.
    """
    window, _ = answer_window(_WIDEST, ae.window)
    assert window is not None  # there was a proposal
    tls = options["tls"]
    profile = (tls.profile or "bcp195") if tls is not None else None
    return Statement(
        version=__version__,
        ae_title=ae.ae_title,
        implementation_class_uid=uids.IMPLEMENTATION_CLASS_UID,
        implementation_version_name=uids.IMPLEMENTATION_VERSION_NAME,
        application_context=uids.APPLICATION_CONTEXT_NAME,
        services=tuple(_services(ae)),
        activities=tuple(_activities(options)),
        parties=tuple(_parties(ae, options)),
        any_called_title=ae.called_ae_titles is None,
        max_pdu_length=ae.max_pdu_length,
        max_contexts=MAXIMUM_CONTEXTS,
        max_associations=options["max-associations"],
        max_associations_per_host=options["max-associations-per-host"],
        max_associations_per_title=options["max-associations-per-title"],
        invoked=window.invoked,
        performed=window.performed,
        timeouts={each.name: getattr(ae.timeouts, each.name) for each in fields(Timeouts)},
        listen=tuple(options["listen"]),
        tls_listen=tuple(options["tls-listen"]),
        tls_profile=profile,
        tls_profile_section=None if profile is None else PROFILES[profile].section,
        tls_clients=_clients(options),
        checks_users=options.identities is not None,
        is_audited=bool(options["audit"] or options["audit-syslog"]),
        duplicates=options["duplicates"].value,
        match_unknown=bool(options["match-unknown"]),
    )


def _clients(options: Options) -> str:
    tls = options["tls"]
    if tls is None:
        return "none"
    if tls.clients is not None:
        return str(tls.clients)
    return "required" if tls.trust is not None or tls.fingerprint is not None else "none"


def _services(ae: ArchiveAE) -> Iterator[Service]:
    """The services that negotiation offers, in the order in which the node registers them."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    unknown = ae.supported_scp.find(_UNREGISTERED)
    for uid, registration in ae.supported_scp:
        offer = ae.offer(uid)
        assert offer is not None  # it is registered
        operations = _operations(registration)
        permission = needed_for(uid, operations)
        kind = (
            permission,
            operations,
            tuple(offer.transfer_syntaxes),
            offer.as_scp,
            offer.as_scu,
            getattr(registration.service, "on_extended", None) is not None,
            unknown is not None and registration.service is unknown.service,
        )
        groups.setdefault(kind, []).append(uid)
    for kind, sop_classes in groups.items():
        permission, operations, transfer_syntaxes, is_scp, is_scu, is_extended, takes_unknown = kind
        yield Service(
            name=_NAMES[permission],
            permission=permission.value,
            operations=operations,
            sop_classes=tuple(sop_classes),
            transfer_syntaxes=transfer_syntaxes,
            is_scp=is_scp,
            is_scu=is_scu,
            has_extended_negotiation=is_extended,
            takes_unknown=takes_unknown,
        )


def _operations(registration: Registration) -> tuple[str, ...]:
    """The operations that a service performs, by what it says or by the methods that it has."""
    service = registration.service
    named: tuple[str, ...] | None = getattr(service, "operations", None)
    if named is not None:
        return tuple(named)
    methods = MessageDispatcher.message_to_method.values()
    return tuple(
        each.upper().replace("_", "-")
        for each in methods
        if getattr(service, each, None) is not None
    )


def _activities(options: Options) -> Iterator[Activity]:
    default = uids.DEFAULT_TRANSFER_SYNTAXES
    yield Activity(
        name="Send the instances of a C-MOVE",
        when="a peer moves instances to a peer with an address",
        sop_classes=uids.STORAGE_SOP_CLASSES,
        transfer_syntaxes=(),
        role="SCU",
        peers=None,
    )
    yield Activity(
        name="Report a storage commitment",
        when="the requestor of the commitment no longer holds its association",
        sop_classes=(uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,),
        transfer_syntaxes=default,
        role="SCP",
        peers=None,
    )
    for option, name, when, sop_class, role in (
        (
            "forward-mpps",
            "Forward performed procedure steps",
            "a performed procedure step is created or changed",
            uids.ModalityPerformedProcedureStep,
            "SCU",
        ),
        (
            "notify-mpps",
            "Report events of performed procedure steps",
            "a performed procedure step is created or changed",
            uids.ModalityPerformedProcedureStepNotification,
            "SCP",
        ),
        (
            "notify-availability",
            "Announce that instances are available",
            "all instances of a performed procedure step have been stored",
            uids.InstanceAvailabilityNotification,
            "SCU",
        ),
    ):
        if options[option]:
            yield Activity(
                name=name,
                when=when,
                sop_classes=(sop_class,),
                transfer_syntaxes=default,
                role=role,
                peers=tuple(options[option]),
            )


def _parties(ae: ArchiveAE, options: Options) -> Iterator[Party]:
    access, called = options.access, options["peers"]
    with_rules = [rule.title for rule in access.rules]
    for rule in access.rules:
        remote = called.get(rule.title)
        quirks = ae.quirks.get(rule.title, NO_QUIRKS)
        yield Party(
            title=rule.title,
            address=None if remote is None else _place(str(remote.endpoint)),
            tls=remote is not None and remote.tls is not None,
            networks=tuple(map(str, rule.networks)),
            allow=_sorted(rule.profile.allow),
            needs_identity=rule.profile.require_identity,
            window=quirks.window,
            max_pdu=quirks.max_pdu,
            transfer_syntaxes=quirks.transfer_syntaxes,
        )
    assert all(title in with_rules for title in called)  # a peer with an address has a rule
    others = access.default
    yield Party(
        title="",
        address=None,
        tls=False,
        networks=(),
        allow=None if others is None else _sorted(others.allow),
        needs_identity=others is not None and others.require_identity,
    )


def _place(endpoint: str) -> str:
    """Host and port of the endpoint string of a client."""
    return endpoint.removeprefix("tcp:").replace("\\:", ":")


def _sorted(allow: frozenset[Permission]) -> tuple[str, ...]:
    return tuple(each.value for each in Permission if each in allow)
