"""Merged weights: base + dW, always from the pristine base, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from agent_specializer.edge.merge import MergedWeights
from agent_specializer.edge.pooled import pooled
from agent_specializer.errors import AdapterError
from agent_specializer.loragen.models import LINEARS, decoder, gated_mlps
from agent_specializer.specs import Toolset

IDS = torch.arange(5, 45)[None] * 7 % 300


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=IDS).logits


@pytest.fixture
def gates(tiny, make_pool: Callable, make_adapter: Callable, toolset: Toolset) -> list[torch.Tensor]:
    return [make_adapter(make_pool(tiny), toolset, seed).gates for seed in range(3)]


def test_merged_weights_are_base_plus_delta(tiny, make_pool: Callable, gates: list[torch.Tensor]) -> None:
    pool = make_pool(tiny)
    base = {
        (i, n): getattr(m, n).weight.clone() for i, m in enumerate(gated_mlps(decoder(tiny))) for n in LINEARS
    }
    MergedWeights(tiny, pool, budget_bytes=10**9).activate("a", gates[0])
    for layer, mlp in enumerate(gated_mlps(decoder(tiny))):
        for name in LINEARS:
            delta = sum(
                pool.scale * gates[0][layer, j] * pool.B[name][layer, j] @ pool.A[name][layer, j]
                for j in range(pool.experts)
            )
            assert torch.allclose(getattr(mlp, name).weight, base[layer, name] + delta, atol=1e-5)
            assert delta.abs().max() > 1e-3


def test_a_to_b_to_a_and_back_to_base_is_bit_exact(
    tiny, make_pool: Callable, gates: list[torch.Tensor]
) -> None:
    merged = MergedWeights(tiny, make_pool(tiny), budget_bytes=10**9)
    base = logits(tiny)
    merged.activate("a", gates[0])
    a = logits(tiny)
    merged.activate("b", gates[1])
    b = logits(tiny)
    assert not torch.equal(a, b)
    assert merged.activate("a", gates[0])  # known
    assert torch.equal(logits(tiny), a)
    merged.deactivate()
    assert torch.equal(logits(tiny), base)
    merged.drop("a")
    assert not merged.activate("a", gates[0])  # merged anew, to the same bits
    assert torch.equal(logits(tiny), a)


def test_pooled_forward_equals_merged_forward(tiny, make_pool: Callable, gates: list[torch.Tensor]) -> None:
    pool = make_pool(tiny)
    merged = MergedWeights(tiny, pool, budget_bytes=10**9)
    expected = []
    for key, row in enumerate(gates):
        merged.activate(str(key), row)
        expected.append(logits(tiny))
    merged.deactivate()
    base = logits(tiny)
    with pooled(tiny, pool, torch.stack(gates)), torch.no_grad():
        together = tiny(input_ids=IDS.expand(3, -1)).logits
    assert torch.allclose(together, torch.cat(expected), atol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)
    assert torch.equal(logits(tiny), base)


@pytest.mark.parametrize("room", [0, 1, 2])
def test_the_budget_holds_and_the_oldest_goes_first(
    tiny, make_pool: Callable, gates: list[torch.Tensor], room: int
) -> None:
    pool = make_pool(tiny)
    size = MergedWeights(tiny, pool, budget_bytes=0).adapter_bytes
    merged = MergedWeights(tiny, pool, budget_bytes=room * size + 1)
    unlimited = MergedWeights(tiny, pool, budget_bytes=10**9)
    for key in (0, 1, 0, 2, 0, 1):
        merged.activate(str(key), gates[key])
        got = logits(tiny)
        assert merged.nbytes <= max(room, 1) * size
        merged.deactivate()
        unlimited.activate(str(key), gates[key])
        assert torch.equal(got, logits(tiny))
        unlimited.deactivate()
        assert merged.nbytes <= room * size
    assert ("0" in merged) == (room == 2)
    assert ("2" in merged) is False


def test_activating_copies_nothing(tiny, make_pool: Callable, gates: list[torch.Tensor]) -> None:
    merged = MergedWeights(tiny, make_pool(tiny), budget_bytes=10**9)
    linear = gated_mlps(decoder(tiny))[0].gate_proj
    base = linear.weight.data_ptr()
    merged.activate("a", gates[0])
    a = linear.weight.data_ptr()
    merged.deactivate()
    assert linear.weight.data_ptr() == base
    merged.activate("a", gates[0])
    assert linear.weight.data_ptr() == a != base


def test_what_does_not_fit_or_is_infinite_changes_nothing(
    tiny, make_pool: Callable, gates: list[torch.Tensor]
) -> None:
    pool = make_pool(tiny)
    merged = MergedWeights(tiny, pool, budget_bytes=10**9)
    merged.activate("a", gates[0])
    a = logits(tiny)
    with pytest.raises(AdapterError, match="experts"):
        merged.activate("b", gates[1][:, :2])
    with torch.no_grad():
        pool.B["up_proj"].fill_(float("inf"))
    with pytest.raises(AdapterError, match="infinite"):
        merged.activate("b", gates[1])
    assert torch.equal(logits(tiny), a)
    assert "b" not in merged
