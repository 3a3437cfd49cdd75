"""Tool keys: a few vectors per tool, made from its description, that the words of a request are compared with.

An extension of LoRA-Gen. Gates steer how the edge model reads a request; they are too few to hold what each of dozens
of tools does. So every tool also gets a key from the frozen cloud LM's states over its own description, computed and
cached per tool: adding a tool to an agent costs that tool alone. What the edge makes of the request's words is compared
with them (`features.likeness`), and ``t`` times that is added to the name's calibrated log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.loragen.features import WordByWord, left_over, likeness, words_of
from agent_specializer.loragen.models import decoder
from agent_specializer.specs import ToolSpec

MAX_TOKENS = 112
"""Tokens of a tool's key text that are read."""
KEPT = 48
"""Of a tool's vectors, how many are kept: those that weigh most."""
LEAD = "Tool: "


@dataclass(frozen=True)
class ToolReading:
    """What the frozen cloud LM makes of one tool, in one pass.

    Attributes:
        words: (tokens, hidden) bfloat16, of length 1, of the key text behind its lead.
    """

    words: Tensor


def key_text(tool: ToolSpec) -> str:
    """What a key is made from: description, and the parameters' names and descriptions.

    Not the name: the edge scores it itself, so a key adds most by saying what the name does not, and works as well
    where names say nothing. Only a tool without a description has its name read. What is required comes first.
    """
    text = f"{LEAD}{' '.join(tool.description.split()) or tool.name}"
    first = required(tool)
    properties = tool.parameters.get("properties") or {}
    said = []
    for name in [*first, *(name for name in properties if name not in first)]:
        sub = properties[name]
        about = sub.get("description") if isinstance(sub, dict) else None
        said.append(f"{name} ({about})" if about else name)
    return f"{text}\nTakes: {', '.join(said)}" if said else text


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
    encoded = tokenizer([key_text(tool) for tool in tools], return_offsets_mapping=True) if tools else {}
    bodies = [ids[:MAX_TOKENS] for ids in encoded.get("input_ids", ())]
    order = sorted(range(len(tools)), key=lambda index: len(bodies[index]))
    readings: dict[int, ToolReading] = {}
    for start in range(0, len(order), batch):
        some = order[start : start + batch]
        ids = nn.utils.rnn.pad_sequence([torch.tensor(bodies[i]) for i in some], batch_first=True)
        seen = torch.arange(ids.shape[1]) < torch.tensor([[len(bodies[i])] for i in some])
        states = decoder(model)(
            input_ids=ids.to(device),
            attention_mask=seen.long().to(device),
            output_hidden_states=True,
            use_cache=False,
        ).hidden_states
        words = words_of(states).to("cpu", torch.bfloat16)
        for row, index in enumerate(some):
            offsets = encoded["offset_mapping"][index]
            first = next(at for at, (_, end) in enumerate(offsets) if end > len(LEAD))
            readings[index] = ToolReading(words[row, first : len(bodies[index])].clone())
    return [readings[index] for index in range(len(tools))]


def stacked(readings: Sequence[ToolReading]) -> tuple[Tensor, Tensor]:
    """The words of several tools side by side: (tools, tokens, hidden) bfloat16, and which are there, (tools, tokens) bool."""
    words = nn.utils.rnn.pad_sequence([reading.words for reading in readings], batch_first=True)
    lengths = torch.tensor([[len(reading.words)] for reading in readings])
    return words, torch.arange(words.shape[1]) < lengths


class ToolKeys(nn.Module):
    """What the cloud makes of tools to keys: a projection for the words of tools."""

    def __init__(self, hidden: int, *, key_dim: int) -> None:
        super().__init__()
        self.tool = WordByWord(hidden, size=key_dim)

    def forward(self, words: Tensor, inside: Tensor) -> Tensor:
        """(tools, tokens, hidden) to keys (tools, vectors, key_dim): the `KEPT` vectors that weigh most of each tool, in the
        order of its words. A vector's length is its weight in its tool, zero where there is none."""
        keys: Tensor = self.tool(words.float(), inside)
        if keys.shape[1] > KEPT:
            kept = keys.detach().norm(dim=-1).topk(KEPT, dim=1).indices.sort(dim=1).values
            keys = keys.gather(1, kept[..., None].expand(-1, -1, keys.shape[-1]))
        return keys


@dataclass(frozen=True)
class Asked:
    """What the edge makes of some requests.

    Attributes:
        vectors: (rows, words, key_dim), one per word of the newest turn, as long as it weighs; zero where there is none.
        talk: (rows,) logit that the turn is one to answer in words, whatever the tools.
    """

    vectors: Tensor
    talk: Tensor


ABSENT = -1e4
"""The score of a tool that is not there."""
COPIED, UNLIKELY = 0.5, 1e-4
"""What the logit that a value is copied weighs in whether it is given (docs/LOG.md), and the probabilities that count."""
GIVEN = 20.0
"""How far all is given that a tool requires which requires nothing, in nats."""


class ChoiceHead(nn.Module):
    """How likely each choice is: which tool, if one is called; and whether one is.

    Which: softmax over the tools of ``alpha * (log p - prior) + t * likeness(q, k)``, q being what `query` makes of the request's
    words; without keys (`key_dim` 0) the second term is absent, as in every baseline. Whether: a logistic in what speaks
    for words: the name `none` against those of the likely tools, how the request sounds (`talk`), how little the likely tools' keys
    resemble it, and that it does not say what the likeliest requires (`edge.said`); once a call was made, how little of the request is left
    over (`features.left_over`). A name tells which tool is meant, but
    some name always is the likeliest; that none is meant has to be weighed apart from that.
    """

    def __init__(self, hidden: int, key_dim: int) -> None:
        super().__init__()
        self.query = WordByWord(hidden, size=key_dim) if key_dim else None
        self.talk = nn.Linear(hidden, 1) if key_dim else None
        """Of the request's words on average, without their mean."""
        self.given = nn.Linear(hidden, 1)
        """Of what a conversation changes where a parameter's value would begin (`edge.said`)."""
        nn.init.zeros_(self.given.weight)
        nn.init.zeros_(self.given.bias)

        def scalar(value: float) -> nn.Parameter:
            return nn.Parameter(torch.tensor(value))

        self.log_alpha, self.log_t = scalar(0.0), scalar(3.4)
        self.back = scalar(0.5)
        """What the likeness of the tool's words to the request's weighs beside that of the request's to the tool's."""
        self.again, self.later = scalar(0.0), scalar(1.0)
        """Once this turn has made a call: what a tool's score loses that it called, for the request still asks for it, but it is
        done; and how much of alpha is left, for names then say less."""
        self.words_bias, self.words_name, self.words_talk = scalar(0.0), scalar(0.5), scalar(1.0)
        self.relevance = scalar(1.0)
        self.ask, self.ask_bias = scalar(0.0), scalar(-3.0)
        """Of how far the request gives what the likeliest tool requires; with `ask` 0 that is not asked."""
        self.unsure = scalar(1.0)
        """Of the entropy of which tool. With it and `relevance` 1 and `words_name` alpha, all is one softmax."""
        self.stop_bias, self.stop_name, self.stop_left = scalar(0.0), scalar(0.5), scalar(0.0)
        """Stand for all of the former once a call was made: then "no tool" means that the calls are complete, and what speaks
        against it is what they left of the request."""
        self.stop_answered = scalar(0.0)
        """Added where the last call's result is there: most conversations then come to words."""
        self.left = scalar(0.0)
        """What that weighs in which tool comes next."""
        self.temperature: Tensor
        self.register_buffer("temperature", torch.ones(()))
        """Divides the scores before the softmax that gives the confidence; fitted on a dev split."""

    def forward(
        self,
        calibrated: Tensor,
        asked: Asked | None,
        keys: Tensor,
        called: Tensor | bool = False,
        made: Tensor | None = None,
        answered: Tensor | bool = False,
        lift: Tensor | None = None,
    ) -> Tensor:
        """Scores (batch, tools + 1) in nats: up to a constant, log-probabilities.

        Args:
            calibrated: (batch, tools + 1), log-probability of each name minus its prior.
            asked: of `read`; None where there are no keys.
            keys: (tools, vectors, key_dim) or (batch, tools, vectors, key_dim).
            called: (batch,) bool, whether this turn has made a call already.
            made: (batch, tools) bool, which tools this turn has called already; None: none.
            answered: (batch,) bool, whether the last thing said is a tool's result.
            lift: (tools,), taken off the likeness of each (`loragen.requests`); None: nothing.
        """
        told = talk = left = None
        if asked is not None and keys.numel():
            told, talk = self.key_scores(asked, keys), asked.talk
            if lift is not None:
                told = told - self.log_t.exp() * lift
            if made is not None:
                left = self.log_t.exp() * left_over(asked.vectors, keys, made)
        return self.combine(calibrated, told, talk, called, made, left=left, answered=answered)

    def read(self, words: Tensor, newest: Tensor) -> Asked:
        """What is made of conversations.

        Args:
            words: (batch, tokens, hidden), of `features.words_of`; newest: (batch, tokens) bool, which belong to the newest turn.
        """
        assert self.query is not None
        assert self.talk is not None
        return Asked(self.query(words, newest), self.talk(self.tone(words, newest))[:, 0])

    def tone(self, words: Tensor, newest: Tensor) -> Tensor:
        """The average of the newest turn's words, (batch, hidden); arguments as in `read`."""
        assert self.query is not None
        there = newest[..., None]
        return (self.query.unit.centred(words) * there).sum(1) / there.sum(1).clamp_min(1)

    def combine(
        self,
        calibrated: Tensor,
        told: Tensor | None,
        talk: Tensor | None = None,
        called: Tensor | bool = False,
        made: Tensor | None = None,
        absent: Tensor | None = None,
        left: Tensor | None = None,
        said: Tensor | None = None,
        answered: Tensor | bool = False,
    ) -> Tensor:
        """As `forward`, of ``t * likeness`` in `told` (batch, tools). `absent`: (batch, tools) bool, tools to leave out; `left`:
        (batch, tools), ``t`` times `features.left_over`; `said`: (batch, tools), how far the request gives what each requires,
        the least of `gives`, None: wholly; that of the likeliest counts."""
        already = torch.as_tensor(called, device=calibrated.device).expand(calibrated.shape[:-1])
        alpha = self.log_alpha.exp() * torch.where(already, self.later, 1.0)
        which = alpha[..., None] * calibrated[..., :-1]
        if told is not None:
            which = which + told
        if made is not None:
            which = which - self.again * made.to(which)
        if left is not None:
            which = which + self.left * left
        if absent is not None:
            which = which.masked_fill(absent, ABSENT)
        which = which.log_softmax(-1)
        likely = which.exp()

        def expected(values: Tensor) -> Tensor:
            return (likely * values).sum(-1)

        name = calibrated[..., -1] - expected(calibrated[..., :-1])
        words = self.words_bias + self.words_name * name + self.unsure * expected(which)
        if told is not None and talk is not None:
            words = words + self.words_talk * talk - self.relevance * expected(told)
        if said is not None and self.ask > 0:
            likeliest = said.gather(-1, which.argmax(-1, keepdim=True))[..., 0]
            words = torch.logaddexp(words, self.asking(likeliest))
        after = torch.as_tensor(answered, device=calibrated.device)
        stop = self.stop_bias + self.stop_name * name + self.stop_answered * after
        if left is not None:
            open_ = left if absent is None else left.masked_fill(absent, 0.0)
            stop = stop - self.stop_left * open_.amax(-1)
        words = torch.where(already, stop, words)
        return torch.cat([which, words[..., None]], dim=-1)

    def key_scores(self, asked: Asked, keys: Tensor) -> Tensor:
        """``t * likeness``, (batch, tools)."""
        return self.log_t.exp() * likeness(asked.vectors, keys, self.back)

    def gives(self, changes: Tensor, copied: Tensor) -> Tensor:
        """How far a conversation gives parameters, (parameters,) in nats: the logit that it does.

        Args:
            changes: (parameters, hidden), of `features.words_of` where each one's value would begin, less the same after
                an empty request; copied: (parameters,), of `edge.said`.
        """
        read: Tensor = self.given(changes * changes.shape[-1] ** 0.5)[..., 0]
        return read + COPIED * torch.logit(copied, eps=UNLIKELY)

    def asking(self, given: Tensor) -> Tensor:
        """What speaks for asking back where the request gives what is required so far as `given` tells, in nats. A reason of its own for
        words: either is enough."""
        return self.ask_bias - self.ask * given
