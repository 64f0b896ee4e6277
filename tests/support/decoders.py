"""The decoders of the extra ``pixel``, for tests of what only they do."""

from importlib.util import find_spec

import pytest

from .processes import REQUIRE_PEERS

_PACKAGES = ("numpy", "PIL", "pylibjpeg", "openjpeg", "jpeg_ls")


def need_decoders() -> None:
    """Skip the test without the extra; where peers are required, so is the extra."""
    missing = [each for each in _PACKAGES if find_spec(each) is None]
    if not missing:
        return
    reason = f"the extra 'pixel' is not installed: {', '.join(missing)}"
    if REQUIRE_PEERS:
        pytest.fail(f"{reason}, and NETDICOM_TX_REQUIRE_PEERS=1")
    pytest.skip(reason)
