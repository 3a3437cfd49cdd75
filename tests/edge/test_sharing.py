"""Whose words are whose: what fits a schema, what asks for an optional parameter, and who has which words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agent_specializer.edge.copying import Source
from agent_specializer.edge.grammar import Grammars
from agent_specializer.edge.said import Beginnings
from agent_specializer.edge.sharing import FOUND, MISSED, Fits, evidence, fitting, share, told
from agent_specializer.specs import ToolSpec

PROPERTIES = {
    "service": {"type": "string"},
    "environment": {"enum": ["production", "staging"]},
    "since": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
    "copies": {"type": "integer", "maximum": 50},
    "regions": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2}-[a-z]+$"}},
    "force": {"type": "boolean"},
    "limits": {"type": "object", "properties": {"memory": {"type": "integer"}}},
}


ALL = (0, 100)


def tool(*required: str) -> ToolSpec:
    parameters = {"type": "object", "properties": PROPERTIES, "required": list(required)}
    return ToolSpec(name="scale", description="", parameters=parameters)


@pytest.fixture
def fits(tiny_tokenizer):
    grammars = Grammars(tiny_tokenizer, len(tiny_tokenizer))

    def of(text: str) -> dict[str, dict[str, str]]:
        source = Source(tiny_tokenizer, tiny_tokenizer(f"User: {text}\nCall:").input_ids, grammars.vocabulary)
        found = fitting(source, grammars.of(tool())).places
        return {
            name: {value: source.text[slice(*span)] for value, span in places.items()}
            for name, places in found.items()
        }

    return of


def test_what_fits_is_found_for_what_a_schema_constrains_alone(fits) -> None:
    found = fits("Run 12 of cart in Production, eu-west and us-east, as since 2026-04-18, at 90 percent")
    assert found == {
        "environment": {"production": "Production"},
        "since": {"2026-04-18": "2026-04-18"},
        "copies": {"12": "12"},
        "regions": {"eu-west": "eu-west", "us-east": "us-east"},
    }
    assert fits("hello") == {"environment": {}, "since": {}, "copies": {}, "regions": {}}


def test_a_pattern_that_words_have_is_looked_for_in_what_is_no_word(tiny_tokenizer) -> None:
    grammars = Grammars(tiny_tokenizer, len(tiny_tokenizer))
    patterns = {"handle": "^[A-Za-z0-9_-]+$", "airport": "^[A-Z]{3}$", "day": "^(mon|tues)day$"}
    properties = {name: {"type": "string", "pattern": pattern} for name, pattern in patterns.items()}
    spec = ToolSpec(name="t", description="", parameters={"type": "object", "properties": properties})

    def found(text: str) -> tuple[dict[str, list[str]], frozenset[str]]:
        ids = tiny_tokenizer(f"User: {text}\nCall:").input_ids
        fits = fitting(Source(tiny_tokenizer, ids, grammars.vocabulary), grammars.of(spec))
        return {name: list(places) for name, places in fits.places.items()}, fits.missing

    places, missing = found("ask ann_7 for the flight from LIS on Monday")
    assert places == {"handle": ["ann_7", "LIS"], "airport": ["LIS"], "day": ["monday"]}
    assert missing == frozenset()
    places, missing = found("from lis")
    assert places == {"handle": [], "airport": [], "day": []}
    assert missing == {"day"}, "lis may be meant for LIS"


def test_words_that_no_required_parameter_could_have_ask_for_an_optional_one(fits) -> None:
    places: dict[str, Any] = {"environment": {"production": (0, 10)}, "copies": {"12": (11, 13)}}
    assert told(tool("service"), places, ALL) == {"environment"}, "a number asks for nothing"
    assert told(tool("service"), places, (20, 40)) == set(), "it was said earlier"
    assert told(tool("environment"), places, ALL) == set()
    both = {**places, "regions": {"production": (0, 10)}}
    assert told(tool("environment"), both, ALL) == set(), "the required one has it"
    assert told(tool(), {"environment": {"on": (0, 2)}}, ALL) == set(), "too short a word"


def speaks(which: ToolSpec, places: dict[str, Any], request: tuple[int, int]) -> float:
    missing = frozenset(name for name, found in places.items() if not found)
    return evidence(which, Fits(places, missing), request)


def test_values_of_the_request_speak_for_the_tool_that_takes_them() -> None:
    date, region = {"2026-04-18": (4, 14)}, {"eu-west": (0, 3)}
    assert speaks(tool(), {}, ALL) == 0.0
    assert speaks(tool(), {"since": date, "regions": region}, ALL) == 2 * FOUND
    assert speaks(tool(), {"since": date, "regions": region}, (3, 40)) == FOUND, "the region was said earlier"
    assert speaks(tool(), {"since": date, "regions": date}, ALL) == FOUND, "one word counts once"
    many = {"regions": {f"eu-{place}": (place, place + 1) for place in range(9)}, "since": date}
    assert speaks(tool(), many, ALL) == 2 * FOUND, "an array is one parameter"
    assert speaks(tool(), {"copies": {"12": (0, 2)}}, ALL) == 0.0, "a number may be anything"
    assert speaks(tool(), {"environment": {"production": (0, 10)}}, ALL) == 0.0, "so may one of a few words"
    either = {"anyOf": [{"type": "string", "enum": ["production", "staging"]}, {"type": "null"}]}
    optional = ToolSpec(name="t", parameters={"type": "object", "properties": {"environment": either}})
    assert speaks(optional, {"environment": {"production": (0, 10)}}, ALL) == 0.0


def test_what_a_tool_requires_and_stands_nowhere_speaks_against_it() -> None:
    assert speaks(tool("since"), {"since": {}}, ALL) == -MISSED
    assert speaks(tool(), {"since": {}}, ALL) == 0.0, "it is optional"
    assert speaks(tool("since"), {"since": {"2026-04-18": (0, 10)}}, (20, 40)) == 0.0, "said earlier"
    assert speaks(tool("environment"), {"environment": {}}, ALL) == 0.0, "it may be meant in other words"
    assert speaks(tool("copies"), {"copies": {}}, ALL) == 0.0, "a dozen"
    assert speaks(tool("service", "force"), {}, ALL) == 0.0, "anything goes"


def test_each_word_is_one_parameters_so_that_all_is_likeliest() -> None:
    words = ["two", "pm", "tomorrow", "tom"]
    begins = Beginnings(torch.tensor([20, 30, 40, 41]), torch.tensor([1, 1, 1, 1]))
    likely = torch.tensor([[0.30, 0.1, 0.40, 0.0], [0.01, 0.0, 0.80, 0.0]])
    shares = share(["time", "date"], likely, begins, words, {})
    assert shares.others == {"time": {40}, "date": {20}}
    assert shares.taken == ()
    twice = Beginnings(begins.tokens, torch.tensor([1, 1, 2, 1]))
    assert share(["time", "date"], likely, twice, words, {}).others == {"time": set(), "date": set()}


def test_a_word_in_other_capitals_is_the_same_word() -> None:
    begins = Beginnings(torch.tensor([1, 2, 3]), torch.tensor([1, 1, 1]))
    likely = torch.tensor([[0.3, 0.3, 0.5], [0.0, 0.1, 0.1]])
    assert share(["a", "b"], likely, begins, ["oslo", "oslo", "rome"], {}).others["b"] == {1, 2}


def test_what_fits_a_schema_is_what_the_parameter_takes_and_where_it_stands_is_taken() -> None:
    words = ["cart", "production", "sale"]
    begins = Beginnings(torch.tensor([1, 2, 3]), torch.tensor([1, 1, 1]))
    likely = torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.1, 0.1]])
    fits = {"environment": {"production": (9, 19)}, "regions": {"eu-west": (20, 27)}}
    shares = share(["service", "environment"], likely, begins, words, fits)
    assert shares.others == {"service": {2}, "environment": {1}}
    assert set(shares.taken) == {(9, 19), (20, 27)}


def test_what_has_to_be_worked_out_has_no_word() -> None:
    begins = Beginnings(torch.tensor([1, 2]), torch.tensor([1, 1]))
    likely = torch.tensor([[0.5, 0.4], [0.6, 0.1]])
    shares = share(["response", "title"], likely, begins, ["atlas", "decline"], {"response": {}})
    assert shares.others == {"response": {1}, "title": set()}


@pytest.mark.parametrize("begins", [0, 1])
def test_there_may_be_nothing_to_share_and_no_one_to_share_it(begins: int) -> None:
    some = Beginnings(torch.arange(begins), torch.ones(begins, dtype=torch.long))
    words = ["a"] * begins
    assert share([], torch.zeros(0, begins), some, words, {}).taken == ()
    shares = share(["a", "b"], torch.full((2, begins), 0.5), some, words, {"c": {"7": (0, 1)}})
    assert shares.taken == ((0, 1),)
    assert set(shares.others) == {"a", "b"}
