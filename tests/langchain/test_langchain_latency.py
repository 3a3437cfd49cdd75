"""`bench langchain-latency` on a tiny model: the same prompt, the same weights, as many tokens, and streams that are timed."""

from __future__ import annotations

import json

import pytest
from langchain_core.language_models import FakeListChatModel

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.transcript import render
from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.agents.latency import PLAIN_TEMPLATE, WAYS, run_langchain_latency
from agent_specializer.evaluation.agents.stream import silent_tools, stream_one_call
from agent_specializer.evaluation.agents.table import latency_table
from agent_specializer.evaluation.catalogue_cases import catalogue_cases
from agent_specializer.messages import Message

pytest.importorskip("langchain_huggingface")


def test_all_ways_are_timed_on_the_same_requests(home, tiny_bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", tiny_bundle)
    out = tmp_path / "r.json"
    report = run_langchain_latency(tools=2, requests=1, repetitions=2, out=out)
    assert json.loads(out.read_text()) == report
    rows = {row["name"]: row for row in report["rows"]}
    assert tuple(rows) == WAYS
    for row in rows.values():
        assert 0 < row["first_chunk_seconds"] <= row["total_seconds"]
        assert row["measured"] == 2
    ours, prompted, theirs = rows.values()
    assert theirs["prompt_tokens"] == prompted["prompt_tokens"] > 2 * ours["prompt_tokens"]
    assert theirs["completion_tokens"] == ours["completion_tokens"] > 0
    assert report["settings"]["chat_template"] == "plain"
    assert {"first_chunk_vs_chat_huggingface", "total_vs_chat_huggingface"} <= report["ratios"].keys()
    for ratio in report["ratios"].values():
        assert ratio["n"] == 2
        assert ratio["quartiles"][0] <= ratio["median"] <= ratio["quartiles"][1]
    assert latency_table(report).row_count == 3
    assert not list(home.glob("*.db"))


def test_the_plain_template_is_what_the_prompted_mode_sends(tiny_tokenizer):
    toolset = catalogue_cases(tools=2, count=1)[0].toolset
    messages = [
        {"role": "system", "content": describe_toolset(toolset)},
        {"role": "user", "content": "dim it"},
    ]
    text = tiny_tokenizer.apply_chat_template(
        messages, chat_template=PLAIN_TEMPLATE, tokenize=False, add_generation_prompt=True
    )
    assert text == describe_toolset(toolset) + render([Message(role="user", content="dim it")])


def test_what_streams_nothing_is_no_measurement():
    class Mute(FakeListChatModel):
        def bind_tools(self, tools, **_):
            return self

        def _stream(self, *_, **__):
            yield from ()

        def _generate(self, *_, **__):
            raise AssertionError("it was not streamed")

    tools = silent_tools(catalogue_cases(tools=1, count=1)[0].toolset.tools)
    with pytest.raises((RuntimeError, ValueError)):
        stream_one_call(Mute(responses=[""]), tools, "You help.", "hello", {})


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least 1"):
        run_langchain_latency(repetitions=0)
    with pytest.raises(ConfigError, match="there is no folder"):
        run_langchain_latency(out=tmp_path / "none" / "r.json")
