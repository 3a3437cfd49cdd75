"""Tagged unions: oneOf over references to objects that a required constant tells apart (pydantic, OpenAPI)."""

from __future__ import annotations

import itertools
from typing import Any


def tagged_unions(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """Write oneOf as anyOf where types or a required constant tag tell apart what it refers to."""
    branches = node.get("oneOf")
    if not isinstance(branches, list) or len(branches) < 2 or "anyOf" in node:
        return []
    targets = [_target(branch, root) for branch in branches]
    if not all(isinstance(target, dict) for target in targets):
        return []
    if not any(isinstance(branch, dict) and "$ref" in branch for branch in branches):
        return []  # the grammar compiler sees for itself whether these overlap
    if not all(_types_apart(a, b) or _tags_apart(a, b) for a, b in itertools.combinations(targets, 2)):
        return []
    node["anyOf"] = node.pop("oneOf")
    return ["oneOf of references written as anyOf: no value satisfies two branches"]


def _target(branch: Any, root: dict[str, Any]) -> Any:
    if isinstance(branch, dict) and set(branch) == {"$ref"} and str(branch["$ref"]).startswith("#/"):
        node: Any = root
        for part in str(branch["$ref"]).split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            node = node.get(part) if isinstance(node, dict) else None
        return node
    return branch


def _types_apart(a: dict[str, Any], b: dict[str, Any]) -> bool:
    types = [node.get("type") for node in (a, b)]
    if not all(isinstance(kind, str) for kind in types):
        return False
    return types[0] != types[1] and set(types) != {"integer", "number"}


def _tags_apart(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a.get("type") != "object" or b.get("type") != "object":
        return False
    required = [node.get("required") for node in (a, b)]
    shared = set.intersection(*(set(names) if isinstance(names, list) else set() for names in required))
    return any(
        first and second and not first & second
        for name in shared
        for first, second in [(_tags(a, name), _tags(b, name))]
    )


def _tags(node: dict[str, Any], name: str) -> set[str]:
    """The strings that property `name` may have; empty where it may have other values."""
    schema = node.get("properties", {}).get(name)
    values = [schema["const"]] if isinstance(schema, dict) and "const" in schema else []
    values = schema["enum"] if isinstance(schema, dict) and isinstance(schema.get("enum"), list) else values
    return set(values) if all(isinstance(value, str) for value in values) else set()
