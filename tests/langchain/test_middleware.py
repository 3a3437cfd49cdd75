"""SpecializedMiddleware in create_agent: who answers, why, and what the edge gets to read."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from agent_specializer.errors import DecodeError
from agent_specializer.langchain import ChatSpecialized, SpecializedMiddleware


@tool
def set_light(level: int) -> str:
    """Dims the lamps."""
    return f"set to {level}"


@tool
def get_weather() -> str:
    """Tells the weather."""
    return "sunny"


class Other(GenericFakeChatModel):
    """Another chat model; remembers what it was sent."""

    messages: Any = None
    seen: list[Any] = []  # noqa: RUF012  # a pydantic field

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools)

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.seen.append((messages, kwargs.get("tools")))
        return super()._generate(messages, *args, **{k: v for k, v in kwargs.items() if k != "tools"})


@pytest.fixture
def other() -> Other:
    return Other(messages=iter([AIMessage("from the other") for _ in range(9)]), seen=[])


@pytest.fixture
def model(specializer) -> ChatSpecialized:
    return ChatSpecialized(agent="home", specializer=specializer, max_tokens=30)


def _agent(main: Any, middleware: SpecializedMiddleware, **more: Any) -> Any:
    return create_agent(
        main, [set_light, get_weather], system_prompt="You run a house.", middleware=[middleware], **more
    )


ASK = {"messages": [("user", "dim the lamps")]}


def _last(model_messages: dict[str, Any]) -> AIMessage:
    return [m for m in model_messages["messages"] if isinstance(m, AIMessage)][-1]


def test_the_specialised_model_answers_for_the_registered_agent(model, other):
    middleware = SpecializedMiddleware(model=model)
    done = _agent(other, middleware).invoke(ASK, {"recursion_limit": 50})
    first = next(m for m in done["messages"] if isinstance(m, AIMessage))
    assert first.response_metadata["specialized"]["decision"] == "specialized"
    assert first.response_metadata["agent"] == "home"  # the system prompt is the agent's own instructions
    assert other.seen == []


def test_too_little_confidence_falls_back_with_the_unchanged_request(model, other, specializer):
    middleware = SpecializedMiddleware(model=model, threshold=1.0)
    last = _last(_agent(other, middleware).invoke(ASK))
    said = last.response_metadata["specialized"]
    assert last.content == "from the other"
    assert said["decision"] == "fallback"
    assert 0 < said["confidence"] < 1 == said["threshold"]
    messages, tools = other.seen[0]
    assert messages[0].content == "You run a house."
    assert len(tools) == 2
    run = specializer.registry.runs()[0]
    assert (run.decision, run.mode, run.agent, run.request) == (
        "fallback",
        "fallback",
        "home",
        "dim the lamps",
    )
    assert "under 1" in run.reason


def test_a_rejected_reply_is_neither_written_nor_streamed(model, other, specializer):
    """The confidence is known with the first choice: the model stops there."""
    streamed = [
        chunk.text
        for chunk, _ in _agent(other, SpecializedMiddleware(model=model, threshold=1.0)).stream(
            ASK, stream_mode="messages"
        )
    ]
    assert "".join(streamed) == "from the other"
    assert [run.mode for run in specializer.registry.runs()] == ["fallback"]


def test_a_low_confidence_stands_where_there_is_no_other_model(model):
    last = _last(
        _agent(model, SpecializedMiddleware(model=model, threshold=1.0)).invoke(ASK, {"recursion_limit": 50})
    )
    said = last.response_metadata["specialized"]
    assert said["decision"] == "specialized"
    assert "no other model" in said["reason"]


async def test_asyncio_falls_back_the_same_way(model, other):
    middleware = SpecializedMiddleware(model=model, threshold=1.0)
    last = _last(await _agent(other, middleware).ainvoke(ASK))
    assert last.response_metadata["specialized"]["decision"] == "fallback"


def test_an_error_falls_back(model, other, monkeypatch, specializer):
    def fail(*_: Any, **__: Any) -> None:
        raise DecodeError("nothing fits")

    monkeypatch.setattr(specializer, "ask", fail)
    last = _last(_agent(other, SpecializedMiddleware(model=model)).invoke(ASK))
    assert last.response_metadata["specialized"]["reason"] == "DecodeError: nothing fits"
    with pytest.raises(DecodeError):  # without another model there is nothing to fall back to
        _agent(model, SpecializedMiddleware(model=model)).invoke(ASK)


def test_a_toolset_that_cannot_be_specialised_falls_back(model, other):
    provider_tool = {"type": "web_search_preview"}
    agent = create_agent(other, [set_light, provider_tool], middleware=[SpecializedMiddleware(model=model)])
    last = _last(agent.invoke(ASK))
    assert last.response_metadata["specialized"]["decision"] == "fallback"


def test_another_fallback_than_the_agents_model(model, other):
    middleware = SpecializedMiddleware(model=model, threshold=1.0, fallback=other)
    assert _last(_agent(model, middleware).invoke(ASK)).content == "from the other"


def test_system_prompt_and_tools_leave_the_request(model, other):
    seen = []
    middleware = SpecializedMiddleware(model=ChatSpecialized(specializer=model.specializer, max_tokens=20))
    original = middleware.specialized
    middleware.specialized = lambda request: seen.append(original(request)) or seen[-1]  # type: ignore[method-assign]
    _agent(other, middleware).invoke(ASK, {"recursion_limit": 50})
    assert seen[0].system_message is None
    assert seen[0].tools == []
    assert seen[0].model.toolset.instructions == "You run a house."
    assert seen[0].model.toolset.names == ("get_weather", "set_light")


def test_conversations_continue_with_a_checkpointer(model, other):
    agent = _agent(other, SpecializedMiddleware(model=model, threshold=1.0), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    agent.invoke(ASK, config)
    assert len(agent.invoke({"messages": [("user", "and now?")]}, config)["messages"]) == 4


def test_a_threshold_that_is_no_probability_is_refused(model):
    with pytest.raises(ValueError, match="probability"):
        SpecializedMiddleware(model=model, threshold=70)
