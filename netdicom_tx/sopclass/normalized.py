"""The six DIMSE-N requests, for any SOP class (PS3.7 10.1), as one SCU.

:class:`NormalizedSCU` is registered like any SCU service; what :meth:`Association.get_scu` gives then has
a method for each operation::

    ae.add_scu(normalized_scu, [MODALITY_PERFORMED_PROCEDURE_STEP])
    ...
    step = asce.get_scu(MODALITY_PERFORMED_PROCEDURE_STEP)()
    response = await step.n_create(uid, attributes)

A response is the DIMSE message: ``response.status`` is its status, and ``step.data_set(response)`` decodes its data
set.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

from pydicom.dataset import Dataset
from twisted.internet import defer

from .. import dsutils, statuses
from ..arguments import many
from ..asceprovider import Association
from ..dimsemessages import (
    NActionRQ,
    NCreateRQ,
    NDeleteRQ,
    NEventReportRQ,
    NGetRQ,
    NSetRQ,
    Request,
    Response,
)
from ..exceptions import StatusError
from ..negotiation import PContextDef
from .base import sop_classes

__all__ = ["NormalizedSCU", "data_set_of", "normalized_scu"]


def data_set_of(ctx: PContextDef, msg: Request) -> Dataset | None:
    """The data set of a request, for an SCP; None when the request has no data set.

    Raises:
        StatusError: The data set or one of its values cannot be read; the status is 0x0110.
    """
    if msg.data_set is None:
        return None
    try:
        ds = dsutils.decode(msg.data_set, ctx.supported_ts)
        # Values are converted in a copy. Text without a character set of its own stays as it is, because it may be
        # in the character set of another data set.
        _touch(deepcopy(ds))
    except dsutils.DataSetError as error:
        raise StatusError(statuses.PROCESSING_FAILURE, str(error)) from error
    return ds


def _touch(ds: Dataset) -> None:
    """Convert every value; pydicom converts a value when it is read."""
    try:
        for _ in ds.iterall():
            pass
    except Exception as error:  # pydicom documents no closed set of errors for bad input
        raise dsutils.DataSetError(f"a value cannot be read ({type(error).__name__})") from error


class NormalizedSCU:
    """The DIMSE-N operations on one presentation context.

    Each method returns a Deferred of the response, and has a parameter ``msg_id`` (None lets the association
    count). The Deferreds fail and cancel as :meth:`Association.request` says; a wrong argument raises at once.

    Args:
        asce: The association to ask on.
        ctx: The presentation context.
        sop_class: The SOP class of the instances, where it differs from that of the context (meta SOP classes).
    """

    def __init__(self, asce: Association, ctx: PContextDef, sop_class: str | None = None) -> None:
        self.asce = asce
        self.ctx = ctx
        self.sop_class = sop_class or ctx.sop_class

    def data_set(self, response: Response) -> Dataset | None:
        """The decoded data set of a response; None when the response has no data set."""
        if response.data_set is None:
            return None
        return dsutils.decode(response.data_set, self.ctx.supported_ts)

    def _request(self, request: Request) -> defer.Deferred[Response]:
        return self.asce.request(request, self.ctx)

    def _encoded(self, data_set: Dataset | None) -> bytes | None:
        return None if data_set is None else dsutils.encode(data_set, self.ctx.supported_ts)

    def n_event_report(
        self,
        sop_instance: str,
        event_type: int,
        information: Dataset | None = None,
        msg_id: int | None = None,
    ) -> defer.Deferred[Response]:
        """Report an event, as the SCP of the instance (PS3.7 10.1.1)."""
        return self._request(
            NEventReportRQ(
                affected_sop_class_uid=self.sop_class,
                affected_sop_instance_uid=sop_instance,
                event_type_id=event_type,
                message_id=msg_id,
                data_set=self._encoded(information),
            )
        )

    def n_get(
        self,
        sop_instance: str,
        attributes: Iterable[int] | None = None,
        msg_id: int | None = None,
    ) -> defer.Deferred[Response]:
        """Read attributes by their tags; None asks for all (PS3.7 10.1.2)."""
        return self._request(
            NGetRQ(
                requested_sop_class_uid=self.sop_class,
                requested_sop_instance_uid=sop_instance,
                attribute_identifier_list=(
                    None if attributes is None else many("attributes", attributes, int, "tags")
                ),
                message_id=msg_id,
            )
        )

    def n_set(
        self, sop_instance: str, modifications: Dataset, msg_id: int | None = None
    ) -> defer.Deferred[Response]:
        """Set attributes (PS3.7 10.1.3)."""
        return self._request(
            NSetRQ(
                requested_sop_class_uid=self.sop_class,
                requested_sop_instance_uid=sop_instance,
                message_id=msg_id,
                data_set=self._encoded(modifications),
            )
        )

    def n_action(
        self,
        sop_instance: str,
        action_type: int,
        information: Dataset | None = None,
        msg_id: int | None = None,
    ) -> defer.Deferred[Response]:
        """Ask for an action (PS3.7 10.1.4)."""
        return self._request(
            NActionRQ(
                requested_sop_class_uid=self.sop_class,
                requested_sop_instance_uid=sop_instance,
                action_type_id=action_type,
                message_id=msg_id,
                data_set=self._encoded(information),
            )
        )

    def n_create(
        self,
        sop_instance: str | None = None,
        attributes: Dataset | None = None,
        msg_id: int | None = None,
    ) -> defer.Deferred[Response]:
        """Create an instance; without a UID the peer assigns one (PS3.7 10.1.5)."""
        return self._request(
            NCreateRQ(
                affected_sop_class_uid=self.sop_class,
                affected_sop_instance_uid=sop_instance,
                message_id=msg_id,
                data_set=self._encoded(attributes),
            )
        )

    def n_delete(self, sop_instance: str, msg_id: int | None = None) -> defer.Deferred[Response]:
        """Delete an instance (PS3.7 10.1.6)."""
        return self._request(
            NDeleteRQ(
                requested_sop_class_uid=self.sop_class,
                requested_sop_instance_uid=sop_instance,
                message_id=msg_id,
            )
        )


@sop_classes([])
def normalized_scu(
    asce: Association, ctx: PContextDef, sop_class: str | None = None
) -> NormalizedSCU:
    """The SCU service for any DIMSE-N SOP class; name the SOP classes in ``add_scu``."""
    return NormalizedSCU(asce, ctx, sop_class)
