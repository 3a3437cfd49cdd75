"""normalize_schema: foreign dialects become draft 2020-12, with a report; draft 2020-12 stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_specializer.errors import SchemaNotSupported
from agent_specializer.intake import check_schema, normalize_schema
from agent_specializer.intake.typenames import type_from_name


@pytest.mark.parametrize(
    ("foreign", "expected"),
    [
        ({"type": "str"}, {"type": "string"}),
        ({"type": "STRING"}, {"type": "string"}),
        ({"type": "float", "description": "km"}, {"type": "number", "description": "km"}),
        ({"type": "List[int]"}, {"type": "array", "items": {"type": "integer"}}),
        ({"type": "dict"}, {"type": "object"}),
        ({"type": "any"}, {}),
        ({"type": "Optional[str]"}, {"type": ["string", "null"]}),
        ({"type": "int, optional"}, {"type": "integer"}),
        ({"type": ["str", "none"]}, {"type": ["string", "null"]}),
        ({"type": {"type": "string"}}, {"type": "string"}),
        ({"type": "enum", "enum": ["a"]}, {"enum": ["a"]}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        (
            {"type": "string", "enum": ["a"], "nullable": True},
            {"type": ["string", "null"], "enum": ["a", None]},
        ),
        (
            {"$ref": "#/$defs/a", "nullable": True, "description": "d", "$defs": {}},
            {"description": "d", "anyOf": [{"$ref": "#/$defs/a", "$defs": {}}, {"type": "null"}]},
        ),
        (
            {"type": "integer", "minimum": 1, "exclusiveMinimum": True},
            {"type": "integer", "exclusiveMinimum": 1},
        ),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": False}, {"type": "integer", "minimum": 1}),
        ({"type": "integer", "maximum": "10"}, {"type": "integer", "maximum": 10}),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, {"type": "integer"}),
        ({"type": "string", "minLength": 2.0}, {"type": "string", "minLength": 2}),
        (
            {"type": "array", "items": [{"type": "int"}], "additionalItems": False},
            {"type": "array", "prefixItems": [{"type": "integer"}], "items": False},
        ),
        ({"type": "array", "uniqueItems": False}, {"type": "array"}),
        ({"type": "array", "enum": ["a", "b"]}, {"type": "array", "items": {"enum": ["a", "b"]}}),
        ({"type": "string", "choices": ["a"]}, {"type": "string", "enum": ["a"]}),
        ({"type": "integer", "enum": ["1", "2"]}, {"type": "string", "enum": ["1", "2"]}),
        ({"type": "string", "enum": None, "pattern": None}, {"type": "string"}),
        ({"type": "string", "format": "datetime"}, {"type": "string", "format": "date-time"}),
        ({"type": "string", "format": "password"}, {"type": "string"}),
        ({"type": "string", "format": "hex color"}, {"type": "string", "description": "(format: hex color)"}),
        ({"type": "string", "examples": "a, b"}, {"type": "string", "examples": ["a, b"]}),
        ({"type": "string", "pattern": "^(?<year>a)$"}, {"type": "string", "pattern": "^(?P<year>a)$"}),
        ({"anyOf": [{"type": "number"}, {"not": {}}]}, {"anyOf": [{"type": "number"}]}),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "string"}, {"type": "string"}),
    ],
)
def test_a_foreign_property_is_translated_and_reported(
    foreign: dict[str, Any], expected: dict[str, Any]
) -> None:
    original = {"type": "object", "properties": {"p": copy.deepcopy(foreign)}}
    before = copy.deepcopy(original)
    schema, changes = normalize_schema(original)
    assert schema["properties"]["p"] == expected
    assert changes
    assert all(change.startswith("/properties/p") for change in changes)
    assert original == before, "the argument is not touched"


def test_required_on_a_property_moves_to_its_object() -> None:
    schema, changes = normalize_schema(
        {
            "type": "object",
            "properties": {"a": {"type": "str", "required": True}, "b": {"type": "str", "required": False}},
        }
    )
    assert schema == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "required": ["a"],
    }
    assert len(changes) == 4
    check_schema(schema)


def test_type_names_in_place_of_schemas_are_read() -> None:
    schema, _ = normalize_schema({"type": "object", "properties": {"city": "string", "days": "list[int]"}})
    assert schema["properties"] == {
        "city": {"type": "string"},
        "days": {"type": "array", "items": {"type": "integer"}},
    }


def test_properties_named_like_keywords_are_not_translated() -> None:
    schema = {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "nullable": {"type": "boolean"},
            "enum": {"type": "array", "items": {"type": "string"}},
            "format": {"type": "string"},
            "choices": {"type": "array", "items": {"type": "string"}},
            "required": {"type": "boolean"},
        },
    }
    assert normalize_schema(schema) == (schema, ())
    check_schema(schema)


def test_a_union_of_references_is_written_as_any_of_where_a_required_tag_tells_them_apart() -> None:
    def union(*tags: str, required: bool = True) -> dict[str, Any]:
        def branch(tag: str) -> dict[str, Any]:
            kind = {"const": tag, "type": "string"}
            return {"type": "object", "properties": {"kind": kind}, "required": ["kind"] if required else []}

        refs = [{"$ref": f"#/$defs/{index}"} for index in range(len(tags))]
        return {"oneOf": refs, "$defs": {str(index): branch(tag) for index, tag in enumerate(tags)}}

    tagged, changes = normalize_schema(union("cat", "dog"))
    assert "anyOf" in tagged
    assert changes
    check_schema(tagged)
    for overlapping in (union("cat", "cat"), union("cat", "dog", required=False)):
        assert normalize_schema(overlapping) == (overlapping, ())
        with pytest.raises(SchemaNotSupported, match="oneOf"):
            check_schema(overlapping)


def test_what_cannot_be_translated_is_left_to_be_refused() -> None:
    schema, _ = normalize_schema({"properties": {"a": {"type": "spaceship"}}})
    with pytest.raises(SchemaNotSupported, match="unknown type 'spaceship'"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("str", {"type": "string"}),
        ("typing.List[str]", {"type": "array", "items": {"type": "string"}}),
        ("string[]", {"type": "array", "items": {"type": "string"}}),
        ("array<integer>", {"type": "array", "items": {"type": "integer"}}),
        ("dict[str, float]", {"type": "object", "additionalProperties": {"type": "number"}}),
        ("dict[str, Any]", {"type": "object"}),
        ("int | None", {"type": ["integer", "null"]}),
        (
            "Union[str, list[int]]",
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer"}}]},
        ),
        ("str | Any", {}),
        ("datetime", {"type": "string", "format": "date-time"}),
        (
            "tuple[int, str]",
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 2,
            },
        ),
        ("Spaceship", None),
        ("list[Spaceship]", None),
    ],
)
def test_type_names(name: str, schema: dict[str, Any] | None) -> None:
    assert type_from_name(name) == schema


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 5),
        st.sampled_from(["str", "string", "any", "", "date", "a"]),
    ),
    lambda child: st.one_of(
        st.lists(child, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "properties",
                    "items",
                    "enum",
                    "required",
                    "nullable",
                    "format",
                    "anyOf",
                    "oneOf",
                    "$ref",
                    "minimum",
                    "exclusiveMinimum",
                    "description",
                    "choices",
                    "pattern",
                    "minLength",
                    "additionalProperties",
                    "examples",
                ]
            ),
            child,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    schema=st.dictionaries(
        st.sampled_from(["type", "properties", "anyOf", "items", "enum"]), _JSON, max_size=4
    )
)
def test_any_json_is_normalized_and_checked_without_a_crash_and_once_is_enough(
    schema: dict[str, Any],
) -> None:
    once, _ = normalize_schema(schema)
    try:
        check_schema(once)
    except SchemaNotSupported:
        return
    assert normalize_schema(once) == (once, ())
