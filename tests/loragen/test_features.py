"""Features: what is averaged, and that tools and requests start alike."""

from __future__ import annotations

import torch

from agent_specializer.loragen.features import (
    Projection,
    averages,
    depths,
    feature_size,
    join,
    start_alike,
)


def test_only_the_span_is_averaged_at_each_depth() -> None:
    states = [torch.randn(2, 6, 4) for _ in range(10)]  # of an embedding and nine layers
    found = averages(states, torch.tensor([[1, 4], [0, 2]]))
    for place, depth in enumerate(depths(9)):
        assert torch.allclose(found[0, place], states[depth][0, 1:4].mean(0), atol=1e-6)
        assert torch.allclose(found[1, place], states[depth][1, :2].mean(0), atol=1e-6)


def test_features_are_four_unit_vectors_side_by_side() -> None:
    joined = join(torch.randn(5, 4), torch.randn(5, 3, 4))
    assert joined.shape == (5, feature_size(4))
    assert torch.allclose(joined.view(5, 4, 4).norm(dim=-1), torch.ones(5, 4), atol=1e-6)


def test_both_projections_start_as_one_map_that_finds_what_is_alike() -> None:
    torch.manual_seed(0)
    last = torch.randn(200, 8)
    tools = join(torch.randn(200, 8), torch.stack([torch.randn(200, 8), last, torch.randn(200, 8)], 1))
    # Requests: the same main average, far away by a constant, and other states beside it.
    moved = last + 0.1 * torch.randn(200, 8)
    requests = join(torch.randn(200, 8), torch.stack([torch.randn(200, 8), moved, torch.randn(200, 8)], 1))
    requests = requests + 0.5
    of_tools, of_requests = (Projection(32, width=4, size=8) for _ in range(2))
    start_alike(of_tools, of_requests, tools, requests)
    right = (of_requests(requests) @ of_tools(tools).T).argmax(1) == torch.arange(200)
    assert right.float().mean() > 0.9
    assert torch.allclose(of_tools(tools).norm(dim=-1), torch.ones(200), atol=1e-5)
