"""A LangGraph graph of two agents with different tools: two adapters, one small model in memory."""

from __future__ import annotations

from itertools import pairwise

from langchain_core.messages import AIMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.prebuilt import ToolNode

from agent_specializer import Specializer
from agent_specializer.langchain import ChatSpecialized


def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    return f"It is sunny in {city}."


def send_mail(to: str, text: str) -> str:
    """Send an e-mail."""
    return f"Sent to {to}: {text}"


def build(specializer: Specializer) -> CompiledStateGraph:
    """First the forecaster calls its tool, then the secretary hers; each reads the whole conversation."""
    specializer.create_agent("forecaster", [get_weather], "You look up the weather.")
    specializer.create_agent("secretary", [send_mail], "You write short mails.")
    forecaster = ChatSpecialized(agent="forecaster", specializer=specializer)
    secretary = ChatSpecialized(agent="secretary", specializer=specializer)

    def ask(model: ChatSpecialized):  # type: ignore[no-untyped-def]
        def node(state: MessagesState) -> dict[str, list[AIMessage]]:
            reply = model.invoke(state["messages"], tool_choice="any", parallel_tool_calls=False)
            return {"messages": [reply]}

        return node

    graph = StateGraph(MessagesState)
    graph.add_node("forecaster", ask(forecaster))
    graph.add_node("look", ToolNode([get_weather]))
    graph.add_node("secretary", ask(secretary))
    graph.add_node("send", ToolNode([send_mail]))
    steps = [START, "forecaster", "look", "secretary", "send", END]
    for here, there in pairwise(steps):
        graph.add_edge(here, there)
    return graph.compile()


if __name__ == "__main__":
    request = "Tell anna@example.com what the weather is in Oslo"
    for message in build(Specializer()).invoke({"messages": [("user", request)]})["messages"]:
        message.pretty_print()
