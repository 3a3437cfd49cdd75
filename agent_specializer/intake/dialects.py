"""JSON Schemas as found in the wild, translated to draft 2020-12.

OpenAPI 3.0 (`nullable`, boolean `exclusiveMinimum`), older drafts (array-valued `items`), type names of
programming languages (`str`, `list[int]`, `dict`), `required: true` on a property, and other habits whose
meaning is beyond doubt. Each change is reported. A schema that `check_schema` accepts comes back as it was.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agent_specializer.intake.pointers import check_depth
from agent_specializer.intake.tags import tagged_unions
from agent_specializer.intake.typenames import JSON_TYPES, json_types, type_from_name

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Normalized(NamedTuple):
    """A translated schema and what was changed in it, as ``/pointer: what``."""

    schema: dict[str, Any]
    changes: tuple[str, ...]


def normalize_schema(schema: Mapping[str, Any]) -> Normalized:
    """`schema` in draft 2020-12, as a copy; what has no translation is left for `check_schema` to refuse.

    Raises:
        SchemaNotSupported: nested too deeply to be read.
    """
    check_depth(schema)
    normalizer = _Normalizer(copy.deepcopy(dict(schema)))
    return Normalized(normalizer.root, tuple(normalizer.changes))


_FORMAT_NAMES = {
    "datetime": "date-time",
    "date_time": "date-time",
    "url": "uri",
    "guid": "uuid",
    "ip": "ipv4",
}
_STANDARD_FORMATS = {
    *(
        "date",
        "time",
        "date-time",
        "duration",
        "email",
        "idn-email",
        "hostname",
        "idn-hostname",
        "ipv4",
        "ipv6",
    ),
    *("uri", "uri-reference", "iri", "iri-reference", "uri-template", "uuid", "regex"),
    *("json-pointer", "relative-json-pointer"),
}
_NUMBER_FORMATS = {"int32": "integer", "int64": "integer", "float": "number", "double": "number"}
_CONTENT_FORMATS = {"binary", "byte", "password", "string", ""}
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_ENUM_NAMES = ("choices", "allowed_values", "allowedValues", "enum_values", "enumValues")
_NEVER_NULL = {
    *("type", "properties", "required", "additionalProperties", "patternProperties", "items", "prefixItems"),
    *("anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "$schema", "$id", "title", "description"),
    *("pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("uniqueItems", "deprecated", "readOnly", "writeOnly", "examples", *_COUNTS),
}
_SAID = ("title", "description", "default")
_INT64 = 2**63 - 1


@dataclass
class _Normalizer:
    root: dict[str, Any]
    changes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._node(self.root, "")

    def _note(self, path: str, what: str) -> None:
        self.changes.append(f"{path or '/'}: {what}")

    def _node(self, node: dict[str, Any], path: str) -> None:
        changed = True
        while changed:  # what one rule writes may be for another to read; each change is towards the draft
            changed = False
            for rule in _RULES:
                for what in rule(node, self.root):
                    self._note(path, what)
                    changed = True
        self._required_flags(node, path)
        for keyword in (
            "items",
            "additionalProperties",
            "contains",
            "not",
            "if",
            "then",
            "else",
            "propertyNames",
        ):
            self._child(node, keyword, f"{path}/{keyword}")
        for keyword in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if isinstance(node.get(keyword), list):
                for index in range(len(node[keyword])):
                    self._child(node[keyword], index, f"{path}/{keyword}/{index}")
        for keyword in ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"):
            if isinstance(node.get(keyword), dict):
                for name in node[keyword]:
                    self._child(
                        node[keyword], name, f"{path}/{keyword}/{name.replace('~', '~0').replace('/', '~1')}"
                    )

    def _child(self, parent: Any, key: Any, path: str) -> None:
        if isinstance(parent, dict) and key not in parent:
            return
        child = parent[key]
        if isinstance(child, str) and (named := type_from_name(child)) is not None:
            self._note(path, f"{child!r} in place of a schema")
            parent[key] = child = named
        if isinstance(child, dict):
            self._node(child, path)

    def _required_flags(self, node: dict[str, Any], path: str) -> None:
        """`required: true` on a property means that its object requires it."""
        properties = node.get("properties")
        if not isinstance(properties, dict):
            return
        for name, child in properties.items():
            if isinstance(child, dict) and isinstance(child.get("required"), bool):
                flag = child.pop("required")
                required = node.setdefault("required", []) if flag else []
                if isinstance(required, list) and flag and name not in required:
                    required.append(name)
                self._note(path, f"required: {str(flag).lower()} of property {name!r} moved to its object")


# A rule changes one schema node in place and yields what it did.


def _nulls(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """A keyword that is null is one that was not given."""
    gone = [key for key, value in node.items() if value is None and key in _NEVER_NULL]
    for key in gone:
        del node[key]
    return [f"{key}: null removed" for key in gone]


def _dialect(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    named = node.get("$schema")
    if isinstance(named, str) and named.rstrip("#") != DIALECT:
        del node["$schema"]
        return [f"$schema {named!r} removed: read as draft 2020-12"]
    return []


def _type_names(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    given = node.get("type")
    if isinstance(given, dict):  # {"type": {"type": "string"}}: one level too many
        del node["type"]
        node.update({key: value for key, value in given.items() if key not in node})
        return ["type: an object, merged into its place", *_type_names(node, root)]
    if isinstance(given, list):
        return _type_list(node, given)
    if not isinstance(given, str) or given in JSON_TYPES:
        return []
    if given.strip().lower() in ("enum", "const", "literal") and (
        node.keys() & {"enum", "const", *_ENUM_NAMES}
    ):
        del node["type"]
        return [f"type {given!r} removed"]
    schema = type_from_name(given)
    if schema is None:
        return []
    del node["type"]
    node.update({key: value for key, value in schema.items() if key not in node})
    return [f"type {given!r} read as {schema or 'any value'}"]


def _type_list(node: dict[str, Any], given: list[Any]) -> list[str]:
    if all(isinstance(name, str) and name in JSON_TYPES for name in given) and len(set(given)) == len(given):
        return []
    schemas = [type_from_name(name) if isinstance(name, str) else None for name in given]
    if any(schema is None for schema in schemas):
        return []
    if any("type" not in schema for schema in schemas if schema is not None):
        del node["type"]
        return [f"type {given!r} read as any value"]
    node["type"] = list(dict.fromkeys(schema["type"] for schema in schemas if schema is not None))
    return [f"type {given!r} read as {node['type']!r}"]


def _choices(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    changes = []
    for word in _ENUM_NAMES:
        if isinstance(node.get(word), list) and node[word] and "enum" not in node and _is_node(node):
            node["enum"] = node.pop(word)
            changes.append(f"{word} read as enum")
    return changes


def _enums(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    values = node.get("enum")
    if values is None and "enum" in node:
        del node["enum"]
        return ["enum: null removed"]
    if not isinstance(values, list):
        return []
    if not values:
        del node["enum"]
        return ["enum: [] removed"]
    types = node.get("type")
    if types == "array" and not any(isinstance(value, list) for value in values):
        items = node.get("items")
        node["items"] = {**(items if isinstance(items, dict) else {}), "enum": node.pop("enum")}
        return ["enum of an array read as the enum of its items"]
    names = [types] if isinstance(types, str) else types if isinstance(types, list) else JSON_TYPES
    allowed = {name for name in names if isinstance(name, str)}
    if allowed <= JSON_TYPES and not any(json_types(value) & allowed for value in values):
        kinds = list(dict.fromkeys(sorted(json_types(value))[0] for value in values))
        node["type"] = kinds[0] if len(kinds) == 1 else kinds
        return [f"type {types!r} read as {node['type']!r}, the type of its enum"]
    return []


def _nullable(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    if node.get("nullable") is not True or not _is_node(node):
        return []
    del node["nullable"]
    given = node.get("type")
    if isinstance(given, str | list):
        types = [given] if isinstance(given, str) else given
        node["type"] = [*types, *(["null"] if "null" not in types else [])]
        if isinstance(node.get("enum"), list) and None not in node["enum"]:
            node["enum"].append(None)
        return ['nullable: true written as type "null"']
    if node.keys() & {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"}:
        said: dict[str, Any] = {key: node.pop(key) for key in _SAID if key in node}
        inner = dict(node)
        node.clear()
        node.update({**said, "anyOf": [inner, {"type": "null"}]})
        return ["nullable: true written as anyOf with null"]
    return ["nullable: true removed: any value is allowed"]


def _bounds(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    changes = []
    for exclusive, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(node.get(exclusive), bool):
            if node.pop(exclusive) and plain in node:
                node[exclusive] = node.pop(plain)
            changes.append(f"boolean {exclusive} written as a number")
    for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        bound = node.get(keyword)
        if isinstance(bound, str) and re.fullmatch(r"-?\d+(\.\d+)?", bound):
            node[keyword] = bound = float(bound) if "." in bound else int(bound)
            changes.append(f"{keyword}: a string read as a number")
        outermost = isinstance(bound, int | float) and (
            bound <= -_INT64 if "inimum" in keyword else bound >= _INT64
        )
        if outermost:
            del node[keyword]
            changes.append(f"{keyword} {bound!r} removed: the limit of 64-bit integers")
    for keyword in _COUNTS:
        count = node.get(keyword)
        if isinstance(count, float) and count.is_integer():
            node[keyword] = int(count)
            changes.append(f"{keyword} {count} written as a whole number")
    return changes


def _arrays(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    changes = []
    if isinstance(node.get("items"), list):
        prefix = node.pop("items")
        if prefix:
            node["prefixItems"] = prefix
        if "additionalItems" in node:
            node["items"] = node.pop("additionalItems")
        changes.append("items of an older draft written as prefixItems")
    elif "additionalItems" in node and _is_node(node) and "prefixItems" not in node:
        del node["additionalItems"]
        changes.append("additionalItems removed: without effect here")
    if node.get("uniqueItems") is False:
        del node["uniqueItems"]
        changes.append("uniqueItems: false removed: without effect")
    return changes


def _annotations(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    changes = []
    if "examples" in node and not isinstance(node["examples"], list) and _is_node(node):
        node["examples"] = [node["examples"]]
        changes.append("examples written as a list")
    if isinstance(node.get("description"), int | float | list):
        node["description"] = str(node["description"])
        changes.append("description written as text")
    return changes


def _never(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """`{"not": {}}` is how zod writes undefined: as a branch it allows nothing."""
    changes = []
    for keyword in ("anyOf", "oneOf"):
        branches = node.get(keyword)
        if isinstance(branches, list) and {"not": {}} in branches and len(branches) > 1:
            node[keyword] = [branch for branch in branches if branch != {"not": {}}]
            changes.append(f'{keyword}: branch {{"not": {{}}}} removed: no value satisfies it')
    return changes


def _required(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    names = node.get("required")
    if (
        isinstance(names, list)
        and all(isinstance(name, str) for name in names)
        and len(set(names)) < len(names)
    ):
        node["required"] = list(dict.fromkeys(names))
        return ["required: repeated names removed"]
    if isinstance(names, bool) and node is root:
        del node["required"]
        return ["required: true or false removed from the whole"]
    return []


def _formats(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    given = node.get("format")
    if not isinstance(given, str):
        return []
    types = node.get("type")
    if types is None and given in _NUMBER_FORMATS and not node.keys() & {"enum", "const", "$ref"}:
        node["type"] = _NUMBER_FORMATS[given]
        return [f"type {node['type']!r} taken from format {given!r}"]
    if types is not None and types != "string" and not (isinstance(types, list) and "string" in types):
        return []  # formats constrain strings only
    name = _FORMAT_NAMES.get(given.lower(), given)
    if name in _STANDARD_FORMATS:
        if name != given:
            node["format"] = name
        return [f"format {given!r} read as {name!r}"] if name != given else []
    del node["format"]
    if given in _CONTENT_FORMATS:
        return [f"format {given!r} removed: any string is one"]
    if isinstance(node.get("description", ""), str):
        node["description"] = f"{node.get('description', '')} (format: {given})".strip()
    return [f"format {given!r} is no format of JSON Schema: moved to the description"]


def _patterns(node: dict[str, Any], root: dict[str, Any]) -> list[str]:
    pattern = node.get("pattern")
    if isinstance(pattern, str) and "(?<" in pattern:
        node["pattern"] = re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", pattern)
        return ["pattern: (?<name> written as (?P<name>"] if node["pattern"] != pattern else []
    return []


def _is_node(node: dict[str, Any]) -> bool:
    """Whether `node` says that it is a schema, and not a mapping of names that happen to be keywords."""
    return bool(node.keys() & {"type", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "description"})


_RULES: tuple[Callable[[dict[str, Any], dict[str, Any]], list[str]], ...] = (
    _nulls,
    _annotations,
    _never,
    _dialect,
    _type_names,
    _choices,
    _nullable,
    _enums,
    _bounds,
    _arrays,
    _required,
    _formats,
    _patterns,
    tagged_unions,
)
