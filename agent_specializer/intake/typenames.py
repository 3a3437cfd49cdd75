"""Names of types as people write them (str, List[int], Optional[float], string[], ...) as JSON Schema."""

from __future__ import annotations

import re
from typing import Any

JSON_TYPES = frozenset({"string", "integer", "number", "boolean", "object", "array", "null"})

_ALIASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("string str text char varchar character bytes binary file", {"type": "string"}),
    ("integer int long short int32 int64 bigint uint", {"type": "integer"}),
    ("number float double decimal numeric real num float32 float64", {"type": "number"}),
    ("boolean bool", {"type": "boolean"}),
    ("object dict dictionary map mapping json struct record hash", {"type": "object"}),
    ("array list tuple sequence iterable set frozenset collection", {"type": "array"}),
    ("null none nil nonetype", {"type": "null"}),
    ("any mixed unknown value variant *", {}),
    ("date", {"type": "string", "format": "date"}),
    ("time", {"type": "string", "format": "time"}),
    ("datetime date-time timestamp", {"type": "string", "format": "date-time"}),
    ("uuid guid", {"type": "string", "format": "uuid"}),
    ("url uri", {"type": "string", "format": "uri"}),
    ("email", {"type": "string", "format": "email"}),
)
_NAMES = {"": {}, **{name: schema for names, schema in _ALIASES for name in names.split()}}

_GENERIC = re.compile(
    r"(?P<name>[\w.*-]+)\s*(?:\[(?P<square>.*)\]|<(?P<angle>.*)>|\((?P<round>.*)\))", re.DOTALL
)
_BRACKETS = {"[": 1, "<": 1, "(": 1, "]": -1, ">": -1, ")": -1}


def type_from_name(text: str) -> dict[str, Any] | None:
    """The schema that `text` names, a fresh dict; None where the name says nothing to us."""
    text = text.strip()
    parts = _split(text, "|")
    if len(parts) > 1:
        return _union(parts)
    text = re.sub(r"^(typing|collections\.abc|builtins)\.", "", text)
    if text.lower() in _NAMES:
        return dict(_NAMES[text.lower()])
    if text.endswith("[]"):
        item = type_from_name(text[:-2])
        return None if item is None else {"type": "array", **({"items": item} if item else {})}
    match = _GENERIC.fullmatch(text)
    if not match:
        words = _split(text, ",")
        if len(words) > 1 and words[-1].strip().lower() in (
            "optional",
            "required",
        ):  # docstring style: "int, optional"
            return type_from_name(", ".join(words[:-1]))
        return None
    name = match["name"].lower()
    inner = next(group for group in (match["square"], match["angle"], match["round"]) if group is not None)
    return _generic(name, _split(inner, ","))


def _generic(name: str, arguments: list[str]) -> dict[str, Any] | None:
    if name == "optional":
        return _union([*arguments, "null"])
    if name in ("union", "oneof", "anyof"):
        return _union(arguments)
    kind = _NAMES.get(name, {}).get("type")
    if kind == "array":
        if len(arguments) > 1 and arguments[-1].strip() != "...":  # a tuple of fixed length
            items = [type_from_name(part) for part in arguments]
            if any(item is None for item in items):
                return None
            return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
        item = type_from_name(arguments[0])
        return None if item is None else {"type": "array", **({"items": item} if item else {})}
    if kind == "object" and len(arguments) == 2:
        value = type_from_name(arguments[1])
        return (
            None
            if value is None
            else {"type": "object", **({"additionalProperties": value} if value else {})}
        )
    return None


def _union(parts: list[str]) -> dict[str, Any] | None:
    branches = [type_from_name(part) for part in parts]
    known = [branch for branch in branches if branch is not None]
    if len(known) < len(branches):
        return None
    if any(not branch for branch in known):
        return {}
    if all(set(branch) == {"type"} and isinstance(branch["type"], str) for branch in known):
        types = list(dict.fromkeys(branch["type"] for branch in known))
        return {"type": types[0] if len(types) == 1 else types}
    return {"anyOf": known}


def _split(text: str, separator: str) -> list[str]:
    """`text` at each `separator` outside brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += _BRACKETS.get(letter, 0)
        if letter == separator and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [part.strip() for part in (*parts, text[start:])]


def json_types(value: Any) -> set[str]:
    """The JSON Schema types that a JSON value has: 2 and 2.0 are integers and numbers."""
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"integer", "number"} if value == int(value) else {"number"}
    names = {str: "string", dict: "object", list: "array", type(None): "null"}
    return {names[type(value)]}
