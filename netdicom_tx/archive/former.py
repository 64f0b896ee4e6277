"""The modules of the archive under the names that the documentation of version 0.1 has for them.

``netdicom_tx.archive.filestore`` is now ``netdicom_tx.archive.store.filestore``, and so on. Each former name is an
importable module with the same public names. New code imports from the wings.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

from . import index as index_wing
from . import workflow as workflow_wing
from .index import database, engine, index, record, schema
from .query import identifiers, matching, retrieval, search
from .store import filestore, reconcile
from .workflow import commitment, outbound, performed_steps, workflow, worklist, worklist_sources

#: The former name of a module, and the modules that have its public names now.
MOVED: Final[dict[str, tuple[ModuleType, ...]]] = {
    "commitment": (commitment,),
    "database": (database,),
    "filestore": (filestore,),
    "identifiers": (identifiers,),
    "matching": (matching,),
    "procedure_steps": (performed_steps,),
    "queue": (outbound,),
    "reconcile": (reconcile,),
    "record": (record,),
    "retrieval": (retrieval,),
    "schema": (schema, engine),
    "worklist": (worklist,),
    "worklist_sources": (worklist_sources,),
}
# Former modules that are packages now.
_GROWN: Final = {index_wing: (index, search), workflow_wing: (workflow,)}


def _offer(place: ModuleType, modules: tuple[ModuleType, ...]) -> None:
    for module in modules:
        for name in module.__all__:
            if not hasattr(place, name):
                setattr(place, name, getattr(module, name))


for _name, _modules in MOVED.items():
    _place = ModuleType(f"{__package__}.{_name}", _modules[0].__doc__)
    _offer(_place, _modules)
    sys.modules[_place.__name__] = _place
    setattr(sys.modules[__package__], _name, _place)
for _wing, _modules in _GROWN.items():
    _offer(_wing, _modules)
