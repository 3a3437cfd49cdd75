"""Specs: identity by content, immutability, and errors that say what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent_specializer.specs import AgentSpec, Toolset, ToolSpec, canonical_json, fingerprint

LIGHT = {
    "name": "set_light",
    "description": "Dims a light — in %.",
    "parameters": {
        "type": "object",
        "properties": {"room": {"type": "string"}, "level": {"type": "integer", "minimum": 0}},
        "required": ["room"],
    },
}
WEATHER = {"name": "get_weather", "description": "Weather of a city."}

LIGHT_FINGERPRINT = "6f6d603145a574006c01ecc50a9ed17968b2ab09064f1623ad988e2bea580f21"
WEATHER_FINGERPRINT = "5701f18bffbe66957c1945c5399e27f49f2afaeba8198e7401fae72052e9be54"
TOOLSET_FINGERPRINT = "f0166bb00477122266149e26559350a603b21b7688b4ed5d9c0fada650d5ed64"
AGENT_FINGERPRINT = "438f872db346ce461cd34307fb6ed6febe5f6e516929e72f71928c6ee0197618"

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.text(max_size=8)),
    lambda child: st.one_of(
        st.lists(child, max_size=3), st.dictionaries(st.text(max_size=5), child, max_size=4)
    ),
    max_leaves=10,
)


def shuffled(value: Any, random: Any) -> Any:
    """`value` with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key], random) for key in keys}
    return [shuffled(child, random) for child in value] if isinstance(value, list) else value


def test_fingerprints_are_pinned() -> None:
    """Every cached adapter is keyed by these: a change here throws all of them away."""
    light, weather = ToolSpec(**LIGHT), ToolSpec(**WEATHER)
    assert light.fingerprint == LIGHT_FINGERPRINT
    assert weather.fingerprint == WEATHER_FINGERPRINT
    assert Toolset(tools=(light, weather), instructions="Be brief.").fingerprint == TOOLSET_FINGERPRINT
    assert AgentSpec(name="home", tools=("set_light", "get_weather")).fingerprint == AGENT_FINGERPRINT


def test_fingerprints_are_the_same_in_another_process() -> None:
    code = f"from agent_specializer.specs import ToolSpec; print(ToolSpec(**{LIGHT!r}).fingerprint)"
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == LIGHT_FINGERPRINT


@given(
    extra=st.dictionaries(st.text(max_size=5).map(lambda name: f"x-{name}"), JSON, max_size=4),
    random=st.randoms(),
)
def test_the_order_of_json_keys_does_not_show(extra: dict[str, Any], random: Any) -> None:
    parameters = {**LIGHT["parameters"], **extra}
    one = ToolSpec(name="t", parameters=parameters)
    other = ToolSpec(name="t", parameters=shuffled(parameters, random))
    assert one.fingerprint == other.fingerprint
    assert one == other


@given(order=st.permutations(range(4)))
def test_the_order_of_tools_does_not_show(order: list[int]) -> None:
    tools = [ToolSpec(name=f"tool{index}", description=str(index)) for index in range(4)]
    one, other = Toolset(tools=tuple(tools)), Toolset(tools=tuple(tools[index] for index in order))
    assert one == other
    assert one.fingerprint == other.fingerprint
    assert one.names == ("tool0", "tool1", "tool2", "tool3")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "set_lights"},
        {"description": "Dims a light - in %."},
        {"parameters": {**LIGHT["parameters"], "required": []}},
        {"parameters": {**LIGHT["parameters"], "required": ["room", "level"]}},
        {"parameters": {**LIGHT["parameters"], "properties": {"room": {"type": "string"}}}},
        {"requests": ["it is too dark in here"]},
    ],
)
def test_any_change_of_a_tool_shows(change: dict[str, Any]) -> None:
    light, changed = ToolSpec(**LIGHT), ToolSpec(**{**LIGHT, **change})
    assert light.fingerprint != changed.fingerprint
    assert Toolset(tools=(light,)).fingerprint != Toolset(tools=(changed,)).fingerprint


def test_requests_are_kept_once_and_in_order_and_none_are_as_if_there_could_not_be_any() -> None:
    tool = ToolSpec(**LIGHT, requests=[" dim it ", "darker", "dim it", "  "])
    assert tool.requests == ("dim it", "darker")
    assert ToolSpec(**LIGHT, requests=[]).fingerprint == ToolSpec(**LIGHT).fingerprint
    with pytest.raises(ValueError, match="at most 64"):
        ToolSpec(**LIGHT, requests=[str(number) for number in range(65)])


def test_a_changed_tool_is_checked_and_has_a_fingerprint_of_its_own() -> None:
    light = ToolSpec(**LIGHT)
    assert light.changed(name="dim") == ToolSpec(**{**LIGHT, "name": "dim"})
    assert light.changed(name="dim").fingerprint != light.fingerprint
    with pytest.raises(ValueError, match="rename the tool"):
        light.changed(name="none")


def test_instructions_and_the_set_of_tools_show() -> None:
    light, weather = ToolSpec(**LIGHT), ToolSpec(**WEATHER)
    prints = {
        Toolset(tools=tools, instructions=instructions).fingerprint
        for tools in ((), (light,), (weather,), (light, weather))
        for instructions in ("", "Be brief.")
    }
    assert len(prints) == 8


def test_text_cannot_move_between_fields_unseen() -> None:
    assert (
        ToolSpec(name="a", description="bc").fingerprint != ToolSpec(name="ab", description="c").fingerprint
    )


@given(value=JSON)
def test_the_canonical_form_is_json_of_the_same_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value
    assert len(fingerprint(value)) == 64


def test_a_schema_is_copied_and_specs_cannot_be_assigned_to() -> None:
    parameters = json.loads(json.dumps(LIGHT["parameters"]))
    tool = ToolSpec(name="set_light", parameters=parameters)
    before = tool.fingerprint
    parameters["properties"]["room"]["type"] = "integer"
    assert tool.parameters["properties"]["room"] == {"type": "string"}
    assert ToolSpec(name="set_light", parameters=tool.parameters).fingerprint == before
    for spec, field in ((tool, "name"), (Toolset(), "tools"), (AgentSpec(name="a"), "instructions")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(spec, field, "other")


def test_equal_specs_are_one_key() -> None:
    assert len({ToolSpec(**LIGHT), ToolSpec(**LIGHT), ToolSpec(**WEATHER)}) == 2
    assert len({Toolset(tools=(ToolSpec(**LIGHT),)), Toolset(tools=(ToolSpec(**LIGHT),))}) == 1


def test_specs_survive_json() -> None:
    toolset = Toolset(tools=(ToolSpec(**LIGHT), ToolSpec(**WEATHER)), instructions="Be brief.")
    assert Toolset.model_validate_json(toolset.model_dump_json()).fingerprint == toolset.fingerprint


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object", "properties": {}}, {"properties": {}}])
def test_no_parameters_can_be_said_in_several_ways(parameters: Any) -> None:
    assert ToolSpec(name="t", parameters=parameters).fingerprint == ToolSpec(name="t").fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ToolSpec(name=""), "at least 1 character"),
        (lambda: ToolSpec(name="x" * 129), "at most 128 characters"),
        (lambda: ToolSpec(name=" a"), "no spaces at its ends"),
        (lambda: ToolSpec(name="a\nb"), "no control characters"),
        (lambda: ToolSpec(name="a", parameters=["x"]), "must be a JSON Schema object, got list"),
        (lambda: ToolSpec(name="a", parameters={"type": "string"}), 'must have "type": "object"'),
        (lambda: ToolSpec(name="a", parameters={"default": float("nan")}), "JSON compliant"),
        (lambda: ToolSpec(name="a", arguments={}), "Extra inputs"),
        (
            lambda: Toolset(tools=(ToolSpec(name="a"), ToolSpec(name="a", description="b"))),
            "two tools are called 'a'",
        ),
        (lambda: AgentSpec(name="a", tools=("t", "t")), "'t' is listed more than once"),
        (lambda: AgentSpec(name=""), "at least 1 character"),
    ],
)
def test_malformed_specs_say_what_is_wrong(make: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


def test_a_tool_is_found_by_name() -> None:
    toolset = Toolset(tools=(ToolSpec(**LIGHT), ToolSpec(**WEATHER)))
    assert toolset.tool("set_light") == ToolSpec(**LIGHT)
    with pytest.raises(KeyError):
        toolset.tool("none")


@pytest.mark.parametrize("name", ["none", "auto", "any"])
def test_a_tool_cannot_be_called_like_a_choice(name: str) -> None:
    with pytest.raises(ValidationError, match="rename the tool"):
        ToolSpec(name=name)
