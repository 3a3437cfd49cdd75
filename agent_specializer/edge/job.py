"""What a reply is decoded from: the conversation, the agent's tools, and how its choices are scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.choose import NameTree, common_logits
from agent_specializer.edge.copying import Source
from agent_specializer.edge.events import Event
from agent_specializer.edge.grammar import Grammars
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.passes import Seen
from agent_specializer.edge.said import Beginnings, beginnings
from agent_specializer.edge.sentences import Range, elsewhere, sentences
from agent_specializer.edge.sharing import Fits, evidence, fitting
from agent_specializer.errors import SchemaNotSupported
from agent_specializer.loragen.toolkeys import Asked, ChoiceHead
from agent_specializer.messages import Call
from agent_specializer.specs import Toolset, ToolSpec


@dataclass(frozen=True)
class Scorer:
    """Scores the choices of one toolset: calibrated log-probability and, where there are any, the adapter's keys.

    Attributes:
        names: of the tools; priors: (tools + 1,) float32; None while they are being measured.
        keys: (tools, vectors, key_dim) in the order of the toolset's tools, or (0, 0, 0); lift: (tools,), of `loragen.requests`.
        newest: first token of the prompt's newest turn, whose words are compared with keys.
        head: None scores by the calibrated log-probability alone.
    """

    tree: NameTree
    model: nn.Module
    names: tuple[str, ...] = ()
    priors: Tensor | None = None
    keys: Tensor = field(default_factory=lambda: torch.empty(0, 0, 0))
    lift: Tensor | None = None
    newest: int = 1
    head: ChoiceHead | None = None

    def log_probabilities(self, states: Tensor) -> Tensor:
        """(choices,) from `states` (1 + tree tokens, hidden)."""
        scored, subset = common_logits(self.model, states, self.tree.targets)
        return self.tree.log_probabilities(scored, subset)

    def scores(self, seen: Seen, *, made: Sequence[str] = (), answered: bool = False) -> Tensor:
        """(choices,) float32 in nats, on the CPU.

        Args:
            seen: what the model made of the request and the tree; `words` where there are keys.
            made: the tools that this turn has called already; answered: the last thing said is the result of one.
        """
        assert self.priors is not None
        calibrated = self.log_probabilities(seen.states) - self.priors.to(seen.states.device)
        if self.head is None:
            return calibrated.cpu()
        head = self.head
        device = head.log_alpha.device
        asked = self.asked(seen.words)
        again = torch.tensor([[name in made for name in self.names]], device=device)
        calibrated, keys = calibrated[None].to(device), self.keys.to(device)
        lift = None if self.lift is None else self.lift.to(device)
        scored = head(calibrated, asked, keys, bool(made), again, answered, lift)
        return scored[0].float().cpu()

    def asked(self, words: Tensor | None) -> Asked | None:
        """What is made of the newest turn, of the `words` of a prompt (tokens, hidden); None where there are no keys."""
        if words is None or self.head is None or self.head.query is None:
            return None
        return self.head.read(*_all_of(words[self.newest :].to(self.head.log_alpha.device)))

    @property
    def asks(self) -> bool:
        """Whether it counts that a request does not say what a tool requires."""
        return self.head is not None and float(self.head.ask) > 0

    def gives(self, changes: Tensor, copied: Tensor) -> Tensor:
        """How far the conversation gives each parameter, (parameters,) in nats on the CPU; arguments as of `ChoiceHead.gives`."""
        assert self.head is not None
        device = self.head.ask.device
        return self.head.gives(changes.to(device), copied.to(device)).detach().float().cpu()

    def asking(self, given: Tensor) -> Tensor:
        """What speaks for asking back where the parameters of the likeliest tool are given so far, (parameters,); a number."""
        assert self.head is not None
        return self.head.asking(given.min().to(self.head.ask.device)).detach().float().cpu()

    @property
    def temperature(self) -> float:
        return 1.0 if self.head is None else float(self.head.temperature)


def _all_of(words: Tensor) -> tuple[Tensor, Tensor]:
    """One conversation's words (tokens, hidden) as a batch of one, and that all of them are there."""
    return words[None], torch.ones(1, len(words), dtype=torch.bool, device=words.device)


@dataclass(frozen=True)
class Said:
    """What the values of a call are taken from.

    Attributes:
        begins: the tokens with which a value can begin. source: what is copied from. fits: what stands there for each parameter
            whose schema allows but some values.
    """

    begins: Beginnings
    source: Source
    fits: Fits


@dataclass(frozen=True)
class Job:
    """All that a reply needs.

    Attributes:
        naming: of a tool, the priors of its parameters' names (`given.named`).
        unasked: of a tool, what the model makes of the openings of what it requires after an empty request,
            (parameters, hidden).
        conversation: first token of the prompt that belongs to the conversation.
        made: calls of the newest turn that were made before this reply: their results stand in the prompt.
        cached: how many tokens of the prompt are in its lane's cache already.
        under: the activated LoRAs that there are. behind: first token of the prompt, or of the reply, that belongs to this turn's calls.
    """

    prompt: list[int]
    toolset: Toolset
    scorer: Scorer
    grammars: Grammars
    tokenizer: PreTrainedTokenizerBase
    options: ReplyOptions
    head_rows: int
    limit: int
    began: float
    emit: Callable[[Event], None]
    naming: Callable[[ToolSpec], Tensor]
    unasked: Callable[[ToolSpec], Tensor]
    conversation: int = 1
    made: tuple[Call, ...] = ()
    cached: int = 0
    under: frozenset[str] = frozenset()
    behind: int = 0
    _fits: dict[str, Fits] = field(default_factory=dict, repr=False)

    @cached_property
    def source(self) -> Source:
        """What values are copied from."""
        return Source(self.tokenizer, self.prompt[self.conversation :], self.grammars.vocabulary)

    def fits(self, tool: ToolSpec) -> Fits:
        """What stands in the conversation for each parameter of `tool` whose schema allows but some values."""
        if tool.name not in self._fits:
            self._fits[tool.name] = fitting(self.source, self.grammars.of(tool))
        return self._fits[tool.name]

    def said(self, tool: ToolSpec, words: Tensor | None) -> Said:
        """What the values of a call of `tool` are taken from: not from sentences that are about another one.

        Args:
            words: (tokens, hidden), of the prompt; None where there are no keys.
        """
        leaving = self._elsewhere(tool, words)
        if not leaving:
            return Said(self.begins, self.source, self.fits(tool))
        left = {at for start, end in leaving for at in range(start, end)}
        kept = [self.prompt[at] for at in range(self.conversation, len(self.prompt)) if at not in left]
        source = self.source.leaving(
            self.source.find(str(self.tokenizer.decode(self.prompt[start:end])) for start, end in leaving)
        )
        return Said(beginnings(self.tokenizer, kept), source, fitting(source, self.grammars.of(tool)))

    def _elsewhere(self, tool: ToolSpec, words: Tensor | None) -> list[Range]:
        scorer = self.scorer
        asked = scorer.asked(words) if scorer.keys.numel() else None
        if asked is None or scorer.head is None:
            return []
        first = scorer.newest
        ranges = [(start - first, end - first) for start, end in self._sentences]
        keys, index = scorer.keys.to(asked.vectors.device), scorer.names.index(tool.name)
        found = elsewhere(asked.vectors[0], keys, scorer.head.back, ranges, index)
        return [(start + first, end + first) for start, end in found]

    @cached_property
    def _sentences(self) -> list[Range]:
        return sentences(self.tokenizer, self.prompt, self.scorer.newest)

    def evidence(self) -> Tensor:
        """What the values in the request say for each tool, (tools,) float32 in nats; nothing for one that cannot be called."""
        return torch.tensor([self._evidence(tool) for tool in self.toolset.tools])

    def _evidence(self, tool: ToolSpec) -> float:
        try:
            return evidence(tool, self.fits(tool), self.source.request)
        except SchemaNotSupported:
            return 0.0  # it fails when it is chosen: until then others can be called

    @cached_property
    def begins(self) -> Beginnings:
        """The tokens with which a value of the conversation can begin."""
        return beginnings(self.tokenizer, self.prompt[self.conversation :])
