"""A decoder that knows nothing of its own: it reads PDUs with ``standard/pdu_layouts.json`` alone.

It is strict where a sender must be: reserved octets are zero, lengths fit to the octet, UIDs have
no padding, AE titles are padded with spaces.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

TABLES = json.loads((Path(__file__).parents[1] / "standard" / "pdu_layouts.json").read_text())
_PDU_NAMES = {layout["pdu_type"]: name for name, layout in TABLES["pdus"].items()}
_ITEM_NAMES = {
    layout["item_type"]: name
    for name, layout in TABLES["items"].items()
    if layout["item_type"] is not None
}
#: Fields that do not matter when values are compared: the codes that led here, and the lengths.
_STRUCTURE = {"pdu_type", "item_type"}


def decode_pdu(data: bytes) -> tuple[str, dict[str, Any]]:
    """The name and the fields of one PDU, which must be all of ``data``."""
    name = _PDU_NAMES[data[0]]
    layout = TABLES["pdus"][name]
    assert len(data) == layout.get("total_length", len(data))
    assert len(data) >= layout.get("min_total_length", 0)
    fields, end = _fields(layout["fields"], data, 0)
    assert end == len(data) == fields.pop("pdu_length") + 6
    return name, fields


def decode_item(data: bytes) -> tuple[str, dict[str, Any]]:
    """The name and the fields of one item, which must be all of ``data``."""
    name, fields, end = _item(data, 0, pdv=False)
    assert end == len(data)
    return name, fields


def _item(data: bytes, start: int, *, pdv: bool) -> tuple[str, dict[str, Any], int]:
    name = "presentation_data_value" if pdv else _ITEM_NAMES[data[start]]
    fields, end = _fields(TABLES["items"][name]["fields"], data, start)
    length = fields.pop("item_length")
    assert end - start == length + 4, f"{name}: {length} announced, {end - start - 4} found"
    fixed = TABLES["items"][name].get("fixed_item_length", length)
    assert length == fixed
    return name, fields, end


def _fields(layout: list[dict[str, Any]], data: bytes, start: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    at = start
    for field in layout:
        if field["offset"] is not None:
            assert at == start + field["offset"], f"{field['name']} at {at - start}"
        size = field["length"]
        if size == "variable":
            size = _length(field["length_from"], found, start, at)
        raw = data[at : at + size]
        assert len(raw) == size, f"{field['name']} is cut off"
        at += size
        value = _value(field, raw)
        if field["type"] == "reserved":
            assert value == bytes(size), f"{field['name']} is not zero"
        elif field["name"] in _STRUCTURE:
            assert value == field["value"]
        else:
            found[field["name"]] = value
    return {
        name: value
        for name, value in found.items()
        if name in ("pdu_length", "item_length") or not name.endswith("_length")
    }, at


def _length(rule: str, found: dict[str, Any], start: int, at: int) -> int:
    if rule == "rest":
        return int(found["item_length"]) + 4 - (at - start)
    first, *less = rule.split("-")
    return int(found[first]) - sum(
        int(term) if term.isdecimal() else int(found[term]) for term in less
    )


def _value(field: dict[str, Any], raw: bytes) -> Any:
    match field["type"]:
        case "uint8" | "uint16be" | "uint32be":
            return int.from_bytes(raw, "big")
        case "uid" | "ascii":
            text = raw.decode("ascii")
            assert text == text.strip("\0 ")
            return text
        case "ae_title":
            text = raw.decode("ascii")
            assert text.strip(" ")
            assert "\0" not in text
            return text.strip(" ")
        case "items":
            return _items(field, raw)
        case "length_prefixed_uids":
            return _prefixed(raw)
        case "pdv_data":
            return raw[0], raw[1:]
    return raw


def _items(field: dict[str, Any], raw: bytes) -> list[tuple[str, dict[str, Any]]]:
    rules = {rule["item"]: rule for rule in field["items"]}
    found: list[tuple[str, dict[str, Any]]] = []
    at = 0
    while at < len(raw):
        name, fields, at = _item(raw, at, pdv="presentation_data_value" in rules)
        assert name in rules, f"{name} does not belong here"
        found.append((name, fields))
    counts = Counter(name for name, _ in found)
    for name, rule in rules.items():
        assert counts[name] >= rule["min"], f"{name}: {counts[name]}"
        if isinstance(rule.get("max"), int):
            assert counts[name] <= rule["max"], f"{name}: {counts[name]}"
    return found


def _prefixed(raw: bytes) -> list[str]:
    uids = []
    while raw:
        end = 2 + int.from_bytes(raw[:2], "big")
        assert len(raw) >= end
        uids.append(raw[2:end].decode("ascii"))
        raw = raw[end:]
    return uids
