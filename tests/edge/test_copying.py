"""Which tokens go on with words of the conversation, and what that changes in what is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from agent_specializer.edge import arguments, copying
from agent_specializer.edge.copying import Copies, Source
from agent_specializer.edge.grammar import Grammars, Vocabulary
from agent_specializer.edge.passes import Seen
from agent_specializer.edge.written import MAX_DIGITS
from agent_specializer.specs import ToolSpec

TEXT = "User: Wake me at five am in New York, please. My id is zFwf0t.\nCall:"


END = "END"


@pytest.fixture
def vocabulary(tiny_tokenizer):
    return Vocabulary.of(tiny_tokenizer, len(tiny_tokenizer))


@pytest.fixture
def source_of(tiny_tokenizer, vocabulary):
    return lambda text: Source(
        tiny_tokenizer, tiny_tokenizer(text, add_special_tokens=False).input_ids, vocabulary
    )


def pieces(tokenizer, vocabulary, tokens) -> set[str]:
    """Tokens as pieces of text; END for all that end a string."""
    ends = set(vocabulary.ends_string.tolist())
    return {END if token in ends else tokenizer.decode([token]) for token in tokens}


@pytest.fixture
def texts(tiny_tokenizer, vocabulary, source_of):
    """What may go on behind a text, as pieces of text."""
    source = source_of(TEXT)

    def of(written: str | bytes, source: Source = source) -> set[str]:
        found = source.continuing(written.encode() if isinstance(written, str) else written)
        return pieces(tiny_tokenizer, vocabulary, found)

    return of


def goes_on(pieces: set[str], rest: str) -> bool:
    return any(piece != END and rest.startswith(piece) for piece in pieces)


def test_a_copy_begins_where_a_word_does_and_does_not_end_at_once(texts):
    begins = texts("")
    assert END not in begins
    for word in ("Wake", "five", "New", "zFwf0t"):
        assert goes_on(begins, word)
    assert not goes_on(begins, "ork")
    assert texts("User") == texts("Call") == set(), "what marks a turn"


def test_it_goes_on_as_the_conversation_does_and_ends_where_a_word_ends(texts):
    assert goes_on(texts("five"), " am")
    assert END in texts("five")
    assert END not in texts("fiv")
    assert goes_on(texts("fiv"), "e am")
    assert END in texts("zFwf0t")


def test_what_closes_a_sentence_is_no_part_of_its_last_word(texts, source_of):
    source = source_of(
        "User: Mail it to anna@fjord.example. Say that it rains, but not much: Oh. Well then.\nCall:"
    )
    assert texts("anna@fjord.example", source) == {END}
    assert goes_on(texts("anna@fjord", source), ".example")
    assert goes_on(texts("it rains", source), ", but")
    assert goes_on(texts("but not much: Oh", source), ". Well"), "a text may have several sentences"
    assert texts("Well then", source) == {END}
    assert texts("Well then", source_of("User: Well then.\n It rains.\nCall:")) == {END}


def test_capitals_do_not_matter_and_what_stands_nowhere_has_nothing_to_go_on_with(texts):
    assert goes_on(texts("new y"), "ork")
    assert texts("six") == set()
    assert texts("ork") == set(), "within a word"
    assert texts("é".encode()[:1]) == set(), "within a letter"


def written(tokenizer, text: str, schema: dict[str, object], others: frozenset[int] = frozenset()) -> Any:
    """A value of `schema`, as a model writes it behind `text` to which all tokens are as likely."""
    parameters = {"type": "object", "properties": {"what": schema}, "required": ["what"]}
    grammars = Grammars(tokenizer, len(tokenizer))
    conversation = tokenizer(text).input_ids
    source = Source(tokenizer, conversation, grammars.vocabulary)
    writing = arguments.decode_arguments(
        arguments.Tail(list(conversation)),
        grammars.of(ToolSpec(name="find", description="", parameters=parameters)),
        arguments.Sampler(0.0, 0),
        budget=40,
        head_rows=len(tokenizer),
        written=lambda text: None,
        copies=Copies(source, grammars.vocabulary, {"what": others}),
    )
    feed = next(writing)
    while True:
        rows = len(feed.rows) if isinstance(feed.rows, torch.Tensor) else len(tokenizer)
        try:
            feed = writing.send(Seen(torch.zeros(1, 1), torch.zeros(rows)))
        except StopIteration as stop:
            return stop.value["what"]


@pytest.mark.parametrize(("nats", "copies"), [(2.0, True), (0.0, False)])
def test_a_string_is_rather_copied_than_made_up(tiny_tokenizer, monkeypatch, nats, copies):
    monkeypatch.setattr(copying, "COPY", nats)
    what = written(tiny_tokenizer, TEXT, {"type": "string"})
    assert what
    assert (what.lower() in TEXT.lower()) == copies


def test_an_array_has_each_thing_that_fits_once_and_then_ends(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(copying, "COPY", 0.0)
    days = {"type": "string", "enum": ["friday", "monday", "saturday", "sunday"]}
    text = "User: every Saturday and Sunday, on sunday at the latest\nCall:"
    assert written(tiny_tokenizer, text, days) in ("saturday", "sunday")
    assert sorted(written(tiny_tokenizer, text, {"type": "array", "items": days})) == ["saturday", "sunday"]
    assert (
        len(written(tiny_tokenizer, text, {"type": "array", "items": days, "minItems": 3, "maxItems": 3}))
        == 3
    )


def test_an_array_does_not_have_every_word_that_is_allowed(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(copying, "COPY", 0.0)
    tags = {"type": "array", "items": {"type": "string", "pattern": "^[a-z0-9-]+$"}}
    found = written(tiny_tokenizer, "User: label it with type-7 and size-l please\nCall:", tags)
    assert sorted(found) == ["size-l", "type-7"]


def test_a_number_is_written_with_all_its_digits():
    assert max(map(len, map(repr, (-1.2345678901234567e-4, 0.06403676499860755)))) <= MAX_DIGITS


@pytest.mark.parametrize(
    ("text", "schema", "found"),
    [
        ("on 2026-04-18 at 17:00, A-118820 and 92.40 for it", {"type": "number"}, 92.4),
        ("I owe $1,250 since 2026-04-18", {"type": "integer"}, 1250),
        ("for 3 nights at 140 a night", {"type": "integer", "minimum": 100}, 140),
        ("40.5 or 7", {"type": "integer"}, 7),
        ("minus -12 degrees in R2D2", {"type": "integer"}, -12),
        ("sensor (7) of B-12", {"type": "integer"}, 7),
    ],
)
def test_a_number_is_rather_one_of_the_conversation(tiny_tokenizer, text, schema, found):
    assert written(tiny_tokenizer, f"User: {text}\nCall:", schema) == found


def test_where_but_some_strings_are_allowed_those_that_stand_in_the_conversation_are_looked_for(
    tiny_tokenizer, source_of
):
    source = source_of("User: Put R4ZT9P on 2026-04-18, please, for the New York office. I'm VEGAN\nCall:")
    grammars = Grammars(tiny_tokenizer, len(tiny_tokenizer))

    def fitting(schema: dict[str, Any]) -> list[str] | None:
        properties = {"what": {"type": "string", **schema}}
        tool = ToolSpec(name="t", description="", parameters={"type": "object", "properties": properties})
        found = source.fitting(grammars.of(tool).value("what", '{"what": "'), loosely=True)
        if found is not None:
            assert all(source.text[slice(*span)].lower() == text.lower() for text, span in found.items())
        return None if found is None else list(found)

    assert fitting({"pattern": "^[A-Z0-9]{6}$"}) == ["R4ZT9P", "PLEASE", "OFFICE"]
    assert fitting({"enum": ["New York", "Lima", "Call"]}) == ["New York"]
    assert fitting({"enum": ["vegan", "none"]}) == ["vegan"]
    assert fitting({"enum": ["vegetarian", "none"]}) == []
    assert fitting({}) is None, "where nearly anything is allowed nothing is told"
    assert fitting({"minLength": 3}) is None


@pytest.mark.parametrize(("nats", "code"), [(8.0, "R4ZT9P"), (0.0, None)])
def test_what_fits_a_pattern_and_stands_in_the_conversation_is_taken(tiny_tokenizer, monkeypatch, nats, code):
    monkeypatch.setattr(copying, "FITS", nats)
    monkeypatch.setattr(copying, "COPY", 0.0)
    pattern = {"type": "string", "pattern": "^[A-Z0-9]{6}$"}
    found = written(tiny_tokenizer, "User: for r4zt9p I'd like 14A, no: R4ZT9P\nCall:", pattern)
    assert (found == "R4ZT9P") == (code is not None)


def test_a_hyphen_ends_no_word_but_a_comma_and_a_genitive_do(texts, source_of):
    source = source_of("User: give new-onboarding, cat.png to Jonas Feld's team")
    assert END not in texts("new", source)
    assert END in texts("new-onboarding", source)
    assert END not in texts("cat", source)
    assert END in texts("Jonas Feld", source)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("User: hello\nCall: none\nAnswer: hi\nUser: to Oslo\n or Rome\nCall:", "to Oslo\n or Rome"),
        ('User: to Oslo\nCall: find\n{"to": "Oslo"}\nCall: none\nResult: 3\nCall:', "to Oslo"),
        ("lo\nCall:", "lo\nCall:"),
    ],
)
def test_the_request_is_what_the_user_said_last(source_of, text, request_):
    source = source_of(text)
    assert text[slice(*source.request)].strip() == request_


def test_what_is_taken_is_not_gone_on_with(texts, source_of):
    source = source_of("User: Mute high latency for 60 minutes")
    at = source.text.index("60")
    assert goes_on(texts("latency for", source), " 60")
    without = source.without([(at, at + 2)])
    assert texts("latency for", without) == {END}
    assert not goes_on(texts("", without), "60")
    assert goes_on(texts("latency for", source), " 60"), "the other one is as it was"


def test_what_is_another_ones_is_not_begun_with(tiny_tokenizer):
    text, free = "User: lamp oven\nCall:", {"type": "string"}
    first = written(tiny_tokenizer, text, free)
    assert first
    begins = tiny_tokenizer([form for word in ("lamp", "oven") for form in (word, f" {word}")]).input_ids
    barred = frozenset(token for run in begins for token in run)
    assert written(tiny_tokenizer, text, free, barred) != first
