"""Ways to ask, side by side: each column of the playground streams a reply and ends as a card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from agent_specializer.errors import SpecializerError
from agent_specializer.evaluation.metrics import is_valid
from agent_specializer.examples.compare import same_value
from agent_specializer.messages import Call, Message, Reply
from agent_specializer.specializer import Specializer
from agent_specializer.specializer.control import stream_with_other_adapter
from agent_specializer.specs import Toolset
from ui.show import clip, plain, problem, seconds

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from agent_specializer.edge.events import Event
    from agent_specializer.edge.options import ReplyOptions

COLUMNS = {
    "specialized": "Specialised",
    "prompted": "Prompted",
    "base": "Base",
    "control": "Another adapter",
}
EXPLAINED = {
    "specialized": "The adapter, and only the message in the prompt",
    "prompted": "All tool definitions in the prompt, no adapter",
    "base": "Neither adapter nor definitions",
    "control": "The adapter of another agent, as a control",
}


@dataclass(frozen=True)
class Failed:
    """A column whose reply ended in an error."""

    error: SpecializerError


Outcome = Reply | Failed


def events(
    service: Specializer,
    agent: str,
    messages: Sequence[Message],
    column: str,
    other: str | None,
    options: ReplyOptions,
) -> Iterator[Event]:
    """What one column streams; the model is asked when the first event is."""
    if column == "control":
        yield from stream_with_other_adapter(service, agent, messages, other or agent, options=options)
    else:
        yield from service.stream(agent, messages, mode=column, options=options)  # type: ignore[arg-type]


def stream(place: DeltaGenerator, coming: Iterator[Event]) -> Outcome:
    """The reply at the end of what is `coming`, which is drawn into `place` as it comes."""
    from agent_specializer.edge.events import CallDelta, ChoiceMade, Done, TextDelta

    names: list[str] = []
    arguments: dict[int, str] = {}
    words = ""
    place.caption(":material/hourglass_empty: Waiting for the model …")
    try:
        for event in coming:
            if isinstance(event, Done):
                return event.reply
            if isinstance(event, ChoiceMade) and event.name is not None:
                names.append(event.name)
            elif isinstance(event, CallDelta):
                arguments[event.index] = arguments.get(event.index, "") + event.arguments_text
            elif isinstance(event, TextDelta):
                words += event.text
            with place.container():
                for index, name in enumerate(names):
                    st.code(f"{name} {arguments.get(index, '')}", language=None, wrap_lines=True)
                if words:
                    st.text(words)
    except SpecializerError as error:
        return Failed(error)
    raise AssertionError("a stream ends in Done or an error")


def card(outcome: Outcome, toolset: Toolset, lead: Outcome | None = None) -> None:
    """A reply: its calls or words, what differs from the leading column's, and what it cost."""
    if isinstance(outcome, Failed):
        problem(outcome.error)
        return
    for index, call in enumerate(outcome.calls):
        expected = lead.calls[index] if isinstance(lead, Reply) and index < len(lead.calls) else None
        call_card(call, toolset, expected, compared=isinstance(lead, Reply))
    if not outcome.calls:
        with st.container(border=True, gap="xsmall"):
            st.caption("Answered in words")
            st.text(outcome.content or "(nothing)")
            if outcome.missing:
                st.caption(plain(f"Not said: {', '.join(outcome.missing)}"))
    usage = outcome.usage
    tools = f", {usage.tool_prompt_tokens:,} of them tools" if usage.tool_prompt_tokens else ""
    st.caption(
        f"{usage.prompt_tokens:,} tokens in{tools} · first token {seconds(usage.first_token_seconds)} · "
        f"total {seconds(usage.seconds)} · {outcome.confidence:.0%} sure"
    )


def call_card(call: Call, toolset: Toolset, expected: Call | None, *, compared: bool) -> None:
    with st.container(border=True, gap="xsmall"):
        other_tool = compared and (expected is None or expected.name != call.name)
        name = f"**{plain(call.name)}**"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":orange-background[{name}]" if other_tool else name, width="content")
            if is_valid(call, toolset):
                st.badge("Valid", icon=":material/check:", color="green")
            else:
                st.badge("Not valid", icon=":material/close:", color="red")
            if other_tool:
                st.badge("Other tool", icon=":material/call_split:", color="orange")
        for key, value in call.arguments.items():
            line = plain(f"{key}: {clip(json.dumps(value, ensure_ascii=False), 300)}")
            same = (
                not compared
                or other_tool
                or (
                    expected is not None
                    and key in expected.arguments
                    and same_value(value, expected.arguments[key])
                )
            )
            st.markdown(line if same else f":orange-background[{line}] :small[differs]")
        if expected is not None and not other_tool:
            for key in expected.arguments.keys() - call.arguments.keys():
                st.markdown(f":orange-background[{plain(key)}] :small[is missing]")
        if not call.arguments:
            st.caption("No arguments")


def assistant_turn(reply: Reply) -> Message:
    return Message(role="assistant", content=reply.content, calls=reply.calls)


def result_turns(calls: Sequence[Call], results: Sequence[str]) -> list[Message]:
    """What the tools answered, one turn per call."""
    return [
        Message(role="tool", name=call.name, content=result)
        for call, result in zip(calls, results, strict=True)
    ]


def mock_result(call: Call) -> str:
    """What a tool that does what it is told would say."""
    done: dict[str, Any] = {"ok": True, **call.arguments}
    return json.dumps(done, ensure_ascii=False)
