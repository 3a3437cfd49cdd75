"""Does the request say what a tool requires?

A value that the conversation gives is copied: behind the opening of a parameter, most of the model's probability lies on
first tokens of words that stand there. Where it gives none the model has to make one up, and its probability lies on what is
usual. One more pass over a few tokens tells; there is nothing to train, and it is the same for every tool.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.choose import common_logits
from agent_specializer.edge.transcript import label
from agent_specializer.loragen.toolkeys import required
from agent_specializer.specs import ToolSpec

UNSAID = -2.2
"""Below it a value counts as not said. Of requests that say all, one in twenty has such a value; of those that do not, more than
half have one (docs/LOG.md)."""
WIDE = 65536
"""Tokens that always belong to the normaliser: values are rarer words than names are."""
FLOOR = -6.0
"""Below it all is the same."""
MAX_ASKED = 6
"""Parameters of a tool that are looked for, at most."""
RECENT = 512
"""Tokens of the conversation, from its end, among which values are looked for."""


def asked_for(tool: ToolSpec) -> tuple[str, ...]:
    """The required parameters whose values are words of the user: not those to be picked from a few."""
    properties = tool.parameters.get("properties") or {}
    free = (
        name
        for name in required(tool)
        if "enum" not in properties[name] and properties[name].get("type") not in ("boolean", "object")
    )
    return tuple(free)[:MAX_ASKED]


def openings(tokenizer: PreTrainedTokenizerBase, tool: ToolSpec) -> list[list[int]]:
    """What stands behind ``Call:`` where the value of each of `asked_for` would begin, were it the first; token ids."""
    texts = [f'{label(tool.name)}{{"{name}": "' for name in asked_for(tool)]
    found: list[list[int]] = tokenizer(texts, add_special_tokens=False).input_ids if texts else []
    return found


def beginnings(tokenizer: PreTrainedTokenizerBase, conversation: Sequence[int]) -> Tensor:
    """Sorted ids of the tokens with which a value can begin that stands in `conversation` (token ids), in any capitals."""
    special = set(tokenizer.all_special_ids)
    recent = [token for token in conversation[-RECENT:] if token not in special]
    # What the tokens are without the space before them; and words whose beginning is cut in another way without it.
    tokens: list[str] = tokenizer.convert_ids_to_tokens(recent)  # type: ignore[assignment]
    spaceless = [token.replace("\u2581", "").replace("\u0120", "") for token in tokens]
    pieces = {form for piece in spaceless if any(map(str.isalnum, piece)) for form in _capitals(piece)}
    unknown = tokenizer.unk_token_id
    known: list[int | None] = tokenizer.convert_tokens_to_ids(sorted(pieces))  # type: ignore[assignment]
    found = {token for token in known if token not in (None, unknown)}
    words = {
        form
        for word in str(tokenizer.decode(recent)).split()
        for form in _capitals(word.strip("'\".,;:!?()"))
    }
    if words:
        quoted = tokenizer([f'"{word}' for word in sorted(words)], add_special_tokens=False).input_ids
        found |= {ids[1] for ids in quoted if len(ids) > 1}
    return torch.tensor(sorted(found), dtype=torch.long)


def _capitals(word: str) -> set[str]:
    return {word, word.lower(), word.capitalize()} - {""}


def copied(model: nn.Module, states: Tensor, begins: Tensor) -> Tensor:
    """How far the value of each parameter is copied, (parameters,) float32 on the CPU: the log-probability, `FLOOR` or more, that
    it begins as a word of the conversation does.

    Args:
        states: (parameters, hidden), of the model behind each of `openings`. begins: of `beginnings`.
    """
    return beginning(model, states, begins).logsumexp(-1).clamp_min(FLOOR)


def beginning(model: nn.Module, states: Tensor, begins: Tensor) -> Tensor:
    """Log-probability of each of `begins` where the value of each parameter begins, (parameters, begins) float32 on the CPU;
    arguments as of `copied`."""
    scored, subset = common_logits(model, states, begins, WIDE)
    kept = torch.searchsorted(subset, begins.to(subset.device))
    return torch.log_softmax(scored, -1)[:, kept].cpu()
