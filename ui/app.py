"""The frame around every page: navigation, and errors that no page caught, said as errors say them."""

from __future__ import annotations

import streamlit as st

from agent_specializer.errors import SpecializerError
from ui.show import forget_note, problem

PAGES = {
    "tools": ("Tools", ":material/build:"),
    "agents": ("Agents", ":material/smart_toy:"),
    "specialise": ("Specialise", ":material/bolt:"),
    "playground": ("Playground", ":material/forum:"),
    "adapters": ("Adapter cache", ":material/inventory_2:"),
    "benchmarks": ("Benchmarks", ":material/bar_chart:"),
}

st.set_page_config(page_title="Agent Specializer", page_icon=":material/bolt:", layout="wide")
pages = [
    st.Page(f"pages/{name}.py", title=title, icon=icon, url_path=name, default=name == "tools")
    for name, (title, icon) in PAGES.items()
]
# What the theme cannot say: less air above the page; what is chosen in the colour of text, since the primary colour that
# carries white text cannot be read on the dark ground; and links that show when they have the focus.
STYLE = """<style>
[data-testid=stMainBlockContainer] {padding-top: 4.5rem}
[data-testid=stButtonGroup] button, [data-testid=stTab], [data-testid=stSliderThumbValue] {color: inherit !important}
a:focus-visible {outline: 2px solid currentColor !important; outline-offset: 1px}
</style>"""
st.html(STYLE)
try:
    page = st.navigation(pages, position="top")
    if st.session_state.get("here") != page.url_path:
        st.session_state["here"] = page.url_path
        forget_note()
    page.run()
except SpecializerError as error:
    problem(error)
