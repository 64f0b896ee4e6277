"""Names of a package that are loaded when they are first used (PEP 562).

``netdicom --help``, and a program that needs one module, do not wait for Twisted, pydicom and SQLAlchemy.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import resolve_name

__all__ = ["lazy_names"]


def lazy_names(
    package: str, modules: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and the ``__dir__`` of a package.

    The package imports the same names under ``TYPE_CHECKING``, where type checkers and editors find them.

    Args:
        package: The package's ``__name__``.
        modules: For each module, the names that the package takes from it. A module is named within the
            package, or relative to it with two dots or more. Every module of the package is an attribute of the
            package too, as if it had been imported.
    """
    homes = {
        name: resolve_name(module if module.startswith(".") else f".{module}", package)
        for module, names in modules.items()
        for name in names
    }

    def get(name: str) -> object:
        if name in homes:
            value: object = getattr(importlib.import_module(homes[name]), name)
        else:
            value = _module(package, name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names


def _module(package: str, name: str) -> object:
    try:
        if not name.startswith("_"):
            return importlib.import_module(f"{package}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{name}":
            raise  # the module is there, and needs one that is not installed
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
