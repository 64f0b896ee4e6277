"""The modules of the archive under the names that the documentation of version 0.1 has for them.

``netdicom_tx.archive.filestore`` is now ``netdicom_tx.archive.store.filestore``, and so on. Each former name is an
importable module with the same public names, and is made when it is first imported. New code imports from the wings.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

from .._lazy import lazy_names
from . import index, workflow

#: The former name of a module, and the modules that have its public names now.
MOVED: Final[dict[str, tuple[str, ...]]] = {
    "commitment": ("workflow.commitment",),
    "database": ("index.database",),
    "filestore": ("store.filestore", "store.spool"),
    "identifiers": ("query.identifiers",),
    "matching": ("query.matching",),
    "procedure_steps": ("workflow.performed_steps",),
    "queue": ("workflow.outbound", "workflow.runner"),
    "reconcile": ("store.reconcile",),
    "record": ("index.record",),
    "retrieval": ("query.retrieval",),
    "schema": ("index.schema", "index.engine", "index.migrations"),
    "worklist": ("workflow.worklist",),
    "worklist_sources": ("workflow.worklist_sources",),
}
# Former modules that are packages now, and the modules that have their public names.
_INDEX: Final = (
    "Counts",
    "Entry",
    "Index",
    "IndexUnavailableError",
    "InstanceRecord",
    "InstanceRef",
    "PathRow",
    "record_of",
)
_GROWN: Final = (
    (index, {"index": _INDEX, "..query.search": ("Pages",)}),
    (workflow, {"workflow": ("Workflow", "WorkflowOptions")}),
)


class _Former(MetaPathFinder, Loader):
    """Finds the former modules, and fills them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition(".")
        if package == __package__ and name in MOVED:
            return ModuleSpec(fullname, self)
        return None

    def exec_module(self, module: ModuleType) -> None:
        homes = [
            importlib.import_module(f".{home}", __package__)
            for home in MOVED[module.__name__.rpartition(".")[2]]
        ]
        module.__doc__ = homes[0].__doc__
        for home in homes:
            for name in home.__all__:
                setattr(module, name, getattr(home, name))


sys.meta_path.append(_Former())
for _wing, _homes in _GROWN:
    for _hook, _function in zip(
        ("__getattr__", "__dir__"), lazy_names(_wing.__name__, _homes), strict=True
    ):
        setattr(_wing, _hook, _function)
