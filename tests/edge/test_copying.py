"""Which tokens go on with words of the conversation, and what that changes in what is written."""

from __future__ import annotations

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


@pytest.mark.parametrize(("nats", "copies"), [(2.0, True), (0.0, False)])
def test_a_string_is_rather_copied_than_made_up(tiny_tokenizer, monkeypatch, nats, copies):
    """By a model to which all tokens are as likely."""
    monkeypatch.setattr(arguments, "COPY", nats)
    schema = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}
    grammars = Grammars(tiny_tokenizer, len(tiny_tokenizer))
    conversation = tiny_tokenizer(TEXT).input_ids
    writing = arguments.decode_arguments(
        arguments.Tail(list(conversation)),
        grammars.of(ToolSpec(name="find", description="", parameters=schema)),
        arguments.Sampler(0.0, 0),
        budget=40,
        head_rows=len(tiny_tokenizer),
        written=lambda text: None,
        source=Source(tiny_tokenizer, conversation, grammars.vocabulary.ends_string),
    )
    feed = next(writing)
    while True:
        rows = len(feed.rows) if isinstance(feed.rows, torch.Tensor) else len(tiny_tokenizer)
        try:
            feed = writing.send(Seen(torch.zeros(1, 1), torch.zeros(rows)))
        except StopIteration as stop:
            what = stop.value["what"]
            break
    assert what
    assert (what.lower() in TEXT.lower()) == copies


def test_a_number_is_written_with_all_its_digits():
    assert max(map(len, map(repr, (-1.2345678901234567e-4, 0.06403676499860755)))) <= arguments.MAX_DIGITS
