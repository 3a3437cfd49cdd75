"""The packaged tiny model, installed and converted for one test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from packaged_model import install

from agent_specializer.bundles.packages import PACKAGES, GgufPackage


@pytest.fixture
def tiny_package(tiny_gguf, tmp_path, monkeypatch) -> GgufPackage:
    """The tiny GGUF in two packages, known as "tiny"."""
    package = install(tiny_gguf, tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setitem(PACKAGES, "tiny", package)
    return package


@pytest.fixture
def converted(tiny_package, home) -> Path:
    """The folder of the converted tiny model in the home."""
    from agent_specializer.bundles.convert import ensure_converted

    return ensure_converted(tiny_package, home)


@pytest.fixture
def saved_model(tmp_path, tiny_tokenizer):
    """Writes a model and the tiny tokenizer as transformers does; gives the folder."""

    def save(model, name: str) -> Path:
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return folder

    return save
