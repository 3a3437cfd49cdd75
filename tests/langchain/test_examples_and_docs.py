"""The examples and the page do what they say, on a tiny model: each code block of the page is executed."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent_specializer.langchain import ChatSpecialized

ROOT = Path(__file__).parents[2]


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def bare(specializer) -> ChatSpecialized:
    return ChatSpecialized(specializer=specializer, max_tokens=60)


def test_the_agent_with_a_checkpointer_remembers(bare, monkeypatch):
    ask = bare.specializer.ask

    def in_words(who: Any, messages: Any, *, mode: Any, options: Any) -> Any:
        # a random model would call its tools for ever
        return ask(who, messages, mode=mode, options=options.model_copy(update={"tool_choice": "none"}))

    monkeypatch.setattr(bare.specializer, "ask", in_words)
    agent = _example("langchain_agent").build(bare)
    config = {"configurable": {"thread_id": "1"}}
    agent.invoke({"messages": [("user", "hello")]}, config)
    assert len(agent.invoke({"messages": [("user", "again")]}, config)["messages"]) == 4


def test_two_agents_share_one_model(specializer):
    example = _example("two_agents_one_model")
    graph = example.build(specializer)
    messages = graph.invoke({"messages": [("user", "mail the weather")]})["messages"]
    agents = [m.response_metadata["agent"] for m in messages if m.type == "ai"]
    assert agents == ["forecaster", "secretary"]
    assert [m.name for m in messages if m.type == "tool"] == ["get_weather", "send_mail"]
    assert len({m.response_metadata["adapter"] for m in messages if m.type == "ai"}) == 2


async def test_an_mcp_servers_tools_can_be_called(bare):
    message = await _example("mcp_tools").ask("dim the light", bare)
    assert {call["name"] for call in message.tool_calls} <= {"set_light", "lock_door"}
    assert message.tool_calls


async def test_many_requests_reach_the_right_agents(specializer):
    example = _example("many_agents")
    replies = await example.ask_all(specializer)
    assert len(replies) == 32
    for room, reply in zip(example.ROOMS * 4, replies, strict=True):
        assert reply.response_metadata["agent"] == room
        assert {call["name"] for call in reply.tool_calls} == {f"{room}_light"}


def test_every_block_of_the_page_runs(home, tiny_bundle, monkeypatch):
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", tiny_bundle)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "langchain.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "docs/langchain.md", "exec"), names)
    assert len(blocks) == 4
    assert names["decision"]["decision"] == "fallback"
    assert names["message"].tool_calls
