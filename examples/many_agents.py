"""32 requests over 8 agents at once: asyncio never waits for the model, and all share one edge model."""

from __future__ import annotations

import asyncio

from langchain_core.messages import AIMessage

from agent_specializer import Specializer, ToolSpec
from agent_specializer.langchain import ChatSpecialized

ROOMS = ("kitchen", "hall", "bath", "office", "attic", "cellar", "garden", "garage")
REQUESTS = ("dim the light", "turn it off", "make it brighter", "full brightness, please")
LEVEL = {
    "type": "object",
    "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 100}},
    "required": ["level"],
}


async def ask_all(specializer: Specializer) -> list[AIMessage]:
    """The replies, request by request, each by the agent of its room."""
    for room in ROOMS:
        light = ToolSpec(name=f"{room}_light", description=f"Sets the {room} light.", parameters=LEVEL)
        specializer.create_agent(room, [light], f"You run the {room}.")
    model = ChatSpecialized(specializer=specializer, max_tokens=40)
    asked = [model.ainvoke(text, model=room, tool_choice="any") for text in REQUESTS for room in ROOMS]
    return await asyncio.gather(*asked)


if __name__ == "__main__":
    for reply in asyncio.run(ask_all(Specializer())):
        print(reply.response_metadata["agent"], reply.tool_calls[0]["name"], reply.tool_calls[0]["args"])
