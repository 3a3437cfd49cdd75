"""How things are shown. Whatever a user wrote is shown as text: escaped where Streamlit reads Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from agent_specializer.errors import SpecializerError

PAGE_ROWS = 20
_NOTE = "note"
_MARKS = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&@/])")


def plain(text: str) -> str:
    """`text` for a place where Streamlit reads Markdown, so that it looks as it was written, on one line."""
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def clip(text: str, length: int) -> str:
    """The beginning of `text`, on one line."""
    text = " ".join(text[: length * 4].split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def problem(error: SpecializerError) -> None:
    """An error, and what to do about it."""
    lines = [plain(line) for line in error.message.splitlines() if line.strip()]
    hint = f"\n\n:small[What to do: {plain(error.hint)}]" if error.hint else ""
    st.error("  \n".join(lines) + hint, icon=":material/error:")


def long_text(text: str, *, height: int = 260) -> None:
    """A text of any length, as text."""
    if len(text) > 600 or text.count("\n") > 8:
        with st.container(height=height, border=True):
            st.text(text)
    else:
        st.text(text)


def empty(title: str, body: str, *, key: str) -> Any:
    """An empty state: what would be here, and a container for the button that brings it."""
    with st.container(border=True, horizontal_alignment="center", key=f"empty-{key}"):
        st.subheader(title, anchor=False, width="content")
        st.caption(body, width="content", text_alignment="center")
        return st.container(horizontal=True, horizontal_alignment="center")


def page_of(count: int, *, key: str, rows: int = PAGE_ROWS) -> int:
    """A pager where one is needed; the offset of the first row of the page that is chosen."""
    pages = max(1, -(-count // rows))
    if pages == 1:
        return 0
    if st.session_state.get(key, 1) > pages:
        st.session_state[key] = pages
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        page = st.pagination(pages, key=key)
        first = (page - 1) * rows
        st.caption(f"{first + 1:,} to {min(first + rows, count):,} of {count:,}", width="content")
    return first


def search_box(label: str, placeholder: str, *, key: str, pager: str) -> str:
    """A field that searches while one types; a new search begins at the first page."""

    def first_page() -> None:
        st.session_state.pop(pager, None)

    text = st.text_input(
        label,
        key=key,
        placeholder=placeholder,
        icon=":material/search:",
        label_visibility="collapsed",
        live=True,
        on_change=first_page,
    )
    return (text or "").strip()


def json_lines(value: Any, *, indent: int | None = 2) -> None:
    """A JSON value as code."""
    st.code(json.dumps(value, indent=indent, ensure_ascii=False), language="json", wrap_lines=True)


def parameters_table(schema: dict[str, Any]) -> None:
    """The parameters of a tool, a line each; nothing of JSON Schema that a line cannot say is hidden."""
    required = set(schema.get("required") or ())
    rows = [
        {
            "parameter": name,
            "type": _kind(sub if isinstance(sub, dict) else {}),
            "required": name in required,
            "description": clip(str(sub.get("description", "")) if isinstance(sub, dict) else "", 300),
        }
        for name, sub in (schema.get("properties") or {}).items()
    ]
    if not rows:
        st.caption("Takes no parameters.")
        return
    st.dataframe(
        rows,
        hide_index=True,
        column_config={"required": st.column_config.CheckboxColumn("required", width="small")},
        alt="Parameters of the tool",
    )


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return clip("one of " + ", ".join(json.dumps(v, ensure_ascii=False) for v in schema["enum"]), 120)
    kind = schema.get("type", "any")
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_kind(schema['items'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def ago(moment: datetime) -> str:
    """How long ago, in words."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = int(seconds // size)
            return f"{n} {unit}{'s' * (n != 1)} ago"
    return "just now"


def size(n: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.2f} GB"


def seconds(value: float) -> str:
    """A duration for people."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


def attempt(work: Callable[[], Any]) -> bool:
    """Do `work`; a user's error is shown where we are. Whether it went well."""
    try:
        work()
    except SpecializerError as error:
        problem(error)
        return False
    return True


def note(text: str) -> None:
    """Say that something was done; `said_note` shows it from the next run on, `text` being Markdown."""
    st.session_state[_NOTE] = text


def forget_note() -> None:
    """What was said is over: another view was opened, or the next thing is begun."""
    st.session_state.pop(_NOTE, None)


def said_note() -> None:
    """What was said last, until the person goes on: never by the clock, which reruns and slow machines outrun.

    Its place is always there: were it not, what follows would be another element without it than with it, and
    open tabs would fall back to the first one.
    """
    place = st.empty()
    if text := st.session_state.get(_NOTE):
        place.success(text, icon=":material/check:")
