"""Scalars: which tool and whether one is called are fitted apart; calls weigh more than no calls, and so much."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from agent_specializer.loragen.toolkeys import ChoiceHead
from agent_specializer.training.calibrate import (
    CALL_WEIGHT,
    STOP_WEIGHT,
    Part,
    balanced,
    calibrate,
    fit_confidence,
    rates,
)

TOOLS, ROWS = 4, 24


def part(seed: int, *, call: bool, called: bool = False) -> Part:
    """Rows whose keys and names point at the right tool, with noise; without a call they point nowhere."""
    random = torch.Generator().manual_seed(seed)
    gold = torch.randint(TOOLS, (ROWS,), generator=random) if call else torch.full((ROWS,), TOOLS)
    own = torch.nn.functional.one_hot(gold, TOOLS + 1).float()
    own[:, -1] = 0
    nothing = torch.zeros(ROWS, TOOLS, dtype=torch.bool)
    return Part(
        names=2 * own + torch.randn(ROWS, TOOLS + 1, generator=random),
        likenesses=0.5 * own[:, :-1] + 0.1 * torch.randn(ROWS, TOOLS, generator=random),
        left=torch.zeros(ROWS, TOOLS),
        talk=torch.randn(ROWS, generator=random) - float(call),
        said=torch.zeros(ROWS, TOOLS),
        made=nothing,
        absent=nothing,
        gold=gold,
        called=torch.full((ROWS,), called),
        answered=torch.zeros(ROWS, dtype=torch.bool),
        weight=torch.ones(ROWS),
    )


@pytest.fixture
def head() -> ChoiceHead:
    return ChoiceHead(4, 8)


def test_after_the_fit_calls_and_no_calls_are_told_apart(head):
    parts = [part(0, call=True), part(1, call=False)]
    before = rates(head, parts)
    found = calibrate(head, parts)
    after = rates(head, [part(2, call=True), part(3, call=False)])
    assert min(after.values()) > 0.8 > min(before.values())
    assert found["log_t"] == float(head.log_t.detach())


def test_what_needs_no_tool_does_not_move_which_tool_is_chosen(head):
    some = [part(0, call=True), part(1, call=False)]
    calibrate(head, some)
    which = head.log_alpha.detach().clone(), head.log_t.detach().clone()
    other = ChoiceHead(4, 8)
    calibrate(other, [some[0], *(part(seed, call=False) for seed in range(5, 9))])
    assert torch.allclose(torch.stack(which), torch.stack([other.log_alpha, other.log_t]).detach())
    assert not torch.allclose(head.words_bias, other.words_bias)


def test_calls_and_no_calls_weigh_what_is_said_and_some_calls_are_shown_without_their_tool():
    both = balanced([part(0, call=True), part(1, call=False), part(2, call=True, called=True)])
    first = [(p.weight[~p.called], p.none[~p.called]) for p in both]
    calls = sum(float(w[~none].sum()) for w, none in first)
    no_calls = sum(float(w[none].sum()) for w, none in first)
    assert calls == pytest.approx(CALL_WEIGHT * no_calls)
    taken = both[1]
    own = torch.nn.functional.one_hot(both[0].gold, TOOLS + 1)[:, :-1].bool()
    assert taken.none.all()
    assert torch.equal(taken.absent, own)
    assert not both[5].weight.any(), "a later call is not taken away"


def test_a_tool_that_was_called_loses_what_was_fitted(head):
    repeats = part(0, call=True, called=True)
    wrong = (repeats.gold + 1) % TOOLS
    likenesses = torch.nn.functional.one_hot(wrong, TOOLS).float()  # the key still asks for what is done
    made = torch.nn.functional.one_hot(wrong, TOOLS).bool()
    calibrate(head, [replace(repeats, likenesses=likenesses, made=made), part(1, call=False)])
    assert head.again > 0


def test_what_is_left_over_tells_whether_calls_are_complete(head):
    def after(seed: int, *, call: bool) -> Part:
        some = part(seed, call=call, called=True)
        own = torch.nn.functional.one_hot(some.gold, TOOLS + 1)[:, :-1].float()
        noise = torch.rand(ROWS, TOOLS, generator=torch.Generator().manual_seed(seed))
        # Neither names nor keys tell anything.
        return replace(
            some,
            names=torch.zeros(ROWS, TOOLS + 1),
            likenesses=torch.zeros(ROWS, TOOLS),
            left=0.1 * own + 0.1 * noise,
        )

    calibrate(head, [part(0, call=True), part(1, call=False), after(4, call=True), after(5, call=False)])
    assert min(head.left, head.stop_left) > 0
    found = rates(head, [after(6, call=True), after(7, call=False)])
    assert found["more_right"] > 0.7
    assert found["stop_right"] > 0.9, "a call too many does more harm"


def test_that_words_follow_a_result_says_nothing_of_calls_without_one(head):
    def after(seed: int, *, call: bool, answered: bool) -> Part:
        return replace(part(seed, call=call, called=True), answered=torch.full((ROWS,), answered))

    one_more = [after(0, call=True, answered=False), after(1, call=False, answered=False)]
    results = [after(seed, call=False, answered=True) for seed in range(2, 8)]
    calibrate(head, [*one_more, *results, after(8, call=True, answered=True)])
    assert head.stop_answered > 0.5
    blind = ChoiceHead(4, 8)
    calibrate(
        blind, [replace(some, answered=torch.zeros_like(some.answered)) for some in [*one_more, *results]]
    )
    unseen = [after(9, call=True, answered=False)]
    assert rates(head, unseen)["more_right"] > rates(blind, unseen)["more_right"] + 0.1


def test_vague_requests_teach_when_to_ask_back_and_not_that_likeness_means_nothing(head):
    def natural(seed: int) -> list[Part]:
        return [part(seed, call=True), part(seed + 1, call=False)]

    wanted = replace(part(4, call=True), said=torch.full((ROWS, TOOLS), -5.0))
    vague = [replace(wanted, gold=torch.full((ROWS,), TOOLS))]
    calibrate(head, natural(0), vague)
    other = ChoiceHead(4, 8)
    calibrate(other, natural(0))
    assert rates(head, vague)["no_call_right"] > 0.9 > rates(other, vague)["no_call_right"]
    assert min(rates(head, natural(6)).values()) > 0.8, "the others are told apart as before"
    assert head.relevance > 0.5 * other.relevance > 0


def test_where_it_is_not_asked_what_is_said_nothing_is_fitted(head):
    calibrate(head, [replace(part(0, call=True), said=None), replace(part(1, call=False), said=None)])
    assert float(head.ask) == 0.0


def test_complete_turns_weigh_what_is_said_beside_those_that_lack_a_call():
    both = balanced([part(seed, call=seed % 2 == 0, called=True) for seed in range(5)])
    lacking = sum(float(p.weight[~p.none].sum()) for p in both)
    assert sum(float(p.weight[p.none].sum()) for p in both) == pytest.approx(STOP_WEIGHT * lacking)


def test_the_temperature_makes_a_sure_and_wrong_head_less_sure(head):
    with torch.no_grad():
        head.log_t.fill_(6.0)
    noise = replace(part(0, call=True), likenesses=torch.randn(ROWS, TOOLS))
    assert fit_confidence(head, [noise]) > 1.5
