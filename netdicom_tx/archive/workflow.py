"""The workflow services of an archive, put together: commitment, worklist, procedure steps, and their queue.

An AE that has an index makes one of these, calls :meth:`Workflow.start` when the index is open and
:meth:`Workflow.stop` before it is closed, and passes four hooks on::

    def on_mpps_create(self, uid, ds): return self.workflow.steps.create(uid, ds)
    def on_mpps_set(self, uid, ds): return self.workflow.steps.change(uid, ds)
    def on_mpps_get(self, uid, tags): return self.workflow.steps.get(uid, tags)
    def on_receive_find(self, context, ds):
        if context.sop_class == MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS:
            return self.workflow.worklist.find(context, ds)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IReactorTime

from ..applicationentity import AE, RemoteAE
from ..sopclass import modality_work_list_scp
from ..sopclass.procedure_step import ModalityPerformedProcedureStep
from .commitment import ArchiveCommitment
from .index import Index
from .procedure_steps import ProcedureSteps
from .queue import Queue, QueueRunner
from .worklist import Worklist
from .worklist_sources import WorklistDirectory, WorklistTable

__all__ = ["Workflow"]


class Workflow:
    """The services, registered on an AE.

    Args:
        ae: Which serves and sends.
        in_thread: Runs a blocking call off the reactor thread.
        peers: By AE title: whom it may call, and nobody else.
        owner: Of the tasks that this node performs; another for each node on one database, and the same after
            a restart.
        worklist_directories: Of ``*.wl`` files.
        worklist_sources: Further providers of :class:`~netdicom_tx.archive.worklist.IWorklistSource`.
        forward_to: AE titles that performed procedure steps are forwarded to.
        notify: AE titles that have the events of MPPS Notification.
        available_to: AE titles that have instance availability notifications.

    Attributes:
        table: The worklist items that were imported.
    """

    def __init__(
        self,
        ae: AE,
        index: Index,
        in_thread: Callable[..., defer.Deferred[Any]],
        peers: Mapping[str, RemoteAE],
        *,
        owner: str,
        worklist_directories: Iterable[str | os.PathLike[str]] = (),
        worklist_sources: Iterable[Any] = (),
        forward_to: Iterable[str] = (),
        notify: Iterable[str] = (),
        available_to: Iterable[str] = (),
    ) -> None:
        self.queue = Queue(index, owner)
        self.runner = QueueRunner(self.queue, in_thread)
        self.commitment = ArchiveCommitment(ae, index, self.runner, in_thread, peers)
        self.steps = ProcedureSteps(
            ae,
            index,
            self.runner,
            in_thread,
            peers,
            forward_to=forward_to,
            notify=notify,
            available_to=available_to,
        )
        self.table = WorklistTable(index, in_thread)
        directories = [WorklistDirectory(path, in_thread) for path in worklist_directories]
        self.worklist = Worklist(
            [self.table, *directories, *worklist_sources], in_thread, self.steps.states
        )
        ae.add_scp(self.commitment)
        ae.add_scp(ModalityPerformedProcedureStep())
        ae.add_scp(modality_work_list_scp)

    def start(self, clock: IReactorTime) -> None:
        """Perform what is owed; the index is open."""
        self.runner.start(clock)

    def stop(self) -> defer.Deferred[None]:
        """Give up what is being performed: it is owed still.

        Returns:
            Fires when nothing is performed any more.
        """
        return self.runner.stop()
