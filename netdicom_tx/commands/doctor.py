"""``netdicom doctor``: check all that a node needs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from .common.failures import ExitCode
from .common.node import lenient_options
from .common.options import examples, json_option
from .common.output import Output, counted

if TYPE_CHECKING:
    from ..options import Options
    from .common.checkup import Finding
    from .common.session import Session

__all__ = ["command"]


@click.command(
    context_settings={"ignore_unknown_options": True},
    epilog=examples(
        "netdicom doctor --config /etc/netdicom/node.toml",
        "netdicom doctor --no-peers --config node.toml --storage /mnt/new",
    ),
)
@click.option("--no-peers", is_flag=True, help="Do not call the peers.")
@json_option
@click.argument("arguments", metavar="[OPTIONS OF THE NODE]...", nargs=-1, type=click.UNPROCESSED)
def command(no_peers: bool, is_json: bool, arguments: tuple[str, ...]) -> int:
    """Check all that a node needs, and say what to do.

    That is: the configuration, its ports, the disk, the clock, the database, the files for TLS and the audit trail, the
    Python packages, and an answer of each peer that it calls. All mistakes of a wrong configuration are shown, and what
    can be checked without them is checked. Nothing is started or changed, and the node may be running. Run it as the
    user of the node.

    The exit code is 0 when nothing fails, 1 when something does, and 78 when the configuration is wrong.
    """
    from .common.checkup import Verdict, checked, configured

    output = Output(is_json=is_json)
    options, mistakes = lenient_options(arguments)
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if is_json:
            output.json(finding.as_json())
        else:
            output.line(str(finding))

    for each in configured(options, mistakes):
        tell(each)
    for each in checked(options):
        tell(each)
    if options["peers"] and not no_peers:
        for each in _peers(options, output):
            tell(each)
    counts = Counter(each.verdict for each in found)
    output.note(
        f"{counted(len(found), 'check')}: {counted(counts[Verdict.WARN], 'warning')}, "
        f"{counted(counts[Verdict.FAIL], 'failure')}"
    )
    if mistakes:
        return ExitCode.CONFIGURATION
    return ExitCode.SOME_FAILED if counts[Verdict.FAIL] else ExitCode.OK


def _peers(options: Options, output: Output) -> list[Finding]:
    """What the peers have answered, in the order of their titles."""
    from twisted.internet import defer

    from .common.checkup import echoed
    from .common.config import Config
    from .common.options import Common
    from .common.session import run

    answers: list[Finding] = []

    async def perform(_: Session) -> int:
        answers.extend(
            await defer.gatherResults(
                [
                    defer.Deferred.fromCoroutine(echoed(options["aet"], remote))
                    for _, remote in sorted(options["peers"].items())
                ]
            )
        )
        return ExitCode.OK

    run(Common(Config(), output), perform)
    return answers
