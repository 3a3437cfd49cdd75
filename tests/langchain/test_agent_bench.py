"""`bench agents`: what is counted as right, what the scripted tools answer, and that a run can be resumed."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage

from agent_specializer.errors import ConfigError, IntakeError, NotFound
from agent_specializer.evaluation.agents.conversations import (
    KINDS,
    Conversation,
    ScriptedCall,
    Turn,
    holds_one_of,
    load_script,
)
from agent_specializer.evaluation.agents.judge import Spoken, judge, paired, right_call, summary
from agent_specializer.evaluation.agents.play import MODEL_CALLS, play
from agent_specializer.evaluation.agents.run import importable, run_agents
from agent_specializer.evaluation.agents.table import markdown, table
from agent_specializer.messages import Call

NUMBERS = count()
"""Of calls: LangGraph takes two calls of one id for the same."""


class Puppet(GenericFakeChatModel):
    """Says what it is told to say, and remembers what it read."""

    read: list[Any] = []  # noqa: RUF012  # a pydantic field

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        return self

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.read.append(messages)
        return super()._generate(messages, *args, **kwargs)


def says(*messages: AIMessage | str) -> Puppet:
    return Puppet(messages=iter([AIMessage(m) if isinstance(m, str) else m for m in messages]), read=[])


def calls(*made: tuple[str, dict[str, Any]]) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": n, "args": a, "id": f"call-{next(NUMBERS)}"} for n, a in made])


SCRIPT = load_script()


def conversation(name: str) -> Conversation:
    return next(c for c in SCRIPT.conversations if c.id == name)


def held(name: str, model: Puppet) -> Any:
    script = conversation(name)
    return play(script, SCRIPT.agents[script.agent], model)


def test_fifty_conversations_are_shipped_ten_of_each_kind():
    assert Counter(c.kind for c in SCRIPT.conversations) == dict.fromkeys(KINDS, 10)
    assert Counter(c.kind for c in SCRIPT.chosen(10)) == dict.fromkeys(KINDS, 2)


@pytest.mark.parametrize("name", [c.id for c in SCRIPT.conversations])
def test_the_script_itself_is_judged_right(name):
    """A model that does what the script says gets full marks: the gold satisfies its own conditions."""
    said: list[AIMessage | str] = []
    for turn in conversation(name).turns:
        for step in turn.steps:
            texts = [{arg: (words or ("text",))[0] for arg, words in call.contains.items()} for call in step]
            pairs = zip(step, texts, strict=True)
            said.append(calls(*((call.tool, {**call.arguments, **text}) for call, text in pairs)))
        said.append((turn.answer or ("Gladly.",))[0])
    outcome = held(name, says(*said))
    assert outcome.error == ""
    assert (outcome.ended, outcome.right_tools, outcome.right_calls, outcome.in_steps) == (True,) * 4
    assert (outcome.answered, outcome.answer_fits, outcome.fell_back) == (True, True, False)


MAIL = ("send_mail", {"to": "anna@fjord.example", "body": "Rain, 9 degrees"})
OSLO = ("get_weather", {"city": "oslo"})


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ([calls(OSLO), calls(MAIL), "It rains."], ("ended", "right_tools", "right_calls", "in_steps")),
        ([calls(OSLO, MAIL), "It rains."], ("ended", "right_tools", "right_calls")),
        ([calls(MAIL), calls(OSLO), "It rains."], ("ended",)),
        ([calls(OSLO), "It rains."], ("ended",)),
        ([calls(OSLO), calls(MAIL), calls(MAIL), "It rains."], ("ended",)),
        (
            [calls(("get_weather", {"city": "Rome"})), calls(MAIL), "Rain."],
            ("ended", "right_tools", "in_steps"),
        ),
        (
            [calls(OSLO), calls((MAIL[0], MAIL[1] | {"body": "Hi"})), "Rain."],
            ("ended", "right_tools", "in_steps"),
        ),
        ([calls(OSLO) for _ in range(30)], ()),
    ],
    ids=[
        "right",
        "both at once",
        "other order",
        "one missing",
        "one too many",
        "wrong",
        "not grounded",
        "loop",
    ],
)
def test_what_counts_as_right(said, right):
    outcome = held("weather-mail-01", says(*said))
    shares = ("ended", "right_tools", "right_calls", "in_steps")
    assert tuple(share for share in shares if getattr(outcome, share)) == right
    assert outcome.answer_fits == outcome.answered == outcome.ended


def test_a_loop_is_stopped_and_its_calls_are_counted():
    outcome = held("weather-mail-01", says(*(calls(OSLO) for _ in range(30))))
    assert outcome.model_calls == outcome.calls == MODEL_CALLS
    assert outcome.error == ""


def test_an_answer_of_no_words_or_of_other_words_is_seen():
    silent = held("search-summarise-07", says(calls(("web_search", {"query": "chess"})), ""))
    assert (silent.right_calls, silent.ended, silent.answered) == (True, True, False)
    blind = held(
        "tool-error-01", says(calls(("book_train", {"destination": "Basel", "hour": 8})), "All booked!")
    )
    assert (blind.right_calls, blind.answered, blind.answer_fits) == (True, True, False)


def test_tools_answer_as_scripted_then_with_their_own_words():
    puppet = says(
        calls(("refund_ticket", {"code": "KL20"})),
        calls(("refund_ticket", {"code": "KL20"})),
        calls(("refund_ticket", {"code": "KL20"}), ("rent_bike", {"count": 2})),
        "Refunded.",
    )
    held("tool-error-03", puppet)
    results = [m for m in puppet.read[-1] if isinstance(m, ToolMessage)]
    assert [m.status for m in results] == ["error", "success", "success", "success"]
    assert [m.content for m in results][1:] == ["KL20 is refunded.", "Refunded.", "The bicycles are ready."]


def test_two_calls_of_one_step_may_come_in_any_order():
    first, second = ("lock_door", {"door": "balcony"}), ("lock_door", {"door": "cellar"})
    assert held("two-at-once-04", says(calls(second, first), "Locked.")).right_calls
    one_by_one = held("two-at-once-04", says(calls(first), calls(second), "Locked."))
    assert (one_by_one.right_calls, one_by_one.in_steps) == (True, False)
    assert not held("two-at-once-04", says(calls(first, first), "Locked.")).right_calls


def test_free_text_must_hold_what_the_script_says():
    scripted = ScriptedCall(
        tool="mail", arguments={"to": "A"}, accepted={"cc": ["b"]}, contains={"body": ["rain"]}, result="ok"
    )
    assert right_call(Call(name="mail", arguments={"to": "a", "body": "Rainy"}), scripted)
    assert right_call(Call(name="mail", arguments={"to": "a", "cc": "B", "body": "rain"}), scripted)
    for wrong in (
        {"to": "a"},
        {"to": "a", "body": "train"},
        {"to": "a", "body": "rain", "cc": "x"},
        {"body": "rain"},
    ):
        assert not right_call(Call(name="mail", arguments=wrong), scripted)
    assert not holds_one_of(" ", ())
    assert not holds_one_of("in 2024", ["2"])


def test_shares_have_intervals_and_ways_are_compared_in_pairs():
    script = conversation("two-at-once-04").model_copy(update={"turns": (Turn(user="hello"),)})
    fine = judge(script, [Spoken(((),), "Hello.", True)], model_calls=4, fallbacks=1)
    failed = judge(script.model_copy(update={"id": "other"}), [], error="DecodeError: nothing fits")
    report = summary([fine, failed])
    assert report["all"]["ended"] == report["kinds"]["two_at_once"]["right_calls"] == 0.5
    assert report["all"]["ended_ci95"] == [0.0, 1.0]
    assert report["all"]["fallback_share_of_model_calls"] == 0.25
    assert report["all"]["errors"] == 1
    swapped = [failed.__class__(**{**failed.to_dict(), "id": fine.id})]
    assert paired({"a": [fine], "b": swapped})["b-a"]["ended"] == {"delta": -1.0, "ci95": [-1.0, -1.0]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("conversations: [", "not YAML"),
        ("agents: {}", "conversations"),
        (
            "agents: {}\nconversations: [{id: a, kind: no_tool, agent: b, turns: [{user: hi}]}]",
            "no agent 'b'",
        ),
    ],
)
def test_a_file_that_is_no_script_is_refused(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(IntakeError, match=said):
        load_script(tmp_path / "c.yaml")
    with pytest.raises(NotFound):
        load_script(tmp_path / "none.yaml")


def other_model() -> Puppet:
    """A fallback that a user brings along."""
    return says(*["It rains."] * 99)


def test_both_ways_are_held_and_reported(home, tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", tiny_bundle)
    out = tmp_path / "r.json"
    fallback = f"{__name__}:other_model"
    report = run_agents(limit=2, fallback=fallback, threshold=1.0, max_tokens=40, out=out)
    assert json.loads(out.read_text()) == report
    alone, behind = report["ways"]["specialized"]["all"], report["ways"]["with_fallback"]["all"]
    assert (alone["n"], behind["n"]) == (2, 2)
    assert alone["fallback_share_of_model_calls"] == 0
    assert behind["fallback_share_of_model_calls"] == behind["fell_back"] == behind["ended"] == 1
    assert report["paired"].keys() == {"with_fallback-specialized"}
    assert table(report).row_count == 6
    assert "| with fallback | all | 2 | 100" in markdown(report)
    lines = [json.loads(line) for line in out.with_suffix(".items.jsonl").read_text().splitlines()]
    assert [(line["way"], line["id"]) for line in lines] == [
        ("specialized", "weather-mail-01"),
        ("with_fallback", "weather-mail-01"),
        ("specialized", "search-summarise-01"),
        ("with_fallback", "search-summarise-01"),
    ]
    assert lines[1]["said"][-1]["specialized"]["decision"] == "fallback"
    assert not list(home.glob("*.db"))  # the home's own store is left alone


def test_a_run_goes_on_where_it_was_interrupted(home, tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", tiny_bundle)
    out, lines = tmp_path / "r.json", tmp_path / "r.items.jsonl"
    run_agents(limit=1, fallback=None, max_tokens=30, out=out)
    known = lines.read_text()
    lines.write_text(known + '{"way": "specialized", "id": "cut o')
    report = run_agents(limit=2, fallback=None, max_tokens=30, out=out, resume=True)
    assert report["ways"]["specialized"]["all"]["n"] == 2
    assert lines.read_text().startswith(known)
    assert len(lines.read_text().splitlines()) == 2
    run_agents(limit=2, fallback=None, max_tokens=31, out=out, resume=True)  # other settings: all anew
    assert known not in lines.read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"limit": 0}, "--limit 0"),
        ({"threshold": 7}, "--threshold 7"),
        ({"resume": True}, "--resume needs --out"),
        ({"fallback": "nothing"}, "names no model"),
        ({"fallback": "json:nothing"}, "nothing"),
        ({"fallback": "json:dumps.__name__"}, "json"),
    ],
)
def test_wrong_arguments_are_refused(home, tiny_bundle, monkeypatch, wrong, said):
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", tiny_bundle)
    with pytest.raises(ConfigError, match=said):
        run_agents(**wrong)


def test_what_is_no_chat_model_is_no_fallback():
    with pytest.raises(ConfigError, match="dict, no chat model"):
        importable("builtins:dict")
