"""Which of what a tool requires is given: whose requests tell, what is known of them, and what is learned."""

from __future__ import annotations

import torch

from agent_specializer.edge.choose import Branches
from agent_specializer.edge.passes import Feed, Lanes
from agent_specializer.edge.pooled import pooled
from agent_specializer.edge.said import asked_for, openings
from agent_specializer.edge.transcript import EMPTY
from agent_specializer.loragen.toolkeys import ChoiceHead
from agent_specializer.training.data import Compositions
from agent_specializer.training.required import (
    Known,
    Openings,
    fit_given,
    given_rates,
    known,
    read,
    requiring,
)


def test_only_requests_for_tools_that_require_something_tell(trainer):
    run = trainer()
    kept = requiring(run.train_sources)
    assert [source.name for source in kept] == ["set"], "made-up requests give nothing"
    called = {each.calls[0].name.split("_")[0] for each in kept[0].examples}
    assert called == {"book", "cancel", "rate"}


def test_a_request_gives_its_calls_arguments_and_lacks_what_was_cut_out(trainer):
    run = trainer()
    composition = Compositions(requiring(run.train_sources), seed=0, opaque_share=0.0)[0]
    found = known(run, composition, 0)
    given = [each.given.tolist() for each in found]
    assert given == [[True], [False]] * len(composition.examples)
    assert {each.source for each in found} == {"set"}
    again = known(run, composition, 0)
    assert all(torch.equal(a.openings.changes, b.openings.changes) for a, b in zip(found, again, strict=True))


def test_what_is_read_is_what_a_conversation_changes_behind_each_opening(trainer):
    run = trainer()
    composition = run.train_set[0]
    tools = [tool for tool in composition.toolset.tools if asked_for(tool)][:2]
    tokens = [run.tokenizer(text).input_ids for text in ("User: a hotel\nCall:", EMPTY)]
    gates = run.gates([composition.toolset])[0]
    found = read(run, gates, [(tokens[0], tools), (tokens[1], tools[1:])])
    assert [len(some) for some in found] == [2, 1]
    assert torch.allclose(found[1][0].changes, torch.zeros(1, 16), atol=1e-5)
    assert found[0][0].changes.abs().amax() > 1e-3
    tree = Branches.of_tokens(openings(run.tokenizer, tools[1]))
    with pooled(run.edge, run.generator.pool, gates[None]), torch.no_grad():
        one, nothing = (Lanes(run.edge, 1).run({0: Feed(ids, tree=tree, words=True)})[0] for ids in tokens)
    expected = (one.branches - nothing.branches)[tree.ends]
    assert torch.allclose(found[0][1].changes, expected, atol=1e-5)
    assert read(run, gates, []) == []


def test_what_tells_given_values_apart_is_learned_of_small_sets_too():
    torch.manual_seed(0)

    def some(source: str, direction: int, count: int) -> list[Known]:
        found = []
        for _ in range(count):
            given = torch.rand(3) < 0.7
            changes = 0.05 * torch.randn(3, 16)
            changes[:, direction] += 0.4 * (given.float() - 0.5)
            found.append(Known(Openings(changes, torch.full((3,), 0.5)), given, source))
        return found

    head = ChoiceHead(16, 0)
    seen, unseen = ([*some("large", 0, n), *some("small", 1, n // 10)] for n in (400, 100))
    before = given_rates(head, unseen)
    fit_given(head, seen)
    assert min(given_rates(head, unseen).values()) > 0.9 > min(before.values())
    assert min(given_rates(head, unseen[100:]).values()) > 0.9, "the small set"
