"""The edge model's wire format: a conversation as plain text, with no system prompt and no tool text.

::

    User: dim the kitchen light
    Call: set_light
    {"room": "kitchen", "level": 20}
    Call: none
    Result: {"ok": true}
    Call: none
    Answer: Done.
    User: ...
    Call:

The text always ends in ``Call:``, where the engine chooses among the names of the tools and ``none``. Lines that the
conversation itself brings are indented by one space, so that a user's text cannot forge a turn. System messages are
not written: they belong to the task description, that is, to the adapter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agent_specializer.messages import Call, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NONE = "none"
"""The label of answering in words."""
CALL = "Call:"
ANSWER = "Answer:"
EMPTY = "User:\nCall:"
"""The empty request, behind which the prior of each name is measured."""


def arguments_text(arguments: dict[str, Any], schema: dict[str, Any] | None = None) -> str:
    """`arguments` as the decoder writes them: one line of JSON, keys in the order of the schema's properties."""
    order = {name: index for index, name in enumerate((schema or {}).get("properties", {}))}
    ordered = dict(sorted(arguments.items(), key=lambda item: order.get(item[0], len(order))))
    return json.dumps(ordered, ensure_ascii=False, separators=(", ", ": "))


def label(name: str | None) -> str:
    """What is scored for a choice: the tool's name (None: answering in words) up to the end of the line."""
    return f" {name or NONE}\n"


def render_call(call: Call, schema: dict[str, Any] | None = None) -> str:
    """What follows ``Call:`` when `call` was made, up to the next ``Call:``."""
    return f"{label(call.name)}{arguments_text(call.arguments, schema)}\n{CALL}"


def render(messages: Sequence[Message]) -> str:
    """The conversation up to and including the ``Call:`` at which the model goes on."""
    lines: list[str] = []
    for message in messages:
        if message.role == "user":
            lines.append(f"User: {_indent(message.content)}")
        elif message.role == "tool":
            lines.append(f"Result: {_indent(message.content)}")
        elif message.role == "assistant":
            for call in message.calls:
                lines.append(f"{CALL} {call.name}\n{arguments_text(call.arguments)}")
            lines.append(f"{CALL} {NONE}")
            if message.content.strip():
                lines.append(f"{ANSWER} {_indent(message.content)}")
    return "\n".join([*lines, CALL]) if lines else EMPTY


def newest_turn(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The first token of the newest user message in a rendered conversation; what came of it so far follows it."""
    start = text.rfind("\nUser:") + 1
    return len(tokenizer(text[:start]).input_ids) if start else 1


def behind_request(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The first token behind the ``Call:`` that follows the newest user message: there that turn's calls begin, or will."""
    place = text.find(f"\n{CALL}", text.rfind("\nUser:") + 1)
    return len(tokenizer(text[: place + len(CALL) + 1]).input_ids)


def _indent(text: str) -> str:
    return "\n ".join(text.strip().splitlines())
