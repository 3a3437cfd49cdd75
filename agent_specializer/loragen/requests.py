"""What people say when they want a tool: requests that its owner knows, in its key beside its description.

A description says what a tool does; people say what they want. A key's vectors are those of the description's words, read by the cloud LM;
behind them stand those of the words of the tool's known requests, read by the edge as a user's request is. A word of a request looks
for the word that is most like it in both (`features.likeness`). Nothing is trained, the adapter keeps its form, and a call costs the
same.

More words to look in make everything look more alike. How much they raise a tool's likeness to what has nothing to do with it, the
tool's `lift`, is measured on `ELSEWHERE` and on the other tools' requests, kept in the adapter and taken off: otherwise such a tool would be called
sooner than its neighbours, and sooner where nothing is to be called.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agent_specializer.loragen.features import likeness
from agent_specializer.loragen.toolkeys import ChoiceHead

HEAVIEST = 96
"""Of the vectors of a tool's requests, how many are kept: those that weigh most."""
WEIGHT = 0.1
"""What they weigh together, beside the description's 1, where the tool's words look for the request's."""
ELSEWHERE = (
    "hi there",
    "thanks, that was all for now",
    "what do you think about it?",
    "who wrote the first novel in English?",
    "how are you today?",
    "tell me something funny",
    "sorry, I did not mean that",
    "why is the sky blue?",
    "yes please",
    "no, the other one",
    "can you explain how photosynthesis works?",
    "I am not sure what I want yet",
    "you are very helpful",
    "what can you do for me?",
    "give me some ideas for a birthday party",
    "is it better to rent or to buy?",
)
"""Requests that no tool is meant by."""


@torch.no_grad()
def with_requests(
    head: ChoiceHead, keys: Tensor, requests: Sequence[Sequence[Tensor]], elsewhere: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Keys with the requests of their tools, and each tool's lift.

    Args:
        keys: (tools, vectors, key_dim), of descriptions. requests: of each tool, the words (tokens, hidden) of each of its
            requests (`features.words_of`), or none; elsewhere: those of `ELSEWHERE`.

    Returns:
        (tools, more vectors, key_dim) and (tools,), float32.
    """
    asked = [[_asked(head, words) for words in some] for some in requests]
    joined = [_joined(key, some) for key, some in zip(keys, asked, strict=True)]
    after = nn.utils.rnn.pad_sequence(joined, batch_first=True)
    aside = [_asked(head, words) for words in elsewhere]
    lift = torch.zeros(len(keys))
    for tool, own in enumerate(asked):
        if own:
            others = [vectors for place, some in enumerate(asked) if place != tool for vectors in some]
            far = nn.utils.rnn.pad_sequence([*aside, *others], batch_first=True)
            lift[tool] = rise(head, far, keys[tool : tool + 1], after[tool : tool + 1])[0]
    return after, lift


def rise(head: ChoiceHead, far: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """How much more `after` than `before`, keys (tools, vectors, key_dim), are like requests (rows, words, key_dim) that they have nothing
    to do with, on average, (tools,); differentiable in the keys."""
    back = head.back.detach().cpu()
    return (likeness(far, after, back) - likeness(far, before, back)).mean(0)


def _asked(head: ChoiceHead, words: Tensor) -> Tensor:
    """Words (tokens, hidden) to vectors (tokens, key_dim), as a request's."""
    assert head.query is not None
    device = head.log_t.device
    there = torch.ones(1, len(words), dtype=torch.bool, device=device)
    vectors: Tensor = head.query(words[None].to(device), there)
    return vectors[0].cpu()


def _joined(key: Tensor, asked: Sequence[Tensor]) -> Tensor:
    """A key (vectors, key_dim) with the heaviest vectors of `asked` behind it."""
    key = key[key.norm(dim=-1) > 0]
    if not asked:
        return key
    more = torch.cat(list(asked))
    more = more[more.norm(dim=-1).topk(min(HEAVIEST, len(more))).indices.sort().values]
    return torch.cat([key, more * (WEIGHT / more.norm(dim=-1).sum())])
