"""``netdicom echo``: ask whether peers are there and speak DICOM (PS3.4 Annex A)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ..exceptions import NetDICOMError, printable
from ..uids import VERIFICATION_SOP_CLASS
from ..userdataitems import ImplementationClassUID, ImplementationVersionName
from .common.addresses import Address
from .common.failures import CommandError, ExitCode, Problem, StatusFailure
from .common.options import Common, common_options, examples, peers_argument, whole_number
from .common.session import Session, run

if TYPE_CHECKING:
    from ..asceprovider import Association

# Seconds for the connection and for the association, if the options do not say: somebody waits to learn whether the
# peer is there, and a port that says nothing is most likely not one of DICOM.
_PATIENCE = 10.0
_COLUMNS = ("peer", "status", "ms", "max PDU", "implementation")


@dataclass(slots=True)
class _Answers:
    """The answers of a peer.

    Attributes:
        milliseconds: The time from each C-ECHO to its response.
        max_pdu: The longest PDU that the peer accepts; 0 means any.
    """

    address: Address
    status: str = ""
    milliseconds: list[float] = field(default_factory=list)
    max_pdu: int = 0
    implementation: str = ""
    implementation_class: str = ""
    problem: Problem | None = None

    def as_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "peer": str(self.address),
            "status": self.status or None,
            "milliseconds": [round(each, 3) for each in self.milliseconds],
            "max_pdu": self.max_pdu,
            "implementation": self.implementation,
            "implementation_class_uid": self.implementation_class,
        }
        if self.problem is not None:
            document["error"] = self.problem.as_json()
        return document

    def cells(self) -> list[str]:
        times = self.milliseconds
        shown = f"{sum(times) / len(times):.1f}" if times else ""
        status = self.status or (self.problem.what if self.problem else "")
        return [
            str(self.address),
            status,
            shown,
            str(self.max_pdu or "any") if times else "",
            self.implementation,
        ]


def _interval(text: str) -> float:
    """The value of ``--interval``: a number of seconds, 0 or more."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise click.BadParameter(f"{text!r} is not a number of seconds of 0 or more")
    return seconds


@click.command(
    no_args_is_help=True,
    epilog=examples(
        "netdicom echo ARCHIVE@10.0.0.5:104",
        "netdicom echo archive workstation --count 5",
        "netdicom echo dicoms://ARCHIVE@pacs.example:2762 --tls-ca ca.pem",
    ),
)
@peers_argument
@click.option(
    "-n",
    "--count",
    type=whole_number(1),
    default=1,
    metavar="N",
    help="Send N C-ECHOs to each peer (default: 1).",
)
@click.option(
    "--interval",
    type=_interval,
    default=1.0,
    metavar="SECONDS",
    help="Wait this many seconds between two C-ECHOs (default: 1).",
)
@common_options
def command(common: Common, peers: tuple[str, ...], count: int, interval: float) -> int:
    """Ask whether peers are there and speak DICOM (C-ECHO)."""
    common.connect_timeout = common.connect_timeout or _PATIENCE
    common.associate_timeout = common.associate_timeout or _PATIENCE
    addresses = [common.peer(each) for each in peers]
    if len(addresses) == 1:
        common.address = addresses[0]

    async def perform(session: Session) -> int:
        return await _echo_all(session, addresses, count, interval)

    return run(common, perform)


async def _echo_all(session: Session, addresses: list[Address], count: int, interval: float) -> int:
    from twisted.internet import defer

    outcomes = await defer.gatherResults(
        [
            defer.Deferred.fromCoroutine(_echo(session, address, count, interval))
            for address in addresses
        ],
        consumeErrors=True,  # the first one is reported
    )
    output = session.output
    problems = [each.problem for each in outcomes if each.problem is not None]
    if output.is_json:
        # One document: a list, or for one peer the object itself.
        documents = [each.as_json() for each in outcomes]
        output.json(documents[0] if len(documents) == 1 else documents)
    elif len(problems) < len(outcomes) or len(outcomes) > 1:
        table = output.table(_COLUMNS)
        for each in outcomes:
            table.row(each.cells())
        table.close()
    for problem in problems:
        output.problem(problem, in_json=False)
    codes = {problem.code for problem in problems}
    if not codes:
        return ExitCode.OK
    alike = len(codes) == 1 and len(problems) == len(outcomes)
    return codes.pop() if alike else ExitCode.SOME_FAILED


async def _echo(session: Session, address: Address, count: int, interval: float) -> _Answers:
    from ..applicationentity import AE
    from ..sopclass import verification_scu

    answers = _Answers(address)
    ae = session.ae(AE, address).add_scu(verification_scu)
    try:
        async with session.association(ae, address) as asce:
            _describe(asce, answers)
            echo = asce.get_scu(VERIFICATION_SOP_CLASS)
            for number in range(count):
                if number:
                    await session.sleep(interval)
                if session.is_interrupted:
                    break
                begin = session.reactor.seconds()
                status = await echo()
                answers.milliseconds.append((session.reactor.seconds() - begin) * 1000)
                answers.status = str(status)
                if not status.is_success:
                    raise StatusFailure("C-ECHO", status)
    except (NetDICOMError, StatusFailure, CommandError) as error:
        answers.problem = session.explain(error, address)
    return answers


def _describe(asce: Association, answers: _Answers) -> None:
    answers.max_pdu = asce.send_limit
    answer = asce.response_pdu
    assert answer is not None
    name = answer.user_item(ImplementationVersionName)
    uid = answer.user_item(ImplementationClassUID)
    answers.implementation_class = printable(uid.uid) if uid else ""
    # Operators know a peer by its implementation version name. Its UID is mandatory and replaces a missing name.
    answers.implementation = printable(name.name) if name else answers.implementation_class
