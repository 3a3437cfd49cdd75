"""The shipped catalogues keep what the demo and the benchmarks rely on: valid, varied and fair."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer

from agent_specializer.errors import IntakeError, NotFound
from agent_specializer.specs import Toolset
from tool_specs import Catalogue, ExampleRequest, catalogues, load

PATHS = catalogues()
ALL = [load(path) for path in PATHS]
each = pytest.mark.parametrize("catalogue", ALL, ids=lambda catalogue: catalogue.agent.name)

ANNOTATIONS = {"description", "title", "default", "examples"}
KEYWORDS = {
    "object": {"properties", "required", "additionalProperties", "$defs"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"enum", "minLength", "maxLength", "pattern", "format"},
    "integer": {"enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set(),
}
FORMATS = {"date", "email", "ipv4", "uuid"}


def violations(schema: Any, definitions: dict[str, Any], where: str = "") -> list[str]:
    """What the strict rules forbid in `schema`: what decoding might not enforce, open objects, no type."""
    if not isinstance(schema, dict):
        return [f"{where}: not a schema"]
    keys = set(schema) - ANNOTATIONS
    if "$ref" in schema:
        known = schema["$ref"] in {f"#/$defs/{name}" for name in definitions}
        return [] if known and keys == {"$ref"} else [f"{where}: bad reference {schema['$ref']}"]
    if "const" in schema:
        return [] if keys <= {"const", "type"} else [f"{where}: {sorted(keys)} beside const"]
    if "anyOf" in schema:
        inner = [violations(sub, definitions, f"{where}/anyOf/{i}") for i, sub in enumerate(schema["anyOf"])]
        return list(itertools.chain(*inner)) + ([] if keys == {"anyOf"} else [f"{where}: keys beside anyOf"])
    kind = schema.get("type")
    if kind not in KEYWORDS:
        return [f"{where}: type {kind!r}"]
    found = [f"{where}: {key} in {kind}" for key in sorted(keys - KEYWORDS[kind] - {"type"})]
    if "enum" in schema and len(set(schema["enum"])) != len(schema["enum"]):
        found.append(f"{where}: a value occurs twice in enum")
    if schema.get("format", "date") not in FORMATS:
        found.append(f"{where}: format {schema['format']}")
    pattern = schema.get("pattern", "^$")
    if "(?" in pattern or not (pattern.startswith("^") and pattern.endswith("$")):
        found.append(f"{where}: pattern {pattern}")
    if kind == "array":
        found += violations(schema.get("items"), definitions, f"{where}/items")
    if kind == "object":
        if schema.get("additionalProperties") is not False:
            found.append(f"{where}: open object")
        if not set(schema.get("required", [])) <= set(schema["properties"]):
            found.append(f"{where}: required property that is not described")
        for group in ("properties", "$defs"):
            for name, sub in schema.get(group, {}).items():
                found += violations(sub, definitions, f"{where}/{group}/{name}")
    return found


def right_calls(example: ExampleRequest) -> list[tuple[str, dict[str, Any]]]:
    """The gold calls, and each again for every accepted value, with that value put in."""
    found = [(call.name, call.arguments) for call in example.calls]
    for call, entry in zip(example.calls, example.accepted or (), strict=False):
        for argument, values in entry[call.name].items():
            found += [(call.name, {**call.arguments, argument: value}) for value in values]
    return found


def test_there_are_enough_agents_and_they_can_live_in_one_home() -> None:
    assert len(ALL) >= 8
    names = [tool.name for catalogue in ALL for tool in catalogue.tools]
    assert len(set(names)) == len(names), "the registry has one tool of a name"
    assert len({catalogue.agent.name for catalogue in ALL}) == len(ALL)


def test_sizes_and_name_styles_vary() -> None:
    sizes = sorted(len(catalogue.tools) for catalogue in ALL)
    assert sizes[0] <= 6
    assert sizes[-1] == 30
    names = {tool.name for catalogue in ALL for tool in catalogue.tools}
    assert any("_" in name and "." not in name for name in names)
    assert any(name[0].islower() and name.lower() != name and "." not in name for name in names)
    assert any("." in name for name in names)


@each
def test_counts(catalogue: Catalogue) -> None:
    """Sizes, enough requests without a call and with two calls, and at least half of the tools used."""
    assert 5 <= len(catalogue.tools) <= 30
    assert 12 <= len(catalogue.requests) <= 14
    calls = [len(example.calls) for example in catalogue.requests]
    assert calls.count(0) * 6 >= len(calls)
    assert max(calls) == 2
    assert 2 <= calls.count(2) <= 4
    used = {call.name for example in catalogue.requests for call in example.calls}
    assert 2 * len(used) >= len(catalogue.tools)


def test_no_request_is_repeated() -> None:
    requests = [
        " ".join(example.request.lower().split()) for catalogue in ALL for example in catalogue.requests
    ]
    assert len(set(requests)) == len(requests)


def test_no_request_is_a_tool_description() -> None:
    """A request in a description's own words would test string matching."""
    for catalogue in ALL:
        descriptions = [set(tool.description.lower().strip(".").split()) for tool in catalogue.tools]
        for example in catalogue.requests:
            words = set(example.request.lower().split())
            assert all(len(words & description) < 0.7 * len(description) for description in descriptions)


@each
def test_schemas_keep_the_strict_rules(catalogue: Catalogue) -> None:
    for tool in catalogue.tools:
        Draft202012Validator.check_schema(tool.parameters)
        assert violations(tool.parameters, tool.parameters.get("$defs", {}), tool.name) == []
        assert tool.description


def test_the_strict_rules_notice_what_they_forbid() -> None:
    closed = {"type": "object", "additionalProperties": False}
    forbidden: list[dict[str, Any]] = [
        {"type": "string", "pattern": "^(?!a).*$"},
        {"type": "string", "not": {"const": "a"}},
        {"type": "string", "format": "hostname"},
        {"$ref": "https://example.com/schema"},
        {"type": "object", "properties": {}},
        {},
    ]
    for schema in forbidden:
        assert violations({**closed, "properties": {"a": schema}}, {}), schema


def test_together_the_schemas_use_every_kind_that_decoding_supports() -> None:
    text = json.dumps([tool.parameters for catalogue in ALL for tool in catalogue.tools])
    words = (
        "enum",
        "const",
        "anyOf",
        "$ref",
        "pattern",
        "format",
        "minimum",
        "exclusiveMinimum",
        "minItems",
        "boolean",
    )
    assert [word for word in words if f'"{word}"' not in text] == []


@each
def test_gold_calls_and_accepted_values_are_valid(catalogue: Catalogue) -> None:
    for example in catalogue.requests:
        for name, arguments in right_calls(example):
            schema = catalogue.toolset.tool(name).parameters
            validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            assert not list(validator.iter_errors(arguments)), (name, arguments)


@each
def test_the_grammar_can_write_every_gold_call(catalogue: Catalogue) -> None:
    """Gold that constrained decoding cannot produce would be an unfair example."""
    tokenizer = LLTokenizer("byte")
    layout = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
    for example in catalogue.requests:
        for call in example.calls:
            schema = catalogue.toolset.tool(call.name).parameters
            assert list(call.arguments) == [key for key in schema["properties"] if key in call.arguments]
            matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema, defaults=layout))
            tokens = tokenizer.tokenize_str(json.dumps(call.arguments, ensure_ascii=False))
            assert matcher.try_consume_tokens(tokens) == len(tokens), (call, matcher.get_error())
            assert matcher.is_accepting()


@each
def test_free_text_values_are_spans_of_the_request(catalogue: Catalogue) -> None:
    """Exact match is only fair when the user said the value; those of an enum are implied."""
    for example in catalogue.requests:
        said = example.request.casefold()
        for call in example.calls:
            for name, value in call.arguments.items():
                schema = catalogue.toolset.tool(call.name).parameters["properties"][name]
                if isinstance(value, str) and "enum" not in schema and "anyOf" not in schema:
                    assert value.casefold() in said, (example.request, value)


@each
def test_a_catalogue_makes_a_toolset(catalogue: Catalogue) -> None:
    assert isinstance(catalogue.toolset, Toolset)
    assert set(catalogue.toolset.names) == set(catalogue.agent.tools)
    assert catalogue.toolset.instructions == catalogue.agent.instructions
    assert catalogue.agent.instructions
    assert catalogue.title


def test_loading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="smart_home"):
        load(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text('{\n"agent": ')
    with pytest.raises(IntakeError, match=r"cut\.json:2: not JSON"):
        load(tmp_path / "cut.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(IntakeError, match="not a catalogue"):
        load(tmp_path / "list.json")


def test_a_call_of_an_unknown_tool_is_refused(tmp_path: Path) -> None:
    data = json.loads(PATHS[0].read_text(encoding="utf-8"))
    data["requests"].append({"request": "x", "calls": [{"name": "fly_away", "arguments": {}}]})
    (tmp_path / "bad.json").write_text(json.dumps(data))
    with pytest.raises(IntakeError, match="fly_away"):
        load(tmp_path / "bad.json")


def test_accepted_values_include_the_gold() -> None:
    with pytest.raises(ValueError, match="lacks the value"):
        ExampleRequest.model_validate(
            {"request": "x", "calls": [{"name": "t", "arguments": {"a": 1}}], "accepted": [{"t": {"a": [2]}}]}
        )
