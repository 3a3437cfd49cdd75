"""Which JSON Schemas can be registered: those that the decoding grammar enforces to the letter.

`check_schema` validates a schema against draft 2020-12, walks all that is reachable in it through the table
of keywords, and at last lets llguidance's JSON Schema compiler see it: whatever cannot be enforced is refused
with a JSON pointer and a reason, never dropped in silence. Other dialects: see `normalize_schema`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from agent_specializer.errors import SchemaNotSupported
from agent_specializer.intake.dialects import Normalized, normalize_schema
from agent_specializer.intake.keywords import (
    CHECKS,
    FORMATS,
    KEYWORDS,
    PLAIN_REGEX,
    SCALARS,
    Keyword,
    check_unknown,
    shorten,
    types_of,
)
from agent_specializer.intake.pointers import anchors, check_depth, escape, local, pointer, resolve

__all__ = ["FORMATS", "KEYWORDS", "Keyword", "Normalized", "check_schema", "normalize_schema"]


def check_schema(schema: Any) -> None:
    """Refuse `schema` unless every constraint in it will hold for whatever is decoded under it.

    Raises:
        SchemaNotSupported: with the JSON pointer of the keyword, the reason, and what to write instead.
    """
    if not isinstance(schema, Mapping):
        raise SchemaNotSupported(f"a schema is a JSON object, got {type(schema).__name__}")
    check_depth(schema)
    _check_draft(schema)
    nodes = dict(_Walk(schema).nodes())
    endless = set(nodes) - _finite(nodes, schema)
    if "" in endless:
        path = max(endless, key=len)
        raise SchemaNotSupported(
            "no finite value is valid: the schema requires itself",
            path=path,
            hint="make the recursive part optional",
        )
    message = _compile(schema)
    if message:
        raise SchemaNotSupported(
            f"the decoding grammar cannot enforce this: {message}",
            path=_locate(schema, nodes, message),
            hint=_grammar_hint(message),
        )


def _check_draft(schema: Any) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        path = [str(part) for part in error.absolute_path]
        if path[-1:] == ["type"]:
            raise SchemaNotSupported(
                f"unknown type {error.instance!r}",
                path=pointer(path),
                hint="array, boolean, integer, null, number, object or string; leave type out for any value",
            ) from None
        if error.validator == "format":
            raise SchemaNotSupported(
                f"{error.instance!r} is no regular expression", path=pointer(path), hint=PLAIN_REGEX
            ) from None
        raise SchemaNotSupported(
            f"not a valid JSON Schema (draft 2020-12): {shorten(error.message)}",
            path=pointer(path),
            hint="correct this part of the schema",
        ) from None


class _Walk:
    """Visits every subschema that the root reaches, directly or through local references, and checks it."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self.root = root
        self.anchors = dict(anchors(root, ""))
        self.seen: set[str] = set()

    def nodes(self) -> Iterator[tuple[str, Any]]:
        """Pairs of JSON pointer and subschema, each once."""
        waiting: list[tuple[str, Any]] = [("", self.root)]
        while waiting:
            path, node = waiting.pop()
            if path in self.seen:
                continue
            self.seen.add(path)
            yield path, node
            if isinstance(node, Mapping):
                waiting.extend(self._check(path, node))

    def _check(self, path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        types = types_of(node)
        for keyword, value in node.items():
            here = f"{path}/{escape(keyword)}"
            rule = KEYWORDS.get(keyword)
            if rule is None:
                check_unknown(keyword, value, here)
                continue
            if rule.support == "refused":
                raise SchemaNotSupported(
                    f"{keyword} cannot be enforced while decoding", path=here, hint=rule.hint
                )
            if rule.types and not rule.types & types:
                continue  # it constrains values of another type than this one: it says nothing here
            check = CHECKS.get(keyword)
            if check:
                check(value, here, node)
            if keyword == "$ref":
                yield self._target(value, here)
            elif rule.holds == "schema":
                yield here, value
            elif rule.holds == "mapping":
                yield from ((f"{here}/{escape(name)}", child) for name, child in value.items())
            elif rule.holds == "list":
                yield from ((f"{here}/{index}", child) for index, child in enumerate(value))
            if keyword == "$id" and path:
                raise SchemaNotSupported(
                    "a schema with an identifier of its own inside another", path=here, hint="remove $id"
                )

    def _target(self, reference: str, here: str) -> tuple[str, Any]:
        target = local(reference, self.root, self.anchors, here)
        try:
            return target, resolve(self.root, target)
        except (KeyError, IndexError, ValueError, TypeError):
            raise SchemaNotSupported(
                f"$ref {reference!r} points at nothing in this schema",
                path=here,
                hint="put the definition into $defs and refer to it as #/$defs/NAME",
            ) from None


def _finite(nodes: Mapping[str, Any], root: Mapping[str, Any]) -> set[str]:
    """Pointers of the subschemas that recursion leaves a finite value for (a least fixed point)."""
    named = dict(anchors(root, ""))
    finite: set[str] = set()
    while True:
        more = {path for path in nodes.keys() - finite if _is_finite(path, nodes[path], finite, root, named)}
        if not more:
            return finite
        finite |= more


def _is_finite(
    path: str, node: Any, finite: set[str], root: Mapping[str, Any], named: Mapping[str, str]
) -> bool:
    if not isinstance(node, Mapping):
        return True
    if "$ref" in node and local(node["$ref"], root, named, path) not in finite:
        return False
    if any(f"{path}/allOf/{index}" not in finite for index in range(len(node.get("allOf", ())))):
        return False
    for keyword in ("anyOf", "oneOf"):
        branches = range(len(node.get(keyword, ())))
        if branches and all(f"{path}/{keyword}/{index}" not in finite for index in branches):
            return False
    types = types_of(node)
    if types & SCALARS or "enum" in node or "const" in node:
        return True
    if "object" in types:
        needed = [
            f"{path}/properties/{escape(name)}"
            for name in node.get("required", ())
            if name in node.get("properties", {})
        ]
        if all(path in finite for path in needed):
            return True
    if "array" in types:
        prefix, least = len(node.get("prefixItems", ())), node.get("minItems", 0)
        needed = [f"{path}/prefixItems/{index}" for index in range(min(prefix, least))]
        needed += [f"{path}/items"] if least > prefix and "items" in node else []
        return all(path in finite for path in needed)
    return False


def _compile(schema: Any) -> str:
    """What llguidance says against `schema`; empty where it enforces it."""
    from llguidance import LLMatcher

    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    _, messages = LLMatcher.validate_grammar_with_warnings(grammar)
    return shorten(messages[0].split(" while processing json-schema:")[0]) if messages else ""


def _locate(schema: Mapping[str, Any], nodes: Mapping[str, Any], message: str) -> str:
    """The pointer of the deepest subschema that llguidance refuses for the same reason as the whole."""
    home = {"$defs": {"root": _moved(schema, dict(anchors(schema, "")), schema)}}
    for path in sorted(nodes, key=lambda path: (-path.count("/"), path)):
        if isinstance(nodes[path], Mapping) and _compile({**home, "$ref": f"#/$defs/root{path}"}) == message:
            return path
    return ""


def _moved(node: Any, named: Mapping[str, str], root: Mapping[str, Any]) -> Any:
    """`node` with its local references prefixed, to stand under #/$defs/root."""
    if isinstance(node, Mapping):
        return {
            key: f"#/$defs/root{local(value, root, named, '')}"
            if key == "$ref" and isinstance(value, str)
            else _moved(value, named, root)
            for key, value in node.items()
            if key not in ("$id", "$anchor")
        }
    return [_moved(child, named, root) for child in node] if isinstance(node, list) else node


def _grammar_hint(message: str) -> str:
    if "oneOf" in message:
        return "the branches may overlap: use anyOf, or give each branch a type of its own"
    if "regex" in message or "look" in message:
        return PLAIN_REGEX
    if "nsatisfiable" in message:
        return "no value satisfies this part: correct the contradiction"
    return "simplify this part of the schema"
