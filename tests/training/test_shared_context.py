"""A context that all rows of a composition have in common is read once, and nothing but the cost is another."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.pooled import pooled
from agent_specializer.edge.transcript import EMPTY, render
from agent_specializer.examples import Example
from agent_specializer.loragen import ExpertPool, shape_of
from agent_specializer.loragen.toolkeys import ChoiceHead
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training.objective import loss, score
from agent_specializer.training.rows import (
    MAX_PREFIX,
    Row,
    collate,
    empty_row,
    example_row,
    tokens_behind,
)

NAMES = ("set_light", "get", "getter")
TOOLSET = Toolset(
    tools=tuple(
        ToolSpec(
            name=name,
            description=f"{name} is what the home does",
            parameters={"properties": {"a": {"type": "string"}}},
        )
        for name in NAMES
    ),
    instructions="You run a home.",
)
CONTEXT = describe_toolset(TOOLSET)
EARLIER = (
    Message(role="user", content="a User: b"),
    Message(role="assistant", calls=(Call(name="get"),)),
    Message(role="tool", name="get", content="ok"),
    Message(role="assistant", content="Done."),
)
EXAMPLES = (
    Example("x", (Message(role="user", content="light"),), (Call(name="set_light", arguments={"a": "b"}),)),
    Example(
        "x",
        (*EARLIER, Message(role="user", content="and now?")),
        (Call(name="get", arguments={"a": "c"}), Call(name="getter", arguments={"a": "d"})),
    ),
    Example("x", (Message(role="user", content="hi " * 60),), (), answer="Hello to you."),
)


def rows_of(tokenizer, context: str = CONTEXT) -> tuple[list[Row], NameTree]:
    tree = NameTree.of(tokenizer, TOOLSET.names)
    rows = [
        example_row(tokenizer, example, TOOLSET, tree, random.Random(1), context=context)
        for example in EXAMPLES
    ]
    return [*rows, empty_row(tokenizer, context)], tree


@pytest.mark.parametrize("family", ["gemma", "llama"])
@pytest.mark.parametrize("keyed", [False, True])
def test_scores_and_gradients_are_those_of_rows_that_repeat_it(
    make_tiny_gemma, make_tiny_llama, tiny_tokenizer, family, keyed
):
    """Also where the context is longer than the window of a sliding layer, and for the words that keys are compared with."""
    model = {"gemma": make_tiny_gemma, "llama": make_tiny_llama}[family]()
    torch.manual_seed(0)
    pool = ExpertPool(shape_of(model), experts=2, rank=2, alpha=2.0)
    for B in pool.B.values():
        torch.nn.init.normal_(B, std=0.3)
    gates = torch.tensor([0.7, 0.3]).expand(pool.layers, -1).clone().requires_grad_(True)
    head = ChoiceHead(16, 8)
    keys = torch.nn.functional.normalize(torch.randn(3, 3, 8), dim=-1) if keyed else torch.empty(0, 0, 0)
    rows, tree = rows_of(tiny_tokenizer)
    found = []
    for share in (False, True):
        pool.zero_grad()
        gates.grad = None
        batch = collate(rows, tree, 0, share=share)
        with pooled(model, pool, gates[None]):
            scores = score(model, head, batch, keys)
        loss(scores, batch).backward()
        gradients = {name: p.grad.clone() for name, p in pool.named_parameters()}
        found.append((scores, {**gradients, "gates": gates.grad.clone()}))
    assert len(batch.context) > 64
    (repeated, wanted), (shared, got) = found
    for name in ("total", "names", "reply_nll", *(["keys", "talk"] if keyed else [])):
        assert torch.allclose(getattr(shared, name), getattr(repeated, name), atol=1e-4), name
    for name, gradient in wanted.items():
        scale = gradient.abs().max()
        assert scale > 0, name
        assert torch.allclose(got[name], gradient, atol=1e-4 * float(scale)), name


def test_the_adapter_is_trained_on_how_the_context_is_read(make_tiny_gemma, tiny_tokenizer):
    """Without the gradient through the context the experts would get another one."""
    model = make_tiny_gemma()
    torch.manual_seed(0)
    pool = ExpertPool(shape_of(model), experts=1, rank=2, alpha=2.0)
    for B in pool.B.values():
        torch.nn.init.normal_(B, std=0.3)
    rows, tree = rows_of(tiny_tokenizer)
    batch = collate(rows, tree, 0)
    gradients = []
    for cut in (False, True):
        pool.zero_grad()

        def detach(module, args, out, cut=cut):
            return out.detach() if cut and out.shape[0] == 1 else out

        handles = [layer.self_attn.k_proj.register_forward_hook(detach) for layer in model.model.layers]
        handles += [layer.self_attn.v_proj.register_forward_hook(detach) for layer in model.model.layers]
        with pooled(model, pool, torch.ones(1, pool.layers, 1)):
            scores = score(model, ChoiceHead(16, 0), batch, torch.empty(0, 0, 0))
        scores.reply_nll.backward()
        gradients.append(pool.B["up_proj"].grad.clone())
        for handle in handles:
            handle.remove()
    assert not torch.allclose(*gradients, rtol=0.01)


def test_a_step_reads_the_context_once(tiny_tokenizer):
    rows, tree = rows_of(tiny_tokenizer)
    repeated, shared = (collate(rows, tree, 0, share=share).tokens for share in (False, True))
    context = rows[0].context
    assert context == 300
    assert shared == repeated - (len(rows) - 1) * context
    assert (repeated, shared) == (1448, 548)


def test_rows_without_a_context_are_laid_out_as_if_none_could_be(tiny_tokenizer):
    rows, tree = rows_of(tiny_tokenizer, context="")
    assert {row.context for row in rows} == {0}
    batch = collate(rows, tree, 0)
    assert not len(batch.context)
    assert batch.ids[:, 0].tolist() == [tiny_tokenizer.bos_token_id] * len(rows)


def test_rows_have_the_tokens_that_the_engine_makes_of_context_and_conversation(tiny_tokenizer):
    rows, _ = rows_of(tiny_tokenizer)
    texts = [EXAMPLES[0].messages, None]
    for row, messages in zip((rows[0], rows[-1]), texts, strict=True):
        text = render(messages) if messages else EMPTY
        assert list(row.prefix) == tiny_tokenizer(CONTEXT + text).input_ids
        assert row.prefix[: row.context] == tuple(tiny_tokenizer(CONTEXT).input_ids)
    long = rows[2]
    assert len(long.prefix) == long.context + MAX_PREFIX - 1
    assert tiny_tokenizer.decode(long.prefix[long.context :]).endswith("hi\nCall:")


def test_a_token_of_context_and_conversation_belongs_to_the_conversation(tiny_tokenizer):
    """Where the two merge, the context that is shared ends before, and the rows are as if tokenised in one."""
    ids, shared = tokens_behind(tiny_tokenizer, "tools ", "none")
    assert ids == tiny_tokenizer("tools none").input_ids
    assert tiny_tokenizer.convert_ids_to_tokens(ids[shared:]) == ["▁none"]
    rows, tree = rows_of(tiny_tokenizer)
    merged = [replace(rows[0], context=rows[0].context - 1), *rows[1:]]
    assert len(collate(merged, tree, 0).context) == rows[0].context - 1


def test_a_run_with_tools_in_its_prompt_reads_them_once_a_composition(trainer):
    run = trainer(kind="prompted_lora")
    composition = run.train_set[0]
    batch = run.batch(composition, random.Random(0))
    context = run.tokenizer(describe_toolset(composition.toolset)).input_ids
    assert batch.context.tolist() == context
    bare = trainer(kind="shared_lora").batch(composition, random.Random(0))
    # Of the rows only the start token, which the context has, is gone.
    assert batch.tokens == bare.tokens + len(context) - len(bare.ids)
    assert run.train_step()["tokens"] > 0
