"""Models are in bfloat16 where the processor multiplies in it, their layers in float32 elsewhere if there is memory for that."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from agent_specializer.bundles import Bundle, ModelSource, load_models, precision
from agent_specializer.edge.passes import Feed, Lanes
from agent_specializer.loragen.models import decoder, logits


@pytest.fixture
def able(monkeypatch):
    """Makes the processor one with these instructions."""

    def make(*instructions: str, library: bool = True) -> None:
        names = {name: name in instructions for name in ("avx2", *precision.INSTRUCTIONS)}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: names, raising=False)
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)

    return make


@pytest.fixture
def gemma(saved_model, tiny_gemma) -> Bundle:
    source = ModelSource(kind="local", name=str(saved_model(tiny_gemma, "gemma")))
    return Bundle(name="pair", cloud=source, edge=source)


@pytest.mark.parametrize("instruction", precision.INSTRUCTIONS)
def test_each_of_the_instructions_will_do(able, instruction):
    able("avx2", instruction)
    assert precision.multiplies_bfloat16()


def test_a_processor_without_them_or_a_build_that_does_not_use_them_is_slow(able):
    able("avx2")
    assert not precision.multiplies_bfloat16()
    able("bf16", library=False)
    assert not precision.multiplies_bfloat16()


def test_on_a_slow_processor_layers_are_in_float32_and_embeddings_as_they_were(able, gemma, home):
    able("avx512_bf16")
    fast = load_models(gemma, home)
    able("avx2")
    slow = load_models(gemma, home)
    assert (fast.dtype, slow.dtype) == ("bfloat16", "float32")
    narrow, wide = fast.edge, slow.edge
    assert {p.dtype for p in narrow.parameters()} == {torch.bfloat16}
    for (name, own), other in zip(narrow.named_parameters(), wide.named_parameters(), strict=True):
        assert other[1].dtype == (torch.bfloat16 if "embed" in name else torch.float32), name
        assert torch.equal(own.float(), other[1].float()), name
    assert wide.get_output_embeddings().weight is wide.get_input_embeddings().weight
    assert not any(p.requires_grad for p in wide.parameters())


@torch.inference_mode()
def test_such_a_model_says_the_same_by_itself_and_through_the_edge(able, gemma, home):
    able("avx2")
    model = load_models(gemma, home).edge
    exact = load_models(gemma, home, dtype="float32").edge
    ids = torch.arange(3, 12)[None]
    expected = exact(ids).logits[0]
    torch.testing.assert_close(model(ids).logits[0].float(), expected, atol=0.05, rtol=0.02)
    states = decoder(model)(ids).last_hidden_state[0]
    assert states.dtype == torch.float32
    few = torch.tensor([5, 1, 7])
    # The embedding's scale is rounded as its weights are, hence the tolerance.
    torch.testing.assert_close(logits(model, states), expected, atol=0.05, rtol=0.02)
    torch.testing.assert_close(logits(model, states[-1]), expected[-1], atol=0.05, rtol=0.02)
    torch.testing.assert_close(logits(model, states, few), logits(model, states)[:, few])
    seen = Lanes(model, 2).run({0: Feed([4, 5, 6], rows="all"), 1: Feed([7], rows=few)})
    alone = Lanes(model, 1).run({0: Feed([4, 5, 6], rows="all")})
    torch.testing.assert_close(seen[0].logits, alone[0].logits, atol=0.02, rtol=0.02)


def test_what_was_asked_for_is_kept(able, gemma, home):
    able("avx2")
    assert load_models(gemma, home, dtype="bfloat16").edge.dtype == torch.bfloat16


def test_without_the_memory_for_it_models_stay_as_they_are_and_it_is_said(
    able, gemma, home, monkeypatch, caplog
):
    able("avx2")
    monkeypatch.setattr(precision.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    assert load_models(gemma, home).edge.dtype == torch.bfloat16
    assert "slow in bfloat16" in caplog.text
