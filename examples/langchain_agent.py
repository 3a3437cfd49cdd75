"""A LangChain agent with three tools and a memory, on the specialised model: no system prompt, no tool definitions sent.

Run it: python examples/langchain_agent.py "dim the kitchen light to 20"
"""

from __future__ import annotations

import sys

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph.state import CompiledStateGraph

from agent_specializer.langchain import ChatSpecialized


def set_light(room: str, level: int) -> str:
    """Set the brightness of the lights in a room.

    Args:
        room: Which room, e.g. kitchen.
        level: Brightness in percent.
    """
    return f"The {room} lights are at {level} %."


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"It is sunny in {city}."


def play_music(title: str) -> str:
    """Play a song or an album."""
    return f"Playing {title}."


def build(model: BaseChatModel | None = None) -> CompiledStateGraph:
    """The agent; `model` is for those who want another than the default one."""
    return create_agent(
        model or ChatSpecialized(),
        [set_light, get_weather, play_music],
        system_prompt="You run a house.",
        checkpointer=InMemorySaver(),
    )


if __name__ == "__main__":
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": 12}
    for step in build().stream({"messages": [("user", sys.argv[1])]}, config, stream_mode="values"):
        step["messages"][-1].pretty_print()
