"""The workflow services of a node, which close the loop with modalities and RIS: commitment, worklist, performed steps.

All of them use the database of the index and one outbound queue, and send to the peers of the node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from ...applicationentity import AE, RemoteAE
from ...sopclass import ModalityWorklist
from ...sopclass.procedure_step import ModalityPerformedProcedureStep
from ..group.duties import AllDuties, Duty
from ..index.index import Index
from ..index.watch import Watches
from ..workers import Workers
from .commitment import ArchiveCommitment
from .outbound import Queue, owner_of
from .performed_steps import ProcedureSteps
from .runner import QueueRunner
from .worklist import Worklist
from .worklist_sources import SharedWorklistDirectory, WorklistDirectory, WorklistTable

__all__ = ["Workflow", "WorkflowOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowOptions:
    """The options of the workflow services.

    Attributes:
        worklist: The directory of worklist files, as ``wlmscpfs`` uses them; None means no directory.
        forward_mpps: The AE titles of the peers to which each performed step is forwarded.
        notify_mpps: The AE titles of the peers that are notified of its events.
        notify_availability: The AE titles of the peers that are notified when the instances of a step have arrived.
    """

    worklist: Path | None = None
    forward_mpps: tuple[str, ...] = ()
    notify_mpps: tuple[str, ...] = ()
    notify_availability: tuple[str, ...] = ()


class Workflow:
    """The workflow services of one node, which are registered with it.

    Args:
        ae: The node.
        index: The index, which the node opens before :meth:`start`.
        workers: The threads for blocking work.
        peers: The peers by AE title.
        options: The options of the operator.
        owner: The name under which this node claims tasks of the queue. No other node may have it, and it must be the
            same after a restart.
        sources: Worklist sources besides the directory and the table.
        watches: Watch over the worklist queries; None means watches of its own.
        has_room: Whether the disk has more than its reserve; nothing that takes room is kept otherwise.
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
        has_room: Callable[[], bool] = lambda: True,
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
            has_room=has_room,
        )
        self._index, self._workers, self._options = index, workers, options
        self._directory: SharedWorklistDirectory | None = None
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
            ae, index, self._runner, workers.run, peers, self._verifier.run, has_room
        )
        ae.add_scp(self._commitment)
        ae.add_scp(ModalityPerformedProcedureStep())
        ae.add_scp(ModalityWorklist(on_find=self.worklist.find))

    @property
    def duties(self) -> tuple[Duty, ...]:
        """What only one node of a group may do, and this node can do."""
        return () if self._options.worklist is None else (Duty.WORKLIST,)

    def join(self, node: str, duties: AllDuties) -> None:
        """Be one of several nodes that share the database; call this before :meth:`work_for` and :meth:`start`.

        Args:
            node: The UUID of this node.
            duties: The duties that it has.
        """
        self.queue.join(node)
        self._directory = SharedWorklistDirectory(
            self._options.worklist,
            self._index,
            self._workers.run,
            lambda: duties.holds(Duty.WORKLIST),
        )
        own = [each for each in self.worklist.sources if not isinstance(each, WorklistDirectory)]
        self.worklist.sources = [*own, self._directory]

    def work_for(
        self,
        worker: int,
        delegate: Callable[[], object],
        on_event: Callable[[str, int], object],
    ) -> None:
        """Be a part of a worker: the lead of the node performs the tasks of the queue.

        Args:
            worker: The number of the worker.
            delegate: Tells the lead that a task has become due.
            on_event: Tells the other workers of the event of a performed step.
        """
        self.queue.owner = owner_of(self.queue.owner, worker)
        self._runner.delegate = delegate
        self.steps.on_event = on_event

    def wake(self) -> None:
        """Perform what has become due."""
        self._runner.wake()

    def take_over(self, worker: int) -> Future[None]:
        """Take the tasks of a worker that has ended."""
        return self.queue.recover(owner_of(self.queue.owner, worker))

    def start(self, clock: IReactorTime) -> None:
        """Perform the tasks of the queue from now on."""
        self._commitment.resume()
        self._verifier.start(self._reactor)
        self._runner.start(clock)
        if self._directory is not None:
            self._directory.start(clock)

    def stop(self) -> defer.Deferred[None]:
        """Perform no more tasks; those that are not done stay in the queue. Fires when none is being performed."""
        self._commitment.stop()
        if self._directory is not None:
            self._directory.stop()
        return self._runner.stop()

    def close(self) -> None:
        """End the thread that reads files for commitment; blocks until it has ended."""
        self._commitment.stop()
        self._verifier.stop()
