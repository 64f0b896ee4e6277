"""The AE and the association that programs hold: one call for each DIMSE operation.

:class:`AE` and :class:`Association` are those of :mod:`netdicom_tx.applicationentity` and
:mod:`netdicom_tx.asceprovider`, which know no service, with a call for each service on top::

    async with AE("MYSCU").associate("ARCHIVE@pacs.example:104") as asce:
        print(await asce.echo())
        async for study in asce.find("STUDY", PatientName="DOE*"):
            print(study.StudyInstanceUID)

=====================================  =====================================================================
a call                                 what it gives
=====================================  =====================================================================
``echo``, ``store``                    a Deferred of the :class:`~netdicom_tx.Status`
``commit``                             a Deferred of the :class:`~netdicom_tx.sopclass.CommitmentResult`
``n_create``, ``n_set``, …             a Deferred of a :class:`Reply`
``find``, ``worklist``                 a stream of data sets (:class:`Matches`)
``get``                                a stream of :class:`Retrieved` instances (:class:`Retrieval`)
``move``                               a stream of :class:`Progress` (:class:`Moves`)
=====================================  =====================================================================

A wrong argument raises at once. A failure that happens later, here or at the peer, fails the Deferred or is raised
to the reader of the stream. A stream whose operation ended in a failure raises StatusError at its end, so
that a failure never looks like an empty answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, TypeVar

import pydicom
from pydicom.dataset import Dataset
from twisted.internet import defer
from twisted.internet.interfaces import IStreamClientEndpoint

from . import applicationentity, asceprovider, dsutils, statuses, uids
from .arguments import check_seconds, many, several
from .dimsemessages import Request, Response
from .dispatch import Registration, Service
from .exceptions import ClassNotSupportedError, LocalProtocolError
from .negotiation import (
    MAXIMUM_CONTEXTS,
    PContextDef,
    contexts_for_instances,
    contexts_to_receive,
)
from .remoteae import RemoteAE
from .requests import status_of
from .results import Matches, Moves, Progress, Reply, Retrieval, Retrieved, VerbStream
from .sopclass import (
    CommitmentResult,
    Instance,
    NormalizedSCU,
    StorageCommitment,
    modality_work_list_scu,
    qr_find_scu,
    qr_get_scu,
    qr_move_scu,
    request_commitment,
    storage_commitment_scu,
    storage_scu,
    verification_scu,
)
from .sopclass.base import answers, store_in_file
from .sopclass.keywords import identifier, unique, worklist_identifier
from .sopclass.storage import Source, check_request, check_source, store_instance
from .statuses import Status
from .userdataitems import RoleSelection, UserDataItem

__all__ = [
    "AE",
    "Associating",
    "Association",
    "Matches",
    "Moves",
    "Progress",
    "Reply",
    "Retrieval",
    "Retrieved",
    "VerbStream",
]

_Item = TypeVar("_Item")

# The SOP classes besides storage that associate() proposes by default.
_COMMON: Final = (
    uids.VERIFICATION_SOP_CLASS,
    uids.STUDY_ROOT_FIND_SOP_CLASS,
    uids.STUDY_ROOT_MOVE_SOP_CLASS,
    uids.STUDY_ROOT_GET_SOP_CLASS,
    uids.PATIENT_ROOT_FIND_SOP_CLASS,
    uids.PATIENT_ROOT_MOVE_SOP_CLASS,
    uids.PATIENT_ROOT_GET_SOP_CLASS,
    uids.MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS,
    uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS,
    uids.ModalityPerformedProcedureStep,
)
# The current image classes come first: 128 contexts do not hold all storage classes.
_COMMON_STORAGE: Final = tuple(uid for uid in uids.STORAGE_SOP_CLASSES if not uids.is_rare(uid))[
    : MAXIMUM_CONTEXTS - len(_COMMON)
]
_STORAGE: Final = frozenset(uids.STORAGE_SOP_CLASSES)
_STUDY_ROOT: Final = {
    "find": uids.STUDY_ROOT_FIND_SOP_CLASS,
    "get": uids.STUDY_ROOT_GET_SOP_CLASS,
    "move": uids.STUDY_ROOT_MOVE_SOP_CLASS,
}
_TAGS: Final = "tags or keywords"
_PATIENT_ROOT: Final = {
    "find": uids.PATIENT_ROOT_FIND_SOP_CLASS,
    "get": uids.PATIENT_ROOT_GET_SOP_CLASS,
    "move": uids.PATIENT_ROOT_MOVE_SOP_CLASS,
}


# -- the association ------------------------------------------------------------------------------


@answers("C-STORE")
@store_in_file
def _receive_for_get(asce: Association, ctx: PContextDef, msg: Request) -> int:
    """Take an instance for the reader of a :class:`Retrieval`, if the AE has no storage service."""
    refusal = check_request(msg)
    if refusal is None and not asce.is_retrieving:
        refusal = Status(statuses.PROCESSING_FAILURE, "C-STORE", "no C-GET is under way")
    return statuses.SUCCESS if refusal is None else refusal


_RECEIVER: Final = Registration(_receive_for_get, uids.DEFAULT_TRANSFER_SYNTAXES, True)
_COMMITMENT: Final = Registration(StorageCommitment(), uids.DEFAULT_TRANSFER_SYNTAXES, False)


class Association(asceprovider.Association):
    """An association with a call for each DIMSE operation.

    Each call uses the service that is registered on the AE for the SOP class, or by default that of
    :mod:`netdicom_tx.sopclass`.
    """

    ae: AE

    def echo(self) -> defer.Deferred[Status]:
        """Ask whether the peer is there and speaks DICOM (C-ECHO, PS3.4 Annex A).

        Returns:
            Fires with the status. Cancelling it sends nothing; the late answer is dropped.
        """
        sent: defer.Deferred[Status] = self._scu(uids.VERIFICATION_SOP_CLASS, verification_scu)()
        return sent

    def store(self, source: Source, *, timeout: float | None = None) -> defer.Deferred[Status]:
        """Store an instance at the peer (C-STORE, PS3.4 Annex B).

        Args:
            source: The path of a Part 10 file; an open one, which is read from its position and left open; or
                a :class:`pydicom.Dataset`.
            timeout: Seconds to the response; None means ``timeouts.response``.

        Returns:
            Fires with the status. Fails with ClassNotSupportedError when the peer has accepted no context
            that fits: name the files in :meth:`AE.associate`. Fails with DataSetError or OSError when the
            instance cannot be read. Cancelling does not stop the transfer; an instance that still waits for its turn
            is not sent then.

        Raises:
            TypeError, ValueError: An argument is wrong.
        """
        check_source("source", source)
        try:
            instance = Instance.of(source)
        except (OSError, dsutils.DataSetError) as error:
            return defer.fail(error)
        return store_instance(self, instance, timeout=timeout)

    def find(
        self,
        level: str = "STUDY",
        given: Dataset | None = None,
        /,
        *,
        model: str | None = None,
        timeout: float | None = None,
        **keys: object,
    ) -> Matches:
        """Query the peer for matching data sets (C-FIND, PS3.4 C.4.1).

        Args:
            level: PATIENT, STUDY, SERIES or IMAGE.
            given: An identifier to begin with.
            model: The SOP class UID of the information model. None chooses one that the peer has accepted:
                Patient Root for patients, else Study Root before Patient Root.
            timeout: Seconds to each response; None means ``timeouts.response``.
            keys: The keys to match and to return, by keyword: ``PatientName="DOE*", StudyDescription=""``. The
                unique key of the level is always returned.

        Raises:
            TypeError, ValueError, LocalProtocolError: A level, keyword or value is wrong.
            ClassNotSupportedError: The peer has accepted no context for C-FIND.
        """
        wanted = identifier(level, given, keys)
        uid = model or self._model("find", wanted.QueryRetrieveLevel)
        return Matches(self._scu(uid, qr_find_scu)(wanted, timeout=timeout))

    def worklist(
        self, given: Dataset | None = None, /, *, timeout: float | None = None, **keys: object
    ) -> Matches:
        """Ask for scheduled procedure steps (Modality Worklist, PS3.4 Annex K).

        Args:
            given: An identifier to begin with. Without one, the attributes that a modality puts into its images
                are returned.
            timeout: Seconds to each response; None means ``timeouts.response``.
            keys: The keys to match and to return, by keyword. Attributes of the step, such as ``Modality`` and
                ``ScheduledProcedureStepStartDate``, are put into their sequence.

        Raises:
            TypeError, ValueError, LocalProtocolError: A keyword or value is wrong.
            ClassNotSupportedError: The peer has accepted no context for the worklist.
        """
        wanted = worklist_identifier(given, keys)
        uid = uids.MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS
        return Matches(self._scu(uid, modality_work_list_scu)(wanted, timeout=timeout))

    def get(
        self,
        level: str = "STUDY",
        given: Dataset | None = None,
        /,
        *,
        model: str | None = None,
        timeout: float | None = None,
        **keys: object,
    ) -> Retrieval:
        """Retrieve matching instances on this association (C-GET, PS3.4 C.4.3).

        The storage SOP classes must have been proposed for it, as :meth:`AE.associate` does. If the AE has a
        storage service, that answers each instance. Otherwise the peer gets Success when the reader of the stream
        has the instance.

        Args:
            level: PATIENT, STUDY, SERIES or IMAGE.
            given: An identifier to begin with.
            model: As for :meth:`find`.
            timeout: Seconds to each response or instance; None means ``timeouts.response``.
            keys: The unique keys, by keyword; lists of UIDs.

        Raises:
            TypeError, ValueError, LocalProtocolError: A level, keyword or value is wrong, or the level's unique
                key has no value.
            ClassNotSupportedError: The peer has accepted no context for C-GET.
        """
        wanted = unique(identifier(level, given, keys))
        uid = model or self._model("get", wanted.QueryRetrieveLevel)
        return Retrieval(self._scu(uid, qr_get_scu)(wanted, timeout=timeout))

    def move(
        self,
        level: str = "STUDY",
        given: Dataset | None = None,
        /,
        *,
        to: str | applicationentity.AE,
        model: str | None = None,
        timeout: float | None = None,
        **keys: object,
    ) -> Moves:
        """Have the peer send matching instances to a destination (C-MOVE, PS3.4 C.4.2).

        Args:
            level: PATIENT, STUDY, SERIES or IMAGE.
            given: An identifier to begin with.
            to: The AE title of the destination, which the peer must know; or an AE of ours that listens.
            model: As for :meth:`find`.
            timeout: Seconds to each response; None means ``timeouts.response``.
            keys: The unique keys, by keyword; lists of UIDs.

        Raises:
            TypeError, ValueError, LocalProtocolError: A level, keyword or value is wrong, or the level's unique
                key has no value.
            ClassNotSupportedError: The peer has accepted no context for C-MOVE.
        """
        wanted = unique(identifier(level, given, keys))
        uid = model or self._model("move", wanted.QueryRetrieveLevel)
        return Moves(self._scu(uid, qr_move_scu)(wanted, to, timeout=timeout))

    def commit(
        self,
        instances: Iterable[Source | Instance | tuple[str, str]],
        *,
        timeout: float = 300.0,
    ) -> defer.Deferred[CommitmentResult]:
        """Ask for the safekeeping of instances, and wait for the report (PS3.4 Annex J).

        Args:
            instances: The stored instances: files, data sets, or pairs of SOP class and SOP instance UID.
            timeout: How many seconds to wait for the report.

        Returns:
            Fires with the instances that the peer keeps and those that it does not. Fails with StatusError when the
            peer refuses, with DCMTimeoutError when no report comes, and with DataSetError or OSError when an instance
            cannot be read.
            Cancelling it ends the wait for the report; the request to the peer stays.

        Raises:
            TypeError, ValueError: An argument is wrong.
            ClassNotSupportedError: The peer has accepted no context for storage commitment.
        """
        check_seconds("timeout", timeout)
        try:
            references = [
                _reference(each)
                for each in several("instances", instances, "files, data sets or pairs of UIDs")
            ]
        except (OSError, dsutils.DataSetError):
            return defer.fail()
        scu = self._scu(uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS, storage_commitment_scu)
        asked = request_commitment(self, references, timeout=timeout, scu=scu)
        return defer.Deferred.fromCoroutine(asked)

    # -- DIMSE-N (PS3.7 10.1) --------------------------------------------------------------------

    def n_create(
        self,
        sop_class: str,
        attributes: Dataset | None = None,
        sop_instance: str | None = None,
        *,
        meta: str | None = None,
    ) -> defer.Deferred[Reply]:
        """Create an instance (PS3.7 10.1.5).

        Args:
            sop_class: The SOP class UID of the instance.
            attributes: Its attributes.
            sop_instance: Its UID; None lets the peer assign one, which is
                ``reply.response.affected_sop_instance_uid``.
            meta: The meta SOP class whose context is used, where ``sop_class`` has none of its own.

        Returns:
            Fires with the reply, whatever its status; fails and cancels as :meth:`request` says. So do all
            calls of this section.

        Raises:
            ClassNotSupportedError: The peer has accepted no context for the SOP class.
        """
        scu = self._normalized(sop_class, meta)
        return self._replied(scu, scu.n_create(sop_instance, attributes))

    def n_set(
        self, sop_class: str, sop_instance: str, modifications: Dataset, *, meta: str | None = None
    ) -> defer.Deferred[Reply]:
        """Change attributes of an instance (PS3.7 10.1.3)."""
        scu = self._normalized(sop_class, meta)
        return self._replied(scu, scu.n_set(sop_instance, modifications))

    def n_get(
        self,
        sop_class: str,
        sop_instance: str,
        attributes: Iterable[int | str] | None = None,
        *,
        meta: str | None = None,
    ) -> defer.Deferred[Reply]:
        """Read attributes of an instance, by tag or keyword; None asks for all (PS3.7 10.1.2)."""
        scu = self._normalized(sop_class, meta)
        wanted = None if attributes is None else many("attributes", attributes, (int, str), _TAGS)
        tags = None if wanted is None else [_tag(each) for each in wanted]
        return self._replied(scu, scu.n_get(sop_instance, tags))

    def n_action(
        self,
        sop_class: str,
        sop_instance: str,
        action_type: int,
        information: Dataset | None = None,
        *,
        meta: str | None = None,
    ) -> defer.Deferred[Reply]:
        """Ask for an action on an instance (PS3.7 10.1.4)."""
        scu = self._normalized(sop_class, meta)
        return self._replied(scu, scu.n_action(sop_instance, action_type, information))

    def n_event_report(
        self,
        sop_class: str,
        sop_instance: str,
        event_type: int,
        information: Dataset | None = None,
    ) -> defer.Deferred[Reply]:
        """Report an event of an instance, as its SCP (PS3.7 10.1.1)."""
        scu = NormalizedSCU(self, self.context_as_scp(sop_class))
        return self._replied(scu, scu.n_event_report(sop_instance, event_type, information))

    def n_delete(
        self, sop_class: str, sop_instance: str, *, meta: str | None = None
    ) -> defer.Deferred[Reply]:
        """Delete an instance (PS3.7 10.1.6)."""
        scu = self._normalized(sop_class, meta)
        return self._replied(scu, scu.n_delete(sop_instance))

    def scp_for(self, sop_class: str) -> Registration | None:
        """The AE's service, or the service that takes the instances and reports that calls wait for."""
        found = super().scp_for(sop_class)
        if found is None and self.is_requestor:
            if sop_class in _STORAGE:
                return _RECEIVER
            scu = self.ae.supported_scu.find(sop_class)
            if sop_class == uids.STORAGE_COMMITMENT_PUSH_MODEL_SOP_CLASS and (
                scu is None or scu.service is storage_commitment_scu
            ):
                return _COMMITMENT
        return found

    # -- how a call finds its service ------------------------------------------------------------

    def _scu(self, uid: str, standard: Service) -> Callable[..., Any]:
        """The SCU for a SOP class, bound to its context: that of the AE, or the standard one."""
        if self.ae.supported_scu.find(uid) is not None:
            return self.get_scu(uid)
        ctx = self._context(uid)
        return partial(standard, self, ctx)

    def _context(self, uid: str) -> PContextDef:
        for ctx in self.contexts_for(uid):
            if ctx.as_scu:
                return ctx
        raise ClassNotSupportedError(
            uid,
            self.refusals(uid),
            f"name it when the association is opened: associate(peer, {uid!r})",
        )

    def _model(self, operation: str, level: str) -> str:
        """The information model to use for an operation at a level."""
        first = information_model(operation, level)
        for uid in (first, _PATIENT_ROOT[operation]):
            if any(ctx.as_scu for ctx in self.contexts_for(uid)):
                return uid
        return first

    def _normalized(self, sop_class: str, meta: str | None) -> NormalizedSCU:
        return NormalizedSCU(self, self._context(meta or sop_class), sop_class)

    def _replied(self, scu: NormalizedSCU, sent: defer.Deferred[Response]) -> defer.Deferred[Reply]:
        return sent.addCallback(
            lambda response: Reply(status_of(response), scu.data_set(response), response)
        )


def _reference(source: Source | Instance | tuple[str, str]) -> tuple[str, str]:
    if isinstance(source, tuple) and not isinstance(source, Instance):
        sop_class, sop_instance = uids.as_tuple("instances", source)
        return sop_class, sop_instance
    if not isinstance(source, Instance):
        check_source("an item of instances", source)
    instance = source if isinstance(source, Instance) else Instance.of(source)
    return instance.sop_class_uid, instance.sop_instance_uid


def _tag(attribute: int | str) -> int:
    if isinstance(attribute, int):
        return attribute
    tag = pydicom.datadict.tag_for_keyword(attribute)
    if tag is None:
        raise LocalProtocolError(f"{attribute!r} is not the keyword of a DICOM attribute")
    return tag


def information_model(operation: str, level: str) -> str:
    """The SOP class of an operation (find, get, move) whose information model has a level.

    Patient Root has patients; Study Root, which more archives support, has the other levels (PS3.4 C.6).
    """
    return (_PATIENT_ROOT if level.upper() == "PATIENT" else _STUDY_ROOT)[operation]


# -- the AE ---------------------------------------------------------------------------------------


class Associating(defer.Deferred[Association]):
    """The Deferred of an association that is being opened, which ``async with`` opens and ends.

    ``await`` returns the association, and so does ``async with``. At the end of the block the association is released,
    or aborted when an exception leaves the block.
    """

    _opened: Association | None = None

    async def __aenter__(self) -> Association:
        self._opened = await self
        return self._opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._opened is not None
        await self._opened.__aexit__(kind, error, trace)


class AE(applicationentity.AE):
    """An application entity whose associations have a call for each DIMSE operation.

    The arguments are those of :class:`netdicom_tx.applicationentity.AE`.
    """

    association_class: ClassVar[type[asceprovider.Association]] = Association

    def associate(
        self,
        peer: str | RemoteAE | IStreamClientEndpoint,
        *services: Service | str,
        files: Iterable[str | os.PathLike[str]] | None = None,
        contexts: applicationentity.Contexts | None = None,
        roles: Iterable[RoleSelection] = (),
        user_items: Iterable[UserDataItem] = (),
    ) -> Associating:
        """Open an association.

        It proposes what the call names: services, files to be stored, or contexts. When the call names
        nothing, it proposes the services that were registered by :meth:`add_scu`; when there are none, the
        common ones: Verification, Query/Retrieve, Modality Worklist, Storage Commitment, performed procedure
        steps, and the current storage classes, uncompressed, for sending and for C-GET.

        Args:
            peer: ``"ARCHIVE@pacs.example:104"``, ``"pacs.example:104"`` (which is called ANY-SCP), a Twisted
                endpoint string with or without ``ARCHIVE@``, an endpoint, or a :class:`RemoteAE`.
            services: SCU services, such as ``qr_find_scu``, or SOP class UIDs.
            files: Part 10 files that are to be stored; the contexts follow their SOP classes and transfer
                syntaxes.
            contexts: As for :meth:`request_association`.
            roles: As for :meth:`request_association`.
            user_items: As for :meth:`request_association`.

        Returns:
            A Deferred of the association that is an asynchronous context manager as well. It fails and
            cancels as :meth:`request_association` says: cancelling gives up the attempt to connect, or aborts the
            association that is not open yet. A file that cannot be read fails it with OSError or DataSetError.

        Raises:
            TypeError, ValueError, LocalProtocolError: The address or another argument is wrong.
        """
        remote = RemoteAE.of(peer)
        opening = Associating(lambda _: asked.cancel())
        asked_roles = many("roles", roles, RoleSelection, "RoleSelection items")
        if contexts is None:
            named = tuple(uid for service in services for uid in _sop_classes(service))
            paths = None
            if files is not None:
                paths = many("files", files, (str, os.PathLike), "paths")
            try:
                contexts = planned = self._planned(named, paths)
            except (OSError, dsutils.DataSetError) as error:  # raised by a file
                asked = defer.fail(error)
                asked.addErrback(opening.errback)
                return opening
            asked_roles = asked_roles or _roles(planned)
        elif services or files is not None:
            raise ValueError("name either the contexts, or the services and the files")
        asked = self.request_association(remote, contexts, roles=asked_roles, user_items=user_items)
        asked.addCallbacks(opening.callback, opening.errback)
        return opening

    def _planned(
        self,
        named: tuple[str, ...],
        files: Iterable[str | os.PathLike[str]] | None,
    ) -> list[tuple[str, tuple[str, ...]]] | None:
        """Pairs of abstract and transfer syntaxes; None leaves them to the registered services."""
        wanted: list[tuple[str, tuple[str, ...]]] = []
        if files is not None:
            wanted += contexts_for_instances(
                (instance.sop_class_uid, instance.transfer_syntax)
                for instance in map(Instance.of, files)
            )
        if not named and files is None:
            if any(True for _ in self.supported_scu):
                return None
            named = (*_COMMON, *_COMMON_STORAGE)
        already = {abstract_syntax for abstract_syntax, _ in wanted}
        wanted += [(uid, self._syntaxes(uid)) for uid in dict.fromkeys(named) if uid not in already]
        if any(uid in uids.GET_SOP_CLASSES for uid, _ in wanted):
            # The instances of a C-GET come on contexts of this association (PS3.4 C.4.3).
            already = {abstract_syntax for abstract_syntax, _ in wanted}
            brought = [(uid, self._syntaxes(uid)) for uid in _COMMON_STORAGE if uid not in already]
            wanted += contexts_to_receive(brought, MAXIMUM_CONTEXTS - len(wanted))
        return wanted

    def _syntaxes(self, sop_class: str) -> tuple[str, ...]:
        registered = self.supported_scu.find(sop_class)
        return self.supported_ts if registered is None else registered.transfer_syntaxes


def _sop_classes(service: Service | str) -> tuple[str, ...]:
    """The abstract syntaxes that a service, or a SOP class named as one, stands for."""
    if isinstance(service, str):
        return (service,)
    if service is storage_scu:
        return _COMMON_STORAGE
    named = tuple(getattr(service, "sop_classes", ()))
    if not named:
        raise LocalProtocolError(
            f"{getattr(service, '__name__', service)!r} names no SOP classes; "
            "pass the SOP class UIDs themselves"
        )
    return named


def _roles(planned: Iterable[tuple[str, tuple[str, ...]]] | None) -> tuple[RoleSelection, ...]:
    """With C-GET, we are SCP of storage as well as SCU (PS3.7 D.3.3.4)."""
    proposed = dict.fromkeys(uid for uid, _ in planned or ())
    if not any(uid in uids.GET_SOP_CLASSES for uid in proposed):
        return ()
    return tuple(RoleSelection(uid, True, True) for uid in proposed if uid in _STORAGE)
