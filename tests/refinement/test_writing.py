"""Requests that a model writes: of every tool, seeded, cleaned; that they are of use only the real model can show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from agent_specializer.refinement import writing
from agent_specializer.refinement.writing import about, write_requests
from agent_specializer.specs import ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TOOLS = (
    ToolSpec(name="set_light", description="Dims\nthe  light"),
    ToolSpec(name="get_time", description="Says what time it is"),
)


def test_a_tool_is_told_in_one_line_with_what_it_takes_and_its_first_values() -> None:
    properties = {
        "room": {"type": "string", "description": "which one", "enum": [f"room {i}" for i in range(9)]},
        "on": {"type": "boolean"},
        "anything": True,
    }
    tool = TOOLS[0].changed(parameters={"type": "object", "properties": properties})
    values = ", ".join(f"room {i}" for i in range(6))
    assert about(tool) == f"Dims the light Takes: room (which one; {values}), on, anything"
    assert about(ToolSpec(name="set_light")) == "set_light"
    assert len(about(TOOLS[0].changed(description="long " * 999))) <= 400


def test_lines_become_requests_without_quotes_repetitions_and_what_is_no_text() -> None:
    lines = [
        ' "dim it, please" ',
        "Dim it, please",
        "dim",
        "a" + " word" * 40,
        "",
        "half a � letter",
        "it is dark",
    ]
    assert writing._requests(lines) == ("Dim it, please", "it is dark")


def test_what_is_drawn_depends_on_seed_and_tool_alone(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_requests", tuple)  # what random weights write is no text
    monkeypatch.setattr(writing, "LONGEST", 400)

    def written(tools: tuple[ToolSpec, ...], seed: int) -> list[tuple[str, ...]]:
        done: list[int] = []
        found = write_requests(tiny_gemma, tiny_tokenizer, tools, count=24, seed=seed, on_tool=done.append)
        assert done == list(range(1, len(tools) + 1))
        assert all(len(some) == 24 for some in found)
        assert all("\n" not in line for some in found for line in some)
        return found

    both = written(TOOLS, 0)
    assert len(set(both[0])) > 1
    assert both[0] != both[1]
    assert written(TOOLS[::-1], 0) == both[::-1]
    assert written(TOOLS[:1], 1) != both[:1]


def test_each_line_goes_on_from_all_that_stands_before_it(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What all lines share is read once: each is as if it had been read alone, by a plain forward pass."""
    text = "\n\n".join(writing._shown(told, said) for told, said in writing.SHOWN)
    pieces = (f"{text}\n\n", f"Tool: {about(TOOLS[1])}\n{writing.ASKS}\n", "-")
    shared = [
        token
        for place, piece in enumerate(pieces)
        for token in tiny_tokenizer(piece, add_special_tokens=not place).input_ids
    ]
    (end,) = tiny_tokenizer("\n", add_special_tokens=False).input_ids
    draws = [[300, 301, 302], [310, end, 312], [320, 322], [end, end]]  # the second line ends first
    lines: list[list[int]] = [[], [], []]
    checked = 0

    def drawn(model: PreTrainedModel, states: torch.Tensor, rng: torch.Generator) -> list[int]:
        nonlocal checked
        open_ = [line for line in lines if end not in line]
        assert len(states) == len(open_)
        for line, state in zip(open_, states, strict=True):
            plain = model.model(torch.tensor([[*shared, *line]])).last_hidden_state[0, -1]
            assert torch.allclose(state, plain, atol=1e-4)
            checked += 1
        tokens = draws.pop(0)
        for line, token in zip(open_, tokens, strict=True):
            line.append(token)
        return tokens

    monkeypatch.setattr(writing, "_drawn", drawn)
    write_requests(tiny_gemma, tiny_tokenizer, TOOLS[1:], count=3, seed=0)
    assert checked == 3 + 3 + 2 + 2
