"""Which tokens go on with words of the conversation, and what that changes in what is written."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from agent_specializer.edge import arguments
from agent_specializer.edge.copying import Source
from agent_specializer.edge.grammar import Grammars
from agent_specializer.edge.passes import Seen
from agent_specializer.specs import ToolSpec

TEXT = "User: Wake me at five am in New York, please. My id is zFwf0t.\nCall:"


@pytest.fixture
def texts(tiny_tokenizer):
    """What may go on behind a text, as pieces of text; "END" for the end of the string."""
    end = len(tiny_tokenizer)
    ids = tiny_tokenizer(TEXT, add_special_tokens=False).input_ids
    source = Source(tiny_tokenizer, ids, np.array([end]))

    def of(written: str | bytes) -> set[str]:
        found = source.continuing(written.encode() if isinstance(written, str) else written)
        return {"END" if token == end else tiny_tokenizer.decode([token]) for token in found}

    return of


def goes_on(pieces: set[str], rest: str) -> bool:
    return any(piece != "END" and rest.startswith(piece) for piece in pieces)


def test_a_copy_begins_where_a_word_does_and_does_not_end_at_once(texts):
    begins = texts("")
    assert "END" not in begins
    for word in ("Wake", "five", "New", "zFwf0t"):
        assert goes_on(begins, word)
    assert not goes_on(begins, "ork")
    assert texts("User") == texts("Call") == set(), "what marks a turn"


def test_it_goes_on_as_the_conversation_does_and_ends_where_a_word_ends(texts):
    assert goes_on(texts("five"), " am")
    assert "END" in texts("five")
    assert "END" not in texts("fiv")
    assert goes_on(texts("fiv"), "e am")
    assert "END" in texts("zFwf0t")


def test_capitals_do_not_matter_and_what_stands_nowhere_has_nothing_to_go_on_with(texts):
    assert goes_on(texts("new y"), "ork")
    assert texts("six") == set()
    assert texts("ork") == set(), "within a word"
    assert texts("é".encode()[:1]) == set(), "within a letter"


def written(tokenizer, text: str, schema: dict[str, object]) -> Any:
    """A value of `schema`, as a model writes it behind `text` to which all tokens are as likely."""
    parameters = {"type": "object", "properties": {"what": schema}, "required": ["what"]}
    grammars = Grammars(tokenizer, len(tokenizer))
    conversation = tokenizer(text).input_ids
    writing = arguments.decode_arguments(
        arguments.Tail(list(conversation)),
        grammars.of(ToolSpec(name="find", description="", parameters=parameters)),
        arguments.Sampler(0.0, 0),
        budget=40,
        head_rows=len(tokenizer),
        written=lambda text: None,
        source=Source(tokenizer, conversation, grammars.vocabulary.ends_string),
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
    monkeypatch.setattr(arguments, "COPY", nats)
    what = written(tiny_tokenizer, TEXT, {"type": "string"})
    assert what
    assert (what.lower() in TEXT.lower()) == copies


def test_what_fits_is_not_looked_for_in_arrays(tiny_tokenizer, monkeypatch):
    """There it would be found again and again."""
    monkeypatch.setattr(arguments, "COPY", 0.0)
    days = {"type": "string", "enum": ["friday", "monday", "sunday"]}
    text = "User: every Sunday\nCall:"
    assert written(tiny_tokenizer, text, days) == "sunday"
    array = {"type": "array", "items": days, "minItems": 3, "maxItems": 3}
    assert written(tiny_tokenizer, text, array) != 3 * ["sunday"]


def test_a_number_is_written_with_all_its_digits():
    assert max(map(len, map(repr, (-1.2345678901234567e-4, 0.06403676499860755)))) <= arguments.MAX_DIGITS


def test_where_but_some_strings_are_allowed_those_that_stand_in_the_conversation_are_looked_for(
    tiny_tokenizer,
):
    text = "User: Put R4ZT9P on 2026-04-18, please, for the New York office. I'm VEGAN\nCall:"
    source = Source(tiny_tokenizer, tiny_tokenizer(text).input_ids, np.array([0]))
    code, place, diet = (re.compile(p) for p in (r"[A-Z0-9]{6}", "New York|Lima|Call", "vegan|none"))
    for allowed, begun, found in (
        (code, "", ("R4ZT9P", "PLEASE", "OFFICE")),
        (code, "R4", ("R4ZT9P",)),
        (place, "", ("New York",)),
        (diet, "", ("vegan",)),
    ):
        fits = source.fitting(begun.encode(), lambda rest, a=allowed, b=begun: bool(a.fullmatch(b + rest)))
        assert fits == found
    assert source.fitting(b"", lambda rest: True) is None, "where nearly anything is allowed nothing is told"
    assert goes_on({tiny_tokenizer.decode([t]) for t in source.towards(b"R4", ["R4ZT9P"])}, "ZT9P")
    assert source.towards(b"R4ZT9P", ["R4ZT9P"]) == [0], "it ends"
    assert source.towards(b"X", ["R4ZT9P"]) == []


@pytest.mark.parametrize(("nats", "code"), [(8.0, "R4ZT9P"), (0.0, None)])
def test_what_fits_a_pattern_and_stands_in_the_conversation_is_taken(tiny_tokenizer, monkeypatch, nats, code):
    monkeypatch.setattr(arguments, "FITS", nats)
    monkeypatch.setattr(arguments, "COPY", 0.0)
    pattern = {"type": "string", "pattern": "^[A-Z0-9]{6}$"}
    found = written(tiny_tokenizer, "User: for r4zt9p I'd like 14A, no: R4ZT9P\nCall:", pattern)
    assert (found == "R4ZT9P") == (code is not None)
