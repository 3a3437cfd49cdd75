"""The grammar's promises: the spacing of the wire format, no surprise properties, completion within the budget."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agent_specializer.edge.grammar import Grammars, ToolGrammar, closed
from agent_specializer.errors import DecodeError, SchemaNotSupported
from agent_specializer.specs import ToolSpec

SCHEMAS: dict[str, dict[str, Any]] = {
    "empty": {},
    "string": {"x": {"type": "string"}},
    "long": {"x": {"type": "string", "minLength": 12, "maxLength": 14}},
    "pattern": {"x": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,}z+q$"}},
    "multiple": {"x": {"type": "integer", "multipleOf": 7, "minimum": 20}},
    "bounds": {"x": {"type": "number", "exclusiveMinimum": 99.5, "maximum": 100}},
    "enum": {"x": {"enum": ["long word", "other", 3, None, {"a": [1]}]}},
    "nested": {
        "x": {
            "type": "object",
            "properties": {
                "y": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
                "z": {"const": "k"},
            },
            "required": ["y", "z"],
        }
    },
    "any": {"x": {"anyOf": [{"type": "string", "minLength": 30}, {"type": "integer"}]}},
    "map": {"x": {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1}},
    **{
        name: {"x": {"type": "string", "format": name}}
        for name in (
            "date",
            "time",
            "date-time",
            "email",
            "ipv4",
            "ipv6",
            "uri",
            "uuid",
            "hostname",
            "duration",
        )
    },
}


def tool(properties: dict[str, Any], **more: Any) -> ToolSpec:
    parameters = {"type": "object", "properties": properties, "required": list(properties), **more}
    return ToolSpec(name="t", parameters=parameters)


@pytest.fixture(scope="module")
def grammars(tiny_tokenizer) -> Grammars:
    return Grammars(tiny_tokenizer, len(tiny_tokenizer))


def accepts(grammar: ToolGrammar, text: str) -> bool:
    matcher = grammar.matcher()
    return matcher.consume_tokens(grammar.vocabulary.tokenize_str(text)) and matcher.is_accepting()


@pytest.mark.parametrize("name", SCHEMAS)
def test_there_is_always_a_short_way_out(grammars: Grammars, name: str) -> None:
    grammar = grammars.of(tool(SCHEMAS[name]))
    assert grammar.shortest is not None
    text = grammar.vocabulary.decode_bytes(grammar.shortest).decode()
    value = grammar.parse(text)
    # From every place on the way it is found as well.
    for end in range(len(grammar.shortest)):
        rest = grammar.completion(grammar.shortest[:end])
        assert rest is not None
        grammar.parse(grammar.vocabulary.decode_bytes(grammar.shortest[:end] + rest).decode())
    assert text == json.dumps(value, separators=(", ", ": ")), "the spacing is another one"


def test_completion_closes_what_is_open(grammars: Grammars) -> None:
    grammar = grammars.of(
        tool({"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "object"}}})
    )

    def complete(text: str) -> str:
        rest = grammar.completion(grammar.vocabulary.tokenize_str(text))
        assert rest is not None
        return grammar.vocabulary.decode_bytes(rest).decode()

    assert complete('{"a": "half a wo') == '", "b": []}'
    assert complete('{"a": "say \\"hi') == '", "b": []}'
    assert complete('{"a": "", "b": [{}, {') == "}]}"


def test_only_the_wire_formats_spacing_and_order(grammars: Grammars) -> None:
    grammar = grammars.of(tool({"b": {"type": "integer"}, "a": {"type": "integer"}}))
    assert accepts(grammar, '{"b": 1, "a": 2}')
    for text in ('{"b":1,"a":2}', '{"a": 2, "b": 1}', '{ "b": 1, "a": 2}', '{"b": 1, "a": 2}\n', '{"b": 1}'):
        assert not accepts(grammar, text)


def test_properties_beyond_the_schema_only_where_it_asks_for_them(grammars: Grammars) -> None:
    inner = {"type": "object", "properties": {"x": {"type": "integer"}}}
    grammar = grammars.of(tool({"o": inner}))
    assert accepts(grammar, '{"o": {"x": 1}}')
    assert not accepts(grammar, '{"o": {"x": 1, "y": 1}}')
    assert not accepts(grammar, '{"o": {}, "p": 1}')
    assert accepts(grammars.of(tool({"o": inner}, additionalProperties=True)), '{"o": {}, "p": 1}')
    assert accepts(grammars.of(tool({"o": {"type": "object"}})), '{"o": {"free": 1}}')
    assert not accepts(grammars.of(ToolSpec(name="bare")), '{"a": 1}')
    assert accepts(grammars.of(ToolSpec(name="bare")), "{}")


@pytest.mark.parametrize(
    "parameters",
    [
        {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "integer"}}}]},
        {"properties": {"a": {"type": "integer"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {
            "$defs": {"d": {"properties": {"a": {"type": "integer"}}}},
            "$ref": "#/$defs/d",
            "properties": {"b": {}},
        },
    ],
)
def test_objects_put_together_from_parts_are_not_contradicted(parameters: dict[str, Any]) -> None:
    schema = {"type": "object", **parameters}
    value = {"a": 1, "b": 2}
    assert Draft202012Validator(closed(schema)).is_valid(value)


def test_what_the_grammar_cannot_say_is_checked_afterwards(grammars: Grammars) -> None:
    grammar = grammars.of(tool({"x": {"type": "string", "format": "date"}}))
    assert accepts(grammar, '{"x": "2023-02-29"}')
    with pytest.raises(DecodeError, match="2023-02-29"):
        grammar.parse('{"x": "2023-02-29"}')
    free = grammars.of(tool({"x": {"type": "number"}}, additionalProperties=True))
    for text in ('{"x": 1, "y": 1, "y": 2}', '{"x": 1e999}', '{"x": NaN}', '{"x": 1', '{"x": "\\ud800"}'):
        with pytest.raises(DecodeError):
            free.parse(text)


def test_a_schema_beyond_the_grammar_is_an_error(grammars: Grammars) -> None:
    with pytest.raises(SchemaNotSupported, match="'t'"):
        grammars.of(tool({"x": {"type": "string", "pattern": "(a)\\1"}}))


def test_a_grammar_is_compiled_once_per_tool(grammars: Grammars) -> None:
    first = grammars.of(tool({"x": {"type": "string"}}))
    assert grammars.of(tool({"x": {"type": "string"}})) is first
    assert grammars.of(tool({"y": {"type": "string"}})) is not first
