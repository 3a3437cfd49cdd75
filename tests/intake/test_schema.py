"""check_schema: what it lets through, what it refuses, where it points, and what it says."""

from __future__ import annotations

from typing import Any

import pytest

from agent_specializer.errors import SchemaNotSupported
from agent_specializer.intake import check_schema, normalize_schema

TREE = {"type": "object", "properties": {"child": {"$ref": "#/$defs/tree"}}, "additionalProperties": False}


def refusal(schema: Any) -> SchemaNotSupported:
    with pytest.raises(SchemaNotSupported) as caught:
        check_schema(schema)
    return caught.value


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object", "properties": {"anything": {}, "also": True, "never": False}},
        {
            "type": "object",
            "properties": {"type": {"type": "string"}, "not": {"type": "integer"}, "$ref": {}},
        },
        {
            "type": "object",
            "properties": {"enum": {"enum": ["x"]}, "properties": {"type": "object", "properties": {}}},
        },
        {"type": "string", "x-order": 3, "x-nullable": True, "unit": "km", "example_values": ["a"]},
        {"$ref": "#/$defs/tree", "$defs": {"tree": TREE}},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "properties": {"a": {"type": "string"}, "b": {"$ref": "#/properties/a"}}},
        {"$defs": {"a/b": {"type": "string"}}, "$ref": "#/$defs/a~1b"},
        {"$defs": {"n": {"$anchor": "named", "type": "string"}}, "$ref": "#named"},
        {"$id": "https://example.org/t", "$defs": {"n": {}}, "$ref": "https://example.org/t#/$defs/n"},
        {"type": "string", "$defs": {"unused": {"not": {}}}},
        {"type": "integer", "format": "int32", "pattern": "(?=constrains strings only)"},
        {"type": ["string", "null"], "enum": ["a", None]},
        {"oneOf": [{"type": "object", "properties": {}}, {"type": "array", "items": {}}]},
        {
            "type": "object",
            "properties": {"a": {"description": "contains not, if and uniqueItems", "default": {"not": 1}}},
        },
        {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
        {"type": "string", "maxLength": 1_000_000},
    ],
)
def test_harmless_schemas_are_registered_as_they_are(schema: dict[str, Any]) -> None:
    check_schema(schema)
    assert normalize_schema(schema) == (schema, ())


@pytest.mark.parametrize(
    ("schema", "path", "reason"),
    [
        ({"properties": {"a": {"items": {"not": {}}}}}, "/properties/a/items/not", "not cannot be enforced"),
        ({"properties": {"a/b": {"uniqueItems": True}}}, "/properties/a~1b/uniqueItems", "uniqueItems"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"if": {}}}}, "/$defs/a/if", "if cannot be enforced"),
        ({"properties": {"a": {"$ref": "https://example.org/x"}}}, "/properties/a/$ref", "leaves the schema"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "/properties/a/$ref", "points at nothing"),
        ({"properties": {"a": {"type": "strin"}}}, "/properties/a/type", "unknown type 'strin'"),
        ({"properties": {"a": {"minimum": "3"}}}, "/properties/a/minimum", "not a valid JSON Schema"),
        ({"type": "object", "required": "a"}, "/required", "not a valid JSON Schema"),
        ({"properties": {"a": {"type": "string", "pattern": "(?=a)"}}}, "/properties/a", "look-around"),
        (
            {"properties": {"a": {"type": "string", "pattern": "["}}},
            "/properties/a/pattern",
            "regular expression",
        ),
        (
            {"properties": {"a": {"type": "string", "format": "color"}}},
            "/properties/a/format",
            "format 'color'",
        ),
        (
            {"properties": {"a": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}},
            "/properties/a",
            "oneOf",
        ),
        (
            {"properties": {"a": {"type": "number", "multipleOf": 0.01}}},
            "/properties/a/multipleOf",
            "exactly",
        ),
        (
            {"properties": {"a": {"type": "integer", "multipleOf": 10**6}}},
            "/properties/a/multipleOf",
            "exactly",
        ),
        ({"properties": {"a": {"type": "integer", "maximum": 2**60}}}, "/properties/a/maximum", "beyond"),
        ({"properties": {"a": {"const": 2**60}}}, "/properties/a/const", "beyond"),
        ({"properties": {"a": {"type": "integer", "enum": ["1"]}}}, "/properties/a/enum", "has the type"),
        ({"properties": {"a": {"enum": []}}}, "/properties/a/enum", "empty enum"),
        (
            {"properties": {"a": {"type": "string", "minLenght": 3}}},
            "/properties/a/minLenght",
            "unknown keyword",
        ),
        (
            {"properties": {"a": {"type": "string", "max_length": 3}}},
            "/properties/a/max_length",
            "unknown keyword",
        ),
        (
            {"properties": {"a": {"type": "string", "nullable": True}}},
            "/properties/a/nullable",
            "would be ignored",
        ),
        (
            {"properties": {"a": {"x-guidance": {"lenient": True}}}},
            "/properties/a/x-guidance",
            "cannot be enforced",
        ),
        ({"type": "object", "minProperties": 2}, "/minProperties", "count twice"),
        ({"properties": {"a": {"$id": "inner", "type": "string"}}}, "/properties/a/$id", "identifier"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema", "draft-07"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "/", "greater than"),
    ],
)
def test_a_refusal_names_the_place_and_the_reason(schema: dict[str, Any], path: str, reason: str) -> None:
    error = refusal(schema)
    assert error.path == path
    assert reason in str(error)
    assert error.hint


def test_a_schema_that_requires_itself_forever_is_refused() -> None:
    endless = {"type": "object", "properties": {"child": {"$ref": "#/$defs/t"}}, "required": ["child"]}
    assert "requires itself" in str(refusal({"$ref": "#/$defs/t", "$defs": {"t": endless}}))
    assert "requires itself" in str(refusal({"$ref": "#"}))
    check_schema(
        {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "null"}], "$defs": {"t": {**endless, "required": []}}}
    )


def test_a_misspelt_keyword_is_answered_with_the_right_one() -> None:
    assert "did you mean 'enum'" in refusal({"type": "string", "enums": ["a"]}).hint


def test_depth_is_limited_before_anything_recurses() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(3000):
        schema = {"type": "object", "properties": {"a": schema}}
    assert "nested deeper" in str(refusal(schema))
    with pytest.raises(SchemaNotSupported, match="nested deeper"):
        normalize_schema(schema)


def test_the_deepest_schema_that_is_registered_compiles(grammar: Any) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(28):
        schema = {"type": "object", "properties": {"a": schema}}
    check_schema(schema)
    assert grammar.complaint(schema) == ""


@pytest.mark.parametrize("schema", [None, [], "string", 3])
def test_what_is_no_object_is_no_schema(schema: Any) -> None:
    assert "a schema is a JSON object" in str(refusal(schema))
