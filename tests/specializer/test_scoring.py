"""Example requests: read with their line numbers, asked in every mode, scored strictly."""

from __future__ import annotations

import pytest

import tool_specs
from agent_specializer import Specializer
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.errors import DecodeError, IntakeError
from agent_specializer.messages import Call, Reply
from agent_specializer.specializer.scoring import read_requests, score, shipped_examples

LINES = (
    '{"request": "on", "calls": [{"name": "set_light", "arguments": {"on": true}}]}\n\n{"request": "thanks"}'
)


def test_requests_are_read_and_a_wrong_line_is_named() -> None:
    on, thanks = read_requests(LINES)
    assert on.calls == (Call(name="set_light", arguments={"on": True}),)
    assert not thanks.calls
    with pytest.raises(IntakeError) as wrong:
        read_requests(LINES + "\nnot json")
    assert wrong.value.line == 4


def test_a_catalogues_requests_are_offered_to_agents_that_have_its_tools() -> None:
    shipped = tool_specs.load(tool_specs.catalogues()[0])
    tools = list(shipped.agent.tools)
    assert shipped.title in shipped_examples([*tools, "one_more"])
    assert shipped.title not in shipped_examples(tools[1:])


def test_a_reply_is_right_in_tool_and_in_arguments_and_an_error_is_wrong(
    two_agents: Specializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {
        "specialized": Reply(calls=(Call(name="set_light", arguments={"on": True}),)),
        "prompted": Reply(calls=(Call(name="set_light", arguments={"on": False}),)),
    }

    careful = ReplyOptions(caution=1.0)

    def ask(self, agent, request, *, mode, options):  # type: ignore[no-untyped-def]
        assert options is careful
        if mode == "base":
            raise DecodeError("the budget is spent")
        return answers[mode] if request == "on" else Reply(content="You are welcome")

    monkeypatch.setattr(Specializer, "ask", ask)
    told: list[tuple[int, int]] = []
    modes = ("specialized", "prompted", "base")
    rows = score(
        two_agents, "home", read_requests(LINES), modes, lambda *done: told.append(done), options=careful
    )
    assert told == [(n, 6) for n in range(1, 7)]
    assert [(row.mode, row.tool, row.exact) for row in rows] == [
        ("specialized", True, True),
        ("specialized", True, True),
        ("prompted", True, False),
        ("prompted", True, True),
        ("base", False, False),
        ("base", False, False),
    ]
    assert rows[-1].error == "the budget is spent"


def test_it_asks_the_model(two_agents: Specializer) -> None:
    rows = score(two_agents, "clock", read_requests('{"request": "what time?"}'), ["base"], lambda *_: None)
    assert [row.request for row in rows] == ["what time?"]
