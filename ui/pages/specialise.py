"""Specialise: one button, the steps as they happen, and what came of it."""

from __future__ import annotations

import streamlit as st

from agent_specializer.adapters import expert_shares, gates_of, neighbours
from agent_specializer.errors import SpecializerError
from agent_specializer.specializer import Step
from agent_specializer.specializer.inspection import current_adapter, saved_per_call
from agent_specializer.store import AdapterRow
from ui.charts import balance, gates_map
from ui.choose import choose_agent
from ui.service import load_models, registry, specializer
from ui.show import ago, plain, problem, seconds, size

STEPS = {
    "describe": "Wrote the task description",
    "forward": "The cloud model read it, in one pass",
    "route": "The router chose the experts",
    "tools": "Made a key for each tool",
    "merge": "Merged the experts into the edge model",
    "requests": "Read what users say when they want its tools",
    "priors": "Measured how likely each name is by itself",
    "store": "Put the adapter into the cache",
}
MEASURE = "Ask once specialised and once prompted in the Playground to measure it."


def specialise(agent: str, *, force: bool) -> None:
    """Make the adapter with its steps as they happen; then draw the page anew, as all of it has changed."""
    try:
        service = load_models()
    except SpecializerError as error:
        problem(error)
        return
    with st.status("Specialising …", expanded=True) as status:
        try:
            with st.spinner("The model is at work; other requests are served first come, first served."):
                made = service.specialize(agent, force=force, on_step=show_step)
        except SpecializerError as error:
            status.update(label="It could not be specialised", state="error")
            problem(error)
            return
    st.session_state["specialised"] = agent, made.seconds, made.steps
    st.rerun()


def show_step(step: Step) -> None:
    st.markdown(said(step))


def said(step: Step) -> str:
    return f":material/check: {STEPS[step.name]} :small[· {seconds(step.seconds)}]"


def last_time(agent: str) -> tuple[float, tuple[Step, ...]] | None:
    """Seconds and steps of what this session has just made."""
    done: tuple[str, float, tuple[Step, ...]] | None = st.session_state.get("specialised")
    return done[1:] if done is not None and done[0] == agent else None


def show_steps(took: float, steps: tuple[Step, ...]) -> None:
    with st.status(f"Specialised in {seconds(took)}", state="complete", expanded=True):
        in_cache = ":material/check: It was in the cache: nothing had to be made"
        st.markdown("  \n".join(map(said, steps)) or in_cache)


def savings(agent: str, row: AdapterRow) -> None:
    """What each call no longer carries."""
    saved = saved_per_call(registry(), agent, row)
    sooner = saved.first_token_seconds
    with st.container(horizontal=True, gap="small"):
        st.metric("Tokens saved per call", f"{saved.prompt_tokens:,}", border=True, width=200)
        st.metric(
            "First token sooner by",
            seconds(sooner) if sooner is not None and sooner > 0 else "–",
            border=True,
            width=200,
            help=None if sooner is not None else MEASURE,
        )
        st.metric("Text not sent per call", size(saved.text_bytes), border=True, width=200)
        st.metric("The adapter takes", size(row.bytes), border=True, width=200)


def show_adapter(agent: str, row: AdapterRow) -> None:
    try:
        gates = gates_of(registry(), row)
    except SpecializerError as error:
        problem(error)
        return
    done = last_time(agent)
    if done:
        left, right = st.columns([3, 2])
        with left:
            show_steps(*done)
        with right:
            savings(agent, row)
    else:
        savings(agent, row)
    st.caption(
        f"{row.description_tokens:,} tokens read once, made in {seconds(row.seconds)}, {ago(row.created_at)} · "
        f"adapter {row.fingerprint[:12]}"
    )
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Gates", anchor=False)
        st.plotly_chart(gates_map(gates), key="gates", alt="Gates, a heat-map of layers by experts")
    with right:
        st.subheader("Balance", anchor=False)
        st.plotly_chart(
            balance(expert_shares(gates)), key="balance", alt="Share of each expert over all layers"
        )
        st.subheader("Nearest agents", anchor=False)
        near = neighbours(registry(), row)
        if not near:
            st.caption("No other agent has been specialised yet.")
        for each in near:
            with st.container(horizontal=True, horizontal_alignment="distribute"):
                st.text(each.row.agent or "")
                st.caption(f"{each.shared:.0%} of the routing shared", width="content")


st.title("Specialise", anchor=False)
st.caption("The model reads the tools once. From then on each call is the user's message alone.")
agent = choose_agent(key="specialise-agent")
if agent is not None:
    found = current_adapter(specializer(), agent)
    fresh = found is not None and found[1].state == "fresh"
    with st.container(horizontal=True, vertical_alignment="center"):
        label = "Specialise again" if fresh else "Specialise"
        go = st.button(
            label, type="secondary" if fresh else "primary", icon=":material/bolt:", key="specialise"
        )
        if fresh:
            st.badge("Ready", icon=":material/check:", color="green")
            st.page_link("pages/playground.py", label="Try it", icon=":material/forum:")
        elif found:
            st.badge("Outdated", icon=":material/update:", color="orange")
            st.caption(plain("; ".join(found[1].why)), width="content")
    if go:
        specialise(agent, force=fresh)
    if found:
        show_adapter(agent, found[0])
    elif not go:
        st.caption(f"{plain(agent)} has no adapter yet.")
