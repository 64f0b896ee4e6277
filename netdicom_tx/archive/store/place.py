"""Where a store keeps its identity document, see :mod:`netdicom_tx.archive.group.identity`."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence

from ..group.identity import DOCUMENT, Document, Place, read_document, write_document
from .filestore import FileStore
from .objects import ObjectMissingError
from .sharedstore import SharedStore

__all__ = ["node_uuid", "place_of"]


class _Directory:
    """A store in the directory of a node."""

    is_shared = False

    def __init__(self, store: FileStore) -> None:
        self._root = store.root

    @property
    def place(self) -> str:
        return str(self._root)

    def own(self) -> Document | None:
        return read_document(self._root)

    def identity(self) -> Document | None:
        return self.own()

    def put_identity(self, document: Document, *, replace: bool = False) -> Document:
        there = self.own()
        if there is None or replace:
            node = (there.node if there is not None else "") or str(uuid.uuid4())
            there = document._replace(node=node)
            write_document(self._root, there)
        return there

    def has_any(self, paths: Sequence[str]) -> bool:
        return any(os.path.lexists(self._root / each) for each in paths)


class _Shared(_Directory):
    """A store that nodes share; the directory of each node has a document as well."""

    is_shared = True

    def __init__(self, store: SharedStore) -> None:
        super().__init__(store)
        self._objects = store.objects

    @property
    def place(self) -> str:
        return self._objects.place

    def identity(self) -> Document | None:
        octets = self._objects.document(DOCUMENT)
        return None if octets is None else Document.of(octets, f"{self.place}/{DOCUMENT}")

    def put_identity(self, document: Document, *, replace: bool = False) -> Document:
        if replace and self.identity() not in (None, document):
            self._objects.delete([DOCUMENT])
        octets = self._objects.put_document(DOCUMENT, document.octets())
        there = Document.of(octets, f"{self.place}/{DOCUMENT}")
        if there[:2] == document[:2]:
            super().put_identity(document, replace=replace)
        return there

    def has_any(self, paths: Sequence[str]) -> bool:
        return any(map(self._has, paths))

    def _has(self, key: str) -> bool:
        try:
            self._objects.size(key)
        except ObjectMissingError:
            return False
        return True


def place_of(store: FileStore) -> Place:
    """Where a store keeps its identity document; the store must be reachable."""
    return _Shared(store) if isinstance(store, SharedStore) else _Directory(store)


def node_uuid(store: FileStore) -> str:
    """The UUID of the node that owns the directory of a store; empty before its first start."""
    found = read_document(store.root)
    return "" if found is None else found.node
