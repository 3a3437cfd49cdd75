"""Loading: one source is one object, other architectures take the same path, faults are named."""

from __future__ import annotations

import os

import pytest
import torch

from agent_specializer.bundles import Bundle, ModelSource, load_models
from agent_specializer.errors import ConfigError, WeightsError


def local(folder) -> ModelSource:
    return ModelSource(kind="local", name=str(folder))


def pair(cloud, edge=None) -> Bundle:
    return Bundle(name="pair", cloud=cloud, edge=edge or cloud)


def test_one_source_named_twice_is_loaded_once(home, saved_model, tiny_gemma):
    loaded = load_models(pair(local(saved_model(tiny_gemma, "gemma"))), home)
    assert loaded.edge is loaded.cloud
    assert loaded.edge_tokenizer is loaded.cloud_tokenizer


def test_cloud_and_edge_of_different_architectures(home, saved_model, tiny_gemma, tiny_llama):
    bundle = pair(local(saved_model(tiny_llama, "llama")), local(saved_model(tiny_gemma, "gemma")))
    loaded = load_models(bundle, home, dtype="float32")
    assert (loaded.cloud.config.model_type, loaded.edge.config.model_type) == ("llama", "gemma3_text")
    ids = loaded.edge_tokenizer("Call: none", return_tensors="pt").input_ids
    torch.testing.assert_close(loaded.edge(ids).logits, tiny_gemma(ids).logits)
    torch.testing.assert_close(loaded.cloud(ids).logits, tiny_llama(ids).logits)


def test_packaged_models_load_with_their_tokenizer(home, tiny_package, tiny_tokenizer):
    loaded = load_models(pair(ModelSource(kind="package", name="tiny")), home)
    text = "User: hello\nCall: none\n"
    ids = loaded.edge_tokenizer(text).input_ids
    assert loaded.edge_tokenizer.decode(ids, skip_special_tokens=True) == text
    roles = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")
    assert [getattr(loaded.edge_tokenizer, r) for r in roles] == [getattr(tiny_tokenizer, r) for r in roles]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_models_come_frozen_in_eval_mode_and_in_the_asked_dtype(home, saved_model, tiny_gemma, dtype):
    model = load_models(pair(local(saved_model(tiny_gemma, "gemma"))), home, dtype=dtype).edge
    assert {p.dtype for p in model.parameters()} == {getattr(torch, dtype)}
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_progress_runs_from_zero_to_one_over_both_models(home, saved_model, tiny_gemma, tiny_package):
    heard = []
    bundle = pair(ModelSource(kind="package", name="tiny"), local(saved_model(tiny_gemma, "gemma")))
    load_models(bundle, home, lambda message, fraction: heard.append(fraction))
    assert heard == sorted(heard)
    assert 0 <= heard[0] < 0.1
    assert heard[-1] == 1.0


def test_a_tokenizer_without_padding_gets_some(home, saved_model, tiny_gemma):
    from transformers import AutoTokenizer

    folder = saved_model(tiny_gemma, "gemma")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load_models(pair(local(folder)), home).edge_tokenizer.pad_token == "<eos>"


def test_threads_are_set_for_torch_and_left_alone_by_none(home, saved_model, tiny_gemma):
    bundle, before = pair(local(saved_model(tiny_gemma, "gemma"))), torch.get_num_threads()
    try:
        load_models(bundle, home, threads=3)
        assert torch.get_num_threads() == 3
        load_models(bundle, home)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_folder_without_a_model_is_refused(home, tmp_path):
    with pytest.raises(WeightsError, match=r"no config\.json"):
        load_models(pair(local(tmp_path / "nothing")), home)


def test_weights_that_are_absent_are_an_error_and_never_random(home, saved_model, tiny_gemma):
    from safetensors.torch import load_file, save_file

    folder = saved_model(tiny_gemma, "gemma")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"lacks 1 .*model\.layers\.1\.mlp\.up_proj\.weight"):
        load_models(pair(local(folder)), home)


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_truncated_local_file_is_an_error(home, saved_model, tiny_gemma, file):
    folder = saved_model(tiny_gemma, "gemma")
    os.truncate(folder / file, (folder / file).stat().st_size // 2)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_models(pair(local(folder)), home)


def test_converted_weights_that_cannot_be_read_are_converted_anew_by_the_next_run(home, converted):
    path, found = converted / "model.safetensors", (converted / "model.safetensors").stat()
    path.write_bytes(b"\xff" * found.st_size)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))  # neither size nor time shows it
    bundle = pair(ModelSource(kind="package", name="tiny"))
    with pytest.raises(WeightsError, match=r"model\.safetensors has SHA-256"):
        load_models(bundle, home)
    assert load_models(bundle, home).edge.config.num_hidden_layers == 3


def test_a_tokenizer_that_outgrows_its_model_is_refused(home, saved_model, make_tiny_gemma):
    folder = saved_model(make_tiny_gemma(vocab_size=300), "small")
    with pytest.raises(WeightsError, match="only 300"):
        load_models(pair(local(folder)), home)


def test_an_unknown_device_is_refused(home, saved_model, tiny_gemma):
    with pytest.raises(ConfigError, match="'warp'"):
        load_models(pair(local(saved_model(tiny_gemma, "gemma"))), home, device="warp")


def test_the_hub_out_of_reach_names_model_and_ways_out(home, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError) as caught:
        load_models(pair(ModelSource(kind="hub", name="nobody/absent-model")), home)
    assert "hub:nobody/absent-model" in caught.value.message
    assert "'embedded' needs neither network nor account" in caught.value.hint
