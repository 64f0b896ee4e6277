"""``python -m netdicom_tx``: the same as ``netdicom``."""

from .commands import main

if __name__ == "__main__":
    main()
