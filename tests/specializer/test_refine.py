"""Refining an adapter: what is kept, what is verified, what is refused. What is written is given here; the real model writes in
`test_embedded_job`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from agent_specializer import Specializer, ToolSpec
from agent_specializer.errors import AdapterError, ConfigError, IntakeError, NotFound, StoreError
from agent_specializer.messages import Call
from agent_specializer.refinement import refine as refining
from tool_specs import ExampleRequest

DARK, LIGHTS, LATE, CLOCK = "it is too dark", "lights, please", "is it late?", "what time is it"
SAID = {
    "get_time": (
        LATE,
        CLOCK,
        "the time, please",
        LATE,
        "how late is it",
        "tell me the hour",
        "clock?",
        CLOCK,
    ),
    "set_light": (DARK, LIGHTS, "dim the hall", DARK, "make it bright", "lamp off", "more light", LIGHTS),
}
"""Those that are held out (every fourth) are among the others, so that random weights can learn them."""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is asked of the writer, which writes what is in `SAID`."""
    wishes: list[dict[str, Any]] = []

    def write(
        model: object, tokenizer: object, tools: Sequence[ToolSpec], **wish: Any
    ) -> list[tuple[str, ...]]:
        wishes.append(wish)
        return [SAID[tool.name][: wish["count"]] for tool in tools]

    monkeypatch.setattr(refining, "write_requests", write)
    return wishes


def test_a_refined_adapter_takes_the_place_of_the_other_and_can_be_made_as_it_was(
    two_agents: Specializer, written: list[dict[str, Any]]
) -> None:
    plain = two_agents.specialize("home")
    made, report = two_agents.agent("home").refine(seed=3, keep=True)
    assert [(wish["count"], wish["seed"]) for wish in written] == [(refining.REQUESTS, 3)]
    assert (report.written, report.held_out, report.examples) == (16, 4, 0)
    assert 4 <= report.fitted <= 12
    assert report.kept
    assert report.before != report.after
    assert made.fingerprint == plain.fingerprint
    assert made.refinement == report.to_dict()
    found = two_agents.specialize("home")
    assert (found.cache, found.refinement) == ("hit", report.to_dict())
    assert found.adapter.keys.tolist() == made.adapter.keys.tolist()
    assert found.adapter.keys.tolist() != plain.adapter.keys.tolist()
    assert found.adapter.gates.tolist() == plain.adapter.gates.tolist()
    assert found.adapter.lift is not None
    assert two_agents.ask("home", "it is too dark").choices != ()
    (row,) = two_agents.registry.adapters()
    assert row.refinement == report.to_dict()
    assert row.bytes == found.adapter.nbytes
    # It is not the generator's work alone, and that is said.
    (verified,) = two_agents.verify()
    assert (verified.state, verified.detail) == ("same", "all but its keys, which were refined")
    # Refined again, it is refined from what the generator makes.
    again, second = two_agents.refine("home", seed=3, keep=True)
    assert second.before == report.before
    assert again.adapter.keys.tolist() == made.adapter.keys.tolist()
    anew = two_agents.specialize("home", force=True)
    assert anew.refinement is None
    assert anew.adapter.same_as(plain.adapter)
    assert two_agents.registry.adapters()[0].refinement is None


def test_nothing_is_refined_unless_it_is_asked_for(
    two_agents: Specializer, written: list[dict[str, Any]]
) -> None:
    two_agents.ask("home", "it is too dark")
    assert two_agents.specialize("clock", force=True).refinement is None
    assert written == []


@pytest.mark.parametrize(("after", "kept"), [(1, False), (2, False), (3, True)])
def test_examples_decide(
    two_agents: Specializer,
    written: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    kept: bool,
) -> None:
    plain = two_agents.specialize("home")
    right = iter([2, after])
    monkeypatch.setattr(Specializer, "_right", lambda *_: next(right))
    example = ExampleRequest(request="it is dark", calls=(Call(name="set_light"),))
    made, report = two_agents.refine("home", examples=[example] * 3)
    assert (report.examples, report.right_before, report.right_after, report.kept) == (3, 2, after, kept)
    assert made.adapter.same_as(plain.adapter) == (not kept)
    assert (two_agents.specialize("home").refinement is not None) == kept


def test_without_examples_it_is_told_what_it_came_to_and_nothing_changes(
    two_agents: Specializer, written: list[dict[str, Any]]
) -> None:
    plain = two_agents.specialize("home")
    made, report = two_agents.refine("home")
    assert (report.kept, report.written, made.refinement) == (False, 16, None)
    assert two_agents.specialize("home").adapter.same_as(plain.adapter)


def test_examples_are_really_asked(two_agents: Specializer, written: list[dict[str, Any]]) -> None:
    """Under the adapter as it was, and under the refined one."""
    toolset = two_agents.agent("home").toolset
    texts = ("it is too dark", "hello", "what time is it", "lights!")
    before = [two_agents.ask("home", text).calls for text in texts]
    examples = [
        ExampleRequest(request=text, calls=tuple(Call(name=call.name) for call in calls))
        for text, calls in zip(texts, before, strict=True)
    ]
    made, report = two_agents.refine("home", examples=examples, keep=True)
    assert report.right_before == len(texts)
    after = [two_agents.engine.reply(ask(text), toolset, adapter=made.adapter).calls for text in texts]
    same = [
        sorted(c.name for c in b) == sorted(c.name for c in a) for b, a in zip(before, after, strict=True)
    ]
    assert report.right_after == sum(same)


def ask(text: str) -> list[Any]:
    from agent_specializer.messages import Message

    return [Message(role="user", content=text)]


def test_what_was_made_anew_meanwhile_is_not_overwritten(
    two_agents: Specializer, written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_agents.specialize("home")
    fit = refining.fit_keys

    def slow(*args: Any, **more: Any) -> Any:
        two_agents.specialize("home", force=True)
        return fit(*args, **more)

    monkeypatch.setattr(refining, "fit_keys", slow)
    with pytest.raises(StoreError, match="made anew"):
        two_agents.refine("home", keep=True)
    assert two_agents.specialize("home").refinement is None

    def evicting(*args: Any, **more: Any) -> Any:
        two_agents.registry.evict_adapter(two_agents.registry.adapters()[0].fingerprint)
        return fit(*args, **more)

    monkeypatch.setattr(refining, "fit_keys", evicting)
    with pytest.raises(NotFound):
        two_agents.refine("home", keep=True)
    assert two_agents.registry.adapters() == []


def test_a_tool_with_known_requests_keeps_them(
    two_agents: Specializer, written: list[dict[str, Any]]
) -> None:
    two_agents.add_requests("set_light", ["it is too dark", "lights, please"])
    plain = two_agents.specialize("home")
    made, report = two_agents.refine("home", keep=True)
    assert made.adapter.keys.shape == plain.adapter.keys.shape
    assert made.refinement == report.to_dict()
    assert made.adapter.lift is not None
    assert plain.adapter.lift is not None
    assert {each.state for each in two_agents.verify()} == {"same"}


def test_what_cannot_be_refined_is_refused_and_says_why(
    two_agents: Specializer, written: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound):
        two_agents.refine("hom")
    for wrong in (1, 65):
        with pytest.raises(ConfigError, match="2 to 64"):
            two_agents.refine("home", requests=wrong)
    with pytest.raises(AdapterError, match="no two tools"):
        two_agents.refine("clock")
    example = ExampleRequest(request="it is dark", calls=(Call(name="set_lamp"),))
    with pytest.raises(IntakeError, match="set_lamp"):
        two_agents.refine("home", examples=[example])
    assert written == []
    with pytest.raises(AdapterError, match="of 4 requests that the model wrote for 2 tools"):
        two_agents.refine("home", requests=2)
    monkeypatch.setattr(refining, "write_requests", lambda *args, **wish: [(), ()])
    with pytest.raises(AdapterError, match="wrote no requests"):
        two_agents.refine("home")
    assert two_agents.specialize("home").refinement is None
