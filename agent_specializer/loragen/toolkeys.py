"""Tool keys: one small vector per tool, made from its description, that what the edge made of the request is compared with.

An extension of LoRA-Gen. Gates steer how the edge model reads a request; they are too few to hold what each of dozens
of tools does. So every tool also gets a key from the frozen cloud LM's states over its own description, computed and
cached per tool: adding a tool to an agent costs that tool alone. Where a call's name would start, the edge's states over
the request make a query, and ``t * cos(query, key)`` is added to the name's calibrated log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.loragen.features import Projection, averages, feature_size, join, span_size
from agent_specializer.loragen.models import decoder
from agent_specializer.specs import ToolSpec

MAX_TOKENS = 112
"""Tokens of a tool's key text that are read; the rest is cut before the closing cue."""
CUE = '\nA user who needs this tool says: "'
"""Makes the last state a prediction of the request, the thing that a key is compared with."""


@dataclass(frozen=True)
class ToolReading:
    """What the frozen cloud LM makes of one tool, in one pass.

    Attributes:
        tool: (feature_size,) float32, of the whole text.
        parameters: name to (averages over its own words,) float32, of those that stand among the tokens that are read.
    """

    tool: Tensor
    parameters: dict[str, Tensor]


def key_text(tool: ToolSpec) -> tuple[str, dict[str, tuple[int, int]]]:
    """What a key is made from: description, and the parameters' names and descriptions; and where each parameter stands.

    Not the name: the edge scores it itself, so a key adds most by saying what the name does not, and works as well
    where names say nothing. Only a tool without a description has its name read. What is required comes first.
    """
    text = f"Tool: {' '.join(tool.description.split()) or tool.name}"
    spans: dict[str, tuple[int, int]] = {}
    first = required(tool)
    properties = tool.parameters.get("properties") or {}
    for name in [*first, *(name for name in properties if name not in first)]:
        sub = properties[name]
        said = sub.get("description") if isinstance(sub, dict) else None
        text += ", " if spans else "\nTakes: "
        spans[name] = (len(text), len(text := text + (f"{name} ({said})" if said else name)))
    return text, spans


def required(tool: ToolSpec) -> tuple[str, ...]:
    """The parameters that only the user can give: required, and without a default or a single possible value."""
    properties = tool.parameters.get("properties") or {}
    return tuple(
        name
        for name in dict.fromkeys(tool.parameters.get("required") or ())
        if isinstance(sub := properties.get(name), dict)
        and not ({"default", "const"} & sub.keys() or len(sub.get("enum") or (1, 2)) == 1)
    )


@torch.no_grad()
def read_tools(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, tools: Sequence[ToolSpec], *, batch: int = 1
) -> list[ToolReading]:
    """What the frozen model `model` makes of each of `tools`.

    `batch`: tools per pass. One by one, what a tool gets does not depend on its neighbours; more is for training, where
    the last bits do not matter.
    """
    device = next(model.parameters()).device
    cue = tokenizer(CUE, add_special_tokens=False).input_ids
    texts, words = zip(*map(key_text, tools), strict=True) if tools else ((), ())
    encoded = tokenizer(list(texts), return_offsets_mapping=True) if tools else {"input_ids": []}
    bodies = [ids[: MAX_TOKENS - len(cue)] for ids in encoded["input_ids"]]
    order = sorted(range(len(tools)), key=lambda index: len(bodies[index]))
    readings: dict[int, ToolReading] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(bodies[i] + cue) for i in some], batch_first=True)
        spans = torch.tensor([[1, len(bodies[i])] for i in some])
        seen = (torch.arange(ids.shape[1]) < spans[:, 1:] + len(cue)).long()
        states = decoder(model)(
            input_ids=ids.to(device),
            attention_mask=seen.to(device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        last = states[-1][torch.arange(len(some)), seen.sum(1) - 1]
        features = join(last, averages(states, spans))
        for row, index in enumerate(some):
            offsets = encoded["offset_mapping"][index][: len(bodies[index])]
            places = {
                name: [at for at, (a, b) in enumerate(offsets) if a < end and b > begin and b > a]
                for name, (begin, end) in words[index].items()
            }
            readings[index] = ToolReading(
                features[row],
                {name: span_features(states, row, (at[0], at[-1] + 1)) for name, at in places.items() if at},
            )
    return [readings[index] for index in range(len(tools))]


def span_features(states: Sequence[Tensor], row: int, span: tuple[int, int]) -> Tensor:
    """Averages over a span of tokens of one row, each of length 1, one behind the other."""
    one = [state[row : row + 1] for state in states]
    return nn.functional.normalize(averages(one, torch.tensor([span]))[0], dim=-1).flatten()


class ToolKeys(nn.Module):
    """Cloud features to unit vectors: a network for tools, one for required parameters, and one for answering in words,
    which sees the mean of all tools."""

    def __init__(self, hidden: int, *, width: int, key_dim: int, need_dim: int = 0) -> None:
        super().__init__()
        self.tool = Projection(feature_size(hidden), width=width, size=key_dim)
        self.words = nn.Linear(key_dim, key_dim)
        if need_dim:
            self.need = Projection(span_size(hidden), width=width, size=need_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(tools, features) to keys (tools + 1, key_dim) of length 1; the last is for answering in words."""
        keys = self.tool(features)
        return torch.cat([keys, self.words_key(keys.mean(0, keepdim=True))])

    def words_key(self, mean: Tensor) -> Tensor:
        """The unit key for answering in words, (..., key_dim), from the mean of the toolset's keys."""
        return nn.functional.normalize(self.words(mean), dim=-1)


ABSENT = -1e4
"""The score of a tool that is not there."""


class ChoiceHead(nn.Module):
    """How likely each choice is: which tool, if one is called; and whether one is.

    Which: softmax over the tools of ``alpha * (log p - prior) + t * cos(q, k)``, q being what `query` makes of the request's
    features; without keys (`key_dim` 0) the second term is absent, as in every baseline. Whether: a logistic in what speaks
    for words: the name `none` against those of the likely tools, the key for words, how little the likely tools' keys
    resemble the request, and the surprise at finding what they require said in it. A name tells which tool is meant, but
    some name always is the likeliest; that none is meant has to be weighed apart from that.
    """

    def __init__(self, hidden: int, key_dim: int, need_dim: int = 0, *, width: int = 256) -> None:
        super().__init__()
        self.query = Projection(feature_size(hidden), width=width, size=key_dim) if key_dim else None
        self.found = Projection(hidden, width=width, size=need_dim) if need_dim else None
        """A vector per token of the request, compared with those of required parameters."""

        def scalar(value: float) -> nn.Parameter:
            return nn.Parameter(torch.tensor(value))

        self.log_alpha, self.log_t = scalar(0.0), scalar(2.3)
        self.again = scalar(0.0)
        """What a tool's score loses once this turn has called it: the request still asks for it, but it is done."""
        self.need_t, self.need_bias = scalar(10.0), scalar(-3.0)
        self.words_bias, self.words_name, self.words_key = scalar(0.0), scalar(0.5), scalar(1.0)
        self.relevance, self.ask = scalar(1.0), scalar(0.0)
        self.unsure = scalar(1.0)
        """Of the entropy of which tool. With it, `relevance` and `words_key` 1 and `words_name` alpha, all is one softmax."""
        self.stop_bias, self.stop_name = scalar(0.0), scalar(0.5)
        """Stand for all of the former once a call was made: then "no tool" means that the calls are complete."""
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))
        """Divides the scores before the softmax that gives the confidence; fitted on a dev split."""

    def forward(
        self,
        calibrated: Tensor,
        request: Tensor | None,
        keys: Tensor,
        called: Tensor | bool = False,
        complete: Tensor | None = None,
        made: Tensor | None = None,
    ) -> Tensor:
        """Scores (batch, tools + 1) in nats: up to a constant, log-probabilities.

        Args:
            calibrated: (batch, tools + 1), log-probability of each name minus its prior.
            request: (batch, features), what the edge made of the request; None where there are no keys.
            keys: (tools + 1, key_dim) or (batch, tools + 1, key_dim).
            called: (batch,) bool, whether this turn has made a call already.
            complete: (batch, tools), how likely (log) the request says all that a tool requires; None: surely.
            made: (batch, tools) bool, which tools this turn has called already; None: none.
        """
        told = None
        if self.query is not None and request is not None and keys.numel():
            told = self.key_scores(request, keys)
        return self.combine(calibrated, told, called, complete, made)

    def combine(
        self,
        calibrated: Tensor,
        told: Tensor | None,
        called: Tensor | bool = False,
        complete: Tensor | None = None,
        made: Tensor | None = None,
        absent: Tensor | None = None,
    ) -> Tensor:
        """As `forward`, of ``t * cos(q, k)`` in `told`. `absent`: (batch, tools) bool, tools to leave out."""
        which = self.log_alpha.exp() * calibrated[..., :-1]
        if told is not None:
            which = which + told[..., :-1]
        if made is not None:
            which = which - self.again * made.to(which)
        if absent is not None:
            which = which.masked_fill(absent, ABSENT)
        which = which.log_softmax(-1)
        likely = which.exp()

        def expected(values: Tensor) -> Tensor:
            return (likely * values).sum(-1)

        name = calibrated[..., -1] - expected(calibrated[..., :-1])
        words = self.words_bias + self.words_name * name + self.unsure * expected(which)
        if told is not None:
            words = words + self.words_key * told[..., -1] - self.relevance * expected(told[..., :-1])
        if complete is not None:
            words = words - self.ask * expected(complete)
        already = torch.as_tensor(called, device=which.device).expand(which.shape[:-1])
        words = torch.where(already, self.stop_bias + self.stop_name * name, words)
        return torch.cat([which, words[..., None]], dim=-1)

    def key_scores(self, request: Tensor, keys: Tensor) -> Tensor:
        """``t * cos(q, k)``, (batch, tools + 1)."""
        q = self.queries(request)
        product = q @ keys.T if keys.dim() == 2 else torch.einsum("bd,bnd->bn", q, keys)
        return self.log_t.exp() * product

    def queries(self, request: Tensor) -> Tensor:
        """Unit queries (batch, key_dim) of the features of requests (batch, features)."""
        assert self.query is not None
        queries: Tensor = self.query(request)
        return queries

    def evidence(self, words: Tensor, inside: Tensor, needs: Tensor) -> Tensor:
        """Logits that the request says what a parameter needs, (batch, needs): the best of its words decides.

        Args:
            words: (batch, tokens, hidden), what the edge made of each token of the conversation (`features.words_of`).
            inside: (batch, tokens) bool, which of them belong to it.
            needs: (needs, need_dim), or (batch, needs, need_dim).
        """
        assert self.found is not None
        found = self.found(words)
        form = "btd,nd->bnt" if needs.dim() == 2 else "btd,bnd->bnt"
        likeness = torch.einsum(form, found, needs).masked_fill(~inside[:, None], -1.0)
        return self.need_t * likeness.amax(-1) + self.need_bias

    @staticmethod
    def complete(evidence: Tensor, of: Tensor, *, tools: int) -> Tensor:
        """Log-probability that the request says all that each tool requires, (batch, tools).

        Args:
            evidence: (batch, needs). of: (needs,) index of the tool that each is of.
        """
        said = nn.functional.logsigmoid(evidence)
        return torch.zeros(len(said), tools, device=said.device).index_add(1, of.to(said.device), said)
