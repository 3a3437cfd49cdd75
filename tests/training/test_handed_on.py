"""Requests that want what another one's result says, and tools that pass any text on."""

from __future__ import annotations

import random

import pytest
from jsonschema import Draft202012Validator

from agent_specializer.examples import Example
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.data import Composition
from agent_specializer.training.handed_on import handed_on, takes_any_text
from agent_specializer.training.passing_on import REQUESTS, TOOLS, with_passing_on


def tool(name: str, **properties: object) -> ToolSpec:
    return ToolSpec(name=name, description=name, parameters={"type": "object", "properties": properties})


def asked(text: str, name: str, **arguments: object) -> Example:
    return Example("x", (Message(role="user", content=text),), (Call(name=name, arguments=arguments),))


TEXT = {"type": "string"}
LOOK = asked("Find a hotel in Turin", "find_hotel", city="Turin")
BOOK = tool("book", hotel=TEXT, nights={"type": "integer"}, board={"enum": ["half", "full"]})
MAIL = tool("mail", to=TEXT, body=TEXT)


def test_a_value_is_cut_out_and_stands_in_the_result():
    second = asked(
        "Book the Golden Lion for 14 nights with half board", "book", hotel="Golden Lion", board="half"
    )
    for seed in range(60):
        both = handed_on(LOOK, second, BOOK, random.Random(seed))
        assert both is not None
        assert "Golden Lion" not in both.second
        assert both.second.startswith("Book ")
        assert both.second.endswith(" for 14 nights with half board"), "what may be picked from a list stays"
        assert "Golden Lion" in both.result
        assert both.made == LOOK.calls[0]
        assert both.wanted == second.calls[0]
        one_turn, two_turns = both.behind(both.in_one(random.Random(seed))), both.later(random.Random(seed))
        assert [m.role for m in one_turn] == ["user", "assistant", "tool"]
        assert [m.role for m in two_turns] == ["user", "assistant", "tool", "assistant", "user"]
        assert both.example(two_turns, both.wanted).calls == (both.wanted,)


def test_a_text_is_another_one_each_time():
    second = asked(
        'mail "the train is late" to ada@rail.example',
        "mail",
        to="ada@rail.example",
        body="the train is late",
    )
    bodies = set()
    for seed in range(60):
        both = handed_on(LOOK, second, MAIL, random.Random(seed))
        assert both is not None
        body = both.wanted.arguments["body"]
        if body == "the train is late":  # the address was handed on
            assert "ada@rail.example" in both.result
            continue
        assert both.wanted.arguments["to"] == "ada@rail.example"
        assert '"' not in both.second
        assert body in both.result
        bodies.add(body)
    assert len(bodies) > 10


@pytest.mark.parametrize(
    "second",
    [
        asked("Book it", "book", hotel="Golden Lion"),
        asked("Book the Golden Lion, yes, the Golden Lion", "book", hotel="Golden Lion"),
        asked("Book half board", "book", board="half"),
        asked("Book A4", "book", hotel="A4"),
        asked("Find the Golden Lion", "find_hotel", city="Golden Lion"),
    ],
    ids=["not said", "said twice", "picked from a list", "too short", "the same tool"],
)
def test_not_all_can_be_handed_on(second):
    of = BOOK if second.calls[0].name == "book" else tool("find_hotel", city=TEXT)
    assert all(handed_on(LOOK, second, of, random.Random(seed)) is None for seed in range(20))


@pytest.mark.parametrize(
    ("name", "any_text"),
    [
        ("body", True),
        ("mail_body", True),
        ("messageText", True),
        ("city_details", False),
        ("textbook", False),
        ("q", False),
    ],
)
def test_which_parameters_take_any_text(name, any_text):
    assert takes_any_text(name) is any_text


def test_tools_that_pass_on_are_asked_for_in_words_that_hold_all_they_take():
    rng = random.Random(0)
    for each in TOOLS:
        example = each.request("rain until noon", rng)
        (call,) = example.calls
        Draft202012Validator(each.tool.parameters).validate(call.arguments)
        assert call.arguments[each.text] == "rain until noon"
        assert takes_any_text(each.text)
        assert all(value in example.messages[0].content for value in call.arguments.values())
    assert len({each.tool.fingerprint for each in TOOLS}) > 40


def test_a_composition_has_one_of_them_more():
    composition = Composition(Toolset(tools=(BOOK, MAIL)), (LOOK,))
    for seed in range(10):
        more = with_passing_on(composition, random.Random(seed))
        (new,) = set(more.toolset.names) - {"book", "mail"}
        assert [each.calls[0].name for each in more.examples[1:]] == [new] * REQUESTS
        assert [n for n in more.toolset.names if n != new] == ["book", "mail"], "the others in their order"
    hidden = Composition(composition.toolset, (LOOK,), opaque=True)
    assert with_passing_on(hidden, random.Random(0)) is hidden, "its name would be the only one"
