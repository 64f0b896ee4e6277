"""netdicom_tx: DICOM networking on Twisted.

The names that programs begin with are importable from here; the rest lives in the modules that
``docs/`` describes.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_names

if TYPE_CHECKING:
    from . import uids
    from .applicationentity import AEService, RemoteAE
    from .asceprovider import PContextDef, ResponseStream
    from .dispatch import UNKNOWN_SOP_CLASSES
    from .dulprovider import Timeouts
    from .exceptions import (
        AssociationAbortedError,
        AssociationError,
        AssociationRejectedError,
        AssociationReleasedError,
        ClassNotSupportedError,
        ConnectionLostError,
        DCMTimeoutError,
        EventHandlingError,
        NetDICOMError,
        StatusError,
    )
    from .hooks import RequestContext
    from .negotiation import Window
    from .oneshot import echo, find, get, move, store
    from .pool import AssociationPool
    from .sopclass import (
        save_instance,
        sop_classes,
        storage_scp,
        storage_scu,
        store_in_file,
        verification_scp,
        verification_scu,
    )
    from .statuses import Status
    from .tls import TLSOptions
    from .verbs import AE, Association

__version__ = "0.1.0"

__all__ = [
    "AE",
    "UNKNOWN_SOP_CLASSES",
    "AEService",
    "Association",
    "AssociationAbortedError",
    "AssociationError",
    "AssociationPool",
    "AssociationRejectedError",
    "AssociationReleasedError",
    "ClassNotSupportedError",
    "ConnectionLostError",
    "DCMTimeoutError",
    "EventHandlingError",
    "NetDICOMError",
    "PContextDef",
    "RemoteAE",
    "RequestContext",
    "ResponseStream",
    "Status",
    "StatusError",
    "TLSOptions",
    "Timeouts",
    "Window",
    "__version__",
    "echo",
    "find",
    "get",
    "move",
    "save_instance",
    "sop_classes",
    "storage_scp",
    "storage_scu",
    "store",
    "store_in_file",
    "uids",
    "verification_scp",
    "verification_scu",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "applicationentity": ("AEService", "RemoteAE"),
            "asceprovider": ("PContextDef", "ResponseStream"),
            "dispatch": ("UNKNOWN_SOP_CLASSES",),
            "dulprovider": ("Timeouts",),
            "exceptions": (
                "AssociationAbortedError",
                "AssociationError",
                "AssociationRejectedError",
                "AssociationReleasedError",
                "ClassNotSupportedError",
                "ConnectionLostError",
                "DCMTimeoutError",
                "EventHandlingError",
                "NetDICOMError",
                "StatusError",
            ),
            "hooks": ("RequestContext",),
            "negotiation": ("Window",),
            "oneshot": ("echo", "find", "get", "move", "store"),
            "pool": ("AssociationPool",),
            "sopclass": (
                "save_instance",
                "sop_classes",
                "storage_scp",
                "storage_scu",
                "store_in_file",
                "verification_scp",
                "verification_scu",
            ),
            "statuses": ("Status",),
            "tls": ("TLSOptions",),
            "verbs": ("AE", "Association"),
        },
    )
