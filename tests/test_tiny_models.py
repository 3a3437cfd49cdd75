"""The tiny models that other tests stand on keep their promises."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize(
    "text", ["dim the kitchen light\nCall: set_light\n", "  two  spaces", "Zürich 🙂 ▲", '{"a": 1}']
)
def test_tiny_tokenizer_loses_no_text(tiny_tokenizer, text):
    ids = tiny_tokenizer(text).input_ids
    assert ids[0] == tiny_tokenizer.bos_token_id
    assert tiny_tokenizer.unk_token_id not in ids
    assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == text


def test_tiny_tokenizer_has_tokens_of_more_than_one_letter(tiny_tokenizer):
    assert len(tiny_tokenizer("Call: none", add_special_tokens=False).input_ids) == 2


@pytest.mark.parametrize("name", ["tiny_gemma", "tiny_llama"])
def test_tiny_models_run_and_are_frozen_fp32(request, tiny_tokenizer, name):
    model = request.getfixturevalue(name)
    ids = tiny_tokenizer("Call: none", return_tensors="pt").input_ids
    logits = model(ids).logits
    assert logits.shape == (1, ids.shape[1], len(tiny_tokenizer))
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert not any(p.requires_grad for p in model.parameters())


def test_tiny_models_are_the_same_each_time(make_tiny_gemma):
    one, two, other = make_tiny_gemma(), make_tiny_gemma(), make_tiny_gemma(seed=1)
    weight = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(one.state_dict()[weight], two.state_dict()[weight])
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
