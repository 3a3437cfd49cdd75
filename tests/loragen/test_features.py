"""Features: words one by one, what each weighs, how alike two texts are, and that tools and requests start alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agent_specializer.loragen.features import (
    Projection,
    WordByWord,
    left_over,
    likeness,
    start_alike,
    words_of,
)

BACK = torch.tensor(0.5)
"""What the likeness of the tool's words to the request's weighs."""


def unit(*shape: int, seed: int = 0) -> Tensor:
    """Random vectors of length 1."""
    random = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(random, dim=-1)


def text(*shape: int, seed: int = 0) -> Tensor:
    """Texts (..., words, size) as `WordByWord` gives them: random vectors whose lengths sum to 1."""
    weights = torch.rand(*shape[:-1], 1, generator=torch.Generator().manual_seed(seed + 1))
    return unit(*shape, seed=seed) * weights / weights.sum(-2, keepdim=True)


# Words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "depth"), [(9, 8), (18, 16), (3, 2), (1, 0)])
def test_words_are_unit_vectors_of_the_state_at_eight_ninths_of_the_depth(layers: int, depth: int) -> None:
    states = [torch.randn(2, 6, 4, dtype=torch.bfloat16) for _ in range(layers + 1)]  # the embedding, too
    words = words_of(states)
    assert words.dtype == torch.float32
    assert torch.equal(words, torch.nn.functional.normalize(states[depth].float(), dim=-1))


def made(hidden: int = 6, size: int = 5) -> WordByWord:
    """With weights that differ from word to word, and a mean."""
    torch.manual_seed(0)
    net = WordByWord(hidden, size=size).requires_grad_(False)
    net.weight.weight.normal_()
    net.unit.mean.normal_(std=0.1)
    return net


def test_before_training_all_words_of_a_text_weigh_the_same() -> None:
    lengths = WordByWord(6, size=5)(unit(2, 4, 6), torch.ones(2, 4, dtype=torch.bool)).norm(dim=-1)
    assert torch.allclose(lengths, torch.full((2, 4), 0.25))


def test_the_weights_of_a_text_sum_to_one_and_what_is_not_there_is_zero() -> None:
    net, words = made(), unit(3, 7, 6)
    inside = torch.arange(7) < torch.tensor([[7], [4], [1]])
    lengths = net(words, inside).norm(dim=-1)
    assert torch.allclose(lengths.sum(-1), torch.ones(3))
    assert ((lengths > 0) == inside).all()
    assert lengths[0].max() > 2 * lengths[0].min(), "the weights are alike: this test shows nothing"


def test_a_vector_is_the_projection_of_its_word_as_long_as_its_weight() -> None:
    net, words = made(), unit(2, 4, 6)
    vectors = net(words, torch.ones(2, 4, dtype=torch.bool))
    assert torch.allclose(torch.nn.functional.normalize(vectors, dim=-1), net.unit(words), atol=1e-6)
    plain = torch.nn.functional.softplus(net.weight(net.unit.centred(words))[..., 0])
    assert torch.allclose(vectors.norm(dim=-1), plain / plain.sum(-1, keepdim=True))


def test_padding_changes_no_other_word() -> None:
    net, words = made(), unit(2, 7, 6)
    inside = torch.tensor([[0, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]).bool()
    padded = net(words, inside)
    for row, (start, end) in enumerate(((1, 4), (0, 2))):
        alone = net(words[row, start:end], torch.ones(end - start, dtype=torch.bool))
        assert torch.allclose(padded[row, start:end], alone, atol=1e-6)
    other = torch.where(inside[..., None], words, unit(2, 7, 6, seed=9))
    assert torch.equal(net(other, inside), padded), "what stands in the padding matters"


def test_a_text_without_words_is_zero_and_not_nothing() -> None:
    assert torch.equal(made()(unit(1, 3, 6), torch.zeros(1, 3, dtype=torch.bool)), torch.zeros(1, 3, 5))


# Likeness -----------------------------------------------------------------------------------------------------------


def slowly(request: Tensor, tool: Tensor, back: float) -> float:
    """`likeness` of one request and one tool, word by word."""
    x, y = ([word for word in words if word.norm() > 0] for words in (request, tool))

    def best(word: Tensor, others: list[Tensor]) -> float:
        return max(float(torch.cosine_similarity(word, other, dim=0)) for other in others)

    forth = sum(float(word.norm()) * best(word, y) for word in x)
    return (forth + back * sum(float(word.norm()) * best(word, x) for word in y)) / (1 + back)


def test_each_word_finds_the_word_of_the_other_that_is_most_like_it() -> None:
    east, north, up = torch.eye(3)
    request = torch.stack([0.75 * east, 0.25 * north])[None]
    tools = torch.stack(
        [
            torch.stack([0.5 * north, 0.5 * east]),  # the same words in another order
            torch.stack([0.5 * east, 0.5 * up]),  # the one that weighs most, and a strange one
            torch.stack([0.5 * up, 0.5 * up]),  # none of them
            torch.stack([-0.5 * east, -0.5 * north]),  # the contrary of each is like the other at best
        ]
    )
    assert torch.allclose(likeness(request, tools, torch.tensor(0.0)), torch.tensor([[1.0, 0.75, 0, 0]]))
    # Of the second tool's words, half is found in the request.
    back = torch.tensor([[1.0, (0.75 + 0.5 * 0.5) / 1.5, 0, 0]])
    assert torch.allclose(likeness(request, tools, BACK), back)


@pytest.mark.parametrize("back", [0.0, 0.5, 3.0])
def test_likeness_is_what_word_by_word_comparison_gives(back: float) -> None:
    requests, tools = text(3, 4, 5), text(6, 7, 5, seed=2)
    requests[1, 2:] = 0
    tools[4, 1:] = 0
    expected = torch.tensor([[slowly(request, tool, back) for tool in tools] for request in requests])
    assert torch.allclose(likeness(requests, tools, torch.tensor(back)), expected, atol=1e-5)


def test_words_that_are_not_there_count_for_nothing() -> None:
    requests, tools = text(2, 4, 5), text(3, 6, 5, seed=2)
    plain = likeness(requests, tools, BACK)
    pad = torch.nn.functional.pad
    assert torch.allclose(likeness(pad(requests, (0, 0, 2, 3)), tools, BACK), plain, atol=1e-6)
    assert torch.allclose(likeness(requests, pad(tools, (0, 0, 1, 4)), BACK), plain, atol=1e-6)
    # Nor where all that is there is the contrary, so that zero would be more alike.
    east = torch.eye(5)[:1, None]
    for request, tool in ((pad(east, (0, 0, 0, 1)), -east), (east, pad(-east, (0, 0, 0, 1)))):
        assert likeness(request, tool, BACK).item() == pytest.approx(-1)


def test_tools_of_each_row_score_as_those_of_all_rows() -> None:
    requests, tools = text(3, 4, 5), text(6, 7, 5, seed=2)
    tools[2, 3:] = 0
    together = likeness(requests, tools, BACK)
    assert torch.allclose(likeness(requests, tools.expand(3, -1, -1, -1), BACK), together, atol=1e-6)
    turned = torch.stack([tools.roll(row, 0) for row in range(3)])
    expected = torch.stack([together[row].roll(row) for row in range(3)])
    assert torch.allclose(likeness(requests, turned, BACK), expected, atol=1e-6)


def test_likeness_is_between_minus_one_and_one_and_one_for_the_same_words() -> None:
    for words in (1, 2, 5):
        requests, tools = text(30, words, 3), text(20, words, 3, seed=2)
        some = likeness(requests, tools, BACK)
        assert some.shape == (30, 20)
        assert some.abs().max() <= 1 + 1e-6
        assert some.max() > 0.7
        assert some.min() < (-0.9 if words == 1 else 0.5), "of more words, some one is alike"
    assert torch.allclose(likeness(requests, requests, BACK).diagonal(), torch.ones(30), atol=1e-5)


def test_the_order_of_words_and_a_scale_of_all_weights_do_what_they_should() -> None:
    requests, tools = text(2, 4, 5), text(3, 6, 5, seed=2)
    plain = likeness(requests, tools, BACK)
    assert torch.allclose(likeness(requests.flip(1), tools.flip(1), BACK), plain, atol=1e-6)
    assert torch.allclose(likeness(2 * requests, 2 * tools, BACK), 2 * plain, atol=1e-6)


# What is left over --------------------------------------------------------------------------------------------------


def test_a_call_leaves_over_the_words_that_another_tool_is_more_like() -> None:
    east, north, up = torch.eye(3)
    request = torch.stack([0.75 * east, 0.25 * north, 0 * up])[None]
    tools = torch.stack([east, north, (east + north) / 2**0.5, up])[:, None]
    left = left_over(request, tools, torch.tensor([[True, False, False, False]]))
    # East is explained; of north, all is left over to the second tool, and some to the third.
    assert torch.allclose(left, torch.tensor([[0.0, 0.25, 0.25 / 2**0.5, 0.0]]))
    both = left_over(request, tools, torch.tensor([[True, True, False, False]]))
    assert not both.any(), "nothing is left over"


def test_nothing_is_left_over_before_a_call_and_rows_do_not_mix() -> None:
    requests, tools = text(3, 4, 5), text(6, 7, 5, seed=2)
    made_of = torch.zeros(3, 6, dtype=torch.bool)
    made_of[1, 2] = True
    left = left_over(requests, tools, made_of)
    assert not left[[0, 2]].any()
    assert left[1, 2] == 0
    assert (left >= 0).all()
    assert left[1].any()
    assert torch.allclose(left, left_over(requests, tools.expand(3, -1, -1, -1), made_of), atol=1e-6)


# Start --------------------------------------------------------------------------------------------------------------


def test_both_projections_start_as_one_map_that_finds_what_is_alike() -> None:
    torch.manual_seed(0)
    tools = torch.randn(200, 16)
    requests = tools + 0.1 * torch.randn(200, 16) + 0.5  # the same, far away by a constant
    of_tools, of_requests = (Projection(16, size=8) for _ in range(2))
    start_alike(of_tools, of_requests, tools, requests)
    assert torch.equal(of_tools.linear.weight, of_requests.linear.weight)
    assert torch.allclose(of_tools.mean, tools.mean(0))
    assert torch.allclose(of_requests.mean, requests.mean(0))
    right = (of_requests(requests) @ of_tools(tools).T).argmax(1) == torch.arange(200)
    assert right.float().mean() > 0.9
    assert torch.allclose(of_tools(tools).norm(dim=-1), torch.ones(200), atol=1e-5)


def test_the_start_keeps_the_directions_that_vary_most() -> None:
    torch.manual_seed(0)
    spread = torch.tensor([5.0, 0.1, 3.0, 0.1, 0.1, 0.1])
    tools, requests = torch.randn(500, 6) * spread, torch.randn(500, 6) * spread
    of_tools, of_requests = (Projection(6, size=2) for _ in range(2))
    start_alike(of_tools, of_requests, tools, requests)
    share = of_tools.linear.weight.square().sum(0)
    assert share[[0, 2]].sum() > 0.99 * share.sum()


def test_a_projection_wider_than_what_it_reads_is_filled_with_zeros() -> None:
    of_tools, of_requests = (Projection(4, size=6) for _ in range(2))
    start_alike(of_tools, of_requests, torch.randn(50, 4), torch.randn(50, 4))
    assert of_tools.linear.weight[:4].norm(dim=1).min() > 0
    assert not of_tools.linear.weight[4:].any()
