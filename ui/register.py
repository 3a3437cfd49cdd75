"""Ways to register tools. Each ends in the same preview: nothing is saved before it was seen."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import streamlit as st

import tool_specs
from agent_specializer.errors import IntakeError, SpecError, SpecializerError
from agent_specializer.intake import Parsed, read_text, read_tools
from agent_specializer.specs import AgentSpec, ToolSpec
from agent_specializer.store import Registry
from ui.show import clip, note, plain, problem

WAYS = {
    "Paste": ":material/content_paste:",
    "Form": ":material/edit_note:",
    "Upload": ":material/upload_file:",
    "Catalogue": ":material/menu_book:",
    "OpenAPI": ":material/api:",
    "MCP server": ":material/hub:",
}
FORMATS = {
    "openai": "OpenAI",
    "openai-responses": "OpenAI Responses",
    "anthropic": "Anthropic",
    "langchain": "LangChain",
    "mcp": "MCP",
    "bedrock": "Bedrock",
    "plain": "name, description and parameters",
    "schema": "JSON Schema",
    "python": "Python, without running it",
}
TYPES = ("string", "integer", "number", "boolean", "list of strings")
_EXAMPLE = """{"name": "set_light",
 "description": "Dims or brightens the light in a room",
 "parameters": {"type": "object", "properties": {"room": {"type": "string"}}}}"""


def registration(store: Registry) -> None:
    """The whole of "Add tools": a way, what it found, and the button that saves it."""
    way = st.segmented_control(
        "Where from",
        list(WAYS),
        default="Paste",
        required=True,
        key="way",
        format_func=lambda w: f"{WAYS[w]} {w}",
    )
    parsed: Parsed | None
    agent: AgentSpec | None = None
    source = way or "Paste"
    if way == "Form":
        parsed = form()
    elif way == "Upload":
        parsed, source = upload()
    elif way == "Catalogue":
        parsed, agent, source = catalogue()
    elif way in ("OpenAPI", "MCP server"):
        parsed, source = address(way)
    else:
        parsed = paste()
    if parsed is not None:
        preview(store, parsed, source, agent)


def paste() -> Parsed | None:
    text = st.text_area("Tool definitions", key="paste", height=220, placeholder=_EXAMPLE)
    st.caption(
        "OpenAI, Anthropic, LangChain, MCP, JSON Schema, OpenAPI, YAML or Python: which it is, is found out. "
        "Python is read, never run."
    )
    st.button("Check")
    return read_text(text) if text and text.strip() else None


def form() -> Parsed | None:
    name = st.text_input("Name", key="form-name", placeholder="set_light", max_chars=128)
    description = st.text_area(
        "What it does",
        key="form-description",
        height=100,
        placeholder="Dims or brightens the light in a room",
    )
    st.caption("Parameters, one a line. Choices are separated by commas.")
    rows = st.data_editor(
        [{"name": "", "type": "string", "description": "", "required": True, "choices": ""}],
        num_rows="dynamic",
        key="form-parameters",
        hide_index=True,
        column_config={
            "type": st.column_config.SelectboxColumn("type", options=list(TYPES), required=True),
            "required": st.column_config.CheckboxColumn("required", default=True),
        },
    )
    if not name:
        return None
    definition = {"name": name, "description": description or "", "parameters": form_schema(rows)}
    return read_text(json.dumps(definition))


def form_schema(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON Schema of the form's lines; lines without a name are left out."""
    properties: dict[str, Any] = {}
    required = []
    for row in rows:
        name = (row.get("name") or "").strip()
        if not name:
            continue
        kind = row.get("type") or "string"
        schema: dict[str, Any] = (
            {"type": "array", "items": {"type": "string"}} if kind == "list of strings" else {"type": kind}
        )
        if row.get("description"):
            schema["description"] = row["description"]
        choices = [choice.strip() for choice in (row.get("choices") or "").split(",") if choice.strip()]
        if choices and kind == "string":
            schema["enum"] = choices
        properties[name] = schema
        if row.get("required"):
            required.append(name)
    return {"type": "object", "properties": properties, "required": required}


def upload() -> tuple[Parsed | None, str]:
    file = st.file_uploader(
        "A file of tool definitions", type=["json", "jsonl", "yaml", "yml", "py"], key="upload"
    )
    if file is None:
        return None, ""
    try:
        text = file.getvalue().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        wrong = IntakeError(
            f"not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}",
            source=file.name,
            hint="save the file as UTF-8",
        )
        return Parsed((), "", (wrong,)), file.name
    return read_text(text), file.name


def catalogue() -> tuple[Parsed | None, AgentSpec | None, str]:
    shipped = {loaded.title: loaded for loaded in map(tool_specs.load, tool_specs.catalogues())}
    title = st.selectbox(
        "Catalogue", list(shipped), index=None, placeholder="Choose a catalogue", key="catalogue"
    )
    if title is None:
        return None, None, ""
    chosen = shipped[title]
    with_agent = st.checkbox(
        f"Make the agent {plain(chosen.agent.name)} with these tools, too", value=True, key="catalogue-agent"
    )
    return Parsed(chosen.tools, "plain"), chosen.agent if with_agent else None, f"catalogue {title}"


def address(way: str) -> tuple[Parsed | None, str]:
    """What a document or a server at an address offers, fetched when asked to."""
    if way == "OpenAPI":
        label, placeholder = "Address", "https://example.com/openapi.json"
        told = (
            "Each operation of the document becomes a tool. A document in a file can be uploaded or pasted."
        )
    elif commands_allowed():
        label, placeholder = "Address or command", "http://127.0.0.1:8000/mcp, or: npx -y some-mcp-server"
        told = "The address of a streamable HTTP server, or a command that starts one on this machine."
    else:
        label, placeholder = "Address", "http://127.0.0.1:8000/mcp"
        told = (
            "The address of a streamable HTTP server. Other machines can reach this page, so it starts no programs: "
            'a server that a command starts is imported with `agent-specializer tools import "mcp:COMMAND"`.'
        )
    with st.form(f"address-{way}", border=False):
        where = (st.text_input(label, placeholder=placeholder, key=f"url-{way}") or "").strip()
        st.caption(told)
        asked = st.form_submit_button("Read tools")
    if asked and where:
        st.session_state[f"fetched-{way}"] = where, fetched(way, where)
    known: tuple[str, Parsed] | None = st.session_state.get(f"fetched-{way}")
    return (known[1], known[0]) if known and known[0] == where else (None, "")


def commands_allowed() -> bool:
    """Whether the page may start a program: only where nobody but this machine's user can ask it to."""
    listens = st.get_option("server.address")
    try:
        return listens == "localhost" or ip_address(listens or "0.0.0.0").is_loopback
    except ValueError:
        return False


def fetched(way: str, where: str) -> Parsed:
    """What is at an address, or what the server lists that a command starts."""
    command = way == "MCP server" and commands_allowed() and "://" not in where
    if not command and not where.startswith(("http://", "https://")):
        return Parsed((), "", (IntakeError(f"{where!r} is no http(s) address", hint="begin with https://"),))
    with st.spinner("Reading …"):
        try:
            return Parsed(tuple(read_tools(f"mcp:{where}" if way == "MCP server" else where)), way)
        except SpecError as error:
            return Parsed((), "", (error,))


def preview(store: Registry, parsed: Parsed, source: str, agent: AgentSpec | None) -> None:
    """What will be registered and what cannot be, and the button that registers it."""
    for error in parsed.problems[:20]:
        problem(error)
    if len(parsed.problems) > 20:
        st.caption(f"and {len(parsed.problems) - 20} more problems")
    if not parsed.tools:
        return
    known = {row.name: row.fingerprint for row in store.tools()}
    states = [state_of(tool, known.get(tool.name)) for tool in parsed.tools]
    news = [state for state in states if state != "same"]
    st.subheader("What will be registered", anchor=False)
    if parsed.format:
        st.caption(f"Read as {plain(FORMATS.get(parsed.format, parsed.format))}.")
    st.dataframe(
        [
            {
                "tool": tool.name,
                "status": state,
                "parameters": ", ".join(tool.parameters.get("properties") or {}),
                "description": clip(tool.description, 300),
            }
            for tool, state in zip(parsed.tools[:200], states, strict=False)  # as many as are shown
        ],
        hide_index=True,
        alt="Tools that will be registered",
    )
    if len(parsed.tools) > 200:
        st.caption(f"The first 200 of {len(parsed.tools):,} are shown.")
    n = len(parsed.tools)
    label = f"Register {n} tool{'s' * (n != 1)}"
    if parsed.problems:
        label += f", without the {len(parsed.problems)} above"
    done = not news and agent is None
    if done:
        st.info("All of them are registered already, exactly as they are here.")
    if st.button(label, type="primary", disabled=done, key="register"):
        save(store, parsed.tools, source, agent)


def state_of(tool: ToolSpec, known: str | None) -> str:
    """What registering `tool` does, where `known` is the fingerprint of the current tool of that name."""
    if known is None:
        return "new"
    return "same" if known == tool.fingerprint else "new version"


def save(store: Registry, tools: tuple[ToolSpec, ...], source: str, agent: AgentSpec | None) -> None:
    try:
        changes = store.add_tools(tools, source=source)
        if agent is not None:
            store.save_agent(agent)
    except SpecializerError as error:
        problem(error)
        return
    counts = {
        state: sum(change.status == state for change in changes) for state in ("new", "changed", "same")
    }
    said = [f"{n} {state}" for state, n in counts.items() if n]
    made = f" The agent {plain(agent.name)} has them." if agent else ""
    note(f"Registered: {', '.join(said)}.{made}")
    st.session_state["tools-view"] = "list"
    for key in ("paste", "form-name", "form-description"):
        st.session_state.pop(key, None)
    st.rerun()
