"""The terminal of a process that goes into the background.

``twistd`` leaves the terminal before it starts a service. It tells only the first hundred octets of what keeps the
service from starting. :class:`Terminal` keeps a descriptor until the start has succeeded or failed.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["Terminal"]


class Terminal:
    """Standard error, as long as the start of a service takes."""

    def __init__(self) -> None:
        self._descriptor: int | None = None

    def keep(self) -> None:
        """Keep standard error beyond the change to the background."""
        if self._descriptor is None:
            with suppress(OSError, ValueError, AttributeError):  # there may be none
                self._descriptor = os.dup(sys.stderr.fileno())

    def tell(self, text: str) -> None:
        """Write a line to it, if it was kept, and give it up."""
        if self._descriptor is not None:
            with suppress(OSError):  # whoever read it has gone
                os.write(self._descriptor, f"{text}\n".encode(errors="backslashreplace"))
        self.close()

    def close(self) -> None:
        """Give it up, so that a shell does not wait for its end."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
