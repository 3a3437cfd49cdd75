"""Adapter cache: what is there, whether it still fits, and what can be done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st

from agent_specializer.adapters import FORMATS, Format, archived, gates_of, shared_routing
from agent_specializer.errors import SpecializerError
from agent_specializer.specializer.inspection import generator_fingerprint, merged_bytes
from agent_specializer.store import AdapterRow, AdapterStatus
from ui.charts import gates_map, hit_rate
from ui.service import load_models, registry, specializer
from ui.show import ago, clip, empty, forget_note, note, page_of, plain, problem, said_note, search_box, size

PAGER = "adapters-page"
FORMAT_NAMES = {
    "peft": "PEFT: the LoRA matrices, a few megabytes",
    "merged": "Merged: the whole edge model in safetensors",
    "gguf": "GGUF: the whole edge model for llama.cpp",
}


def open_adapter(fingerprint: str | None) -> None:
    forget_note()
    st.session_state["adapters-open"] = fingerprint
    for key in ("adapters-export", "adapters-compare"):
        st.session_state.pop(key, None)


def state_badge(status: AdapterStatus) -> None:
    if status.state == "fresh":
        st.badge("Fresh", icon=":material/check:", color="green")
    else:
        st.badge("Outdated", icon=":material/update:", color="orange")


def overview() -> None:
    store = registry()
    st.title("Adapter cache", anchor=False)
    everything = store.count_adapters()
    if everything == 0:
        with empty(
            "Nothing in the cache", "Specialise an agent, and its adapter is kept here.", key="adapters"
        ):
            st.page_link("pages/specialise.py", label="Specialise an agent", icon=":material/bolt:")
        return
    totals(everything)
    search = search_box(
        "Search adapters",
        "Search agents, or the beginning of a fingerprint",
        key="adapters-search",
        pager=PAGER,
    )
    count = store.count_adapters(search)
    if not count:
        st.caption("No adapter's agent or fingerprint is like this.")
        return
    for row in store.adapters(search, limit=20, offset=page_of(count, key=PAGER)):
        adapter_row(row)


def totals(everything: int) -> None:
    store = registry()
    stats = store.run_stats("hour")
    runs = sum(s.runs for s in stats if s.mode == "specialized")
    hits = sum(s.cache_hits for s in stats if s.mode == "specialized")
    merged = merged_bytes(specializer())
    with st.container(horizontal=True):
        st.metric("Adapters", f"{everything:,}", border=True, width=180)
        st.metric("Kept on disk", size(store.adapter_bytes()), border=True, width=180)
        st.metric("Merged in memory", size(merged) if merged else "none", border=True, width=180)
        st.metric("Hit rate", f"{hits / runs:.0%}" if runs else "–", border=True, width=180)
        st.metric("Tokens saved", f"{sum(s.saved_prompt_tokens for s in stats):,}", border=True, width=180)
    if runs:
        with st.expander("Hit rate over time"):
            st.plotly_chart(
                hit_rate(stats), key="hits", alt="Share of specialised runs served from the cache, by hour"
            )


def adapter_row(row: AdapterRow) -> None:
    status = registry().adapter_status(row, generator_fp=generator_fingerprint(specializer()))
    with st.container(border=True):
        name, state, facts = st.columns([3, 3, 6], vertical_alignment="center")
        name.button(
            f"**{plain(row.agent or 'tools of a request')}**",
            key=f"open-{row.fingerprint}",
            type="tertiary",
            on_click=open_adapter,
            args=(row.fingerprint,),
        )
        with state, st.container(horizontal=True):
            state_badge(status)
            if row.refinement:
                st.badge("Refined", icon=":material/tune:", color="blue")
            if row.pinned:
                st.badge("Pinned", icon=":material/keep:", color="gray")
        merged = merged_bytes(specializer(), row)
        held = f" · {size(merged)} merged in memory" if merged else ""
        facts.caption(
            f"{row.fingerprint[:8]} · {row.hits} hit{'s' * (row.hits != 1)} · {size(row.bytes)}{held} · "
            f"used {ago(row.last_used_at)}"
        )
        if status.why:
            st.caption(plain(clip("; ".join(status.why), 200)))


def detail(fingerprint: str) -> None:
    store = registry()
    st.button(
        "All adapters", icon=":material/arrow_back:", type="tertiary", on_click=open_adapter, args=(None,)
    )
    try:
        row = store.adapter(fingerprint)
    except SpecializerError as error:
        problem(error)
        return
    status = store.adapter_status(row, generator_fp=generator_fingerprint(specializer()))
    st.title(plain(row.agent or "Tools of a request"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        state_badge(status)
        st.caption(plain("; ".join(status.why)) or "It is what the specs of today make.", width="content")
    actions(row, status)
    merged = merged_bytes(specializer(), row)
    facts = {
        "Fingerprint": row.fingerprint,
        "Generator": row.generator_fp,
        "Created": f"{row.created_at:%Y-%m-%d %H:%M} UTC",
        "Last used": ago(row.last_used_at),
        "Hits": f"{row.hits:,}",
        "Size": f"{row.bytes:,} bytes: gates, keys and priors",
        "Merged weights": f"{merged:,} bytes in memory" if merged else "not in memory",
        "Task description": f"{row.description_tokens:,} tokens, read once",
    }
    if row.refinement:
        facts["Refined"] = refined(row.refinement)
    with st.container(gap="xxsmall"):
        for name, value in facts.items():
            label, text = st.columns([1, 4], gap="small")
            label.caption(name)
            text.text(value)
    gates, export, versions = st.tabs(["Gates", "Export", "Made from"], key="adapters-tabs")
    with gates:
        compare(row)
    with export:
        export_form(row)
    with versions:
        st.dataframe(
            [
                {
                    "tool": made.spec.name,
                    "version": made.version or 0,
                    "description": made.spec.description[:200],
                }
                for made in store.adapter_tools(row.fingerprint)
            ],
            hide_index=True,
            alt="Tools that the adapter was made from",
        )


def refined(report: dict[str, Any]) -> str:
    """What refining came to, in a line."""
    before, after = report["before"], report["after"]
    text = (
        f"{report['date'][:10]}, on {report['fitted']:,} written requests; "
        f"{before['right']:,} of {report['held_out']:,} held out right before, {after['right']:,} after"
    )
    if report["examples"]:
        text += f"; {report['right_before']} of {report['examples']} examples before, {report['right_after']} after"
    return f"{text}. Regenerate makes it as it was."


def actions(row: AdapterRow, status: AdapterStatus) -> None:
    with st.container(horizontal=True):
        outdated = status.state == "outdated"
        again = st.button(
            "Regenerate",
            type="primary" if outdated else "secondary",
            icon=":material/refresh:",
            disabled=row.agent is None,
            help="Make it anew from what the agent's tools and instructions are now",
            on_click=forget_note,
        )
        verify = st.button(
            "Verify",
            icon=":material/fact_check:",
            help="Make it again from its own specs and compare",
            on_click=forget_note,
        )
        st.button(
            "Unpin" if row.pinned else "Pin",
            icon=":material/keep:",
            on_click=registry().pin_adapter,
            args=(row.fingerprint, not row.pinned),
            help="A pinned adapter is never pruned",
        )
        with st.popover("Evict", icon=":material/delete:"):
            st.caption("It can be made again at any time.")
            st.button("Evict this adapter", on_click=evict, args=(row,))
    with st.container():  # always there, so that the tabs below stay what they are
        if again:
            regenerate(row, status)
        if verify:
            check(row)


def regenerate(row: AdapterRow, status: AdapterStatus) -> None:
    try:
        service = load_models()
        with st.spinner("Making it anew …"):
            made = service.specialize(row.agent or "", force=status.state == "fresh")
    except SpecializerError as error:
        problem(error)
        return
    open_adapter(made.fingerprint)
    note(f"{plain(row.agent or '')} has a fresh adapter, {made.fingerprint[:8]}.")
    st.rerun()


def check(row: AdapterRow) -> None:
    try:
        service = load_models()
        with st.spinner("Making it again, to compare …"):
            result = service.verify(row.fingerprint)[0]
    except SpecializerError as error:
        problem(error)
        return
    if result.state == "same":
        but = f", {result.detail}" if result.detail else ""
        st.success(
            f"Verified: the generator makes exactly this adapter from these specs{but}.",
            icon=":material/check:",
        )
    else:
        st.error(plain(f"It is {result.state}: {result.detail}"), icon=":material/error:")


def evict(row: AdapterRow) -> None:
    registry().evict_adapter(row.fingerprint)
    open_adapter(None)
    note(f"Adapter {row.fingerprint[:8]} is evicted.")


def compare(row: AdapterRow) -> None:
    others = {
        other.fingerprint: f"{other.agent or 'tools of a request'} · {other.fingerprint[:8]}"
        for other in registry().adapters(limit=200)
        if other.fingerprint != row.fingerprint
    }
    chosen = st.selectbox(
        "Compare with",
        list(others),
        index=None,
        format_func=lambda fingerprint: others.get(fingerprint, fingerprint),
        placeholder="Another adapter",
        key="adapters-compare",
        width=360,
    )
    try:
        own = gates_of(registry(), row)
        other = gates_of(registry(), registry().adapter(chosen)) if chosen else None
    except SpecializerError as error:
        problem(error)
        return
    if other is None:
        st.plotly_chart(gates_map(own), key="gates", alt="Gates, a heat-map of layers by experts")
    elif (len(own), len(own[0])) != (len(other), len(other[0])):
        st.caption("They were made for other models, so their gates cannot be compared.")
    else:
        st.caption(
            f"{shared_routing(own, other):.0%} of the routing is shared. Blue is more here, red more there."
        )
        difference = [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(own, other, strict=True)]
        st.plotly_chart(
            gates_map(difference, signed=True), key="gates-difference", alt="Difference of the gates"
        )


def export_form(row: AdapterRow) -> None:
    format: Format = st.radio(
        "Format", FORMATS, format_func=lambda name: FORMAT_NAMES[name], key="adapters-format"
    )
    if st.button("Export", icon=":material/ios_share:"):
        try:
            service = load_models()
            with st.spinner("Exporting …"):
                made = service.export(row.fingerprint, format=format)
                st.session_state["adapters-export"] = row.fingerprint, format, str(archived(made.path))
        except SpecializerError as error:
            problem(error)
            return
    done: tuple[str, str, str] | None = st.session_state.get("adapters-export")
    if done is None or done[:2] != (row.fingerprint, format) or not Path(done[2]).is_file():
        return
    path = Path(done[2])
    st.download_button(
        f"Download {plain(path.name)} ({size(path.stat().st_size)})",
        data=path.read_bytes,  # read when it is clicked, not on every rerun
        on_click="ignore",  # a rerun would take the file away from under the download
        file_name=path.name,
        mime="application/octet-stream",
        icon=":material/download:",
        type="primary",
    )
    st.caption("It also lies in the home folder, under exports.")


said_note()
if st.session_state.get("adapters-open"):
    detail(st.session_state["adapters-open"])
else:
    overview()
