"""Playground: one request, the ways to answer it side by side."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import streamlit as st

from agent_specializer.errors import SpecializerError
from agent_specializer.messages import Call, Message, Mode, Reply
from agent_specializer.specializer.scoring import Scored, read_requests, score, shipped_examples
from agent_specializer.specs import Toolset
from ui.choose import choose_agent
from ui.columns import (
    COLUMNS,
    EXPLAINED,
    Outcome,
    assistant_turn,
    card,
    events,
    mock_result,
    result_turns,
    stream,
)
from ui.service import load_models, registry
from ui.show import clip, plain, problem

CAUTION = """Above 0 they rather answer in words, below 0 they rather call a tool. In LangChain: `ChatSpecialized(agent=..., caution=...)`;
`agent-specializer bench caution` tells from example requests which value is right."""


@dataclass
class Turn:
    """What was said, and what each column made of it. `other`: whose adapter the control has."""

    said: list[Message]
    columns: list[str]
    other: str | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def turns_of(agent: str) -> list[Turn]:
    """This session's conversation with an agent."""
    chats: dict[str, list[Turn]] = st.session_state.setdefault("chats", {})
    return chats.setdefault(agent, [])


def conversation(turns: list[Turn]) -> list[Message]:
    """All turns; where columns answered differently, it goes on with what the first of them said."""
    messages: list[Message] = []
    for turn in turns:
        messages += turn.said
        lead = turn.outcomes.get(turn.columns[0])
        if isinstance(lead, Reply):
            messages.append(assistant_turn(lead))
    return messages


def show_said(turn: Turn) -> None:
    for message in turn.said:
        if message.role == "user":
            with st.chat_message("user", avatar=":material/person:"):
                st.text(message.content)
        else:
            with st.chat_message("tool", avatar=":material/build:"):
                st.caption(f"Result of {plain(message.name or '')}")
                st.text(message.content)


def show_turn(turn: Turn, toolset: Toolset) -> None:
    show_said(turn)
    lead = turn.outcomes.get(turn.columns[0])
    for column, place in zip(turn.columns, st.columns(len(turn.columns), gap="medium"), strict=True):
        with place:
            st.caption(f"**{heading(column, turn.other)}**", help=EXPLAINED[column])
            if column in turn.outcomes:
                card(turn.outcomes[column], toolset, None if column == turn.columns[0] else lead)
            else:
                st.caption("Not asked: it was interrupted.")


def heading(column: str, other: str | None) -> str:
    return f"{COLUMNS[column]}: {plain(other)}" if column == "control" and other else COLUMNS[column]


def answer(agent: str, turn: Turn, turns: list[Turn], caution: float) -> None:
    """Ask every column of a new turn; each reply is kept as soon as it is there."""
    from agent_specializer.edge.options import ReplyOptions

    toolset = registry().toolset(agent)
    show_said(turn)
    places = []
    for column, place in zip(turn.columns, st.columns(len(turn.columns), gap="medium"), strict=True):
        with place:
            st.caption(f"**{heading(column, turn.other)}**", help=EXPLAINED[column])
            places.append(st.empty())
    service = load_models()
    messages = [*conversation(turns), *turn.said]
    options = ReplyOptions(caution=caution)
    turns.append(turn)
    for column, place in zip(turn.columns, places, strict=True):
        coming = events(service, agent, messages, column, turn.other, options)
        turn.outcomes[column] = stream(place, coming)
        with place.container():
            lead = turn.outcomes[turn.columns[0]]
            card(turn.outcomes[column], toolset, None if column == turn.columns[0] else lead)


def results_form(calls: tuple[Call, ...], number: int) -> list[str] | None:
    """Ask for what the tools answered: typed in, or a mock's words. None until it is sent."""
    with st.container(border=True, key="results"):
        st.caption("What do the tools answer?")
        with st.form(f"results-{number}", border=False):
            typed = [
                st.text_input(
                    f"Result of {plain(call.name)}",
                    key=f"result-{number}-{index}",
                    placeholder='{"ok": true}',
                )
                for index, call in enumerate(calls)
            ]
            with st.container(horizontal=True):
                sent = st.form_submit_button("Send results")
                mocked = st.form_submit_button("Answer with a mock", icon=":material/smart_toy:")
    if mocked:
        return [mock_result(call) for call in calls]
    if sent:
        return [text or "" for text in typed]
    return None


def chat(agent: str) -> None:
    turns = turns_of(agent)
    toolset = registry().toolset(agent)
    columns, other, caution = settings(agent)
    if turns:
        st.button("New conversation", icon=":material/restart_alt:", type="tertiary", on_click=turns.clear)
    for turn in turns:
        show_turn(turn, toolset)
    if not turns:
        st.caption("Write what a user would write. Nothing else goes into the specialised model's prompt.")
    results = None
    last = turns[-1].outcomes.get(turns[-1].columns[0]) if turns else None
    form = st.empty()
    if isinstance(last, Reply) and last.calls:
        with form.container():
            results = results_form(last.calls, len(turns))
    ahead = st.container()
    request = st.chat_input("Message", key="message", disabled=not columns)
    said: list[Message] = []
    if results is not None and isinstance(last, Reply):
        said = result_turns(last.calls, results)
    elif request:
        said = [Message(role="user", content=request)]
    if not said or not columns:
        return
    form.empty()
    with ahead:
        try:
            answer(agent, Turn(said, columns, other), turns, caution)
        except SpecializerError as error:
            problem(error)
            return
    st.rerun()


def settings(agent: str) -> tuple[list[str], str | None, float]:
    """Which columns, whose adapter the control has, and the caution."""
    others = [row.name for row in registry().agents(limit=1000) if row.name != agent]
    offered = [column for column in COLUMNS if column != "control" or others]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.pills(
            "Side by side",
            offered,
            selection_mode="multi",
            default=["specialized", "prompted"],
            format_func=COLUMNS.__getitem__,
            key="columns",
        )
        other = None
        if "control" in chosen:
            other = st.selectbox("Whose adapter", others, key="control-agent", width=220)
        caution = choose_caution("caution")
    if not chosen:
        st.caption("Choose at least one way to answer.")
    return [column for column in COLUMNS if column in chosen], other, caution


def choose_caution(key: str) -> float:
    return float(st.slider("Caution", -4.0, 4.0, 0.0, 0.5, format="%+.1f", key=key, width=220, help=CAUTION))


def examples(agent: str) -> None:
    spec = registry().agent(agent)
    shipped = shipped_examples(spec.tools)
    sources = [*shipped, "Paste"]
    source = st.selectbox("Requests", sources, key="examples-source", width=320)
    if source == "Paste":
        text = st.text_area(
            "One JSON object a line",
            key="examples-text",
            height=160,
            placeholder='{"request": "dim the kitchen light", "calls": [{"name": "set_light", "arguments": {"room": "kitchen"}}]}',
        )
        try:
            requests = read_requests(text or "")
        except SpecializerError as error:
            problem(error)
            return
    else:
        requests = shipped[source]
    if len(requests) > 1:
        limit = st.slider(
            "How many", 1, len(requests), min(10, len(requests)), key="examples-limit", width=320
        )
        requests = requests[:limit]
    modes: list[Mode] = st.pills(
        "Ways",
        ["specialized", "prompted", "base"],
        selection_mode="multi",
        default=["specialized", "prompted"],
        format_func=COLUMNS.__getitem__,
        key="examples-modes",
    )
    caution = choose_caution("examples-caution")
    if st.button(
        "Run them all", type="primary", disabled=not (requests and modes), icon=":material/play_arrow:"
    ):
        try:
            service = load_models()
            bar = st.progress(0.0, text="Asking …")

            from agent_specializer.edge.options import ReplyOptions

            def on_done(done: int, total: int) -> None:
                bar.progress(done / total, text=f"{done} of {total}")

            rows = score(
                service,
                agent,
                requests,
                modes,
                on_done,
                options=ReplyOptions(caution=caution),
            )
            bar.empty()
        except SpecializerError as error:
            problem(error)
            return
        st.session_state["examples-scored"] = agent, rows
    scored: tuple[str, list[Scored]] | None = st.session_state.get("examples-scored")
    if scored and scored[0] == agent:
        show_scores(scored[1])


def show_scores(rows: list[Scored]) -> None:
    modes = list(dict.fromkeys(row.mode for row in rows))
    with st.container(horizontal=True):
        for mode in modes:
            own = [row for row in rows if row.mode == mode]
            st.metric(
                f"{COLUMNS[mode]}: right tool",
                f"{sum(row.tool for row in own)} of {len(own)}",
                f"{sum(row.exact for row in own)} exact",
                delta_color="off",
                delta_arrow="off",
                border=True,
                width=240,
            )
    st.dataframe(
        [
            {
                "request": clip(row.request, 200),
                "way": COLUMNS[row.mode],
                "tool": row.tool,
                "exact": row.exact,
                "expected": written(row.expected),
                "made": row.error or written(row.made),
            }
            for row in rows
        ],
        hide_index=True,
        alt="Every request in every way: expected and made calls",
    )


def written(calls: tuple[Call, ...]) -> str:
    if not calls:
        return "words"
    return "; ".join(f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}" for call in calls)


st.title("Playground", anchor=False)
agent = choose_agent(key="playground-agent")
if agent is not None:
    view = st.segmented_control(
        "View",
        ["Chat", "Example requests"],
        default="Chat",
        required=True,
        key="view",
        label_visibility="collapsed",
    )
    if view == "Chat":
        chat(agent)
    else:
        examples(agent)
