"""The controls: a wrong adapter knows nothing of the tools it is used with, and a part that is missing is not there."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.controls import (
    foreign_toolset,
    without_keys,
    without_priors,
    wrong_adapter,
    wrong_gates,
    wrong_keys,
)
from agent_specializer.evaluation.tasks import Group
from agent_specializer.loragen import Adapter
from agent_specializer.specs import Toolset, ToolSpec


def adapter(names: tuple[str, ...], seed: int, vectors: int = 2) -> Adapter:
    random_ = torch.Generator().manual_seed(seed)
    return Adapter(
        gates=torch.rand(2, 4, generator=random_),
        names=names,
        keys=torch.rand(len(names), vectors, 3, generator=random_) if vectors else torch.empty(0, 0, 0),
        toolset=f"toolset {seed}",
        generator="g",
        priors=torch.zeros(len(names) + 1),
    )


@pytest.mark.parametrize("tools", [2, 3, 12])
def test_no_tool_keeps_its_key_the_gates_are_the_others_and_priors_are_to_be_measured(tools):
    names = tuple(f"t{i}" for i in range(tools))
    own, foreign = adapter(names, 0), adapter(("x",), 1)
    for seed in range(20):
        wrong = wrong_adapter(own, foreign, random.Random(seed))
        assert torch.equal(wrong.gates, foreign.gates)
        assert wrong.names == names
        assert not any(torch.equal(wrong.keys[i], own.keys[i]) for i in range(tools))
        assert torch.allclose(wrong.keys.sum(0), own.keys.sum(0))  # each key is used once
        assert wrong.priors is None
        raised = wrong_adapter(replace(own, lift=own.keys.sum((1, 2))), foreign, random.Random(seed))
        assert torch.equal(raised.lift, raised.keys.sum((1, 2)))  # each tool's with its key


def test_a_single_tool_gets_a_foreign_key_and_an_adapter_without_keys_stays_without():
    for vectors in (1, 2, 5):
        own, foreign = adapter(("a",), 0), adapter(("x", "y"), 1, vectors)
        wrong = wrong_adapter(own, foreign, random.Random(0))
        assert torch.equal(wrong.keys, foreign.keys[:1])
    plain = wrong_adapter(adapter(("a", "b"), 0, vectors=0), adapter(("x",), 1), random.Random(0))
    assert not plain.keys.numel()


def group(own: str) -> Group:
    return Group(Toolset(tools=(ToolSpec(name=own.replace("/", "_")),)), (), (own,))


def test_the_wrong_gates_come_from_the_next_group_about_something_else():
    groups = [group("s/Cars_1@v1"), group("s/Cars_1@v2"), group("s/Music_1@v1")]
    assert foreign_toolset(groups, 0) == groups[2].toolset
    assert foreign_toolset(groups, 2) == groups[0].toolset
    # Where all groups are about the same, another toolset is still another one.
    assert foreign_toolset(groups[:2], 0) == groups[1].toolset
    assert foreign_toolset(groups[:1], 0, spare=groups[2].toolset) == groups[2].toolset
    with pytest.raises(ConfigError, match="only one"):
        foreign_toolset(groups[:1], 0)


def test_one_part_is_wrong_or_missing_and_the_rest_is_its_own():
    own, foreign = adapter(("a", "b", "c"), 0), adapter(("x",), 1)
    gates, keys = wrong_gates(own, foreign), wrong_keys(own, foreign, random.Random(0))
    assert torch.equal(gates.gates, foreign.gates)
    assert torch.equal(gates.keys, own.keys)
    assert torch.equal(keys.gates, own.gates)
    assert torch.equal(keys.keys, wrong_adapter(own, foreign, random.Random(0)).keys)
    assert gates.priors is None
    assert keys.priors is None
    keyless = without_keys(replace(own, lift=own.keys.sum((1, 2))))
    assert (keyless.keys.shape, keyless.lift) == ((0, 0, 0), None)
    assert torch.equal(keyless.priors, own.priors)
    priorless = without_priors(own.with_priors(torch.full((4,), -9.0)))
    assert torch.equal(priorless.priors, torch.zeros(4))
    assert torch.equal(priorless.keys, own.keys)
    assert len({each.generator for each in (own, gates, keys, keyless, priorless)}) == 5
