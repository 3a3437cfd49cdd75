"""Random schemas, random weights, random budgets: what is returned is valid, whatever the model wants to say."""

from __future__ import annotations

import json
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agent_specializer.edge.engine import EdgeEngine
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.request import Request
from agent_specializer.edge.transcript import arguments_text
from agent_specializer.edge.written import Written, loops
from agent_specializer.errors import DecodeError
from agent_specializer.messages import Message, Reply
from agent_specializer.specs import Toolset, ToolSpec

names = st.text("abcdefgxyz_ é", min_size=1, max_size=6)
bound = st.integers(-1000, 1000)


def _between(kind: str, low: int, span: int) -> dict[str, Any]:
    return {"type": kind, "minimum": low, "maximum": low + span}


scalars = st.one_of(
    st.just({"type": "string"}),
    st.builds(
        lambda a, b: {"type": "string", "minLength": a, "maxLength": a + b},
        st.integers(0, 8),
        st.integers(0, 9),
    ),
    st.sampled_from(["^[a-c]{2,4}$", "^(foo|bar)-[0-9]+$", "^x*y$", "[0-9]{3}"]).map(
        lambda pattern: {"type": "string", "pattern": pattern}
    ),
    st.sampled_from(["date", "time", "date-time", "email", "ipv4", "uuid", "uri"]).map(
        lambda name: {"type": "string", "format": name}
    ),
    st.builds(_between, st.sampled_from(["integer", "number"]), bound, st.integers(0, 500)),
    st.integers(1, 12).map(lambda n: {"type": "integer", "multipleOf": n}),
    st.just({"type": "boolean"}),
    st.just({"type": ["string", "null"]}),
    st.just({}),
    st.lists(st.one_of(names, bound, st.booleans(), st.none()), min_size=1, max_size=4).map(
        lambda v: {"enum": v}
    ),
    names.map(lambda v: {"const": v}),
)


def _object(properties: dict[str, Any], required: list[bool], extra: Any) -> dict[str, Any]:
    needed = [name for name, wanted in zip(properties, required, strict=False) if wanted]
    schema = {"type": "object", "properties": properties, "required": needed}
    return schema if extra is None else {**schema, "additionalProperties": extra}


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        _object,
        st.dictionaries(names, values, max_size=4),
        st.lists(st.booleans(), min_size=4, max_size=4),
        st.one_of(st.none(), st.none(), st.just(True), values),
    )


schemas = objects(
    st.recursive(
        scalars,
        lambda inner: st.one_of(
            objects(inner),
            st.builds(
                lambda items, low, more: {
                    "type": "array",
                    "items": items,
                    "minItems": low,
                    "maxItems": low + more,
                },
                inner,
                st.integers(0, 3),
                st.integers(0, 3),
            ),
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"anyOf": parts}),
        ),
        max_leaves=6,
    )
)


@pytest.fixture(scope="module")
def engines(make_tiny, tiny_tokenizer):
    @cache
    def make(seed: int) -> EdgeEngine:
        kind = ("gemma3", "llama", "qwen2")[seed % 3]
        return EdgeEngine(make_tiny(kind, seed), tiny_tokenizer)

    return make


def assert_valid(reply: Reply, toolset: Toolset, budget: int) -> None:
    for call in reply.calls:
        tool = toolset.tool(call.name)  # a registered one
        Draft202012Validator(tool.parameters, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(
            call.arguments
        )
    assert len({(call.name, arguments_text(call.arguments)) for call in reply.calls}) == len(reply.calls)
    labels = 40 * (len(reply.calls) + 1)  # names are not counted in the budget
    assert reply.usage.completion_tokens <= budget + labels


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    parameters=st.lists(schemas, min_size=1, max_size=3),
    seed=st.integers(0, 11),
    budget=st.integers(1, 90),
    temperature=st.sampled_from([0.0, 0.0, 1.5]),
    text=st.text(max_size=20),
)
def test_every_call_that_is_returned_is_valid(engines, parameters, seed, budget, temperature, text) -> None:
    toolset = Toolset(
        tools=tuple(
            ToolSpec(name=f"tool {index}", parameters=schema) for index, schema in enumerate(parameters)
        )
    )
    messages = [Message(role="user", content=text)]
    options = ReplyOptions(
        max_tokens=budget, tool_choice="any", temperature=temperature, seed=seed, max_calls=3
    )
    engine = engines(seed)
    try:
        reply = engine.reply(messages, toolset, options=options)
    except DecodeError:
        (again,) = engine.reply_batch([Request(messages, toolset, options=options)])
        assert isinstance(again, DecodeError)
        return
    assert reply.calls
    assert_valid(reply, toolset, budget)
    (batched,) = engine.reply_batch([Request(messages, toolset, options=options)])
    assert isinstance(batched, Reply)
    assert batched.calls == reply.calls


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(parameters=schemas, seed=st.integers(0, 11))
def test_a_budget_for_the_shortest_arguments_is_enough(engines, parameters, seed) -> None:
    tool = ToolSpec(name="tool", parameters=parameters)
    engine = engines(seed)
    shortest = engine.grammars.of(tool).shortest
    if shortest is None:
        return
    options = ReplyOptions(max_tokens=len(shortest), tool_choice="tool", parallel_calls=False)
    (reply,) = engine.reply_batch(
        [Request([Message(role="user", content="go")], Toolset(tools=(tool,)), options=options)]
    )
    # Only what the grammar cannot say may be in the way: a date that does not exist.
    assert "not valid" in str(reply) if isinstance(reply, DecodeError) else len(reply.calls) == 1


few = st.text('ab",{}[]:\\ ', max_size=2)
values = st.recursive(
    st.none() | few,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(few, inner), max_size=3).map(tuple),
    max_leaves=8,
)


def written(value: object) -> str:
    """JSON in which a tuple of pairs is an object, with as many properties of a name as it says."""
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(name)}: {written(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


@given(properties=st.lists(st.tuples(few, values), max_size=4), cut=st.integers(0, 200))
def test_a_property_that_comes_twice_is_seen_when_its_name_ends(properties, cut) -> None:
    text = written(tuple(properties)).encode()
    found: list[bool] = []
    json.loads(text, object_pairs_hook=lambda pairs: found.append(len(dict(pairs)) < len(pairs)))
    bytewise = SimpleNamespace(vocabulary=SimpleNamespace(decode_bytes=bytes))
    value = Written(bytewise)
    seen = []
    for byte in text:
        ahead = value.then([byte])
        value.follow([byte])
        assert ahead.repeats == value.repeats
        seen.append(value.repeats)
    assert any(seen) == any(found)
    assert all(byte == 34 for byte, repeats in zip(text, seen, strict=True) if repeats)
    whole = Written(bytewise)
    whole.follow(list(text[:cut]))
    assert whole.repeats == any(seen[:cut])


def test_a_loop_is_a_run_that_came_often_enough_and_is_long_enough() -> None:
    assert loops([1, 2, 3, 2, 3, 2, 3], run=2, times=3)
    assert not loops([1, 2, 3, 2, 3, 2, 3], run=1, times=3)
    assert not loops([2, 3, 2, 3, 2, 4], run=4, times=3)
    assert not loops([7] * 15, run=8, times=3, least=16)
    assert loops([7] * 16, run=8, times=3, least=16)
