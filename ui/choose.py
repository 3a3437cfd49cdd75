"""The agent that a session works with, the same on every page."""

from __future__ import annotations

import streamlit as st

from ui.service import registry
from ui.show import empty

MOST = 1000


def choose_agent(*, key: str) -> str | None:
    """The chosen agent; None, and an empty state on the page, where there is none."""
    names = [row.name for row in registry().agents(limit=MOST)]
    if not names:
        with empty("No agents yet", "There is nothing to specialise to: make an agent first.", key="agents"):
            st.page_link("pages/agents.py", label="Make an agent", icon=":material/smart_toy:")
        return None
    known = st.session_state.get("agent")
    if st.session_state.get(key) not in names:
        st.session_state[key] = known if known in names else names[0]
    chosen: str = st.selectbox("Agent", names, key=key, width=320)
    st.session_state["agent"] = chosen
    return chosen
