"""Requests that nobody made: what they say, and which calls they are for."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date

import pytest

from agent_specializer.examples import Example
from agent_specializer.loragen.toolkeys import required
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.made_up import (
    MADE_UP,
    TODAY,
    from_descriptions,
    joined,
    of_two,
    on_another_day,
    place_of,
    vague,
    withheld,
)


def tool(name: str, description: str, *needs: str) -> ToolSpec:
    properties = {need: {"type": "string"} for need in needs}
    return ToolSpec(
        name=name,
        description=description,
        parameters={"type": "object", "properties": properties, "required": list(needs)},
    )


HOME = Toolset(
    tools=(
        tool("light", "Sets a light in a room. Slowly.", "room"),
        tool("stop", "Stops all that is playing"),
        tool("go", "Go"),
    )
)


def asked(text: str, *names: str) -> Example:
    return Example("x", (Message(role="user", content=text),), tuple(Call(name=name) for name in names))


def said(text: str, **arguments: object) -> Example:
    return Example("x", (Message(role="user", content=text),), (Call(name="light", arguments=arguments),))


def test_one_for_two_things_wants_two_calls():
    hall, others = (
        said("dim the hall at noon", room="hall", when="noon"),
        [said("attic, please", room="attic")],
    )
    texts = set()
    for seed in range(40):
        both = of_two(hall, others, random.Random(seed))
        assert both is not None
        first, second = both.calls
        assert first == hall.calls[0]
        assert second.arguments == {"room": "attic", "when": "noon"}
        texts.add(both.request)
    assert "dim the hall and the attic at noon" in texts
    assert "dim both the hall and the attic at noon" in texts


@pytest.mark.parametrize(
    ("asked_for", "other"),
    [
        (said("dim the hall", room="hall"), said("the hall", room="Hall")),
        (said("dim the hall and the attic", room="hall"), said("attic", room="attic")),
        (said("find cats", query="cats"), said("dogs", query="dogs")),
        (said("wake me in 300", seconds=300), said("in 200", seconds=200)),
        (said("dim it", room="hall"), said("attic", room="attic")),
    ],
    ids=["the same", "asked for already", "one value for both", "no string", "not said"],
)
def test_not_all_can_be_doubled(asked_for, other):
    assert of_two(asked_for, [other], random.Random(0)) is None
    assert of_two(asked_for, [asked("stop", "stop")], random.Random(0)) is None, "of another tool"


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("Book the Golden Lion.", "golden lion", "the Golden Lion"),
        ('say "no way" twice', "no way", '"no way"'),
        ("pay $200 now", 200, "$200"),
        ("the hall in the hall", "hall", None),
        ("hallway", "hall", None),
        ("yes True", True, None),
        ("in a5", "a5", None),
    ],
)
def test_where_a_value_stands(text, value, found):
    place = place_of(text, value)
    assert (text[slice(*place)] if place else None) == found


def test_a_description_makes_a_request_unless_it_says_next_to_nothing():
    made = from_descriptions({"home": HOME})
    assert [[call.name for call in each.calls] for each in made] == [["light"], ["stop"]]
    assert "ets a light in a room" in made[0].request
    assert "Slowly" not in made[0].request
    assert {each.category for each in made} == {MADE_UP}
    assert made == from_descriptions({"home": HOME}), "the same every time"


def test_asked_vaguely_words_are_right_exactly_where_something_is_required():
    calls = {each.request: [call.name for call in each.calls] for each in vague(HOME)}
    assert len(calls) == 2
    for request, names in calls.items():
        (about,) = [t for t in HOME.tools if t.description[2:].split(".")[0] in request and t.name != "go"]
        assert names == ([] if required(about) else [about.name])


def test_joined_requests_ask_for_all_their_calls_that_were_not_made_yet_in_their_order():
    single = [asked("Dim it.", "light"), asked("Stop!", "stop"), asked("I go", "go"), asked("Sing", "sing")]
    several = [asked("both", "light", "stop"), asked("nothing")]
    found = joined([*single, *several, asked("go on", "go")], random.Random(0), count=200)
    assert len(found) == 200
    of = {each.request.casefold().rstrip(".!"): each.calls[0].name for each in single} | {"go on": "go"}
    counted: Counter[tuple[int, int]] = Counter()
    for each in found:
        made = [call for message in each.messages for call in message.calls]
        names = [call.name for call in (*made, *each.calls)]
        counted[len(names), len(made)] += 1
        said = each.request.casefold()
        parts = sorted((text for text in of if text in said), key=said.index)
        parts = [text for text in parts if not any(text in other and text != other for other in parts)]
        assert [of[text] for text in parts] == names, each.request
        assert len(names) == len(set(names))
        assert [message.role for message in each.messages[1:]] == ["assistant", "tool"] * len(made)
    assert set(counted) == {(parts, made) for parts in (2, 3, 4) for made in range(parts + 1)}
    assert min(counted.values()) > 4


def test_joined_sentences_keep_the_capitals_of_names_and_of_i():
    texts = {
        each.request
        for each in joined([asked("Dim", "light"), asked("I go", "go")], random.Random(1), count=80)
    }
    assert any("dim" in text and text[0] == "I" for text in texts)
    assert not any("i go" in text for text in texts)


def test_too_few_or_the_same_requests_join_to_nothing():
    assert joined([], random.Random(0), count=3) == ()
    assert joined([asked("a", "go")], random.Random(0), count=3) == ()
    assert joined([asked("a", "go"), asked("b", "go")], random.Random(0), count=3) == ()


MAIL = tool("mail", "Writes", "to", "about")


def mail(text: str, **arguments: object) -> Example:
    return Example("x", (Message(role="user", content=text),), (Call(name="mail", arguments=arguments),))


@pytest.mark.parametrize(
    ("text", "to", "left"),
    [
        ("write a mail to bob at once", "bob", "write a mail at once"),
        ("Write a mail to 'Bob', please.", "bob", "Write a mail, please."),
        ("mail order (42) about that", 42, "mail order about that"),
        ("tell Bob's wife", "Bob", "tell wife"),
        ("I am with the Bob, in the end", "Bob", "I am, in the end"),
    ],
)
def test_a_value_is_cut_out_with_the_words_that_lead_to_it(text: str, to: object, left: str):
    found = withheld(mail(text, to=to), MAIL, random.Random(0))
    assert found is not None
    example, name = found
    assert (example.request, example.calls, name) == (left, (), "to")


@pytest.mark.parametrize(
    ("text", "to"),
    [
        ("write to bob, and call bob", "bob"),  # it would still stand there
        ("write to bobby", "bob"),
        ("to Bob", "Bob"),  # next to nothing would be left
        ("write to him", True),
        ("write to all", ["all"]),
        ("write to no one", ""),
    ],
)
def test_what_cannot_be_cut_out_is_not(text: str, to: object):
    assert withheld(mail(text, to=to), MAIL, random.Random(0)) is None


def test_only_what_is_required_is_withheld_and_not_what_was_said_before():
    optional = MAIL.model_copy(update={"parameters": MAIL.parameters | {"required": ["about"]}})
    asked_for_both = mail("write to bob about rain", to="bob", about="rain")
    found = [withheld(asked_for_both, optional, random.Random(seed)) for seed in range(9)]
    assert {each[1] for each in found if each} == {"about"}
    both = {each[1] for seed in range(9) if (each := withheld(asked_for_both, MAIL, random.Random(seed)))}
    assert both == {"to", "about"}
    before = Message(role="user", content="Where is bob?"), Message(role="assistant", content="Here.")
    later = Example("x", (*before, *mail("write to bob now").messages), mail("", to="bob").calls)
    assert withheld(later, MAIL, random.Random(0)) is None


FRIDAY = date(2019, 3, 1)


def table(text: str, day: str, answer: str = "On 2019-03-01 all is taken.") -> Example:
    """A table booked for `day` in a conversation's second turn, where `text` is said."""
    words = (Message(role="user", content="A table, please."), Message(role="assistant", content=answer))
    messages = (*words, Message(role="user", content=text))
    return Example("x", messages, (Call(name="book", arguments={"day": day, "seats": 2}),))


def day_of(example: Example) -> tuple[date, date]:
    """The day that an example says it is on, and that of its call."""
    moved = date.fromisoformat(example.messages[1].content[3:13])
    first = example.messages[0].content
    assert first.endswith("A table, please.")
    assert any(
        form in first
        for form in (str(moved), f"{moved:%B} {moved.day}, {moved.year}", f"{moved.day} {moved:%B}")
    )
    assert example.calls[0].arguments["seats"] == 2
    return moved, date.fromisoformat(example.calls[0].arguments["day"])


@pytest.mark.parametrize("seed", range(8))
def test_on_another_day_dates_are_as_far_away_as_they_were(seed: int):
    today, day = day_of(on_another_day(table("tomorrow", "2019-03-02"), FRIDAY, random.Random(seed)))
    assert (day - today).days == 1


def test_days_of_the_week_and_of_a_month_stay_what_they_are():
    rng = random.Random(0)
    weekly = [day_of(on_another_day(table("next Monday", "2019-03-04"), FRIDAY, rng)) for _ in range(20)]
    assert {(today.weekday(), day.weekday()) for today, day in weekly} == {(4, 0)}
    assert len({(today.month, today.day) for today, _ in weekly}) > 10
    monthly = [day_of(on_another_day(table("on March 7th", "2019-03-07"), FRIDAY, rng)) for _ in range(20)]
    assert {(day.month, day.day, today.month, today.day) for today, day in monthly} == {(3, 7, 3, 1)}
    assert len({today.year for today, _ in monthly}) > 5
    both = [day_of(on_another_day(table("Thursday, the 7th", "2019-03-07"), FRIDAY, rng)) for _ in range(20)]
    assert {(day.day, day.weekday(), today.weekday()) for today, day in both} == {(7, 3, 4)}


def test_what_only_looks_like_a_date_or_is_none_in_the_other_year_stays():
    moved = on_another_day(
        table("May 2nd", "2020-02-29", "On 2019-03-01, not 2019-13-41"), FRIDAY, random.Random(1)
    )
    assert moved.messages[1].content.endswith("not 2019-13-41")
    year = int(moved.messages[1].content[3:7])
    expected = "2020-02-29" if (year + 1) % 4 else f"{year + 1}-02-29"
    assert moved.calls[0].arguments["day"] == expected


def test_instructions_say_what_day_it_is():
    assert (
        TODAY.search("Books tables (Today is Friday 2019-03-01. Dates are written YYYY-MM-DD)")[1]
        == "2019-03-01"
    )
    assert TODAY.search("Books tables. today is 2020-12-31")[1] == "2020-12-31"
    assert not TODAY.search("Says what day today is")
