"""The engine's promises: valid calls, the same in a batch, one model shared by all, exact usage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from jsonschema import Draft202012Validator

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.engine import EdgeEngine
from agent_specializer.edge.events import CallDelta, ChoiceMade, Done, TextDelta
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.passes import Feed, Lanes
from agent_specializer.edge.request import Request
from agent_specializer.edge.sharing import FOUND
from agent_specializer.edge.transcript import arguments_text, render
from agent_specializer.errors import AdapterError, DecodeError, SchemaNotSupported
from agent_specializer.loragen import Adapter, ChoiceHead
from agent_specializer.loragen.adapter import rounded
from agent_specializer.loragen.features import likeness, words_of
from agent_specializer.loragen.requests import ELSEWHERE
from agent_specializer.messages import Call, Choice, Message, Reply
from agent_specializer.specs import Toolset, ToolSpec

TEXTS = (
    "dim the light",
    "is it raining in Oslo?",
    "set the hall light to 20 %",
    "thanks",
    "get out of the light!",
)


def say(text: str) -> list[Message]:
    return [Message(role="user", content=text)]


def assert_valid(reply: Reply, toolset: Toolset) -> None:
    for call in reply.calls:
        Draft202012Validator(toolset.tool(call.name).parameters).validate(call.arguments)
    assert bool(reply.calls) != bool(reply.content) or not reply.calls
    seen = [(call.name, arguments_text(call.arguments)) for call in reply.calls]
    assert len(set(seen)) == len(seen), "the same call was made twice"


def same(left: Reply, right: Reply) -> bool:
    return (left.calls, left.content) == (right.calls, right.content) and torch.allclose(
        torch.tensor([c.score for c in left.choices]),
        torch.tensor([c.score for c in right.choices]),
        atol=1e-3,
    )


@pytest.mark.parametrize("wish", ["auto", "any", "none", "get_weather"])
def test_every_call_is_valid_and_as_wished(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter], wish: str
) -> None:
    options = ReplyOptions(max_tokens=60, tool_choice=wish)
    for seed, text in enumerate(TEXTS):
        adapter = make_adapter(engine.pool, toolset, seed)
        reply = engine.reply(say(text), toolset, adapter=adapter, options=options)
        assert_valid(reply, toolset)
        if wish == "none":
            assert not reply.calls
        elif wish != "auto":
            assert reply.calls
        if wish == "get_weather":
            assert {call.name for call in reply.calls} == {"get_weather"}


def test_a_batch_of_mixed_adapters_replies_as_one_by_one(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    small = Toolset(tools=toolset.tools[:2])
    options = ReplyOptions(max_tokens=60)
    requests = [
        Request(say(text), ts, make_adapter(engine.pool, ts, seed) if seed != 1 else None, seed == 2, options)
        for seed, (text, ts) in enumerate(zip(TEXTS, [toolset, small, toolset, small, toolset], strict=True))
    ]
    one_by_one = [
        engine.reply(
            r.messages, r.toolset, adapter=r.adapter, tools_in_prompt=r.tools_in_prompt, options=options
        )
        for r in requests
    ]
    with (
        engine.exclusive() as model
    ):  # a fresh engine on the base, so that priors, too, are measured in the batch
        fresh = EdgeEngine(model, engine.tokenizer, pool=engine.pool)
    batch = fresh.reply_batch(requests)
    for alone, together in zip(one_by_one, batch, strict=True):
        assert isinstance(together, Reply)
        assert same(alone, together)
    assert len({str(r.calls) for r in one_by_one}) > 1, (
        "the adapters make no difference: this test shows nothing"
    )


def test_one_failure_in_a_batch_leaves_the_others_alone(engine: EdgeEngine, toolset: Toolset) -> None:
    good = Request(say("dim the light"), toolset, options=ReplyOptions(max_tokens=60, tool_choice="any"))
    bad = Request(say("dim the light"), toolset, options=ReplyOptions(max_tokens=3, tool_choice="set_light"))
    first, failed, last = engine.reply_batch([good, bad, good])
    assert isinstance(failed, DecodeError)
    assert isinstance(first, Reply)
    assert isinstance(last, Reply)
    assert first.calls == last.calls == engine.reply(good.messages, toolset, options=good.options).calls


def test_values_of_the_request_speak_for_the_tool_that_takes_them(
    engine: EdgeEngine, toolset: Toolset
) -> None:
    words, day = (engine.reply(say(text), toolset) for text in ("in may", "2026-04-18"))
    plain = Toolset(
        tools=tuple(
            tool if tool.name != "get_weather" else ToolSpec(name=tool.name, description=tool.description)
            for tool in toolset.tools
        )
    )

    def score(reply: Reply, name: str) -> float:
        return next(choice.score for choice in reply.choices if choice.name == name)

    said = score(day, "get_weather") - score(engine.reply(say("2026-04-18"), plain), "get_weather")
    assert said == pytest.approx(FOUND, abs=1e-3)
    assert score(words, "get_weather") == pytest.approx(
        score(engine.reply(say("in may"), plain), "get_weather"), abs=1e-3
    )


def test_a_tool_that_cannot_be_called_keeps_no_other_from_being_called(
    engine: EdgeEngine, toolset: Toolset
) -> None:
    odd = {"type": "object", "properties": {"list": {"type": "string", "format": "comma-separated"}}}
    more = Toolset(tools=(*toolset.tools, ToolSpec(name="odd", description="d", parameters=odd)))
    reply = engine.reply(say("dim the light"), more, options=ReplyOptions(tool_choice="set_light"))
    assert reply.calls[0].name == "set_light"
    with pytest.raises(SchemaNotSupported, match="comma-separated"):
        engine.reply(say("dim the light"), more, options=ReplyOptions(tool_choice="odd"))


def test_the_score_of_a_choice_is_what_a_plain_forward_pass_gives(
    engine: EdgeEngine, toolset: Toolset
) -> None:
    """The tree pass and the cache change nothing: log p(name | request) - log p(name | empty request)."""
    reply = engine.reply(say("dim the light"), toolset)

    def log_p(text: str, label: str) -> float:
        prefix = engine.tokenizer(text).input_ids
        ids = engine.tokenizer(label, add_special_tokens=False).input_ids
        with torch.no_grad():
            logits = engine.model(input_ids=torch.tensor([prefix + ids])).logits[0]
        scores = torch.log_softmax(logits.float(), -1)
        return sum(float(scores[len(prefix) - 1 + i, token]) for i, token in enumerate(ids))

    text = render(say("dim the light"))
    for choice in reply.choices:
        label = f" {choice.name or 'none'}\n"
        expected = log_p(text, label) - log_p("User:\nCall:", label)
        assert choice.score == pytest.approx(expected, abs=1e-3)
    assert reply.confidence == max(choice.probability for choice in reply.choices)
    assert sum(choice.probability for choice in reply.choices) == pytest.approx(1)


def test_arguments_are_the_greedy_ones(engine: EdgeEngine, toolset: Toolset) -> None:
    """Cache, forced runs and partial heads change nothing: a full forward pass picks the same allowed token each time."""
    reply = engine.reply(
        say("dim it"), toolset, options=ReplyOptions(tool_choice="set_light", parallel_calls=False)
    )
    (call,) = reply.calls
    grammar = engine.grammars.of(toolset.tool("set_light"))
    matcher = grammar.matcher()
    ids = engine.tokenizer(render(say("dim it"))).input_ids
    ids += engine.tokenizer(" set_light\n", add_special_tokens=False).input_ids
    start = len(ids)
    while not matcher.is_stopped():
        forced = matcher.compute_ff_tokens()
        if forced:
            matcher.consume_tokens(forced)
            ids += forced
            continue
        with torch.no_grad():
            logits = engine.model(input_ids=torch.tensor([ids])).logits[0, -1]
        allowed = [t for t in range(len(logits)) if matcher.validate_tokens([t])]
        token = max(allowed, key=lambda t: float(logits[t]))
        matcher.consume_token(token)
        ids.append(token)
    assert engine.tokenizer.decode(ids[start:]) == arguments_text(call.arguments)


def test_the_adapters_priors_and_keys_decide(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    adapter = make_adapter(engine.pool, toolset)
    measured = engine.priors(toolset, adapter=adapter)
    assert measured.shape == (4,)
    shifted = measured.clone()
    shifted[1] -= 1000.0  # get_weather, get_... sorted: get_weather, lights_off, set_light
    with engine.exclusive() as model:
        fresh = EdgeEngine(model, engine.tokenizer, pool=engine.pool)
    # Whether or not the engine has measured others itself.
    for each in (engine, fresh):
        reply = each.reply(say("hi"), toolset, adapter=adapter.with_priors(shifted))
        assert reply.choices[0].name == toolset.names[1]
    assert torch.equal(engine.priors(toolset, adapter=adapter), measured)
    engine = keyed_engine(fresh)
    engine.head.log_t.fill_(8.0)
    queries = queries_of(engine.head)
    keys = words(3, 3, 8, seed=1)
    for wanted in range(3):
        engine.reply(say("hi"), toolset, adapter=make_adapter(engine.pool, toolset, keys=keys))
        likely = torch.nn.functional.pad(keys, (0, 0, 0, max(0, queries[0].shape[1] - 3)))
        likely[wanted, : queries[0].shape[1]] = queries[0][0]
        reply = engine.reply(say("hi"), toolset, adapter=make_adapter(engine.pool, toolset, keys=likely))
        assert reply.choices[0].name == toolset.names[wanted]
    engine.head.talk.bias.fill_(1e6)
    reply = engine.reply(say("hi"), toolset, adapter=make_adapter(engine.pool, toolset, keys=keys))
    assert reply.choices[0].name is None


# Keys ---------------------------------------------------------------------------------------------------------------


def words(*shape: int, seed: int = 0) -> torch.Tensor:
    """Texts (..., words, size) as keys are: random vectors whose lengths sum to 1."""
    random = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(*shape, generator=random), dim=-1)
    weights = torch.rand(*shape[:-1], 1, generator=random)
    return unit * weights / weights.sum(-2, keepdim=True)


def keyed_engine(engine: EdgeEngine) -> EdgeEngine:
    """`engine` with a head in which keys have a say, and words differ in what they weigh."""
    torch.manual_seed(0)
    head = ChoiceHead(16, 8).eval().requires_grad_(False)
    head.query.weight.weight.normal_()
    with engine.exclusive() as model:
        return EdgeEngine(model, engine.tokenizer, pool=engine.pool, head=head)


def queries_of(head: ChoiceHead) -> list[torch.Tensor]:
    """What will come out of the head's query."""
    seen: list[torch.Tensor] = []
    head.query.register_forward_hook(lambda _, inputs, out: seen.append(out))
    return seen


TURNS = [
    Message(role="user", content="what is the weather in Oslo?"),
    Message(role="assistant", calls=(Call(name="get_weather", arguments={"city": "Oslo"}),)),
    Message(role="tool", name="get_weather", content="rain"),
    Message(role="assistant", content="It rains."),
]


def test_the_words_of_the_newest_turn_alone_are_compared_with_keys(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    """As a plain pass gives them, with what comes in front of them read but not compared."""
    engine = keyed_engine(engine)
    adapter = make_adapter(engine.pool, toolset, keys=words(3, 3, 8))
    adapter = replace(adapter, gates=torch.zeros_like(adapter.gates))  # the base model's words
    queries = queries_of(engine.head)
    result = Message(role="tool", name="get_weather", content="dry")
    asked_back = [*say("dim the light"), TURNS[1], result]
    for before, newest in (([], say("dim it")), (TURNS, say("dim it")), (TURNS, asked_back)):
        queries.clear()
        engine.reply([*before, *newest], toolset, adapter=adapter, options=ReplyOptions(max_tokens=60))
        text = render([*before, *newest])
        ids = engine.tokenizer(text, return_tensors="pt").input_ids
        start = len(engine.tokenizer(render(before).removesuffix("Call:") if before else "").input_ids)
        assert engine.tokenizer.decode(ids[0, start:]) == render(newest)
        with torch.no_grad():
            states = engine.model(ids, output_hidden_states=True).hidden_states
        of = words_of(states)[:, start:]
        expected = engine.head.query(of, torch.ones(of.shape[:2], dtype=torch.bool))
        assert torch.allclose(queries[0], expected, atol=1e-4)


def test_later_calls_of_a_reply_are_compared_with_the_same_words(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    engine = keyed_engine(engine)
    adapter = make_adapter(engine.pool, toolset, keys=words(3, 3, 8))
    engine.head.stop_bias.fill_(-100.0)
    queries = queries_of(engine.head)
    reply = engine.reply(say("dim it"), toolset, adapter=adapter, options=ReplyOptions(max_tokens=250))
    assert len(reply.calls) > 1, "one call: this test shows nothing"
    assert len(queries) > 1
    assert all(torch.equal(query, queries[0]) for query in queries)


def test_that_a_result_is_there_counts_where_one_was_given_and_nowhere_else(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    engine = keyed_engine(engine)
    adapter = make_adapter(engine.pool, toolset, keys=words(3, 3, 8))
    engine.head.stop_bias.fill_(-100.0)
    options = ReplyOptions(max_tokens=250)
    asked, with_result = say("dim it"), TURNS[:3]
    before = [
        len(engine.reply(turn, toolset, adapter=adapter, options=options).calls)
        for turn in (asked, with_result)
    ]
    engine.head.stop_answered.fill_(200.0)
    after = [
        len(engine.reply(turn, toolset, adapter=adapter, options=options).calls)
        for turn in (asked, with_result)
    ]
    assert before[0] > 1, "one call: this test shows nothing"
    assert before[1] > 0
    assert after == [before[0], 0]


def test_caution_moves_whether_the_first_tool_is_called_and_nothing_else(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    adapter = make_adapter(engine.pool, toolset)

    def choices(caution: float, messages: list[Message], **wishes: str) -> list[Choice]:
        options = ReplyOptions(max_tokens=40, max_calls=1, caution=caution, **wishes)
        reply = engine.reply(messages, toolset, adapter=adapter, options=options)
        (batched,) = engine.reply_batch([Request(messages, toolset, adapter, options=options)])
        assert [choice.name for choice in batched.choices] == [choice.name for choice in reply.choices]
        return list(reply.choices)

    asked = say("dim it")
    assert choices(100, asked)[0].name is None
    ready, plain = choices(-100, asked), choices(0, asked)
    assert ready[-1].name is None
    tools = [choice for choice in plain if choice.name is not None]
    assert [(c.name, c.score) for c in ready[:-1]] == [(c.name, pytest.approx(c.score)) for c in tools]
    words = {caution: {c.name: c.score for c in choices(caution, asked)}[None] for caution in (0, 2.5)}
    assert words[2.5] - words[0] == pytest.approx(2.5, abs=1e-4)
    assert choices(100, asked, tool_choice="any")[0].name is not None
    assert choices(100, TURNS[:3]) == choices(0, TURNS[:3]), "a call was made: whether it is complete"


def test_keys_score_alike_in_a_batch_and_one_by_one(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    """Where other lanes have longer prompts, no keys, or fewer vectors."""
    engine = keyed_engine(engine)
    options = ReplyOptions(max_tokens=60)
    conversations = [say("dim it"), [*TURNS, *say("and the light?")], say("thanks " * 9), say("rain?")]
    sizes = (3, 7, None, 1)
    requests = [
        Request(
            messages,
            toolset,
            make_adapter(
                engine.pool, toolset, seed, keys=torch.empty(0, 0, 0) if n is None else words(3, n, 8)
            ),
            options=options,
        )
        for seed, (messages, n) in enumerate(zip(conversations, sizes, strict=True))
    ]
    alone = [engine.reply(r.messages, toolset, adapter=r.adapter, options=options) for r in requests]
    for one, together in zip(alone, engine.reply_batch(requests), strict=True):
        assert isinstance(together, Reply)
        assert same(one, together)


def test_vectors_that_are_zero_change_no_score(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    engine = keyed_engine(engine)
    keys = words(3, 3, 8)
    replies = [
        engine.reply(say("dim it"), toolset, adapter=make_adapter(engine.pool, toolset, keys=each))
        for each in (keys, torch.nn.functional.pad(keys, (0, 0, 0, 5)), words(3, 3, 8, seed=1))
    ]
    assert same(replies[0], replies[1])
    assert not same(replies[0], replies[2]), "keys make no difference: this test shows nothing"


def test_known_requests_speak_for_their_tool_and_what_they_raise_everywhere_is_taken_off(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    engine = keyed_engine(engine)
    engine.head.log_t.fill_(4.0)
    adapter = make_adapter(engine.pool, toolset, keys=rounded(words(3, 3, 8)))
    known = "make it dark in here, please"
    knowing = Toolset(
        tools=tuple(t.changed(requests=(known,)) if t.name == "lights_off" else t for t in toolset.tools),
        instructions=toolset.instructions,
    )
    wiser = engine.with_requests(adapter, knowing)
    place = knowing.names.index("lights_off")

    def likely(one: Adapter, text: str) -> float:
        any_tool = ReplyOptions(tool_choice="any")
        choices = engine.reply(say(text), knowing, adapter=one, options=any_tool).choices
        return next(choice.probability for choice in choices if choice.name == "lights_off")

    assert likely(wiser, known) > likely(adapter, known)
    assert wiser.keys.shape[1] > 3
    assert torch.allclose(wiser.keys[:, :3], adapter.keys, atol=1e-3)
    assert [bool(raised) for raised in wiser.lift] == [at == place for at in range(3)]
    # With the lift taken off, what has nothing to do with it is on average as before.
    alike: list[torch.Tensor] = []
    for one in (adapter, wiser):
        with torch.inference_mode(), engine._active(one):
            read = [
                engine.head.query(each[None], torch.ones(1, len(each)).bool())
                for each in engine._words(ELSEWHERE)
            ]
        scores = torch.cat([likeness(each, one.keys, engine.head.back) for each in read])
        alike.append(scores.mean(0) - (0.0 if one.lift is None else one.lift))
    assert torch.allclose(*alike, atol=5e-3)
    assert engine.with_requests(adapter, toolset) is adapter


def test_first_choices_are_those_that_replies_make(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    engine = keyed_engine(engine)
    adapter = make_adapter(engine.pool, toolset, keys=words(3, 3, 8))
    found = engine.first_choices(TEXTS, toolset, adapter=adapter)
    for text, first in zip(TEXTS, found, strict=True):
        reply = engine.reply(say(text), toolset, adapter=adapter)
        scores = {choice.name: choice.score for choice in reply.choices}
        assert [scores[name] for name in toolset.names] == pytest.approx(first.scores[:-1].tolist(), abs=1e-3)
        assert scores[None] == pytest.approx(float(first.scores[-1]), abs=1e-3)
        assert first.asked is not None
    assert engine.first_choices([], toolset, adapter=adapter) == []
    assert engine.first_choices(TEXTS[:1], toolset)[0].asked is None


def test_lanes_that_share_what_was_read_are_as_if_each_had_read_it(engine: EdgeEngine) -> None:
    shared, runs = list(range(5, 45)), ([50, 51], [52], [53, 54, 55])
    one = Lanes(engine.model, 1)
    one.run({0: Feed(shared)})
    lanes = Lanes(engine.model, len(runs), prefix=one.keys_values(len(shared)))
    for step in range(2):  # lanes of different lengths, and behind them one token more
        seen = lanes.run({lane: Feed(run if not step else [60]) for lane, run in enumerate(runs)})
        for lane, run in enumerate(runs):
            whole = [*shared, *run, *([60] if step else [])]
            alone = Lanes(engine.model, 1).run({0: Feed(whole)})[0]
            assert torch.allclose(seen[lane].states, alone.states, atol=1e-4)


def test_an_adapter_of_other_tools_is_refused_and_another_order_is_not(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    keys = words(3, 3, 8)
    keys[0, 2] = keys[2, 1:] = 0
    engine = keyed_engine(engine)
    plain = make_adapter(engine.pool, toolset, keys=keys)
    order = [2, 0, 1]
    turned = replace(
        plain,
        names=tuple(toolset.names[i] for i in order),
        keys=keys[order],
    )
    moved = replace(plain, keys=turned.keys)
    assert not same(
        engine.reply(say("hi"), toolset, adapter=plain), engine.reply(say("hi"), toolset, adapter=moved)
    ), "keys make no difference"
    assert same(
        engine.reply(say("hi"), toolset, adapter=plain), engine.reply(say("hi"), toolset, adapter=turned)
    )
    with pytest.raises(AdapterError, match="made for the tools"):
        engine.reply(say("hi"), Toolset(tools=toolset.tools[:2]), adapter=plain)
    engine.pool = None
    with pytest.raises(AdapterError, match="no expert pool"):
        engine.reply(say("hi"), toolset, adapter=plain)


def test_usage_counts_what_was_sent_and_written(engine: EdgeEngine, toolset: Toolset) -> None:
    count = lambda text, **more: len(engine.tokenizer(text, **more).input_ids)  # noqa: E731
    tools = count(describe_toolset(toolset), add_special_tokens=False)
    options = ReplyOptions(tool_choice="set_light", parallel_calls=False)
    plain = engine.reply(say("dim it"), toolset, options=options)
    assert plain.usage.prompt_tokens == count(render(say("dim it")))
    assert (plain.usage.tool_prompt_tokens, plain.usage.saved_prompt_tokens) == (0, tools)
    prompted = engine.reply(say("dim it"), toolset, tools_in_prompt=True, options=options)
    assert prompted.usage.prompt_tokens == count(describe_toolset(toolset) + render(say("dim it")))
    assert (prompted.usage.tool_prompt_tokens, prompted.usage.saved_prompt_tokens) == (tools, 0)
    assert 0 < plain.usage.first_token_seconds <= plain.usage.seconds
    words = engine.reply(say("dim it"), toolset, options=ReplyOptions(tool_choice="none", max_tokens=5))
    assert 0 < words.usage.completion_tokens <= 5


def test_a_kept_prefix_changes_nothing(engine: EdgeEngine, toolset: Toolset) -> None:
    options = ReplyOptions(max_tokens=60, keep_prefix=True)
    for text in (*TEXTS, *TEXTS):
        cold = engine.reply(say(text), toolset, tools_in_prompt=True, options=ReplyOptions(max_tokens=60))
        assert same(cold, engine.reply(say(text), toolset, tools_in_prompt=True, options=options))


def test_a_stream_says_what_the_reply_says(engine: EdgeEngine, toolset: Toolset) -> None:
    for text in TEXTS:
        for wish in ("any", "none", "auto"):
            options = ReplyOptions(max_tokens=60, tool_choice=wish)
            events = list(engine.stream(say(text), toolset, options=options))
            assert isinstance(events[-1], Done)
            reply = events[-1].reply
            assert same(reply, engine.reply(say(text), toolset, options=options))
            for index, call in enumerate(reply.calls):
                pieces = [e for e in events if isinstance(e, CallDelta) and e.index == index]
                parameters = toolset.tool(call.name).parameters
                assert "".join(p.arguments_text for p in pieces) == arguments_text(call.arguments, parameters)
            made = [e.name for e in events if isinstance(e, ChoiceMade) and e.name]
            assert made == [call.name for call in reply.calls]
            assert "".join(e.text for e in events if isinstance(e, TextDelta)) == reply.content


def test_a_closed_stream_frees_the_model(engine: EdgeEngine, toolset: Toolset) -> None:
    stream = engine.stream(say("hi"), toolset, options=ReplyOptions(tool_choice="none", max_tokens=1500))
    next(stream)
    stream.close()
    engine.reply(say("hi"), toolset, options=ReplyOptions(max_tokens=40, timeout=5))


def test_sampling_is_seeded(engine: EdgeEngine, toolset: Toolset) -> None:
    def words(seed: int) -> str:
        options = ReplyOptions(tool_choice="none", temperature=2.0, seed=seed, max_tokens=12)
        return engine.reply(say("hi"), toolset, options=options).content

    assert words(1) == words(1)
    assert len({words(seed) for seed in range(4)}) > 1


def test_words_end_at_a_stop_sequence_and_hold_no_line_end(engine: EdgeEngine, toolset: Toolset) -> None:
    whole = engine.reply(say("hi"), toolset, options=ReplyOptions(tool_choice="none", max_tokens=12)).content
    assert whole
    assert "\n" not in whole
    stop = whole[len(whole) // 2 :][:2]
    options = ReplyOptions(tool_choice="none", max_tokens=12, stop=(stop,))
    assert engine.reply(say("hi"), toolset, options=options).content == whole[: whole.find(stop)].strip()


def test_a_long_conversation_keeps_its_newest_turns(
    make_tiny: Callable, tiny_tokenizer, toolset: Toolset
) -> None:
    engine = EdgeEngine(make_tiny("gemma3", max_position_embeddings=256), tiny_tokenizer)
    old = [
        Message(role="user", content="first " * 20),
        Message(role="assistant", calls=(Call(name="lights_off"),)),
        Message(role="tool", content="done " * 10),
    ]
    options = ReplyOptions(max_tokens=40)
    long = engine.reply([*old, *old, *say("and now?")], toolset, options=options)
    assert same(long, engine.reply(say("and now?"), toolset, options=options))
    with pytest.raises(DecodeError, match="newest turn"):
        engine.reply(say("word " * 200), toolset, options=options)


def test_without_tools_it_answers_in_words(engine: EdgeEngine) -> None:
    reply = engine.reply(say("hi"), Toolset(), options=ReplyOptions(max_tokens=8))
    assert not reply.calls
    assert reply.content


def test_an_unknown_tool_choice_is_an_error(engine: EdgeEngine, toolset: Toolset) -> None:
    with pytest.raises(DecodeError, match="no_such_tool"):
        engine.reply(say("hi"), toolset, options=ReplyOptions(tool_choice="no_such_tool"))


def test_exclusive_gives_the_pristine_base_and_takes_it_back(
    engine: EdgeEngine, toolset: Toolset, make_adapter: Callable[..., Adapter]
) -> None:
    base = {name: p.clone() for name, p in engine.model.named_parameters()}
    adapter = make_adapter(engine.pool, toolset)
    before = engine.reply(say("hi"), toolset, adapter=adapter, options=ReplyOptions(max_tokens=40))
    with engine.exclusive() as model:
        engine.priors(toolset, adapter=make_adapter(engine.pool, toolset, 1))
        assert all(torch.equal(p, base[name]) for name, p in model.named_parameters())
    after = engine.reply(say("hi"), toolset, adapter=adapter, options=ReplyOptions(max_tokens=40))
    assert same(before, after)


def test_threads_and_tasks_get_their_own_answers(
    make_tiny: Callable, make_pool: Callable, make_adapter: Callable, tiny_tokenizer, toolset: Toolset
) -> None:
    model = make_tiny("gemma3")
    engine = EdgeEngine(model, tiny_tokenizer, pool=make_pool(model))
    options = ReplyOptions(max_tokens=40)
    work = [(text, make_adapter(engine.pool, toolset, seed)) for seed, text in enumerate(TEXTS)] * 3
    expected = [engine.reply(say(text), toolset, adapter=adapter, options=options) for text, adapter in work]
    got: dict[int, Reply] = {}

    def ask(index: int) -> None:
        text, adapter = work[index]
        got[index] = engine.reply(say(text), toolset, adapter=adapter, options=options)

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(expected[index], got[index]) for index in range(len(work)))

    async def tasks() -> None:
        await asyncio.gather(*(asyncio.to_thread(ask, index) for index in range(len(work))))

    got.clear()
    asyncio.run(tasks())
    assert all(same(expected[index], got[index]) for index in range(len(work)))
