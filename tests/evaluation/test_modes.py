"""Every mode asks the same in its own way."""

from __future__ import annotations

import torch

from agent_specializer.evaluation.modes import Workbench, check_modes
from agent_specializer.evaluation.tasks import load_groups


def test_modes_come_in_one_order_and_once():
    assert check_modes(["specialized", "base", "base"]) == ["base", "specialized"]


def test_seats_differ_where_modes_differ(tiny_bench):
    groups = load_groups(tiny_bench.toolsets, tiny_bench.examples, tools=8, limit=20)
    bench = Workbench(tiny_bench.models)
    own = [seat.adapter for seat in bench.seats("specialized", groups)]
    wrong = [seat.adapter for seat in bench.seats("wrong_adapter", groups)]
    gates = [seat.adapter for seat in bench.seats("wrong_gates", groups)]
    keys = [seat.adapter for seat in bench.seats("wrong_keys", groups)]
    keyless = [seat.adapter for seat in bench.seats("without_keys", groups)]
    priorless = [seat.adapter for seat in bench.seats("without_priors", groups)]
    shared = [seat.adapter for seat in bench.seats("shared_lora", groups)]
    for a, b in zip(own, wrong, strict=True):
        assert a.names == b.names
        assert not torch.equal(a.gates, b.gates)
        assert not torch.equal(a.priors, b.priors)
    for a, both, b, c, d, e in zip(own, wrong, gates, keys, keyless, priorless, strict=True):
        assert torch.equal(b.gates, both.gates)
        assert torch.equal(b.keys, a.keys)
        assert torch.equal(b.priors, both.priors)  # of the weights that it is asked under
        assert torch.equal(c.gates, a.gates)
        assert torch.equal(c.keys, both.keys)
        assert torch.allclose(c.priors, a.priors)
        assert torch.equal(d.gates, a.gates)
        assert not d.keys.numel()
        assert torch.equal(d.priors, a.priors)
        assert torch.equal(e.keys, a.keys)
        assert not e.priors.any()
    assert all(torch.equal(each.gates, shared[0].gates) and not each.keys.numel() for each in shared)


def test_refined_has_refined_keys_and_nothing_else(tiny_bench, wordy):
    groups = load_groups(tiny_bench.toolsets, tiny_bench.examples, tools=8, limit=20)[:2]
    bench = Workbench(tiny_bench.models)
    own = [seat.adapter for seat in bench.seats("specialized", groups)]
    for seat, plain in zip(bench.seats("refined", groups), own, strict=True):
        assert torch.equal(seat.adapter.gates, plain.gates)
        assert torch.equal(seat.adapter.priors, plain.priors)
        assert seat.adapter.keys.shape == plain.keys.shape
        assert not torch.equal(seat.adapter.keys, plain.keys)
        assert seat.adapter.lift is not None


def test_modes_with_tools_in_the_prompt(tiny_bench):
    groups = load_groups(tiny_bench.toolsets, tiny_bench.examples, tools=8, limit=20)
    bench = Workbench(tiny_bench.models)
    assert {seat.adapter for seat in bench.seats("prompted", groups)} == {None}
    assert all(seat.tools_in_prompt for seat in bench.seats("prompted_lora", groups))
