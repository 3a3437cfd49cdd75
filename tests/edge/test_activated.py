"""Activated LoRAs: one changes arguments, one what follows a call, one answers in words, and none how the first tool is chosen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch

from agent_specializer.edge.activated import Activated
from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.engine import EdgeEngine
from agent_specializer.edge.numbers import Numbers
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.pooled import pooled
from agent_specializer.edge.request import Request
from agent_specializer.edge.transcript import ANSWER, behind_request, label, render
from agent_specializer.errors import AdapterError
from agent_specializer.loragen import Adapter, ExpertPool
from agent_specializer.loragen.activated import ActivatedConfig, ActivatedLora
from agent_specializer.loragen.models import attentions, decoder
from agent_specializer.messages import Call, Message, Reply
from agent_specializer.specs import Toolset, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def make_lora(model: PreTrainedModel, spread: float = 0.5) -> ActivatedLora:
    """A random LoRA whose B is not zero."""
    layers = attentions(decoder(model))
    sizes = {name: (linear.out_features, linear.in_features) for name, linear in layers[0].items()}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        lora = ActivatedLora(ActivatedConfig(rank=2, alpha=4.0, sizes=sizes), layers=len(layers))
        for parameter in lora.B.values():
            torch.nn.init.normal_(parameter, std=spread)
    return lora.requires_grad_(False)


@pytest.fixture
def writer(
    tiny: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, make_pool: Callable[..., ExpertPool]
) -> EdgeEngine:
    """As `engine`, with an argument LoRA, over the same model."""
    return EdgeEngine(tiny, tiny_tokenizer, pool=make_pool(tiny), activated={"arguments": make_lora(tiny)})


def say(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def scores(reply: Reply) -> dict[str | None, float]:
    return {choice.name: choice.score for choice in reply.choices}


def test_merged_and_beside_are_the_same_and_leave_no_trace(tiny: PreTrainedModel) -> None:
    writing, ids = Activated(tiny, make_lora(tiny)), torch.arange(5, 17)[None]
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    with torch.no_grad():
        plain = tiny(ids).logits
        with writing.rows([True]):
            merged = tiny(ids).logits
        with writing.beside(torch.tensor([True])):
            beside = tiny(ids).logits
        with writing.rows([True, False]):
            mixed = tiny(ids.repeat(2, 1)).logits
        with writing.rows([False]):
            off = tiny(ids).logits
    assert not torch.allclose(merged, plain, atol=1e-2), "the LoRA changes nothing: this test shows nothing"
    assert torch.allclose(merged, beside, atol=1e-4)
    assert torch.allclose(mixed, torch.cat([merged, plain]), atol=1e-4)
    assert torch.equal(off, plain)
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert writing.nbytes == sum(
        linear.weight.nbytes for layer in attentions(decoder(tiny)) for linear in layer.values()
    )


def test_weights_that_are_not_finite_are_refused_and_the_model_is_as_it_was(tiny: PreTrainedModel) -> None:
    lora = make_lora(tiny)
    lora.B["v_proj"].data[1] = float("inf")
    before = attentions(decoder(tiny))[0]["q_proj"].weight.data_ptr()
    with pytest.raises(AdapterError, match="v_proj of layer 1"), Activated(tiny, lora).rows([True]):
        pass
    assert attentions(decoder(tiny))[0]["q_proj"].weight.data_ptr() == before


def test_it_changes_arguments_and_no_choice(
    writer: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    adapter = make_adapter(writer.pool, toolset)
    plain = EdgeEngine(writer.model, writer.tokenizer, pool=writer.pool)
    changed = 0
    for text in ("dim the light", "is it raining in Oslo?", "set the hall light to 20 %", "and so on"):
        for wish in ("get_weather", "set_light"):
            options = ReplyOptions(max_tokens=60, tool_choice=wish, max_calls=1)
            new, old = (
                engine.reply(say(text), toolset, adapter=adapter, options=options)
                for engine in (writer, plain)
            )
            assert scores(new) == pytest.approx(scores(old), abs=1e-4)
            changed += new.calls != old.calls
    assert changed, "the LoRA changes nothing: this test shows nothing"
    # Without an adapter nothing is of the generator's.
    bare = (
        engine.reply(say("Oslo"), toolset, options=ReplyOptions(tool_choice="get_weather"))
        for engine in (writer, plain)
    )
    assert len({str(reply.calls) for reply in bare}) == 1


def test_what_is_picked_from_a_list_is_judged_without_it(
    writer: EdgeEngine, make_adapter: Callable[..., Adapter]
) -> None:
    rooms = {"type": "string", "enum": ["kitchen", "hall", "bath", "study", "attic"]}
    picked, free = (
        Toolset(
            tools=(
                ToolSpec(
                    name="light",
                    description="d",
                    parameters={"type": "object", "properties": {"room": sub}, "required": ["room"]},
                ),
            )
        )
        for sub in (rooms, {"type": "string"})
    )
    plain = EdgeEngine(writer.model, writer.tokenizer, pool=writer.pool)
    options = ReplyOptions(max_tokens=60, tool_choice="light", max_calls=1)

    def calls(engine: EdgeEngine, toolset: Toolset) -> list[object]:
        adapter = make_adapter(engine.pool, toolset)
        texts = ("dim the light", "is it raining in Oslo?", "get out of the light!", "thanks")
        return [engine.reply(say(t), toolset, adapter=adapter, options=options).calls for t in texts]

    assert calls(writer, picked) == calls(plain, picked)
    assert calls(writer, free) != calls(plain, free)


def test_later_choices_are_made_as_if_others_had_written_the_first_call(
    tiny: PreTrainedModel, writer: EdgeEngine, make_adapter: Callable[..., Adapter]
) -> None:
    """Where arguments are forced the LoRA cannot change them, so no later choice may differ either."""
    forced = {
        "type": "object",
        "properties": {"room": {"type": "string", "enum": ["kitchen"]}},
        "required": ["room"],
    }
    toolset = Toolset(
        tools=tuple(
            ToolSpec(name=name, description="d", parameters=forced) for name in ("a", "light", "lights")
        )
    )
    adapter = make_adapter(writer.pool, toolset)
    plain = EdgeEngine(writer.model, writer.tokenizer, pool=writer.pool)
    options = ReplyOptions(max_tokens=200, tool_choice="any", max_calls=3)
    new, old = (
        engine.reply(say("dim the light"), toolset, adapter=adapter, options=options)
        for engine in (writer, plain)
    )
    assert new.calls == old.calls


def test_a_batch_writes_as_one_by_one(
    writer: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    texts = ("dim the light", "is it raining in Oslo?", "get out of the light!")
    options = ReplyOptions(max_tokens=60, tool_choice="any")
    requests = [
        Request(
            say(text),
            toolset,
            None if seed == 1 else make_adapter(writer.pool, toolset, seed),
            options=options,
        )
        for seed, text in enumerate(texts)
    ]
    alone = [writer.reply(r.messages, toolset, adapter=r.adapter, options=options) for r in requests]
    together = writer.reply_batch(requests)
    assert [reply.calls for reply in alone] == [reply.calls for reply in together]  # type: ignore[union-attr]


@pytest.fixture
def follower(
    tiny: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, make_pool: Callable[..., ExpertPool]
) -> EdgeEngine:
    """As `engine`, with a LoRA for what follows a call, over the same model."""
    return EdgeEngine(tiny, tiny_tokenizer, pool=make_pool(tiny), activated={"following": make_lora(tiny)})


def lit(text: str = "dim the light, and is it raining in Oslo?") -> list[Message]:
    """A turn in which the light was set already."""
    call = Call(name="set_light", arguments={"room": "hall", "level": 20})
    return [
        *say("good morning"),
        Message(role="assistant", content="Good morning!"),
        *say(text),
        Message(role="assistant", calls=(call,)),
        Message(role="tool", name="set_light", content='{"ok": true}'),
    ]


def test_what_follows_a_call_is_scored_under_its_lora_and_all_else_is_as_it_was(
    follower: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    adapter = make_adapter(follower.pool, toolset)
    plain = EdgeEngine(follower.model, follower.tokenizer, pool=follower.pool)
    options = ReplyOptions(max_tokens=60, max_calls=1, tool_choice="get_weather")
    for messages, same in ((say("dim the light"), True), (lit(), False), (lit()[:3], True)):
        new, old = (
            engine.reply(messages, toolset, adapter=adapter, options=options) for engine in (follower, plain)
        )
        assert (scores(new) == pytest.approx(scores(old), abs=1e-4)) == same
        assert new.calls == old.calls, "the tool given, arguments are written as ever"
    new, old = (engine.reply(lit(), toolset, options=options) for engine in (follower, plain))
    assert scores(new) == scores(old), "without an adapter nothing is of the generator's"


def test_the_lora_is_active_behind_the_first_call_alone(
    follower: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    """As computed by hand: names behind a conversation whose end, from the turn's first call on, is read under the LoRA."""
    engine, tree = follower, NameTree.of(follower.tokenizer, toolset.names)
    adapter = make_adapter(engine.pool, toolset)
    text = render(lit())
    ids = engine.tokenizer(text).input_ids
    first = len(engine.tokenizer(text[: text.index("Call: set_light") + len("Call:")]).input_ids)
    assert behind_request(engine.tokenizer, text) == first
    assert first < len(ids)
    lora = engine.activated["following"]
    found = []
    with torch.no_grad(), pooled(engine.model, engine.pool, adapter.gates[None]):
        for label in tree.labels:
            whole = torch.tensor([[*ids, *label]])
            with lora.beside(torch.arange(whole.shape[1])[None] >= first):
                logp = engine.model(whole).logits[0].log_softmax(-1)
            found.append(float(sum(logp[len(ids) + at - 1, token] for at, token in enumerate(label))))
    expected = torch.tensor(found) - engine.priors(toolset, adapter=adapter)
    reply = engine.reply(lit(), toolset, adapter=adapter, options=ReplyOptions(max_tokens=60, max_calls=1))
    for name, score in zip((*toolset.names, None), expected.tolist(), strict=True):
        assert scores(reply)[name] == pytest.approx(score, abs=1e-3)


def test_a_lora_that_changes_nothing_leaves_whole_replies_as_they_were(
    follower: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    adapter = make_adapter(follower.pool, toolset)
    plain = EdgeEngine(follower.model, follower.tokenizer, pool=follower.pool)
    idle = EdgeEngine(
        follower.model,
        follower.tokenizer,
        pool=follower.pool,
        activated={"following": make_lora(follower.model, 0.0)},
    )
    options = ReplyOptions(max_tokens=200, max_calls=3, tool_choice="any")
    for messages in (say("dim the light"), lit(), lit("and so on")):
        old, new, other = (
            engine.reply(messages, toolset, adapter=adapter, options=options)
            for engine in (plain, idle, follower)
        )
        assert new.calls == old.calls
        assert scores(new) == pytest.approx(scores(old), abs=1e-4)
        assert other.calls[:1] == old.calls[:1] or messages != say("dim the light")


def test_a_batch_goes_on_as_one_by_one(
    follower: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    options = ReplyOptions(max_tokens=120, tool_choice="any", max_calls=3)
    talks = [say("dim the light"), lit(), lit("get out of the light!")]
    requests = [
        Request(
            talk, toolset, None if seed == 1 else make_adapter(follower.pool, toolset, seed), options=options
        )
        for seed, talk in enumerate(talks)
    ]
    alone = [follower.reply(r.messages, toolset, adapter=r.adapter, options=options) for r in requests]
    together = follower.reply_batch(requests)
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Reply)
        assert one.calls == other.calls
        assert scores(one) == pytest.approx(scores(other), abs=1e-3)


@pytest.fixture
def talker(
    tiny: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, make_pool: Callable[..., ExpertPool]
) -> EdgeEngine:
    """As `engine`, with a LoRA for answers beside the one for what follows a call, over the same model."""
    loras = {"answers": make_lora(tiny), "following": make_lora(tiny)}
    return EdgeEngine(tiny, tiny_tokenizer, pool=make_pool(tiny), activated=loras)


@pytest.mark.parametrize("called", [False, True], ids=["at first", "behind a call"])
def test_an_answer_is_written_under_its_lora_and_what_is_before_it_read_without(
    talker: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter], called: bool
) -> None:
    """As computed by hand: the likeliest tokens one after the other, the LoRA active from the label on."""
    adapter = make_adapter(talker.pool, toolset)
    messages = lit() if called else say("dim the light")
    tokenizer, vocabulary = talker.tokenizer, talker.grammars.vocabulary
    before = tokenizer(render(messages)).input_ids
    ids = [
        *before,
        *(t for text in (label(None), ANSWER) for t in tokenizer(text, add_special_tokens=False).input_ids),
    ]
    start = len(ids)
    numbers = Numbers(render(messages), vocabulary)
    with torch.no_grad(), pooled(talker.model, talker.pool, adapter.gates[None]):
        for _ in range(4):
            whole = torch.tensor([ids])
            with talker.activated["answers"].beside(torch.arange(len(ids))[None] >= len(before)):
                under = talker.model(whole).logits[0, -1]
            plain = talker.model(whole).logits[0, -1]
            assert not torch.allclose(under, plain, atol=1e-2), "the LoRA changes nothing"
            ranked = (numbers.among(under) if called else under).argsort(descending=True).tolist()
            if len(ids) == start:  # an answer starts with something to say
                ranked = [t for t in ranked if not vocabulary.is_special(t) and vocabulary.text([t]).strip()]
            ids.append(ranked[0])
            numbers.follow(ranked[0])
    wanted = vocabulary.text(ids[start:]).decode(errors="replace").lstrip().split("\n")[0]
    options = ReplyOptions(max_tokens=4, **({"tool_choice": "none"} if called else {"caution": 100.0}))
    content = talker.reply(messages, toolset, adapter=adapter, options=options).content
    assert content.rstrip("\ufffd") == wanted.rstrip().rstrip("\ufffd"), (
        "but for letters that are not complete"
    )


def test_answers_of_a_batch_are_those_of_one_by_one(
    talker: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    options = ReplyOptions(max_tokens=12, tool_choice="none")
    requests = [
        Request(
            talk, toolset, None if seed == 1 else make_adapter(talker.pool, toolset, seed), options=options
        )
        for seed, talk in enumerate([say("dim the light"), say("hello"), lit()])
    ]
    alone = [talker.reply(r.messages, toolset, adapter=r.adapter, options=options) for r in requests]
    together = talker.reply_batch(requests)
    plain = EdgeEngine(talker.model, talker.tokenizer, pool=talker.pool)
    with talker.exclusive(), plain.exclusive():  # neither leaves its adapter in the model that they share
        bare = [plain.reply(r.messages, toolset, adapter=r.adapter, options=options) for r in requests]
    assert [reply.content for reply in alone] == [reply.content for reply in together]  # type: ignore[union-attr]
    assert alone[1].content == bare[1].content, "without an adapter nothing is of the generator's"
    assert [reply.content for reply in alone] != [reply.content for reply in bare]


def test_an_answer_behind_a_result_has_no_number_but_the_conversations(
    talker: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    """Of a random model, which says many: whatever weights it has, and whether the tools are in its prompt."""
    said = [*lit()[:-1], Message(role="tool", name="set_light", content='{"level": 20}')]
    found = {True: "", False: ""}
    for seed in range(12):
        options = ReplyOptions(max_tokens=60, tool_choice="none", temperature=3.0, seed=seed)
        for behind, messages in ((True, said), (False, say("dim it to 20"))):
            reply = talker.reply(messages, toolset, tools_in_prompt=bool(seed % 2), options=options)
            found[behind] += f" {reply.content}"
    assert set(re.findall(r"[0-9]+", found[True])) <= {"20"}
    assert set(re.findall(r"[0-9]+", found[False])) - {"20"}, "elsewhere anything may be said"
