"""Models are in bfloat16 where the processor multiplies in it, in float32 elsewhere if there is memory for that."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from agent_specializer.bundles import Bundle, ModelSource, load_models, precision


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


def test_models_are_in_float32_on_a_slow_processor_with_the_same_weights(able, gemma, home):
    able("avx512_bf16")
    narrow = load_models(gemma, home).edge
    able("avx2")
    wide = load_models(gemma, home).edge
    assert {p.dtype for p in narrow.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    for (name, own), other in zip(narrow.named_parameters(), wide.parameters(), strict=True):
        assert torch.equal(own.float(), other), name
    assert not any(p.requires_grad for p in wide.parameters())


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
