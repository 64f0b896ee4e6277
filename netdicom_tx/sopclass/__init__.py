"""Service classes of PS3.4, under the names of the seed page; everything is importable from here.

A service in the SCP role is a callable ``(asce, ctx, msg)``, in the SCU role ``(asce, ctx, *args,
**kwargs)``. Its attribute ``sop_classes`` names the abstract syntaxes it is registered for.
"""

from .base import (
    MessageDispatcher,
    MessageDispatcherSCP,
    MessageDispatcherSCU,
    sop_classes,
    store_in_file,
)
from .storage import storage_scp, storage_scu
from .verification import verification_scp, verification_scu

__all__ = [
    "MessageDispatcher",
    "MessageDispatcherSCP",
    "MessageDispatcherSCU",
    "sop_classes",
    "storage_scp",
    "storage_scu",
    "store_in_file",
    "verification_scp",
    "verification_scu",
]
