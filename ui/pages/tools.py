"""Tools: find, register, look at, change and remove them."""

from __future__ import annotations

import json

import streamlit as st

from agent_specializer.errors import SpecializerError
from agent_specializer.intake import read_text
from agent_specializer.store import ToolRow
from ui.register import registration
from ui.service import registry
from ui.show import (
    ago,
    clip,
    empty,
    forget_note,
    json_lines,
    long_text,
    note,
    page_of,
    parameters_table,
    plain,
    problem,
    said_note,
    search_box,
)

PAGER = "tools-page"


def open_view(view: str, tool: str = "") -> None:
    forget_note()
    st.session_state["tools-view"], st.session_state["tools-open"] = view, tool


def tool_list() -> None:
    store = registry()
    everything = store.count_tools()
    st.title("Tools", anchor=False)
    if everything == 0:
        st.caption("What your agents can call.")
        with empty(
            "No tools yet",
            "Paste the definitions you have, or begin with one of the catalogues that come with the product.",
            key="tools",
        ):
            st.button("Add tools", type="primary", icon=":material/add:", on_click=open_view, args=("add",))
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = search_box("Search tools", "Search names and descriptions", key="tools-search", pager=PAGER)
        agents = [row.name for row in store.agents(limit=1000)]
        of = st.selectbox(
            "Used by",
            agents,
            index=None,
            placeholder="Used by any agent",
            label_visibility="collapsed",
            key="tools-agent",
            width=240,
        )
        st.button("Add tools", type="primary", icon=":material/add:", on_click=open_view, args=("add",))
    rows, count = found(search, of)
    if not count:
        with empty(
            "Nothing found", "No tool has all of these words in its name or description.", key="search"
        ):
            st.button("Show all tools", on_click=show_all)
        return
    if count <= 20:
        st.caption(f"{count:,} of {everything:,} tools" if count != everything else f"{count:,} tools")
    for row in rows:
        tool_row(row)


def found(search: str, agent: str | None) -> tuple[list[ToolRow], int]:
    """One page of the tools that are searched for, and how many there are."""
    store = registry()
    if agent is None:
        count = store.count_tools(search)
        return store.tools(search, limit=20, offset=page_of(count, key=PAGER)), count
    names = set(store.agent(agent).tools)
    rows = [row for row in store.tools(search) if row.name in names]
    first = page_of(len(rows), key=PAGER)
    return rows[first : first + 20], len(rows)


def show_all() -> None:
    for key in ("tools-search", "tools-agent", PAGER):
        st.session_state.pop(key, None)


def tool_row(row: ToolRow) -> None:
    with st.container(border=True):
        name, text, facts = st.columns([3, 6, 2], vertical_alignment="center")
        name.button(
            f"**{plain(row.name)}**",
            key=f"open-{row.name}",
            type="tertiary",
            on_click=open_view,
            args=("tool", row.name),
            help="Open this tool",
        )
        text.text(clip(row.description, 160) or "No description")
        users = f"{row.agents} agent{'s' * (row.agents != 1)}" if row.agents else "not used"
        facts.caption(f"version {row.version} · {users}")


def tool_add() -> None:
    st.button("All tools", icon=":material/arrow_back:", type="tertiary", on_click=open_view, args=("list",))
    st.title("Add tools", anchor=False)
    registration(registry())


def tool_open(name: str) -> None:
    store = registry()
    st.button("All tools", icon=":material/arrow_back:", type="tertiary", on_click=open_view, args=("list",))
    try:
        spec, versions, users = store.tool(name), store.tool_versions(name), store.agents_using(name)
    except SpecializerError as error:
        problem(error)
        return
    st.title(plain(name), anchor=False)
    now = versions[-1]
    facts = [f"Version {now.version}", f"changed {ago(now.created_at)}"]
    if now.source:
        facts.append(f"from {plain(clip(now.source, 80))}")
    st.caption(" · ".join(facts))
    looks, edit, history, remove = st.tabs(["Overview", "Edit", "History", "Remove"], key="tools-tabs")
    with looks:
        long_text(spec.description or "No description")
        parameters_table(spec.parameters)
        if spec.requests:
            st.caption("What users say when they want it")
            st.text("\n".join(spec.requests))
        if users:
            st.caption("Used by " + ", ".join(plain(user) for user in users))
        with st.expander("JSON Schema"):
            json_lines(spec.parameters)
    with edit:
        tool_edit(name, now.adapters, len(users))
    with history:
        for version in reversed(versions):
            with st.container(border=True):
                made = f"{version.adapters} adapter{'s' * (version.adapters != 1)} made from it"
                st.caption(f"Version {version.version} · {ago(version.created_at)} · {made}")
                st.text(clip(version.spec.description, 300) or "No description")
    with remove:
        tool_remove(name, users)


def tool_edit(name: str, adapters: int, users: int) -> None:
    store = registry()
    spec = store.tool(name)
    outdated = f"{adapters} adapter{'s' * (adapters != 1)}" if adapters else "no adapter"
    st.caption(
        f"Saving makes a new version. It outdates {outdated}; "
        f"{users} agent{'s' * (users != 1)} will use the new version from then on."
    )
    with st.form("edit", border=False):
        description = st.text_area(
            "Description", spec.description, height=140, key=f"edit-text-{spec.fingerprint}"
        )
        schema = st.text_area(
            "Parameters, as JSON Schema",
            json.dumps(spec.parameters, indent=2, ensure_ascii=False),
            height=260,
            key=f"edit-schema-{spec.fingerprint}",
        )
        requests = st.text_area(
            "What users say when they want it, a line each",
            "\n".join(" ".join(each.split()) for each in spec.requests),
            height=140,
            key=f"edit-requests-{spec.fingerprint}",
            placeholder="dim the lights in the kitchen",
            help="Optional: some real requests make it likelier that this tool is chosen for ones like them.",
        )
        saved = st.form_submit_button("Save as a new version", type="primary", on_click=forget_note)
    if not saved:
        return
    said = json.dumps([line for line in requests.splitlines() if line.strip()])
    text = (
        f'{{"name": {json.dumps(name)}, "description": {json.dumps(description)}, "requests": {said}, '
        f'"parameters":\n{schema}\n}}'
    )
    parsed = read_text(text)
    for error in parsed.problems:
        problem(error)
    if parsed.problems or not parsed.tools:
        return
    try:
        change = store.add_tools(parsed.tools[:1], source="edited on the page")[0]
    except SpecializerError as error:
        problem(error)
        return
    if change.status == "same":
        st.info("Nothing was changed, so there is no new version.")
    else:
        note(f"Version {change.version} is saved; {outdated} outdated.")
        st.rerun()


def tool_remove(name: str, users: list[str]) -> None:
    if users:
        who = ", ".join(map(plain, users))
        st.info(
            f"{plain(name)} is used by {who}. Take it from those agents, or remove them, first.",
            icon=":material/lock:",
        )
    else:
        st.caption("No agent uses it. The adapters that were made from it stay in the cache.")
    if st.button("Remove this tool", disabled=bool(users), icon=":material/delete:"):
        try:
            registry().remove_tool(name)
        except SpecializerError as error:
            problem(error)
            return
        open_view("list")
        note(f"{plain(name)} is removed.")
        st.rerun()


said_note()
view = st.session_state.get("tools-view", "list")
if view == "add":
    tool_add()
elif view == "tool":
    tool_open(st.session_state.get("tools-open", ""))
else:
    tool_list()
