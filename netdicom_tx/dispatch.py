"""Finds the service that answers a request.

A :class:`Dispatcher` maps abstract syntaxes to services, one for each AE and role. It serves negotiation and
dispatch alike, so an accepted context always has a service that answers. :mod:`netdicom_tx.operations` says
what a service may return, and what the peer gets for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import uids as known
from .dimsemessages import Request, UnknownRQ
from .exceptions import EventHandlingError
from .negotiation import PContextDef
from .uids import as_tuple

__all__ = [
    "COMMAND_SOP_CLASSES",
    "UNKNOWN_SOP_CLASSES",
    "Dispatcher",
    "Registration",
    "Service",
    "contradiction",
    "has_operation",
]

# A service takes (asce, ctx, msg) as SCP and (asce, ctx, *args, **kwargs) as SCU. The table in netdicom_tx.operations
# lists the many things that an SCP may return, hence Any.
Service = Callable[..., Any]

#: Register a service for this to have it serve every SOP class that the registry of PS3.6 does not
#: name: private ones, and those that are newer than this version.
UNKNOWN_SOP_CLASSES = "*"

#: The SOP classes that a command may name besides that of its presentation context, by the latter.
COMMAND_SOP_CLASSES: Mapping[str, tuple[str, ...]] = {
    # PS3.4 Tables H.3.2.2.1-1 and H.3.2.2.2-1. The optional classes of H.3.3.2 have contexts of their own.
    known.BasicGrayscalePrintManagementMeta: (
        known.BasicFilmSession,
        known.BasicFilmBox,
        known.BasicGrayscaleImageBox,
        known.Printer,
    ),
    known.BasicColorPrintManagementMeta: (
        known.BasicFilmSession,
        known.BasicFilmBox,
        known.BasicColorImageBox,
        known.Printer,
    ),
    # PS3.4 F.8.2.1: the three classes share their instances, which N-CREATE makes of the first. The standard wants
    # N-GET to name the second; the name of the first means the same instance.
    known.ModalityPerformedProcedureStepRetrieve: (known.ModalityPerformedProcedureStep,),
    known.ModalityPerformedProcedureStepNotification: (known.ModalityPerformedProcedureStep,),
    # PS3.4 CC.3.1: all unified procedure steps are instances of the Push class, whichever class is negotiated.
    known.UnifiedProcedureStepWatch: (known.UnifiedProcedureStepPush,),
    known.UnifiedProcedureStepPull: (known.UnifiedProcedureStepPush,),
    known.UnifiedProcedureStepEvent: (known.UnifiedProcedureStepPush,),
    known.UnifiedProcedureStepQuery: (known.UnifiedProcedureStepPush,),
}
# The standard no longer lists the members of the retired meta SOP classes, so their services decide.
_RETIRED_META = known.META_SOP_CLASSES - COMMAND_SOP_CLASSES.keys()


@dataclass(frozen=True, slots=True)
class Registration:
    """A service, with the facts about it that negotiation and reception need.

    Attributes:
        service: The service itself.
        transfer_syntaxes: The transfer syntaxes that it takes, in the order of our preference.
        store_in_file: Whether the data sets of its requests are received into a file.
        suboperations: The abstract syntaxes of the sub-operations that the SCP performs on the same association,
            in the other direction: C-GET stores at its requestor.
        command_sop_classes: The SOP classes that its commands may name besides that of the presentation context.
    """

    service: Service
    transfer_syntaxes: tuple[str, ...]
    store_in_file: bool
    suboperations: tuple[str, ...] = ()
    command_sop_classes: tuple[str, ...] = ()

    def may_name(self, named: str, abstract_syntax: str) -> bool:
        """Whether a command may name a SOP class on a context of this abstract syntax (PS3.7 9.1, 10.1)."""
        return (
            named == abstract_syntax
            or named in COMMAND_SOP_CLASSES.get(abstract_syntax, ())
            or named in self.command_sop_classes
            or abstract_syntax in _RETIRED_META
        )


class Dispatcher:
    """Finds the service for an abstract syntax, for one AE in one role.

    Args:
        is_known: Whether the registry of PS3.6 names a SOP class; :data:`UNKNOWN_SOP_CLASSES` serves the others.
    """

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        self._is_known = is_known
        self._services: dict[str, Registration] = {}
        self._suboperations: frozenset[str] = frozenset()

    def register(
        self, service: Service, sop_classes: Iterable[str] | None, transfer_syntaxes: Sequence[str]
    ) -> None:
        """Let a service answer for SOP classes.

        Args:
            service: The service.
            sop_classes: The SOP classes; None means the service's own ``sop_classes``.
            transfer_syntaxes: The transfer syntaxes that the service takes, in the order of preference.

        Raises:
            TypeError: The service is a class or is not callable, or what should be a list of UIDs is not one.
            ValueError: There is no SOP class, one of them has a service already, or a UID is not one.
        """
        title = getattr(service, "__name__", type(service).__name__)
        if isinstance(service, type):
            raise TypeError(f"{title} is a class; expected an instance of it, such as {title}()")
        if not callable(service):
            raise TypeError(f"{service!r:.80} is not a service; expected a callable")
        own: Iterable[str] = getattr(service, "sop_classes", ())
        uids = as_tuple(
            "sop_classes", own if sop_classes is None else sop_classes, besides=UNKNOWN_SOP_CLASSES
        )
        if not uids:
            raise ValueError(f"{title} has no SOP classes of its own: name them")
        for uid in uids:
            other = self._services.get(uid)
            if other is not None and other.service is not service:
                raise ValueError(f"SOP class {uid} has a service already")
        registration = Registration(
            service,
            as_tuple("transfer_syntaxes", transfer_syntaxes),
            bool(getattr(service, "store_in_file", False)),
            tuple(getattr(service, "suboperations", ())),
            tuple(getattr(service, "command_sop_classes", ())),
        )
        self._services.update(dict.fromkeys(uids, registration))
        self._suboperations |= frozenset(registration.suboperations)

    def find(self, abstract_syntax: str) -> Registration | None:
        """The service for the abstract syntax of a presentation context; None when there is no service."""
        found = self._services.get(abstract_syntax)
        if found is None and not self._is_known(abstract_syntax):
            found = self._services.get(UNKNOWN_SOP_CLASSES)
        return found

    @property
    def suboperations(self) -> frozenset[str]:
        """The abstract syntaxes of the sub-operations of all services."""
        return self._suboperations

    def __iter__(self) -> Iterator[tuple[str, Registration]]:
        return iter(
            (uid, entry) for uid, entry in self._services.items() if uid != UNKNOWN_SOP_CLASSES
        )


def has_operation(service: Service, message: Request) -> bool:
    """Whether a service performs an operation, as far as it says so."""
    operations = getattr(service, "operations", None)
    if isinstance(message, UnknownRQ) or (
        operations is not None and message.OPERATION not in operations
    ):
        return False
    get_method = getattr(service, "get_method", None)
    if get_method is None:
        return True
    try:
        get_method(message)
    except EventHandlingError:
        return False
    return True


def contradiction(ctx: PContextDef, message: Request, registration: Registration) -> str:
    """Why a command may not name its SOP class on its context (PS3.7 9.1, 10.1); empty when it may."""
    named = message.sop_class_uid
    if (
        not named
        or registration.may_name(named, ctx.sop_class)
        or not has_operation(registration.service, message)  # the status 0x0211 says more
    ):
        return ""
    role = "Affected" if hasattr(message, "affected_sop_class_uid") else "Requested"
    return f"{role} SOP Class UID is not that of the presentation context"
