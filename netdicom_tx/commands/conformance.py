"""``netdicom conformance``: the conformance statement of a node as it is configured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from .common.failures import ExitCode
from .common.node import node_options
from .common.options import examples
from .common.output import Output

if TYPE_CHECKING:
    from ..conformance import Activity, Party, Service, Statement

__all__ = ["command", "markdown"]

_Lines = Iterator[str]

# The times of an association, what each is for, and what happens then.
_WAITS: Final = (
    ("artim", "ARTIM (PS3.8 9.1.5)", "the transport is closed"),
    ("connect", "the connection, as requestor", "the attempt fails"),
    ("associate", "the answer to our association request", "A-ABORT"),
    ("response", "the response to one of our requests", "A-ABORT"),
    ("handler", "a request of the peer that is being performed", "a failure status"),
    ("idle", "nothing is received and no operation is under way, as acceptor", "A-ABORT"),
    ("send", "the peer takes nothing of what is sent", "A-ABORT"),
    ("release", "the answer to our A-RELEASE-RQ", "A-ABORT"),
)
_DUPLICATES: Final = {
    "keep": "is refused with the status 0111",
    "replace": "replaces the first one",
    "keep-both": "is kept aside, and the first one stays",
}
_REFERENCES: Final = (
    ("PS3.2", "Conformance"),
    ("PS3.3", "Information Object Definitions"),
    ("PS3.4", "Service Class Specifications"),
    ("PS3.5", "Data Structures and Encoding"),
    ("PS3.6", "Data Dictionary"),
    ("PS3.7", "Message Exchange"),
    ("PS3.8", "Network Communication Support for Message Exchange"),
    ("PS3.15", "Security and System Management Profiles"),
)
_ABBREVIATIONS: Final = (
    ("AE", "Application Entity"),
    ("DIMSE", "DICOM Message Service Element"),
    ("MPPS", "Modality Performed Procedure Step"),
    ("PDU", "Protocol Data Unit"),
    ("SCP", "Service Class Provider"),
    ("SCU", "Service Class User"),
    ("SOP", "Service-Object Pair"),
    ("TLS", "Transport Layer Security"),
)


@click.command(
    epilog=examples(
        "netdicom conformance > statement.md",
        "netdicom conformance --config /etc/netdicom/node.toml --format json",
    )
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The configuration file of the node (default: a node without one).",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["md", "json"]),
    default="md",
    show_default=True,
    help="Markdown to read, or JSON for programs.",
)
def command(config: Path | None, form: str) -> int:
    """Print the DICOM conformance statement of a node with this configuration (PS3.2 Annex N).

    SOP classes, transfer syntaxes, roles and limits are those that the node registers and negotiates. No node needs to
    run, and none is started.
    """
    output = Output()
    statement = stated(config)
    if form == "json":
        output.line(json.dumps(statement.as_json(), indent=2))
    else:
        output.line(markdown(statement).removesuffix("\n"))
    return ExitCode.OK


def stated(config: Path | None) -> Statement:
    """The statement of a node with a configuration file; with None, of one with the defaults.

    Raises:
        CommandError: The file is wrong.
    """
    from ..conformance import state
    from ..tap import make_ae

    options = node_options([] if config is None else ["--config", str(config)])
    return state(make_ae(options), options)


def markdown(statement: Statement) -> str:
    """The statement in the structure of PS3.2 Annex N."""
    lines = [
        f"# DICOM conformance statement of netdicom_tx {statement.version}",
        "",
        f"This statement describes the application entity `{statement.ae_title}`, as it is configured. Its sections "
        "are those of PS3.2 Annex N.",
        "",
    ]
    for section in _SECTIONS:
        lines += section(statement)
    return "\n".join(lines).rstrip() + "\n"


# -- parts of a page ---------------------------------------------------------------------------------


def _heading(number: str, title: str) -> list[str]:
    return [f"{'#' * (2 + number.count('.'))} {number} {title}", ""]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    cells = [[str(each).replace("|", "\\|") for each in row] for row in rows]
    lines = [list(head), ["---"] * len(head), *cells]
    return [*(f"| {' | '.join(row)} |" for row in lines), ""]


def _yes(value: object) -> str:
    return "yes" if value else "no"


def _name(uid: str) -> str:
    from ..uids import name

    return name(uid)


def _named(uids: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((_name(uid), f"`{uid}`") for uid in uids)


def _none(*sections: tuple[str, str]) -> _Lines:
    """Sections of the template about what the product does not have."""
    for number, title in sections:
        yield from _heading(number, title)
        yield "The product does not support this."
        yield ""


# -- the sections ------------------------------------------------------------------------------------


def _storage(statement: Statement) -> list[Service]:
    return [each for each in statement.services if each.permission == "store"]


def _sent(statement: Statement) -> set[str]:
    """The SOP classes of which the node is an SCU, on associations that it requests."""
    return {uid for each in statement.activities if each.role == "SCU" for uid in each.sop_classes}


def _overview(statement: Statement) -> _Lines:
    yield from _heading("1", "Overview")
    yield (
        "The product is an archive. It stores the instances that it receives, answers queries, sends instances to "
        "peers, commits to their safekeeping, serves a worklist, and keeps performed procedure steps."
    )
    yield ""
    yield from _heading("1.1", "Content and transfer")
    sent = _sent(statement)
    for service in _storage(statement):
        if service.takes_unknown:
            yield "Storage SOP classes that PS3.6 does not register are accepted like those of the table."
            yield ""
        yield from _table(
            ("storage SOP class", "UID", "SCU", "SCP"),
            (
                (name, uid, _yes(uid.strip("`") in sent), _yes(service.is_scp))
                for name, uid in _named(service.sop_classes)
            ),
        )
        yield "Each of them is stored and sent in these transfer syntaxes:"
        yield ""
        yield from _table(("transfer syntax", "UID"), _named(service.transfer_syntaxes))
    yield from _heading("1.2", "DIMSE services")
    yield from _table(
        ("SOP class", "UID", "SCU", "SCP"),
        _services_of(statement, sent),
    )
    yield from _none(
        ("1.3", "DICOM Web Services"),
        ("1.4", "Media services"),
        ("1.5", "Real-Time Video services"),
        ("1.6", "De-identification profiles"),
    )
    yield from _heading("1.7", "Specific Character Sets")
    yield "All character sets of PS3.3 C.12.1.1.2 are supported; section 5.7 has the details."
    yield ""


def _services_of(statement: Statement, sent: set[str]) -> Iterator[tuple[str, str, str, str]]:
    provided = [
        (uid, service.is_scp)
        for service in statement.services
        if service.permission != "store"
        for uid in service.sop_classes
    ]
    storage = {uid for service in _storage(statement) for uid in service.sop_classes}
    others = sorted(sent - storage - {uid for uid, _ in provided})
    for uid, is_scp in (*provided, *((uid, False) for uid in others)):
        yield _name(uid), f"`{uid}`", _yes(uid in sent), _yes(is_scp)


def _contents(statement: Statement) -> _Lines:
    yield from _heading("2", "Table of contents")
    for number, title in (
        ("1", "Overview"),
        ("3", "Introduction"),
        ("4", "Implementation model"),
        ("5", "Service and interoperability description"),
        ("6", "Configuration"),
        ("7", "Network and media communication details"),
        ("8", "Security"),
        ("A", "Annexes"),
    ):
        yield f"- {number} {title}"
    yield ""


def _introduction(statement: Statement) -> _Lines:
    yield from _heading("3", "Introduction")
    yield from _heading("3.1", "Revision history")
    yield f"The statement is made from the configuration of version {statement.version}."
    yield ""
    yield from _heading("3.2", "Audience")
    yield "The statement is for those who connect other DICOM products with this one."
    yield ""
    yield from _heading("3.3", "Remarks")
    yield (
        "Two products that conform to DICOM need not work together. Compare their statements, and test them together."
    )
    yield ""
    yield from _heading("3.4", "Terms and definitions")
    yield "The terms are those of the DICOM standard."
    yield ""
    yield from _heading("3.5", "Abbreviations")
    yield from _table(("abbreviation", "meaning"), _ABBREVIATIONS)
    yield from _heading("3.6", "References")
    yield from _table(("part of the DICOM standard", "title"), _REFERENCES)


def _model(statement: Statement) -> _Lines:
    yield from _heading("4", "Implementation model")
    yield from _heading("4.1", "Application entities and data flow")
    yield (
        f"There is one application entity, `{statement.ae_title}`. It accepts associations for every service of "
        "section 7.2.1.4, and requests associations for the activities of section 7.2.1.3."
    )
    yield ""
    yield from _heading("4.1.1", f"Functional definition of {statement.ae_title}")
    yield (
        "Before a C-STORE is answered with Success, the instance is on the disk and in the index. Data sets are stored "
        "as they are received: no element is changed or left out (level 2, full)."
    )
    yield ""


def _services(statement: Statement) -> _Lines:
    yield from _heading("5", "Service and interoperability description")
    yield from _heading("5.1", "Mapping of services to application entities")
    yield from _table(
        ("service", "application entity", "operations and notifications", "permission of a peer"),
        (
            (
                each.name,
                f"`{statement.ae_title}`",
                ", ".join(each.operations),
                f"`{each.permission}`",
            )
            for each in statement.services
        ),
    )
    yield from _heading("5.2", "DIMSE services")
    yield (
        "Another data set with the SOP Instance UID of an instance that is stored "
        f"{_DUPLICATES[statement.duplicates]}. The same data set is answered with Success."
    )
    yield ""
    yield (
        "An attribute without a value matches "
        f"{'every key, except unique keys' if statement.match_unknown else 'no key'} (PS3.4 C.2.2.1.2)."
    )
    yield ""
    yield from _none(
        ("5.3", "DICOM Web Services"),
        ("5.4", "Media services"),
        ("5.5", "Real-Time Video services"),
    )
    yield from _heading("5.6", "Cross-service considerations")
    yield (
        "A peer that has stored an instance can query and retrieve it at once. Storage commitment reads the whole file "
        "and compares it with the digest of what was received."
    )
    yield ""
    yield from _heading("5.7", "Specific Character Sets")
    yield (
        "Data sets are stored with the character set in which they are received. Text in the index and in the keys of "
        "a query is decoded by its Specific Character Set (0008,0005). An answer uses the character set of the request "
        "if that can represent the text, and ISO_IR 192 otherwise."
    )
    yield ""


def _configuration(statement: Statement) -> _Lines:
    yield from _heading("6", "Configuration")
    yield from _heading("6.1", "General configuration parameters")
    yield from _table(
        ("parameter", "value"),
        (
            ("AE title", f"`{statement.ae_title}`"),
            ("listens at", _endpoints(statement.listen)),
            ("listens with TLS at", _endpoints(statement.tls_listen)),
        ),
    )
    yield from _heading("6.2", "Configuration of DIMSE services")
    yield from _table(
        (
            "peer",
            "called at",
            "TLS",
            "calls from",
            "may use",
            "identity of its user",
            "agreed on with it alone",
        ),
        map(_party, statement.parties),
    )
    yield from _none(
        ("6.3", "Configuration of DICOM Web Services"),
        ("6.4", "Configuration of media services"),
        ("6.5", "Configuration of Real-Time Video services"),
    )
    yield from _heading("6.6", "Configuration of the audit trail")
    yield _audit(statement)
    yield ""


def _endpoints(listen: Sequence[str]) -> str:
    return ", ".join(f"`{each}`" for each in listen) or "nothing"


def _party(party: Party) -> tuple[str, ...]:
    from ..access import Permission

    if party.allow is None:
        may = "nothing: its associations are rejected"
    elif len(party.allow) == len(Permission):
        may = "all services"
    else:
        may = ", ".join(party.allow) or "nothing"
    return (
        {"": "every other peer", "*": "every title from these networks"}.get(
            party.title, f"`{party.title}`"
        ),
        party.address or "it is not called",
        _yes(party.tls),
        ", ".join(party.networks) or "every address",
        may,
        "required" if party.needs_identity else "not required",
        "; ".join(_quirks(party)) or "nothing",
    )


def _quirks(party: Party) -> Iterator[str]:
    if party.window is not None:
        yield f"outstanding requests: {party.window}"
    if party.max_pdu is not None:
        yield f"longest P-DATA-TF: {party.max_pdu} octets"
    if party.transfer_syntaxes:
        yield f"transfer syntaxes: {', '.join(map(_name, party.transfer_syntaxes))}"


def _audit(statement: Statement) -> str:
    if not statement.is_audited:
        return "No audit trail is written."
    return "The audit messages of PS3.15 A.5 are written; the configuration says where to."


def _communication(statement: Statement) -> _Lines:
    yield from _heading("7", "Network and media communication details")
    yield from _heading("7.1", "General")
    yield from _heading("7.1.1", "General association parameters")
    yield from _table(("parameter", "value"), _parameters(statement))
    yield from _table(
        ("time", "seconds", "when it is over"),
        ((what, f"{statement.timeouts[name]:g}", then) for name, what, then in _WAITS),
    )
    yield from _heading("7.2", "Specifications")
    yield from _heading("7.2.1", f"Application entity {statement.ae_title}")
    yield from _heading("7.2.1.1", "Sequencing of real-world activities")
    yield "Peers decide on the order. Instances of a C-MOVE or C-GET are sent before its final response."
    yield ""
    yield from _heading("7.2.1.2", "Association parameters")
    yield "They are those of section 7.1.1."
    yield ""
    yield from _heading("7.2.1.3", "Association initiation")
    for activity in statement.activities:
        yield from _activity(activity)
    yield from _heading("7.2.1.4", "Association acceptance")
    yield (
        "Of the transfer syntaxes of a presentation context, the first one that the node takes is accepted. Explicit "
        "VR Big Endian is retired: it is accepted when no other one is proposed that needs no compression."
    )
    yield ""
    yield from _table(
        (
            "service",
            "abstract syntaxes",
            "transfer syntaxes",
            "the node is SCP",
            "the node is SCU, by role selection",
            "extended negotiation",
        ),
        map(_context, statement.services),
    )
    yield from _heading("7.3", "Status codes")
    yield (
        "The tables have the statuses that the node understands as SCU. As SCP it answers with those that apply: an "
        "instance is stored whole or not at all, so that no C-STORE is answered with a warning."
    )
    yield ""
    yield from _heading("7.3.1", "General")
    yield from _statuses(None)
    yield from _heading("7.3.2", "DIMSE services")
    operations = dict.fromkeys(
        each for service in statement.services for each in service.operations
    )
    for number, operation in enumerate(operations, 1):
        yield from _heading(f"7.3.2.{number}", operation)
        yield from _statuses(operation)


def _parameters(statement: Statement) -> list[tuple[str, object]]:
    return [
        ("Application context name", f"`{statement.application_context}`"),
        ("Implementation Class UID", f"`{statement.implementation_class_uid}`"),
        ("Implementation Version Name", f"`{statement.implementation_version_name}`"),
        ("called AE title", "any" if statement.any_called_title else f"`{statement.ae_title}`"),
        ("longest P-DATA-TF that is received", f"{statement.max_pdu_length} octets"),
        ("longest P-DATA-TF that is sent", "as the peer announces"),
        ("presentation contexts of an association", statement.max_contexts),
        ("associations that peers may have open", statement.max_associations or "any number"),
        ("the same for one host", statement.max_associations_per_host or "any number"),
        ("the same for one calling AE title", statement.max_associations_per_title or "any number"),
        ("outstanding requests of a peer on an association", statement.invoked or "any number"),
        ("outstanding requests of the node", statement.performed or "any number"),
    ]


def _activity(activity: Activity) -> _Lines:
    uid, *others = activity.sop_classes
    what = f"{_name(uid)} `{uid}`"
    if others:
        what = f"the {len(activity.sop_classes)} storage SOP classes of section 1.1"
    yield f"**{activity.name}.** It happens when {activity.when}."
    yield ""
    yield from _table(
        ("abstract syntax", "transfer syntaxes", "role", "peers"),
        [
            (
                what,
                ", ".join(f"{name} {uid}" for name, uid in _named(activity.transfer_syntaxes))
                or "those of the instances, and Explicit and Implicit VR Little Endian for those without compression",
                activity.role,
                "all with an address" if activity.peers is None else ", ".join(activity.peers),
            )
        ],
    )


def _context(service: Service) -> tuple[str, ...]:
    is_storage = service.permission == "store"
    return (
        service.name,
        "those of section 1.1"
        if is_storage
        else ", ".join(f"{name} {uid}" for name, uid in _named(service.sop_classes)),
        "those of section 1.1"
        if is_storage
        else ", ".join(f"{name} {uid}" for name, uid in _named(service.transfer_syntaxes)),
        _yes(service.is_scp),
        _yes(service.is_scu),
        _yes(service.has_extended_negotiation),
    )


def _statuses(operation: str | None) -> list[str]:
    """The statuses of PS3.7 Annex C, or those of an operation; the words are those of the log."""
    from ..statuses import of_operation

    rows = list(of_operation(operation))
    return _table(("status", "meaning"), rows) if rows else ["It has those of section 7.3.1.", ""]


def _security(statement: Statement) -> _Lines:
    yield from _heading("8", "Security")
    yield from _heading("8.1", "Introduction")
    yield "AE titles are not authenticated. TLS, rules for peers and the identities of users protect the node."
    yield ""
    yield from _heading("8.2", "External network requirements")
    yield "The node needs no other network service. It calls peers by the host names of the configuration."
    yield ""
    yield from _heading("8.3", "TCP port configuration")
    yield from _table(
        ("purpose", "endpoints"),
        [
            ("DICOM", _endpoints(statement.listen)),
            ("DICOM over TLS", _endpoints(statement.tls_listen)),
        ],
    )
    yield from _heading("8.4", "DICOM security profiles")
    if statement.tls_profile is None:
        yield "No secure transport connection profile is configured."
    else:
        yield (
            f"The secure transport connection profile is that of PS3.15 {statement.tls_profile_section} "
            f"(`{statement.tls_profile}`). Certificates of peers that call: {statement.tls_clients}."
        )
    yield ""
    yield from _heading("8.5", "User identity negotiation")
    if statement.checks_users:
        yield "The identities of users are checked when an association is accepted: types 1, 2 and 5, as configured."
    else:
        yield "The identities of users are ignored when an association is accepted."
    yield "None is sent when an association is requested."
    yield ""
    yield from _none(("8.6", "Security of web services"))
    yield from _heading("8.7", "Other security features")
    yield _audit(statement)
    yield ""


def _annexes(statement: Statement) -> _Lines:
    yield from _heading("A", "Annexes")
    for number, title, text in (
        ("A.A", "Information object definitions", "The node creates no instances."),
        ("A.B", "Structured report content encoding", "The node creates no structured reports."),
        ("A.C", "Security details", "Section 8 has all of them."),
        ("A.D", "Mapping of attributes", "The node maps no attributes between services."),
        ("A.E", "Code set usage", "The node uses no code sets of its own."),
    ):
        yield from _heading(number, title)
        yield text
        yield ""


_SECTIONS: Final[tuple[Callable[[Statement], _Lines], ...]] = (
    _overview,
    _contents,
    _introduction,
    _model,
    _services,
    _configuration,
    _communication,
    _security,
    _annexes,
)
