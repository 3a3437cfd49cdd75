"""An exported adapter, read by the program it is for, computes what the merged model computes."""

from __future__ import annotations

import copy

import gguf
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from agent_specializer.adapters.formats import write_gguf, write_merged, write_peft
from agent_specializer.adapters.merged import linear_names, merged_weights
from agent_specializer.edge.merge import MergedWeights
from agent_specializer.errors import AdapterError, ConfigError


@pytest.fixture(params=["make_tiny_gemma", "make_tiny_llama"])
def model(request):
    return request.getfixturevalue(request.param)()


@pytest.fixture
def made(model, make_generator, toolset):
    """A generator over `model`, and the gates of the toolset."""
    generator = make_generator(model)
    return generator, generator.generate(toolset).gates


def _ids(tokenizer):
    return tokenizer("User: dim the light\nCall: set_light\n", return_tensors="pt").input_ids


def _merged(model, generator, gates):
    merged = copy.deepcopy(model)
    modules, names = dict(merged.named_modules()), linear_names(merged)
    for key, weight in merged_weights(model, generator.pool, gates):
        modules[names[key]].weight.data = weight
    return merged


@torch.no_grad()
def test_merged_weights_are_those_of_the_edge_engine_bit_for_bit(model, made):
    generator, gates = made
    engine = MergedWeights(model, generator.pool, budget_bytes=10**9).merge(gates)
    ours = [weight for _, weight in merged_weights(model, generator.pool, gates)]
    assert len(ours) == len(engine) > 0
    assert all(torch.equal(a, b) for a, b in zip(ours, engine, strict=True))


@torch.no_grad()
def test_peft_loads_the_adapter_and_agrees_with_the_merged_model(model, made, tiny_tokenizer, tmp_path):
    generator, gates = made
    write_peft(tmp_path, model, generator.pool, gates, base="tiny")
    ids = _ids(tiny_tokenizer)
    base, expected = model(ids).logits, _merged(model, generator, gates)(ids).logits
    peft_model = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
    assert (expected - base).abs().max() > 0.1  # the adapter does something
    torch.testing.assert_close(peft_model(ids).logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(peft_model.merge_and_unload()(ids).logits, expected, atol=1e-4, rtol=1e-4)


def test_peft_has_one_rank_where_layers_use_different_numbers_of_experts(
    model, made, tiny_tokenizer, tmp_path
):
    generator, gates = made
    gates = gates.clone()
    gates[0] = torch.tensor([1.0, 0, 0, 0])
    write_peft(tmp_path, model, generator.pool, gates, base="tiny")
    ids = _ids(tiny_tokenizer)
    with torch.no_grad():
        peft_model = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path)
        expected = _merged(model, generator, gates)(ids).logits
        torch.testing.assert_close(peft_model(ids).logits, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_transformers_loads_the_merged_model_and_its_tokenizer(model, made, tiny_tokenizer, tmp_path):
    generator, gates = made
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_merged(tmp_path, model, tiny_tokenizer, generator.pool, gates)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = _ids(tiny_tokenizer)
    assert torch.equal(_ids(tokenizer), ids)
    expected = _merged(model, generator, gates)(ids).logits
    torch.testing.assert_close(loaded(ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@torch.no_grad()
def test_weights_that_are_wider_in_memory_are_written_as_they_came(model, made, tiny_tokenizer, tmp_path):
    generator, gates = made
    narrow = copy.deepcopy(model).bfloat16()
    narrow.config.dtype = torch.bfloat16
    wide = copy.deepcopy(narrow).float()
    for name, each in (("narrow", narrow), ("wide", wide)):
        write_merged(tmp_path / name, each, tiny_tokenizer, generator.pool, gates)
        assert each.config.dtype == torch.bfloat16
    written = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("narrow", "wide")]
    assert written[0] == written[1]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "wide").dtype == torch.bfloat16


def _tiny_gguf(model, path):
    """A GGUF file as llama.cpp's converter would make it of a tiny Llama."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    simple = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for name, tensor in model.state_dict().items():
        stem, data = name.removesuffix(".weight"), tensor.numpy()
        prefix = ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            prefix = f"blk.{layer}."
        heads = {
            "self_attn.q_proj": config.num_attention_heads,
            "self_attn.k_proj": config.num_key_value_heads,
        }
        if stem in heads:  # llama.cpp interleaves the halves that rotary embeddings turn
            out, width = data.shape
            data = (
                data.reshape(heads[stem], 2, out // heads[stem] // 2, width)
                .swapaxes(1, 2)
                .reshape(out, width)
            )
        writer.add_tensor(f"{prefix}{simple[stem]}.weight", np.ascontiguousarray(data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def llama(make_tiny_llama, make_generator, toolset):
    model = make_tiny_llama(hidden_size=32, intermediate_size=64)
    generator = make_generator(model)
    return model, generator, generator.generate(toolset).gates


@torch.no_grad()
@pytest.mark.parametrize(("quantization", "tolerance"), [("bf16", 0.03), ("f16", 0.01), ("q8_0", 0.06)])
def test_gguf_is_the_source_with_the_merged_ffn(llama, tiny_tokenizer, tmp_path, quantization, tolerance):
    model, generator, gates = llama
    source, target = tmp_path / "source.gguf", tmp_path / "out.gguf"
    _tiny_gguf(model, source)
    write_gguf(target, source, model, generator.pool, gates, quantization=quantization, name="ours")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="out.gguf", dtype=torch.float32)
    expected = _merged(model, generator, gates)
    for name, tensor in expected.state_dict().items():
        got = loaded.state_dict()[name]
        if ".mlp." in name:
            assert (got - tensor).abs().max() <= tolerance * tensor.abs().max()
            assert not torch.equal(got, model.state_dict()[name])
        else:
            assert torch.equal(got, tensor), name
    old, new = gguf.GGUFReader(source), gguf.GGUFReader(target)
    assert new.get_field("general.name").contents() == "ours"
    kept = [key for key in old.fields if not key.startswith("GGUF.") and key != "general.name"]
    assert len(kept) > 8
    assert all(old.fields[key].contents() == new.fields[key].contents() for key in kept)


def test_gguf_of_another_model_is_refused(llama, make_tiny_llama, tmp_path):
    model, generator, gates = llama
    _tiny_gguf(make_tiny_llama(), tmp_path / "other.gguf")
    with pytest.raises(AdapterError, match="not the file of this edge model"):
        write_gguf(tmp_path / "out.gguf", tmp_path / "other.gguf", model, generator.pool, gates)


def test_unknown_quantization_is_refused(llama, tmp_path):
    model, generator, gates = llama
    _tiny_gguf(model, tmp_path / "source.gguf")
    with pytest.raises(ConfigError, match="q2_k"):
        write_gguf(
            tmp_path / "o.gguf", tmp_path / "source.gguf", model, generator.pool, gates, quantization="q2_k"
        )
