"""``netdicom``, and ``python -m netdicom_tx``, which is the same."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run ``netdicom`` and exit."""
    # While modules are imported, Ctrl-C has nothing to put in order: the signal ends the process, without a traceback.
    # A signal that is ignored, as for a job in the background of a script, stays ignored.
    is_heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .commands import run

    try:
        if is_heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = run()
    except KeyboardInterrupt:  # pragma: no cover -- a moment between two lines
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
