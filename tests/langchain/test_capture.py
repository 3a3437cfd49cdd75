"""No tool description and no system prompt reaches the edge's tokenizer while an agent runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.errors import GraphRecursionError

from agent_specializer import Specializer
from agent_specializer.langchain import ChatSpecialized, SpecializedMiddleware

SYSTEM = "Beware of the purple walrus, who owns this house."


@tool
def set_light(room: str, level: int) -> str:
    """Sprinkles moonbeams over the furniture."""
    return f"The {room} has a level of {level} now."


@tool
def get_weather(city: str) -> str:
    """Interrogates the grumpy cloudkeeper."""
    return f"Hailstones in {city}."


@tool
def send_mail(to: str, body: str) -> str:
    """Entrusts an envelope to the heron courier."""
    return "The letter has left."


TOOLS = (set_light, get_weather, send_mail)
TURNS = (
    "Please dim the marzipan kitchen to 20.",
    "What about Timbuktu tomorrow?",
    "Write that to zoe@quux.example.",
)
HIDDEN = (
    "walrus",
    "owns this",
    "moonbeams",
    "cloudkeeper",
    "heron",
    "envelope",
    "parameters",
    '"type"',
    "Tools:",
)
"""Pieces of the system prompt, of each description, and of the way in which tools are written in a prompt."""


class _Core:
    """A fast tokenizer's core, below all of its methods: keeps each text that is to become tokens."""

    def __init__(self, core: Any, read: list[str]) -> None:
        self._core, self._read = core, read

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._core, name)
        if not name.startswith("encode") or not callable(found):
            return found

        def encode(texts: Any, *args: Any, **kwargs: Any) -> Any:
            self._read.extend(map(str, [texts] if isinstance(texts, str) else texts))
            return found(texts, *args, **kwargs)

        return encode

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self._core, name, value)


@contextmanager
def captured(tokenizer: Any) -> Iterator[list[str]]:
    """Every text that `tokenizer` is given, in whatever way, while the block runs."""
    read: list[str] = []
    core = tokenizer._tokenizer
    tokenizer._tokenizer = _Core(core, read)
    try:
        yield read
    finally:
        tokenizer._tokenizer = core


@pytest.mark.parametrize("way", [str.split, lambda text: [text]])
def test_the_capture_sees_each_way_of_tokenising(tiny_tokenizer, way: Callable[[str], list[str]]):
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer)
    texts = way("one two")
    with captured(tokenizer) as read:
        tokenizer(texts)
        tokenizer(texts[0], return_tensors="pt")
        tokenizer.encode(texts[0], add_special_tokens=False)
        tokenizer.tokenize(texts[0])
    assert read == [*texts, texts[0], texts[0], texts[0]]
    with captured(tokenizer) as nothing:
        pass
    tokenizer(texts)
    assert nothing == []


def hold(agent: Any) -> list[Any]:
    """All turns with the agent; it is stopped where it does not stop by itself."""
    messages: list[Any] = []
    for text in TURNS:
        messages = [*messages, ("user", text)]
        try:
            for state in agent.stream({"messages": messages}, {"recursion_limit": 6}, stream_mode="values"):
                messages = state["messages"]
        except GraphRecursionError:
            pass
        if getattr(messages[-1], "tool_calls", None):
            messages = messages[:-1]  # a call without its result cannot be followed by a user
    return messages


def check(specialize: Callable[[], Specializer], max_tokens: int) -> None:
    """Specialises, starts anew, as the next process would, and captures all that an agent's run tokenises."""

    def agents(specializer: Specializer) -> list[Any]:
        model = ChatSpecialized(specializer=specializer, max_tokens=max_tokens)
        routed = SpecializedMiddleware(model=model)
        return [
            create_agent(model, TOOLS, system_prompt=SYSTEM),
            create_agent(model, TOOLS, system_prompt=SYSTEM, middleware=[routed]),
        ]

    with specialize() as first:
        made = ChatSpecialized(specializer=first, max_tokens=1)
        bound = made.bind_tools(TOOLS, tool_choice="none")
        assert bound.invoke([("system", SYSTEM), ("user", "hello")]).response_metadata["cache"] == "miss"
        known = first.registry.adapters()
    with specialize() as specializer:
        tokenizer = specializer.engine.tokenizer
        with captured(tokenizer) as read:
            conversations = [hold(agent) for agent in agents(specializer)]
        answers = [m for messages in conversations for m in messages if m.type == "ai"]
        assert {m.response_metadata["cache"] for m in answers} == {"hit"}
        assert {m.response_metadata["adapter"] for m in answers} == {row.fingerprint for row in known}
        saved = answers[0].usage_metadata["input_token_details"]["saved"]
        toolset = specializer.registry.adapter_toolset(known[0].fingerprint)
    # It is live: what the user said, what the tools answered and the names of the tools are there.
    for text in (*TURNS, *(name.name for name in TOOLS)):
        assert any(text in said for said in read), text
    # What no answer follows was never read: a random model is stopped in the middle of its calls.
    results = [
        m.text
        for messages in conversations
        for at, m in enumerate(messages)
        if m.type == "tool" and any(later.type == "ai" for later in messages[at:])
    ]
    for text in results:
        assert any(f"Result: {text}" in said for said in read)
    # And these would have been there, had the definitions been sent.
    from agent_specializer.describe import describe_toolset

    told = describe_toolset(toolset)
    assert all(
        piece in told + json.dumps(toolset.tools[0].parameters) for piece in HIDDEN if piece != "parameters"
    )
    assert saved == len(tokenizer(told, add_special_tokens=False).input_ids)
    for said in read:
        for piece in HIDDEN:
            assert piece.lower() not in said.lower()


def test_an_agent_on_a_tiny_model(home, tiny_bundle):
    check(lambda: Specializer(bundle=tiny_bundle), max_tokens=60)


@pytest.mark.embedded
def test_an_agent_on_the_embedded_model(embedded_home, tmp_path):
    url = f"sqlite:///{tmp_path / 'capture.db'}"
    check(lambda: Specializer(home=embedded_home, database_url=url), max_tokens=12)
