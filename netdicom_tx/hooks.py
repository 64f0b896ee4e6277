"""The hooks of an application entity: the methods that a program overrides.

A hook of the table is called for one request, and its ``context`` is a :class:`RequestContext`: the presentation
context, with its association and the request. The requestor is ``context.association.calling_ae_title`` at
``context.association.peer_address``, and ``context.request`` has the ``message_id`` and the ``sop_instance_uid``.

=======================================  ==================================================================
hook                                     is called for
=======================================  ==================================================================
``on_receive_echo(context)``             C-ECHO
``on_receive_store(context, ds)``        C-STORE
``on_receive_find(context, ds)``         C-FIND, for queries and for worklists
``on_receive_get(context, ds)``          C-GET
``on_receive_move(context, ds, dest)``   C-MOVE
=======================================  ==================================================================

Each hook may return a value, a Deferred or a coroutine. The exception is ``get_file``, which must return at once,
because the octets are arriving. The services of :mod:`netdicom_tx.sopclass` ask these hooks by default. To make a
service ask something else, give it other handlers; see :mod:`netdicom_tx.sopclass.base`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from . import statuses
from .access import Permission
from .asceprovider import Association
from .dimsemessages import Request
from .exceptions import EventHandlingError
from .identity import User
from .negotiation import PContextDef
from .opening import Verdict
from .part10 import part10_header
from .pdu import AAssociateAC, AAssociateRQ
from .summary import AssociationSummary
from .userdataitems import UserIdentity

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["Hooks", "RequestContext"]

_Status = int | Awaitable[int]

#: The association that a hook is given. Its class is that of the AE's associations: an override may name
#: :class:`netdicom_tx.Association`, which has more than the class that is known here, so this is Any.
AnyAssociation = Any


@dataclass(frozen=True, slots=True, eq=False)
class RequestContext(PContextDef):
    """The presentation context of a request, with the association and the request.

    It is equal to the :class:`~netdicom_tx.PContextDef` that it extends, and may be used in its place, for example
    in :meth:`Association.request <netdicom_tx.Association.request>`.

    Attributes:
        association: The association that the request came on.
        request: The request; its ``data_set`` is what the hook gets as ``ds``, not yet decoded.
    """

    association: Association = field(kw_only=True, repr=False)
    request: Request = field(kw_only=True, repr=False)

    @classmethod
    def of(cls, asce: Association, ctx: PContextDef, msg: Request) -> Self:
        """Join the three arguments of a service."""
        return cls(
            ctx.id,
            ctx.sop_class,
            ctx.supported_ts,
            ctx.as_scu,
            ctx.as_scp,
            association=asce,
            request=msg,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PContextDef) and _agreed(self) == _agreed(other)

    __hash__ = PContextDef.__hash__


def _agreed(ctx: PContextDef) -> tuple[object, ...]:
    return ctx.id, ctx.sop_class, ctx.supported_ts, ctx.as_scu, ctx.as_scp


class Hooks:
    """The base of :class:`~netdicom_tx.AE`."""

    # -- associations ------------------------------------------------------------------------------

    def on_association_begun(self, asce: AnyAssociation) -> Awaitable[None] | None:
        """The transport of an association is open, on either side.

        The AE titles of an acceptor are not known yet. The results of this hook, of :meth:`on_association_accepted`
        and of :meth:`on_association_ended` are not awaited. Their exceptions are logged and change nothing.

        Args:
            asce: The association, with ``is_requestor`` and ``peer_address`` set.
        """
        return None

    def on_association_request(self, asce: AnyAssociation, assoc: AAssociateRQ) -> Verdict:
        """Decide on the association that a peer asks for.

        Args:
            asce: The association, with ``calling_ae_title``, ``called_ae_title`` and ``peer_address`` set.
            assoc: The whole request.

        Returns:
            None to accept, or a :class:`~netdicom_tx.userdataitems.UserIdentityResponse` to accept and to answer
            the user identity of the request (PS3.7 D.3.3.7), where the peer has asked for an answer; or a Deferred
            or coroutine of it, which has ``timeouts.associate`` seconds. Everything else is logged as an error,
            and the association is rejected (transient, no reason given).

        Raises:
            AssociationRejectedError: The association is rejected with this reason.
        """
        return None

    def on_user_identity(
        self, asce: AnyAssociation, identity: UserIdentity
    ) -> User | Awaitable[User | None] | None:
        """Check a user identity (PS3.7 D.3.3.7) for whose type :attr:`AE.identities` has no checker.

        Args:
            asce: The association, with ``calling_ae_title``, ``called_ae_title`` and ``peer_address`` set.
            identity: The identity, such as a Kerberos ticket or a SAML assertion.

        Returns:
            The user, whom the association then has as ``asce.user``. None says that the identity has not been checked;
            then the association is accepted without a user, or rejected where the peer needs one. An exception is
            logged, and the association is rejected (transient).

        Raises:
            AssociationRejectedError: The association is rejected with this reason.
        """
        return None

    def on_authorize(
        self, context: RequestContext, permission: Permission, destination: str | None
    ) -> bool | Awaitable[bool]:
        """Decide whether a peer may have an operation performed, after the rules of :attr:`AE.access` have allowed it.

        It is called for each request of a peer that has asked for the association, before its service sees it.

        Args:
            context: The presentation context, the association and the request.
            permission: What the operation needs.
            destination: The AE title of the destination of a C-MOVE; None for every other operation.

        Returns:
            True to perform the operation, which is the default; False to answer 0x0124, not authorized. A hook that
            fails is logged, and the answer is 0x0110: the operation is not performed.
        """
        return True

    def on_association_accepted(self, asce: AnyAssociation) -> Awaitable[None] | None:
        """An association is established, on either side.

        Args:
            asce: The association, with all that was agreed on.
        """
        return None

    def on_association_ended(
        self, asce: AnyAssociation, summary: AssociationSummary
    ) -> Awaitable[None] | None:
        """The transport of an association is gone, on either side.

        It is called once for each :meth:`on_association_begun`, whether the association was ever accepted or not.

        Args:
            asce: The association, which is over.
            summary: Why it ended, and what has happened on it.
        """
        return None

    def on_association_response(self, response: AAssociateAC) -> Awaitable[None] | None:
        """A peer has accepted an association that we requested.

        If it raises an exception, or its Deferred or coroutine takes longer than ``timeouts.associate``,
        :meth:`AE.request_association` fails, and the association is aborted.
        """
        return None

    def get_file(
        self, asce: AnyAssociation, context: PContextDef, command_set: Request
    ) -> tuple[BinaryIO, int]:
        """Give a file for the data set of a request whose service has ``store_in_file``.

        Args:
            asce: The association that the request comes on.
            context: Its presentation context.
            command_set: The request, still without its data set.

        Returns:
            The file, at the position where the data set is to be written; and the position at
            which it is handed to the service. By default this is a temporary file that begins with the
            Part 10 header and is handed over from its beginning. It is closed, and so deleted, when the
            handler has ended.
        """
        file: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        file.write(
            part10_header(
                command_set.sop_class_uid or context.sop_class,
                command_set.sop_instance_uid or "",
                context.supported_ts,
                source_ae_title=asce.calling_ae_title,
            )
        )
        return file, 0

    # -- DIMSE-C -------------------------------------------------------------------------------------

    def on_receive_echo(self, context: RequestContext) -> _Status:
        """Answer C-ECHO; the default is Success.

        Returns:
            The status.
        """
        return statuses.SUCCESS

    def on_receive_store(self, context: RequestContext, ds: BinaryIO) -> _Status:
        """Keep the instance of a C-STORE.

        Args:
            context: The presentation context, the association and the request.
            ds: The Part 10 file, at its beginning. It stays open until the handler has ended, and is closed then.

        Returns:
            The status. Success promises that the instance is kept.

        Raises:
            EventHandlingError: The answer is 0xC000, or the status that the error carries.
        """
        raise EventHandlingError("on_receive_store is not implemented", statuses.PROCESSING_FAILURE)

    def on_receive_find(self, context: RequestContext, ds: Dataset) -> Any:
        """Find the matches for the identifier of a C-FIND.

        Args:
            context: The presentation context, the association and the request.
            ds: The identifier.

        Returns:
            An iterable or async iterable, or a Deferred or coroutine of one, of the matches: data
            sets, or (data set, status). The final response follows the last match; it is Success unless an
            item says otherwise. On C-CANCEL the iterator is closed and FE00 is sent.

        Raises:
            EventHandlingError: The answer is 0xC000, or the status that the error carries.
        """
        raise EventHandlingError("on_receive_find is not implemented", statuses.PROCESSING_FAILURE)

    def on_receive_get(self, context: RequestContext, ds: Dataset) -> Any:
        """Find the instances of a C-GET.

        Args:
            context: The presentation context, the association and the request.
            ds: The identifier.

        Returns:
            (number, instances), or a Deferred or coroutine of it: how many instances there are, and
            an iterable or async iterable of them. Each is a data set, a path, an open file or an
            :class:`~netdicom_tx.sopclass.Instance`.

        Raises:
            EventHandlingError: The answer is 0xC000, or the status that the error carries.
        """
        raise EventHandlingError("on_receive_get is not implemented", statuses.PROCESSING_FAILURE)

    def on_receive_move(self, context: RequestContext, ds: Dataset, destination: str) -> Any:
        """Find the instances of a C-MOVE, and the address of its destination.

        Args:
            context: The presentation context, the association and the request.
            ds: The identifier.
            destination: The AE title to send to.

        Returns:
            (remote AE, number, instances), or a Deferred or coroutine of it: a
            :class:`~netdicom_tx.RemoteAE`, or None when the destination is unknown, and what
            :meth:`on_receive_get` returns.

        Raises:
            EventHandlingError: The answer is 0xC000, or the status that the error carries.
        """
        raise EventHandlingError("on_receive_move is not implemented", statuses.PROCESSING_FAILURE)

    # -- storage commitment ------------------------------------------------------------------------

    # netdicom2 gives these two no context, and neither do we. A handler of
    # :class:`~netdicom_tx.sopclass.StorageCommitment` has one: ``on_request``, ``on_report``.

    def on_commitment_request(self, remote_ae: str, uids: Iterable[tuple[str, str]]) -> Any:
        """Decide on a request for the safekeeping of instances.

        Args:
            remote_ae: The AE title of the requestor.
            uids: (SOP class, SOP instance) of each instance.

        Returns:
            (remote AE, success, failure), or a Deferred or coroutine of it: a
            :class:`~netdicom_tx.RemoteAE` to report to, or None; (SOP class, SOP instance) of what is kept;
            (SOP class, SOP instance, reason) of what is not. Either list may be None when it is empty.

        Raises:
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        raise EventHandlingError("on_commitment_request is not implemented")

    def on_commitment_response(
        self,
        transaction_uid: str,
        success: Iterable[tuple[str, str]],
        failure: Iterable[tuple[str, str, int]],
    ) -> Any:
        """Take the report of a storage commitment.

        Args:
            transaction_uid: The transaction UID of the request.
            success: (SOP class, SOP instance) of each instance that the peer keeps.
            failure: (SOP class, SOP instance, reason) of each instance that it does not keep.

        Raises:
            EventHandlingError: The answer is 0x0110, or the status that the error carries.
        """
        raise EventHandlingError("on_commitment_response is not implemented")
