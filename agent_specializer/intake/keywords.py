"""The one table of how each JSON Schema keyword fares in the decoding grammar, and what its value must be.

Enforced, an annotation (says nothing about which values are valid), or refused. The tests check every row against
llguidance itself, by compiling schemas and by sampling from their grammars.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agent_specializer.errors import SchemaNotSupported
from agent_specializer.intake.dialects import DIALECT
from agent_specializer.intake.pointers import escape
from agent_specializer.intake.typenames import json_types

MAX_MULTIPLE = 10_000
"""The largest `multipleOf`: the grammar's automaton has one state per remainder."""
EXACT = 2**53
"""Bounds beyond this are rounded by the grammar compiler, which computes in float64."""

FORMATS = frozenset(
    {"date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"}
)
"""String formats that the grammar enforces, by shape: 2023-02-29 has the shape of a date."""

PLAIN_REGEX = "use literals, classes, groups, | and repetition, with ^ and $ at the ends"

SCALARS = {"string", "integer", "number", "boolean", "null"}


@dataclass(frozen=True)
class Keyword:
    """How a keyword of JSON Schema fares in the decoding grammar.

    Args:
        support: enforced, annotation (says nothing about which values are valid), or refused.
        types: the JSON types that it constrains; empty: every type.
        holds: where its subschemas are: the value itself, the values of a mapping, the items of a list.
        hint: for a refused keyword, what to write instead.
    """

    support: Literal["enforced", "annotation", "refused"]
    types: frozenset[str] = frozenset()
    holds: Literal["", "schema", "mapping", "list"] = ""
    hint: str = ""


def _enforced(types: str = "", holds: Literal["", "schema", "mapping", "list"] = "") -> Keyword:
    return Keyword("enforced", frozenset(types.split()), holds)


def _refused(hint: str) -> Keyword:
    return Keyword("refused", hint=hint)


_ANNOTATION = Keyword("annotation")
_NO_CONDITION = "describe each allowed combination as one branch of anyOf, or check it inside the tool"
_NO_DYNAMIC = "use $ref to a definition in $defs"
_IN_THE_TOOL = "drop it from the schema, say it in the description, and check it inside the tool"

KEYWORDS: dict[str, Keyword] = {
    **dict.fromkeys(("type", "enum", "const"), _enforced()),
    **dict.fromkeys(("$ref",), _enforced()),
    **dict.fromkeys(("anyOf", "oneOf", "allOf"), _enforced(holds="list")),
    "properties": _enforced("object", "mapping"),
    "patternProperties": _enforced("object", "mapping"),
    "additionalProperties": _enforced("object", "schema"),
    **dict.fromkeys(("required", "minProperties", "maxProperties"), _enforced("object")),
    "items": _enforced("array", "schema"),
    "prefixItems": _enforced("array", "list"),
    **dict.fromkeys(("minItems", "maxItems"), _enforced("array")),
    **dict.fromkeys(("pattern", "format", "minLength", "maxLength"), _enforced("string")),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        _enforced("number integer"),
    ),
    # Not walked from here: a definition counts where a $ref reaches it.
    **dict.fromkeys(("$defs", "definitions", "$schema", "$id", "$anchor"), _ANNOTATION),
    **dict.fromkeys(("title", "description", "default", "examples", "example", "deprecated"), _ANNOTATION),
    **dict.fromkeys(("readOnly", "writeOnly", "$comment", "$vocabulary"), _ANNOTATION),
    **dict.fromkeys(("contentEncoding", "contentMediaType", "contentSchema"), _ANNOTATION),
    **dict.fromkeys(("discriminator", "xml", "externalDocs"), _ANNOTATION),
    "not": _refused("list what is allowed instead of what is not, e.g. with enum or pattern"),
    **dict.fromkeys(("if", "then", "else"), _refused(_NO_CONDITION)),
    **dict.fromkeys(("dependentSchemas", "dependentRequired", "dependencies"), _refused(_NO_CONDITION)),
    "propertyNames": _refused("use patternProperties with additionalProperties: false"),
    "unevaluatedProperties": _refused("use additionalProperties: false"),
    "unevaluatedItems": _refused("use prefixItems with items: false"),
    "additionalItems": _refused("it is of an older draft: use prefixItems and items"),
    **dict.fromkeys(("uniqueItems", "contains", "minContains", "maxContains"), _refused(_IN_THE_TOOL)),
    **dict.fromkeys(
        ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor"), _refused(_NO_DYNAMIC)
    ),
    "x-guidance": _refused("it would switch parts of the grammar off: remove it"),
}

_FOREIGN = {
    "nullable": 'write "null" into type',
    "choices": "write enum",
    "divisibleBy": "write multipleOf",
    "extends": "write allOf",
    "disallow": "write enum or anyOf",
}
"""Constraints in other dialects, which draft 2020-12 would take for annotations."""


def check_unknown(keyword: str, value: Any, here: str) -> None:
    """Unknown keywords are annotations (draft 2020-12, 6.5), unless they look like a misspelt constraint."""
    if keyword in _FOREIGN and value:
        raise SchemaNotSupported(
            f"{keyword} is not a keyword of draft 2020-12 and would be ignored",
            path=here,
            hint=_FOREIGN[keyword],
        )
    if keyword.startswith("x-") or keyword in _FOREIGN:
        return
    plain = {re.sub(r"[^a-z]", "", known.lower()): known for known in KEYWORDS if not known.startswith("x-")}
    word = re.sub(r"[^a-z]", "", keyword.lower())
    meant = plain.get(word) or next(
        iter(difflib.get_close_matches(keyword, KEYWORDS, n=1, cutoff=0.86)), None
    )
    if meant and KEYWORDS[meant].support != "annotation":
        raise SchemaNotSupported(
            f"unknown keyword {keyword!r} would be ignored",
            path=here,
            hint=f"did you mean {meant!r}? keywords of your own start with x-",
        )


def _check_regex(pattern: str, here: str) -> None:
    """Only expressions that mean the same to the grammar, to Python and to JSON Schema (ECMA 262)."""
    reason = _disputed(pattern)
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        reason = str(error)
    if reason:
        raise SchemaNotSupported(f"regular expression {pattern!r}: {reason}", path=here, hint=PLAIN_REGEX)


def _disputed(pattern: str) -> str:
    """What engines disagree about: brackets and set operations inside a character class."""
    inside, index = False, 0
    while index < len(pattern):
        letter, following = pattern[index], pattern[index + 1 : index + 2]
        if letter == "\\":
            index += 1
        elif inside and letter == "]":
            inside = False
        elif inside and (letter == "[" or (letter in "&-~|" and letter == following)):
            return f"engines disagree about {letter + following!r} in a class: write it with a backslash"
        elif letter == "[" and not inside:
            inside = True
            index += following == "^"
            if pattern[index + 1 : index + 2] == "]":
                return "engines disagree about a class that begins with ]: write it with a backslash"
        index += 1
    return ""


def _check_pattern(value: Any, here: str, node: Mapping[str, Any]) -> None:
    _check_regex(value, here)


def _check_pattern_properties(value: Any, here: str, node: Mapping[str, Any]) -> None:
    for pattern in value:
        _check_regex(pattern, f"{here}/{escape(pattern)}")


def _check_format(value: Any, here: str, node: Mapping[str, Any]) -> None:
    if value not in FORMATS:
        raise SchemaNotSupported(
            f"format {value!r} cannot be enforced",
            path=here,
            hint=f"one of {', '.join(sorted(FORMATS))}; or a pattern; or say it in the description",
        )


def _check_multiple(value: Any, here: str, node: Mapping[str, Any]) -> None:
    if value > MAX_MULTIPLE or value * 1024 != int(value * 1024):
        raise SchemaNotSupported(
            f"multipleOf {value!r} cannot be enforced exactly",
            path=here,
            hint=f"whole numbers up to {MAX_MULTIPLE} and binary fractions like 0.5 or 0.25 can; "
            "for money, count cents or use a string with a pattern",
        )


def _check_bound(value: Any, here: str, node: Mapping[str, Any]) -> None:
    if abs(value) > EXACT:
        raise SchemaNotSupported(f"bound {value!r} is beyond ±2^53", path=here, hint="remove the bound")


def _check_values(value: Any, here: str, node: Mapping[str, Any]) -> None:
    values = value if here.endswith("/enum") else [value]
    if not any(json_types(one) & types_of(node) for one in values):
        # The grammar would drop an optional property like this without a word.
        raise SchemaNotSupported(
            f"no value of {shorten(json.dumps(values))} has the type {node['type']!r}"
            if values
            else "an empty enum",
            path=here,
            hint="correct the type or the values",
        )
    for number in _integers(value):
        if abs(number) > EXACT:
            raise SchemaNotSupported(f"{number} is beyond ±2^53", path=here, hint="write it as a string")


def _check_least(value: Any, here: str, node: Mapping[str, Any]) -> None:
    # Two further properties could have the same name, and a JSON object keeps one of them.
    sure = len(set(node.get("required", ())))
    if value > sure + 1:
        raise SchemaNotSupported(
            f"minProperties {value} with {sure} required properties: repeated names would count twice",
            path=here,
            hint="list the properties in required, or use an array of {name, value} objects",
        )


def _check_dialect(value: Any, here: str, node: Mapping[str, Any]) -> None:
    if value.rstrip("#") != DIALECT:
        raise SchemaNotSupported(f"written in {value!r}", path=here, hint=f"translate it to {DIALECT}")


CHECKS: dict[str, Callable[[Any, str, Mapping[str, Any]], None]] = {
    "pattern": _check_pattern,
    "patternProperties": _check_pattern_properties,
    "format": _check_format,
    "multipleOf": _check_multiple,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _check_bound),
    **dict.fromkeys(("enum", "const"), _check_values),
    "minProperties": _check_least,
    "$schema": _check_dialect,
}


def types_of(node: Mapping[str, Any]) -> frozenset[str]:
    given = node.get("type")
    if given is None:
        return frozenset(SCALARS | {"object", "array"})
    return frozenset([given] if isinstance(given, str) else given)


def _integers(value: Any) -> Iterator[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield value
    elif isinstance(value, list | Mapping):
        for child in value.values() if isinstance(value, Mapping) else value:
            yield from _integers(child)


def shorten(text: str, limit: int = 300) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit]}…"
