"""The table of keywords says of llguidance what llguidance itself says."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent_specializer.errors import SchemaNotSupported
from agent_specializer.intake.keywords import FORMATS, KEYWORDS
from agent_specializer.intake.schema import check_schema

# One schema per keyword, with values that satisfy and that violate it.
ENFORCED: dict[str, tuple[dict[str, Any], str, str]] = {
    "type": ({"type": "integer"}, "3", '"3"'),
    "enum": ({"enum": ["a", 1, None]}, '"a"', '"b"'),
    "const": ({"const": {"a": [1]}}, '{"a": [1]}', '{"a": [2]}'),
    "$ref": ({"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}, "3", '"3"'),
    "anyOf": ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "null", "3"),
    "oneOf": ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "null", "3"),
    "allOf": ({"allOf": [{"type": "integer"}, {"minimum": 2}]}, "2", "1"),
    "properties": ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1}', '{"a": "x"}'),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^x": {"type": "integer"}}},
        '{"xa": 1}',
        '{"xa": "b"}',
    ),
    "additionalProperties": (
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        '{"a": 1}',
        '{"b": 1}',
    ),
    "required": ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, '{"a": 1}', "{}"),
    "minProperties": ({"type": "object", "minProperties": 1}, '{"a": 1}', "{}"),
    "maxProperties": ({"type": "object", "maxProperties": 1}, '{"a": 1}', '{"a": 1, "b": 2}'),
    "items": ({"type": "array", "items": {"type": "integer"}}, "[1]", '["a"]'),
    "prefixItems": ({"type": "array", "prefixItems": [{"type": "integer"}]}, "[1]", '["a"]'),
    "minItems": ({"type": "array", "minItems": 1}, "[1]", "[]"),
    "maxItems": ({"type": "array", "maxItems": 1}, "[1]", "[1, 2]"),
    "pattern": ({"type": "string", "pattern": "^a+$"}, '"aa"', '"ab"'),
    "format": ({"type": "string", "format": "date"}, '"2024-05-06"', '"today"'),
    "minLength": ({"type": "string", "minLength": 2}, '"ab"', '"a"'),
    "maxLength": ({"type": "string", "maxLength": 2}, '"ab"', '"abc"'),
    "minimum": ({"type": "number", "minimum": 2}, "2", "1.5"),
    "maximum": ({"type": "integer", "maximum": 2}, "2", "3"),
    "exclusiveMinimum": ({"type": "integer", "exclusiveMinimum": 2}, "3", "2"),
    "exclusiveMaximum": ({"type": "number", "exclusiveMaximum": 2}, "1.5", "2"),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, "10", "11"),
}

REFUSED: dict[str, dict[str, Any]] = {
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}},
    "then": {"then": {}},
    "else": {"else": {}},
    "dependentSchemas": {"dependentSchemas": {"a": {}}},
    "dependentRequired": {"dependentRequired": {"a": ["b"]}},
    "dependencies": {"dependencies": {"a": ["b"]}},
    "propertyNames": {"propertyNames": {"pattern": "^a"}},
    "unevaluatedProperties": {"unevaluatedProperties": False},
    "unevaluatedItems": {"unevaluatedItems": False},
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": {"type": "string"}},
    "minContains": {"type": "array", "minContains": 1},
    "maxContains": {"type": "array", "maxContains": 1},
    "$dynamicRef": {"$dynamicRef": "#a"},
    "$dynamicAnchor": {"$dynamicAnchor": "a"},
    "$recursiveRef": {"$recursiveRef": "#"},
}

# Refused although llguidance takes them: it reads them as an older draft does, or they switch its checks off.
STRICTER = {
    "additionalItems": {"type": "array", "items": {"type": "string"}, "additionalItems": False},
    "x-guidance": {"x-guidance": {"lenient": True}, "not": {"type": "string"}},
    "$recursiveAnchor": {"$recursiveAnchor": True},
}


def test_every_row_of_the_table_is_tried() -> None:
    rows = {
        support: {name for name, row in KEYWORDS.items() if row.support == support}
        for support in ("enforced", "refused")
    }
    assert rows["enforced"] == set(ENFORCED)
    assert rows["refused"] == set(REFUSED) | set(STRICTER)


@pytest.mark.parametrize("keyword", ENFORCED)
def test_an_enforced_keyword_is_registered_and_holds_in_the_grammar(keyword: str, grammar: Any) -> None:
    schema, good, bad = ENFORCED[keyword]
    check_schema(schema)
    assert grammar.complaint(schema) == ""
    assert grammar.accepts(schema, good)
    assert not grammar.accepts(schema, bad)


@pytest.mark.parametrize("keyword", REFUSED)
def test_a_refused_keyword_is_one_that_llguidance_cannot_enforce(keyword: str, grammar: Any) -> None:
    schema = REFUSED[keyword]
    assert keyword in grammar.complaint(schema)
    with pytest.raises(SchemaNotSupported) as caught:
        check_schema({"type": "object", "properties": {"a": schema}})
    assert caught.value.path == f"/properties/a/{keyword}"
    assert caught.value.hint


@pytest.mark.parametrize("keyword", STRICTER)
def test_what_llguidance_would_take_in_another_meaning_is_refused(keyword: str) -> None:
    with pytest.raises(SchemaNotSupported):
        check_schema(STRICTER[keyword])


@pytest.mark.parametrize(
    "keyword", sorted(name for name, row in KEYWORDS.items() if row.support == "annotation")
)
def test_an_annotation_changes_nothing_in_the_grammar(keyword: str, grammar: Any) -> None:
    values: dict[str, Any] = {
        "$defs": {"unused": {"not": {}}},
        "definitions": {"unused": {"not": {}}},
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://example.org/tool",
        "$anchor": "here",
        "$vocabulary": {},
        "examples": [1],
        "deprecated": True,
        "readOnly": True,
        "writeOnly": True,
        "contentSchema": {},
    }
    schema = {"type": "string", "maxLength": 2, keyword: values.get(keyword, "text")}
    check_schema(schema)
    assert grammar.complaint(schema) == ""
    assert grammar.accepts(schema, '"ab"')
    assert not grammar.accepts(schema, '"abc"')


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_of_the_table_are_enforced(name: str, grammar: Any) -> None:
    schema = {"type": "string", "format": name}
    check_schema(schema)
    assert grammar.complaint(schema) == ""
    assert not grammar.accepts(schema, '"no such thing"')


@pytest.mark.parametrize(
    "name", ["idn-email", "uri-reference", "iri", "regex", "json-pointer", "uri-template", "int32", "color"]
)
def test_other_formats_are_refused_by_both(name: str, grammar: Any) -> None:
    schema = {"type": "string", "format": name}
    assert "format" in grammar.complaint(schema)
    with pytest.raises(SchemaNotSupported, match="cannot be enforced"):
        check_schema(schema)


# Random schemas over the whole vocabulary, refused keywords included.
_LEAVES = st.one_of(
    st.just({}),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, span, kind: {"type": kind, "minimum": low, "maximum": low + span},
        st.integers(-50, 50),
        st.integers(-1, 40),
        st.sampled_from(["integer", "number"]),
    ),
    st.builds(
        lambda of: {"type": "integer", "multipleOf": of}, st.sampled_from([1, 2, 7, 0.5, 0.1, 100_000])
    ),
    st.builds(
        lambda low, high: {"type": "string", "minLength": low, "maxLength": high},
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    st.builds(
        lambda text: {"type": "string", "pattern": text},
        st.sampled_from(
            [
                "^[a-c]+$",
                "^a|b$",
                "x",
                r"^\d{2}:\d{2}$",
                "^(?=a)b",
                r"^(a)\1$",
                "^[[a]b]$",
                r"^\p{L}$",
                "a^b",
                "(",
            ]
        ),
    ),
    st.builds(
        lambda name: {"type": "string", "format": name}, st.sampled_from(["ipv4", "uuid", "iri", "nonsense"])
    ),
    st.builds(
        lambda values: {"enum": values},
        st.lists(st.sampled_from(["a", 1, None, 2.5, True, {"k": 1}]), max_size=3),
    ),
    st.builds(
        lambda kind, values: {"type": kind, "enum": values},
        st.sampled_from(["string", "integer"]),
        st.just(["a", "b"]),
    ),
)


def _inner(child: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "b", "type", "$ref", "not"])
    objects = st.builds(
        lambda properties, needed, rest, extra: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in needed],
            **({} if rest is None else {"additionalProperties": rest}),
            **extra,
        },
        st.dictionaries(names, child, max_size=3),
        st.sets(names),
        st.one_of(st.none(), st.just(False), child),
        st.sampled_from([{}, {}, {"minProperties": 1}, {"minProperties": 3}, {"maxProperties": 2}]),
    )
    arrays = st.builds(
        lambda items, low, span, extra: {
            "type": "array",
            "items": items,
            "minItems": low,
            "maxItems": low + span,
            **extra,
        },
        child,
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([{}, {}, {"uniqueItems": True}, {"prefixItems": [{"type": "integer"}]}]),
    )
    unions = st.builds(
        lambda keyword, branches: {keyword: branches},
        st.sampled_from(["anyOf", "oneOf", "allOf"]),
        st.lists(child, min_size=1, max_size=3),
    )
    return st.one_of(objects, arrays, unions)


SCHEMAS = st.recursive(_LEAVES, _inner, max_leaves=6)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMAS, seed=st.integers(0, 2**32))
def test_whatever_is_registered_decodes_to_valid_values_only(
    grammar: Any, schema: dict[str, Any], seed: int
) -> None:
    """The promise of intake: accepted by `check_schema` means that no invalid value can be decoded."""
    try:
        check_schema(schema)
    except SchemaNotSupported:
        return
    assert grammar.complaint(schema) == ""
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    rng = random.Random(seed)
    for _ in range(4):
        sampled = grammar.sample(schema, rng)
        if sampled is not None:
            validator.validate(sampled[1])
