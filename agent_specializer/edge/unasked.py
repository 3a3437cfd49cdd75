"""What the model says where nothing was asked: what is said behind a request is set against it.

All of it depends on toolset and adapter alone, so it is measured once and remembered.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor, nn

from agent_specializer.edge.choose import Branches
from agent_specializer.edge.given import named, offers
from agent_specializer.edge.job import Scorer
from agent_specializer.edge.passes import Feed, Lanes, Seen
from agent_specializer.edge.prompts import Prompts
from agent_specializer.edge.recent import REMEMBERED, Recent
from agent_specializer.edge.request import Request, Weights, of_adapter, weights_key
from agent_specializer.edge.said import openings
from agent_specializer.edge.transcript import EMPTY, label
from agent_specializer.specs import ToolSpec


class Unasked:
    """What `model` makes of tools, their parameters and values behind an empty request.

    `weights`, everywhere: of the requests in pooled mode; None where they are in the model already.
    """

    def __init__(self, model: nn.Module, prompts: Prompts) -> None:
        self.model, self.prompts = model, prompts
        self._priors: Recent[Tensor] = Recent(REMEMBERED)
        self._namings: Recent[Tensor] = Recent(16 * REMEMBERED)
        self._openings: Recent[Tensor] = Recent(4 * REMEMBERED)

    def priors(self, requests: Sequence[Request], weights: Weights | None) -> list[Tensor]:
        """The priors of each request: its adapter's own, else measured, all that are not known yet in one pass.

        Returns:
            Of each, (tools + 1,) float32, in nats, on the CPU.
        """
        own = [None if r.tools_in_prompt else of_adapter(r, "priors") for r in requests]
        keys = [(r.toolset.fingerprint, weights_key(r.adapter), r.tools_in_prompt) for r in requests]
        known: dict[Hashable, Tensor] = {}
        unknown: dict[Hashable, int] = {}
        for index, key in enumerate(keys):
            if own[index] is not None:
                continue
            if (found := self._priors.get(key)) is None:
                unknown.setdefault(key, index)
            else:
                known[key] = found
        if unknown:
            rows = list(unknown.values())
            lanes = Lanes(
                self.model,
                len(rows),
                weights=weights and (lambda some: weights([rows[lane] for lane in some])),
            )
            feeds = {
                lane: Feed(
                    self.prompts.ids(requests[row], EMPTY), tree=self.prompts.tree(requests[row].toolset)
                )
                for lane, row in enumerate(rows)
            }
            for lane, seen in lanes.run(feeds).items():
                scorer = Scorer(feeds[lane].tree, self.model)  # type: ignore[arg-type]
                key = keys[rows[lane]]
                known[key] = self._priors.put(key, scorer.log_probabilities(seen.states).float().cpu())
        return [known[key] if prior is None else prior for prior, key in zip(own, keys, strict=True)]

    def naming(self, request: Request, tool: ToolSpec, weights: Weights | None) -> Tensor:
        """The priors of the names of a tool's parameters (`given.named`), measured once and remembered."""
        key = self._key(request, tool)
        found = self._namings.get(key)
        if found is None:
            runs = offers(self.prompts.tokenizer, tool)
            called = self.prompts.tokenizer(label(tool.name), add_special_tokens=False).input_ids
            seen = self._behind_nothing(request, called, runs, weights, words=False)
            found = self._namings.put(key, named(self.model, seen.states, runs))
        return found

    def openings(self, request: Request, tool: ToolSpec, weights: Weights | None) -> Tensor:
        """What the model makes of the openings of what a tool requires (`said.openings`) after an empty request, read once and
        remembered."""
        key = self._key(request, tool)
        found = self._openings.get(key)
        if found is None:
            runs = openings(self.prompts.tokenizer, tool)
            seen = self._behind_nothing(request, [], runs, weights, words=True)
            assert seen.branches is not None
            found = self._openings.put(key, seen.branches[Branches.of_tokens(runs).ends].clone())
        return found

    def _key(self, request: Request, tool: ToolSpec) -> Hashable:
        context = request.toolset.fingerprint if request.tools_in_prompt else ""
        return tool.fingerprint, weights_key(request.adapter), context

    def _behind_nothing(
        self,
        request: Request,
        tokens: list[int],
        runs: list[list[int]],
        weights: Weights | None,
        *,
        words: bool,
    ) -> Seen:
        """What the model makes of `runs` side by side behind an empty request and `tokens`."""
        feed = Feed([*self.prompts.ids(request, EMPTY), *tokens], tree=Branches.of_tokens(runs), words=words)
        return Lanes(self.model, 1, weights=weights).run({0: feed})[0]
