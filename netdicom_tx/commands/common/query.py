"""The code that find, get, move and worklist share: the keys, the level and the information model."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.tag import Tag

from ...uids import (
    FIND_SOP_CLASSES,
    GET_SOP_CLASSES,
    MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS,
    MOVE_SOP_CLASSES,
)
from .failures import bad_input
from .keys import Key, identifier, parse_keys
from .options import LEVELS, ROOTS

__all__ = ["UNIQUE_KEYS", "Query"]

#: The unique key of each level (PS3.4 C.6.1.1, C.6.2.1).
UNIQUE_KEYS = {
    "PATIENT": Tag(0x0010, 0x0020),
    "STUDY": Tag(0x0020, 0x000D),
    "SERIES": Tag(0x0020, 0x000E),
    "IMAGE": Tag(0x0008, 0x0018),
}
_QUERY_LEVEL = Tag(0x0008, 0x0052)
_OF_ROOT = {
    root: {"C-FIND": find, "C-GET": get, "C-MOVE": move}
    for root, find, get, move in zip(
        "PSO", FIND_SOP_CLASSES, GET_SOP_CLASSES, MOVE_SOP_CLASSES, strict=True
    )
} | {"W": {"C-FIND": MODALITY_WORK_LIST_INFORMATION_FIND_SOP_CLASS}}


class Query:
    """The keys of a command, in an information model and at a level.

    Args:
        texts: The keys as written on the command line.
        root: The information model, a letter of :data:`.options.ROOTS`.
        level: The level; None means the level of the deepest unique key among the keys.

    Raises:
        CommandError: A key cannot be read, or the model does not have the level.
    """

    def __init__(self, texts: Sequence[str], root: str, level: str | None) -> None:
        keys = parse_keys(texts)
        self.root = root.upper()
        for key in keys:
            if key.tag == _QUERY_LEVEL and not key.path and level is None:
                level = (key.value or "").upper()
                if level not in LEVELS:
                    raise bad_input(
                        f"{key.value!r} is not a query/retrieve level",
                        "the levels are PATIENT, STUDY, SERIES and IMAGE (PS3.4 C.6)",
                        "write --level LEVEL",
                    )
        #: Whether the level was said, and does not only follow from the keys.
        self.is_level_given = level is not None
        self.keys: list[Key] = [key for key in keys if key.tag != _QUERY_LEVEL or key.path]
        self.level = None if self.root == "W" else (level or self._deepest())
        if (self.root, self.level) in (("S", "PATIENT"), ("O", "SERIES"), ("O", "IMAGE")):
            raise bad_input(
                f"the {ROOTS[self.root]} model has no {self.level} level",
                "see PS3.4 C.6.1 and C.6.2",
                "use -P for patients" if self.root == "S" else "use -P or -S",
            )

    def _deepest(self) -> str:
        tags = {key.tag for key in self.keys if not key.path}
        for level, tag in reversed(UNIQUE_KEYS.items()):
            if tag in tags and not (level == "PATIENT" and self.root == "S"):
                return level
        return "STUDY"

    def sop_class(self, operation: str) -> str:
        """The SOP class of an operation in this model."""
        return _OF_ROOT[self.root][operation]

    def identifier(self, more: Sequence[Key] = ()) -> Dataset:
        """The identifier of the request.

        Args:
            more: Further keys to return.

        Raises:
            CommandError: A value does not fit its attribute.
        """
        return identifier([*more, *self.keys], self.level)
