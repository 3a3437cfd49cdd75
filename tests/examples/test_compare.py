"""The promises of call comparison: what counts as the same call, and what does not."""

import pytest

from agent_specializer.examples.compare import same_call, same_calls, same_value
from agent_specializer.messages import Call


def call(tool: str = "set_light", **arguments: object) -> Call:
    return Call(name=tool, arguments=arguments)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (" Kitchen ", "kitchen"),
        ("STRASSE", "straße"),
        (20, 20.0),
        ([1, "A"], [1.0, "a "]),
        ({"x": "Y"}, {"x": "y"}),
    ],
)
def test_values_that_are_the_same(a, b):
    assert same_value(a, b)
    assert same_value(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, True),
        (0, False),
        ("1", 1),
        (None, ""),
        ([1, 2], [2, 1]),
        ({"x": 1}, {"x": 1, "y": 2}),
        ("a", ["a"]),
    ],
)
def test_values_that_differ(a, b):
    assert not same_value(a, b)
    assert not same_value(b, a)


def test_every_gold_argument_must_be_there_and_no_other():
    gold = call(room="kitchen", level=20)
    assert same_call(call(level=20.0, room="Kitchen"), gold)
    assert not same_call(call(room="kitchen"), gold)
    assert not same_call(call(room="kitchen", level=20, tone="warm"), gold)
    assert not same_call(call("set_lamp", room="kitchen", level=20), gold)


def test_accepted_values_widen_gold_arguments_and_allow_optional_ones():
    gold = call(day="2019-03-01")
    accepted = {"set_light": {"day": ["2019-03-01", "today"], "tone": ["warm"]}}
    assert same_call(call(day="Today"), gold, accepted)
    assert same_call(call(day="today", tone="warm"), gold, accepted)
    assert not same_call(call(day="today", tone="cold"), gold, accepted)
    assert not same_call(call(tone="warm"), gold, accepted)


def test_order_of_calls_does_not_matter_but_their_number_does():
    a, b = call("a", x=1), call("b", x=2)
    assert same_calls([b, a], [a, b])
    assert same_calls([], [])
    assert not same_calls([a, a], [a, b])
    assert not same_calls([a], [a, a])
    assert not same_calls([], [a])


def test_calls_pair_off_even_when_accepted_values_overlap():
    gold = [call("a", x=1), call("a", x=2)]
    accepted = [{"a": {"x": [1, 2]}}, {"a": {"x": [2]}}]
    assert same_calls([call("a", x=2), call("a", x=1)], gold, accepted)
    assert same_calls([call("a", x=2), call("a", x=2)], gold, accepted)
    assert not same_calls([call("a", x=1), call("a", x=1)], gold, accepted)
