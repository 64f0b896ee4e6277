"""What closes the loop with modalities and RIS, joined for the node: commitment, worklist, performed steps.

All of it stands on the index's database and on one outbound queue; where it sends to are the node's peers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from ...applicationentity import AE, RemoteAE
from ...sopclass import ModalityWorklist
from ...sopclass.procedure_step import ModalityPerformedProcedureStep
from ..index.index import Index
from ..index.watch import Watches
from ..workers import Workers
from .commitment import ArchiveCommitment
from .outbound import Queue, QueueRunner
from .performed_steps import ProcedureSteps
from .worklist import Worklist
from .worklist_sources import WorklistDirectory, WorklistTable

__all__ = ["Workflow", "WorkflowOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowOptions:
    """What an operator says of the workflow services.

    Attributes:
        worklist: Directory of worklist files, as ``wlmscpfs`` has them; None means none.
        forward_mpps: AE titles of peers that have each performed step sent on.
        notify_mpps: AE titles of peers that are told of its events.
        notify_availability: AE titles of peers that are told when a performed step's instances are here.
    """

    worklist: Path | None = None
    forward_mpps: tuple[str, ...] = ()
    notify_mpps: tuple[str, ...] = ()
    notify_availability: tuple[str, ...] = ()


class Workflow:
    """The services of one node; registers them with it.

    Args:
        ae: The node.
        index: Opened by the node, before :meth:`start`.
        workers: For what blocks.
        peers: By AE title.
        owner: Of what this node performs of the queue: of no other node, and the same after a restart.
        sources: Worklist sources besides the directory and the table that is imported into.
        watches: Watch over the worklist queries; None means watches of its own.
    """

    def __init__(
        self,
        ae: AE,
        index: Index,
        workers: Workers,
        peers: Mapping[str, RemoteAE],
        options: WorkflowOptions,
        owner: str,
        sources: Iterable[Any] = (),
        watches: Watches | None = None,
    ) -> None:
        self._reactor = ae.reactor
        self.queue = Queue(index, owner)
        self._runner = QueueRunner(self.queue, workers.run)
        self.steps = ProcedureSteps(
            ae,
            index,
            self._runner,
            workers.run,
            peers,
            forward_to=options.forward_mpps,
            notify=options.notify_mpps,
            available_to=options.notify_availability,
        )
        directories = [options.worklist] if options.worklist is not None else []
        self.worklist = Worklist(
            [
                *sources,
                WorklistTable(index, workers.run),
                *(WorklistDirectory(each, workers.run) for each in directories),
            ],
            workers.run,
            self.steps.states,
            watches,
        )
        self._verifier = Workers("netdicom-verifier", min(1, workers.threads))
        self._commitment = ArchiveCommitment(
            ae, index, self._runner, workers.run, peers, self._verifier.run
        )
        ae.add_scp(self._commitment)
        ae.add_scp(ModalityPerformedProcedureStep())
        ae.add_scp(ModalityWorklist(on_find=self.worklist.find))

    def start(self, clock: IReactorTime) -> None:
        """Perform what the queue holds, from now on."""
        self._commitment.resume()
        self._verifier.start(self._reactor)
        self._runner.start(clock)

    def stop(self) -> defer.Deferred[None]:
        """Perform no more; what is not done stays in the queue. Fires when nothing is under way."""
        self._commitment.stop()
        return self._runner.stop()

    def close(self) -> None:
        """End the thread that reads files for commitment; blocks until it has ended."""
        self._commitment.stop()
        self._verifier.stop()
