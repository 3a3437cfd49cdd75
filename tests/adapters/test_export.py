"""Exports are whole or not there, whatever the disk does."""

from __future__ import annotations

import errno
import os
import time

import pytest
import torch

from agent_specializer.adapters import export_adapter, formats
from agent_specializer.bundles import Bundle, LoadedBundle, ModelSource
from agent_specializer.errors import ConfigError, WeightsError


@pytest.fixture
def export(make_tiny_gemma, make_generator, tiny_tokenizer, toolset, tmp_path):
    """Exports the toolset's adapter to a path under `tmp_path`."""
    model = make_tiny_gemma()
    source = ModelSource(kind="local", name="/models/tiny")
    models = LoadedBundle(
        Bundle(name="tiny", cloud=source, edge=source), model, model, tiny_tokenizer, tiny_tokenizer
    )
    generator = make_generator(model)
    adapter = generator.generate(toolset)

    def export(name: str, format: str):
        return export_adapter(
            adapter,
            toolset,
            tmp_path / name,
            format=format,
            models=models,
            pool=generator.pool,
            fingerprint="ab" * 32,
        )

    return export


def _no_space(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(("format", "writer"), [("peft", "write_peft"), ("merged", "write_merged")])
def test_a_disk_that_fills_up_keeps_the_earlier_export_and_nothing_else(
    export, tmp_path, monkeypatch, format, writer
):
    export("out", format)
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    real = getattr(formats, writer)

    def half(folder, *arguments, **options):
        real(folder, *arguments, **options)
        _no_space()

    monkeypatch.setattr(formats, writer, half)
    with pytest.raises(WeightsError, match="became full") as error:
        export("out", format)
    assert "--out" in error.value.hint
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    monkeypatch.undo()
    assert export("out", format).bytes == sum(map(len, before.values()))


def test_a_full_disk_is_seen_before_the_work(export, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(WeightsError, match="MB are free"):
        export("out", "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_clear_error(export, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WeightsError, match="could not be written"):
        export("file/out", "peft")


def test_a_full_disk_of_rust_is_understood_too(export, monkeypatch):
    from safetensors import SafetensorError

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(formats, "write_peft", full)
    with pytest.raises(WeightsError, match="became full"):
        export("out", "peft")


def test_leftovers_of_a_killed_export_go_and_drafts_at_work_stay(export, tmp_path):
    old, young, others = (tmp_path / name for name in (".out~old", ".out~young", ".out.gguf~old"))
    for folder in (old, young, others):
        folder.mkdir()
        (folder / "half").write_text("x")
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    os.utime(others, (hours_ago, hours_ago))
    export("out", "peft")
    assert {path.name for path in tmp_path.iterdir()} == {"out", ".out~young", ".out.gguf~old"}


def test_a_gguf_target_that_is_something_else_is_refused(export, tmp_path):
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(ConfigError, match="not an export"):
        export("letter.txt", "gguf")


@pytest.mark.embedded
def test_the_real_model_as_gguf_is_the_merged_model(embedded_bundle, toolset, tmp_path):
    """The whole way through the packaged GGUF of Gemma 3, and back through transformers' reader."""
    import gguf
    from transformers import AutoModelForCausalLM

    from agent_specializer.adapters.merged import linear_names, merged_weights
    from agent_specializer.bundles.gguf_reader import gguf_shortcuts
    from agent_specializer.loragen import ExpertPool, shape_of
    from agent_specializer.loragen.adapter import Adapter

    model = embedded_bundle.edge
    pool = ExpertPool(shape_of(model), experts=2, rank=2, alpha=2.0)
    torch.manual_seed(0)
    for B in pool.B.values():
        torch.nn.init.normal_(B, std=0.01)
    gates = torch.full((pool.layers, 2), 0.5)
    adapter = Adapter(gates, toolset.names, torch.empty(0, 0), toolset.fingerprint, "g")
    made = export_adapter(
        adapter,
        toolset,
        tmp_path / "out.gguf",
        format="gguf",
        models=embedded_bundle,
        pool=pool,
        fingerprint="ab" * 32,
    )
    assert made.bytes == made.path.stat().st_size
    names = linear_names(model)
    with gguf_shortcuts():
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="out.gguf", dtype=torch.bfloat16)
        assert "specialised" in gguf.GGUFReader(made.path).get_field("general.name").contents()
    state = loaded.state_dict()
    for key, weight in merged_weights(model, pool, gates):
        assert torch.equal(state[f"{names[key]}.weight"], weight.bfloat16())
    kept = model.state_dict()
    ours = set(names.values())
    for name, tensor in kept.items():
        if name.removesuffix(".weight") not in ours:
            assert torch.equal(state[name], tensor), name
