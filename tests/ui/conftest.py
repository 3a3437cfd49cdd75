"""A home with a tiny random bundle, so that every page runs for real in seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import chromium, served

import ui

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from streamlit.testing.v1 import AppTest
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

APP = Path(ui.__file__).with_name("app.py")


@pytest.fixture(scope="session")
def tiny_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    make_tiny_gemma: Callable[..., PreTrainedModel],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """A YAML bundle: one tiny random Gemma as cloud and edge, and a random generator for it."""
    import torch

    from agent_specializer.loragen import Generator, GeneratorConfig, save_checkpoint
    from agent_specializer.loragen.models import shape_of

    folder = tmp_path_factory.mktemp("bundle")
    model = make_tiny_gemma(max_position_embeddings=16384)
    model.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GeneratorConfig(
            cloud=shape_of(model),
            edge=shape_of(model),
            experts=4,
            rank=2,
            key_dim=8,
            router_width=8,
        )
        generator = Generator(config, model, tiny_tokenizer).eval()
    save_checkpoint(generator, folder / "checkpoint")
    source = "{kind: local, name: ./model}"
    (folder / "tiny.yaml").write_text(
        f"name: tiny\ncloud: {source}\nedge: {source}\ncheckpoint: ./checkpoint\n"
    )
    return folder / "tiny.yaml"


@pytest.fixture
def page_home(home: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home of its own on the tiny bundle; what Streamlit keeps per process is forgotten around it."""
    import streamlit as st

    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", str(tiny_bundle))
    st.cache_resource.clear()
    st.cache_data.clear()
    yield home
    from ui.service import specializer

    specializer().close()
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium; without one the test is skipped, and a warning says so."""
    path = chromium()
    if path is None:
        reason = "NO BROWSER TESTS: there is no Chromium on this machine (apt-get install chromium)"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield instance
        instance.close()


@pytest.fixture
def tiny_site(tmp_path: Path, tiny_bundle: Path) -> Iterator[str]:
    """The page on an empty home and the tiny bundle; its address."""
    with served(tmp_path, str(tiny_bundle)) as address:
        yield address


@pytest.fixture
def app(page_home: Path) -> AppTest:
    """The app on its first page."""
    return new_session()


@pytest.fixture
def another(page_home: Path) -> Callable[[], AppTest]:
    """Opens the app in one more session of the same process."""
    return new_session


def new_session() -> AppTest:
    from streamlit.testing.v1 import AppTest

    return AppTest.from_file(str(APP), default_timeout=60).run()
