"""How often Python looks for garbage in a node that runs for months.

The collector looks at the youngest objects after each 700 new ones, and now and then at all of them. Each association
makes about as many objects, most of which are freed without the collector, and a node has some 200,000 objects that
live as long as it does. So the default has the collector at work in each association, and stops the node for a tenth
of a second now and then.
"""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["spare_what_stays"]

# How many objects are made between two looks at the youngest; the other two values are Python's own.
_YOUNGEST: Final = 5_000


def spare_what_stays() -> None:
    """Let the collector look no more at the objects that exist now, and at new ones less often.

    This is for a process of its own, such as ``twistd dicom``, when it has started.
    """
    gc.freeze()
    gc.set_threshold(_YOUNGEST, *gc.get_threshold()[1:])
