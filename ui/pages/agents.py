"""Agents: which tools belong together, with which instructions, and what the cloud model will read of them."""

from __future__ import annotations

import streamlit as st
from pydantic import ValidationError

from agent_specializer.describe import describe_toolset
from agent_specializer.errors import SpecError, SpecializerError
from agent_specializer.specializer.similar import alike
from agent_specializer.specs import AgentSpec, Toolset
from agent_specializer.store import AgentRow
from ui.service import load_models, registry, specializer
from ui.show import ago, clip, empty, forget_note, note, page_of, plain, problem, said_note, search_box

PAGER = "agents-page"
OFFERED = 200  # tools that the field offers at once; with more registered, a search narrows them down


def open_view(view: str, agent: str = "") -> None:
    forget_note()
    for key in ("agent-name", "agent-instructions", "agent-tools", "agent-tool-search"):
        st.session_state.pop(key, None)
    st.session_state["agents-view"], st.session_state["agents-open"] = view, agent
    if view == "edit":
        spec = registry().agent(agent)
        st.session_state["agent-instructions"] = spec.instructions
        st.session_state["agent-tools"] = list(spec.tools)


def agent_list() -> None:
    store = registry()
    everything = store.count_agents()
    st.title("Agents", anchor=False)
    if everything == 0:
        st.caption("A set of tools with instructions: what the model is specialised to.")
        if store.count_tools():
            with empty(
                "No agents yet", "Choose the tools that belong together and give them a name.", key="agents"
            ):
                st.button(
                    "Make an agent", type="primary", icon=":material/add:", on_click=open_view, args=("new",)
                )
        else:
            with empty("No agents yet", "An agent is made of tools, and there are none yet.", key="agents"):
                st.page_link("pages/tools.py", label="Add tools first", icon=":material/build:")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = search_box(
            "Search agents", "Search names and instructions", key="agents-search", pager=PAGER
        )
        st.button("Make an agent", type="primary", icon=":material/add:", on_click=open_view, args=("new",))
    count = store.count_agents(search)
    if not count:
        with empty(
            "Nothing found", "No agent has all of these words in its name or instructions.", key="search"
        ):
            st.button("Show all agents", on_click=lambda: st.session_state.pop("agents-search", None))
        return
    for row in store.agents(search, limit=20, offset=page_of(count, key=PAGER)):
        agent_row(row)


def agent_row(row: AgentRow) -> None:
    with st.container(border=True):
        name, text, facts = st.columns([3, 6, 2], vertical_alignment="center")
        name.button(
            f"**{plain(row.name)}**",
            key=f"open-{row.name}",
            type="tertiary",
            on_click=open_view,
            args=("edit", row.name),
        )
        text.text(clip(row.instructions, 160) or "No instructions")
        n = len(row.tools)
        facts.caption(f"{n} tool{'s' * (n != 1)} · {ago(row.updated_at)}")


def agent_form(name: str | None) -> None:
    """Make an agent (`name` None) or change one."""
    st.button("All agents", icon=":material/arrow_back:", type="tertiary", on_click=open_view, args=("list",))
    st.title(plain(name) if name else "Make an agent", anchor=False)
    wish = name or (st.text_input("Name", key="agent-name", placeholder="home", max_chars=128) or "").strip()
    instructions = st.text_area(
        "Instructions",
        key="agent-instructions",
        height=110,
        placeholder="You run a smart home. Act at once; ask only when a room is missing.",
    )
    tools = choose_tools()
    toolset = Toolset(
        tools=tuple(registry().tool(tool) for tool in tools), instructions=(instructions or "").strip()
    )
    warn(toolset)
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Save agent", type="primary", disabled=not (wish and tools), on_click=forget_note):
            save(wish, toolset.instructions, tools, new=name is None)
        if name:
            st.page_link("pages/specialise.py", label="Specialise", icon=":material/bolt:")
            with st.popover("Remove", icon=":material/delete:"):
                st.caption("Its tools, adapters and runs stay.")
                st.button("Remove this agent", on_click=remove, args=(name,))
    if not (wish and tools):
        st.caption("A name and at least one tool are needed.")
    elif tools:
        description(toolset)


def choose_tools() -> list[str]:
    store = registry()
    chosen: list[str] = list(st.session_state.get("agent-tools") or [])
    total = store.count_tools()
    search = ""
    if total > OFFERED:
        search = search_box("Search tools", f"Narrow down {total:,} tools", key="agent-tool-search", pager="")
    offered = [row.name for row in store.tools(search, limit=OFFERED)]
    options = list(dict.fromkeys([*chosen, *offered]))
    st.session_state["agent-tools"] = chosen
    return st.multiselect(
        f"Tools ({len(chosen)} chosen)",
        options,
        key="agent-tools",
        placeholder="Choose tools",
        select_all=OFFERED,
    )


def warn(toolset: Toolset) -> None:
    """Name the tools that a model, and a person, will mix up."""
    pairs = alike(toolset.tools)
    if not pairs:
        return
    lines = [f"- {plain(p.first)} and {plain(p.second)} have nearly the same {p.why}" for p in pairs[:6]]
    more = f"\n- and {len(pairs) - 6} more pairs" if len(pairs) > 6 else ""
    st.warning(
        "These tools are hard to tell apart:\n" + "\n".join(lines) + more, icon=":material/call_split:"
    )


def save(name: str, instructions: str, tools: list[str], *, new: bool) -> None:
    store = registry()
    try:
        agent = AgentSpec(name=name, instructions=instructions, tools=tuple(tools))
        if new and any(row.name == name for row in store.agents(name)):
            raise SpecError(
                f"there is an agent {name!r} already", hint="choose another name, or open that one"
            )
        store.save_agent(agent)
    except ValidationError as error:
        reasons = "; ".join(item["msg"].removeprefix("Value error, ") for item in error.errors())
        problem(SpecError(reasons, hint="change the name"))
        return
    except SpecializerError as error:
        problem(error)
        return
    st.session_state["agent"] = name
    open_view("edit", name)
    note(f"The agent {plain(name)} is saved.")
    st.rerun()


def remove(name: str) -> None:
    registry().remove_agent(name)
    open_view("list")
    note(f"The agent {plain(name)} is removed.")


def description(toolset: Toolset) -> None:
    """What the cloud model reads, and how long it is."""
    text = describe_toolset(toolset)
    st.subheader("What the cloud model will read", anchor=False)
    runtime = specializer().runtime
    if runtime.loaded:
        from agent_specializer.loragen.cloud import tokenize

        tokens = len(tokenize(runtime.models.cloud_tokenizer, text))
        st.caption(f"{tokens:,} tokens, read once. A prompted model would read them with every call.")
    else:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(f"About {len(text) // 4:,} tokens, read once.", width="content")
            if st.button("Count exactly", type="tertiary", help="Loads the models"):
                try:
                    load_models()
                except SpecializerError as error:
                    problem(error)
                else:
                    st.rerun()
    with st.container(height=320, border=True):
        st.code(text, language=None, wrap_lines=True)


said_note()
view = st.session_state.get("agents-view", "list")
if view == "new":
    agent_form(None)
elif view == "edit" and registry().agents(st.session_state["agents-open"], limit=1):
    agent_form(st.session_state["agents-open"])
else:
    agent_list()
