"""Keys learn what tools are asked for by, stay near where they were, and rise no further for what has nothing to do with them."""

from __future__ import annotations

import torch
from torch import Tensor

from agent_specializer.edge.first_choice import FirstChoice
from agent_specializer.loragen import ChoiceHead
from agent_specializer.loragen.features import likeness
from agent_specializer.loragen.toolkeys import Asked
from agent_specializer.refinement.fitting import Lessons, fit_keys, padded

TOOLS, WORDS, SIZE = 3, 4, 8


def head() -> ChoiceHead:
    return ChoiceHead(16, SIZE).requires_grad_(False)


def keys() -> Tensor:
    made = torch.randn(TOOLS, 5, SIZE, generator=torch.Generator().manual_seed(0))
    made = made / made.norm(dim=-1, keepdim=True) / 5
    made[0, 3:] = 0  # a tool with fewer words
    return made


def asked(count: int, seed: int) -> list[Tensor]:
    """Requests of different lengths, (1, words, size) each."""
    rng = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        words = torch.randn(1, WORDS + number % 3, SIZE, generator=rng)
        found.append(words / words.norm(dim=-1, keepdim=True) / words.shape[1])
    return found


def choices(vectors: list[Tensor], own: Tensor, rest: Tensor) -> list[FirstChoice]:
    """As an engine makes them: what else tells tools apart is `rest`."""
    it = head()
    made = []
    for one, more in zip(vectors, rest, strict=True):
        scores = it.log_t.exp() * likeness(one, own, it.back)[0] + more
        made.append(FirstChoice(torch.cat([scores, torch.zeros(1)]), Asked(one, torch.zeros(1)), 1.0))
    return made


def test_what_else_tells_tools_apart_is_left_as_it_was() -> None:
    rest = torch.randn(7, TOOLS, generator=torch.Generator().manual_seed(1))
    made = choices(asked(7, 2), keys(), rest)
    lessons = Lessons.of(made, [0] * 7, head(), keys())
    assert torch.allclose(lessons.rest, rest, atol=1e-5)
    scores = torch.stack([choice.scores[:-1] for choice in made])
    assert torch.allclose(lessons.log_likely(head(), keys()), scores.log_softmax(-1), atol=1e-5)
    lift = torch.tensor([0.0, 0.2, 0.0])
    less = (scores - head().log_t.exp() * lift).log_softmax(-1)
    assert torch.allclose(lessons.log_likely(head(), keys(), lift), less, atol=1e-5)


def test_keys_learn_and_what_they_rise_by_everywhere_is_taken_off() -> None:
    before, tools = keys(), [number % TOOLS for number in range(60)]
    made = choices(asked(60, 3), before, torch.zeros(60, TOOLS))
    lessons = Lessons.of(made, tools, head(), before)
    far = padded(choices(asked(16, 4), before, torch.zeros(16, TOOLS)))
    after, lift = fit_keys(head(), before, lessons, far, seed=0)

    def loss(log_likely: Tensor) -> float:
        return float(-log_likely.gather(1, lessons.tools[:, None]).mean())

    assert loss(lessons.log_likely(head(), after, lift)) < loss(lessons.log_likely(head(), before)) - 0.01
    assert after[0, 3:].abs().max() == 0, "a vector came to be where the tool has none"
    assert 0 < float((after - before).norm()) < 0.5 * float(before.norm())
    back = head().back
    risen = (likeness(far, after, back) - likeness(far, before, back)).mean(0)
    assert torch.allclose(risen, lift, atol=1e-6)
    again, _ = fit_keys(head(), before, lessons, far, seed=0)
    assert torch.equal(after, again)
