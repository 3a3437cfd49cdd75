"""ChatSpecialized on a tiny model: what reaches the edge, what comes back, and that nothing blocks or is lost."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from agent_specializer.errors import ConfigError, DecodeError, NotFound, SpecError, StoreError
from agent_specializer.langchain import ChatSpecialized, SpecializedLLM, Unsure


@tool
def set_light(level: int) -> str:
    """Dims the lamps."""
    return f"set to {level}"


@tool
def get_time() -> str:
    """Tells the time."""
    return "noon"


@pytest.fixture
def model(specializer) -> ChatSpecialized:
    return ChatSpecialized(agent="home", specializer=specializer, max_tokens=40)


@pytest.fixture
def bare(specializer) -> ChatSpecialized:
    return ChatSpecialized(specializer=specializer, max_tokens=40)


def test_metadata_says_with_what_and_how_a_reply_was_made(model):
    first, second = model.invoke("dim"), model.invoke("dim")
    said = second.response_metadata
    assert (said["agent"], said["model_name"], said["mode"]) == ("home", "home", "specialized")
    assert (first.response_metadata["cache"], said["cache"]) == ("miss", "hit")
    assert said["adapter"] == model.specializer.specialize("home").fingerprint
    assert 0 < said["confidence"] <= 1
    assert said["seconds"] >= said["first_token_seconds"] > 0
    usage = second.usage_metadata
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_token_details"]["saved"] == said["saved_tokens"] > 0


def test_the_model_of_one_call_is_another_agent(model):
    message = model.invoke("dim", model="lamp")
    assert message.response_metadata["model_name"] == "lamp"
    with pytest.raises(NotFound):
        model.invoke("dim", model="nobody")


@pytest.mark.parametrize("choice", ["any", "required", True])
def test_any_demands_a_call(bare, choice):
    message = bare.bind_tools([set_light, get_time], tool_choice=choice).invoke("hello")
    assert message.tool_calls
    assert message.response_metadata["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "choice",
    [
        "get_time",
        {"type": "function", "function": {"name": "get_time"}},
        {"type": "tool", "name": "get_time"},
    ],
)
def test_a_name_demands_this_tool(bare, choice):
    message = bare.bind_tools([set_light, get_time], tool_choice=choice).invoke("hello")
    assert [call["name"] for call in message.tool_calls] == ["get_time"]
    assert message.tool_calls[0]["args"] == {}


def test_none_demands_words(bare):
    message = bare.bind_tools([set_light], tool_choice="none").invoke("hello")
    assert not message.tool_calls
    assert message.content


def test_a_choice_that_is_no_tool_is_refused_when_it_is_bound(bare):
    with pytest.raises(NotFound, match="set_fire"):
        bare.bind_tools([set_light], tool_choice="set_fire")


def test_two_different_tools_of_one_name_are_refused(bare):
    other = {
        "name": "set_light",
        "description": "Dims.",
        "parameters": {"properties": {"on": {"type": "boolean"}}},
    }
    with pytest.raises(SpecError, match="set_light"):
        bare.bind_tools([set_light, other])


def test_arguments_validate_against_the_bound_schema(bare):
    class Dim(BaseModel):
        level: int
        room: str

    message = bare.bind_tools([Dim], tool_choice="Dim", parallel_tool_calls=False).invoke("x", max_tokens=60)
    Dim.model_validate(message.tool_calls[0]["args"])


def test_bound_tools_are_specialised_once(bare):
    bound = bare.bind_tools([set_light, get_time])
    other_order = bare.bind_tools([get_time, set_light])
    first, second = bound.invoke("dim"), other_order.invoke("dim again")
    assert [first.response_metadata["cache"], second.response_metadata["cache"]] == ["miss", "hit"]
    assert first.response_metadata["adapter"] == second.response_metadata["adapter"]


def test_an_agents_own_tools_bound_again_are_the_agent(model):
    bound = model.bind_tools(list(model.specializer.registry.toolset("home").tools))
    assert bound.invoke("dim").response_metadata["agent"] == "home"


def test_what_is_bound_keeps_the_requests_that_are_known_of_it(model, bare):
    tools = model.specializer.registry.toolset("home").tools
    silent = [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in tools]
    before = model.bind_tools(silent).invoke("dim").response_metadata
    model.specializer.add_requests("set_light", ["it is too dark"])
    after = model.bind_tools(silent).invoke("dim").response_metadata
    assert (before["agent"], after["agent"]) == ("home", "home")
    assert after["adapter"] != before["adapter"]
    assert after["adapter"] == model.invoke("dim").response_metadata["adapter"]
    knowing = [tool.changed(requests=["darker"]) for tool in tools]
    plain, wiser = (bare.bind_tools(some).invoke("dim").response_metadata for some in (silent, knowing))
    assert plain["adapter"] != wiser["adapter"]


def test_streamed_pieces_join_to_the_reply(bare):
    bound = bare.bind_tools([set_light, get_time], tool_choice="any")
    whole = bound.invoke("hello")
    chunks = list(bound.stream("hello"))
    joined = chunks[0]
    for chunk in chunks[1:]:
        joined += chunk
    assert isinstance(joined, AIMessageChunk)
    assert [(c["name"], c["args"]) for c in joined.tool_calls] == [
        (c["name"], c["args"]) for c in whole.tool_calls
    ]
    assert all(call["id"] for call in joined.tool_calls)
    assert chunks[-1].chunk_position == "last"
    assert joined.usage_metadata == whole.usage_metadata
    assert joined.response_metadata["adapter"] == whole.response_metadata["adapter"]
    assert len(chunks) > 2


def test_words_stream_to_callbacks_piece_by_piece(bare):
    class Listener(BaseCallbackHandler):
        def __init__(self) -> None:
            self.pieces: list[str] = []

        def on_llm_new_token(self, token: str, **_: Any) -> None:
            self.pieces.append(token)

    listener = Listener()
    text = "".join(chunk.text for chunk in bare.stream("hello", config={"callbacks": [listener]}))
    assert text == "".join(listener.pieces) == bare.invoke("hello").content
    assert len([piece for piece in listener.pieces if piece]) > 1


async def test_async_gives_the_same_and_leaves_the_loop_free(bare):
    bound = bare.bind_tools([set_light, get_time])
    expected = bound.invoke("hello")
    longest, last, done = 0.0, time.perf_counter(), False

    async def heartbeat() -> None:
        nonlocal longest, last
        while not done:
            await asyncio.sleep(0.002)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    beat = asyncio.create_task(heartbeat())
    began = time.perf_counter()
    messages = await asyncio.gather(*(bound.ainvoke("hello") for _ in range(6)))
    chunks = [chunk async for chunk in bound.astream("hello")]
    took = time.perf_counter() - began
    done = True
    await beat
    assert all(m.content == expected.content for m in messages)
    assert "".join(chunk.text for chunk in chunks) == expected.content
    assert longest < max(took / 3, 0.15)


async def test_leaving_an_async_stream_frees_the_model(bare):
    async for _ in bare.astream("hello", max_tokens=4000):
        break
    assert (await asyncio.wait_for(bare.ainvoke("hello", max_tokens=3), 30)).content is not None


def test_the_edge_reads_neither_tools_nor_system_prompt(specializer, monkeypatch):
    """Every string that the tokenizer is given during a reply, when the adapter is there already."""
    bound = ChatSpecialized(specializer=specializer, max_tokens=40).bind_tools([set_light, get_time])
    conversation = [
        SystemMessage("Beware of the purple walrus."),
        HumanMessage("dim"),
        AIMessage("", tool_calls=[{"name": "set_light", "args": {"level": 2}, "id": "1"}]),
        ToolMessage("set to 2", tool_call_id="1"),
    ]
    bound.invoke(conversation)
    plain = bound.invoke(conversation[1:])
    read: list[str] = []
    kind = type(specializer.engine.tokenizer)
    original = kind.__call__

    def spy(self, text, *args, **kwargs):
        read.extend([text] if isinstance(text, str) else text)
        return original(self, text, *args, **kwargs)

    monkeypatch.setattr(kind, "__call__", spy)  # of the class: whoever in the engine reads with it
    message = bound.invoke(conversation)
    assert message.response_metadata["cache"] == "hit"
    assert message.response_metadata["adapter"] != plain.response_metadata["adapter"]
    assert any("Result: set to 2" in text for text in read)
    for text in read:
        for hidden in ("walrus", "Dims the lamps", "Tells the time", '"type"', "parameters"):
            assert hidden not in text


def test_tool_errors_reach_the_edge_as_errors(bare):
    from agent_specializer.langchain.messages import from_langchain

    turns = from_langchain(
        [
            AIMessage("", tool_calls=[{"name": "set_light", "args": {}, "id": "1"}]),
            ToolMessage("no such lamp", tool_call_id="1", status="error"),
            ToolMessage([{"type": "text", "text": "fine"}], tool_call_id="1"),
        ]
    )
    assert [turn.content for turn in turns[1:]] == ["Error: no such lamp", "fine"]
    assert turns[1].name == "set_light"


def test_images_are_refused_with_a_hint(bare):
    with pytest.raises(SpecError, match="image_url"):
        bare.invoke([HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])])


class Joke(BaseModel):
    """A joke."""

    stars: int
    good: bool


class JokeDict(TypedDict):
    """A joke."""

    stars: Annotated[int, ..., "how good"]
    good: bool


@pytest.mark.parametrize("method", ["function_calling", "json_mode", "json_schema"])
@pytest.mark.parametrize(
    "schema", [Joke, JokeDict, Joke.model_json_schema()], ids=["pydantic", "typed", "json"]
)
def test_structured_output_has_the_schema(bare, method, schema):
    asked = bare.with_structured_output(schema, method=method)
    for answer in [asked.invoke("joke"), list(asked.stream("joke"))[-1]]:
        if schema is Joke:
            assert isinstance(answer, Joke)
        else:
            Joke.model_validate(answer)


def test_json_methods_answer_in_json_text_even_with_an_agent(model):
    raw = model.with_structured_output(Joke, method="json_schema", include_raw=True).invoke("joke")
    assert raw["parsing_error"] is None
    assert Joke.model_validate_json(raw["raw"].content) == raw["parsed"]
    assert raw["raw"].tool_calls == []


def test_what_cannot_be_parsed_is_reported_with_the_raw_answer(bare):
    class Even(BaseModel):
        stars: int

        def model_post_init(self, _: Any) -> None:
            raise ValueError("never right")

    out = bare.with_structured_output(Even, include_raw=True).invoke("joke")
    assert out["parsed"] is None
    assert "never right" in str(out["parsing_error"])
    assert out["raw"].tool_calls


def test_methods_that_are_none_are_refused(bare):
    with pytest.raises(ConfigError, match="telepathy"):
        bare.with_structured_output(Joke, method="telepathy")


def test_limits_of_a_reply(bare):
    long = bare.invoke("hello", max_tokens=30)
    short = bare.invoke("hello", max_tokens=3)
    assert short.usage_metadata["output_tokens"] < long.usage_metadata["output_tokens"]
    letter = next(letter for letter in long.content if letter.isalpha())
    assert letter not in bare.invoke("hello", max_tokens=30, stop=[letter]).content
    assert (
        bare.invoke("hi", temperature=2.0, seed=1).content
        != bare.invoke("hi", temperature=2.0, seed=2).content
    )
    with pytest.raises(DecodeError):
        bare.invoke("hello", timeout=1e-6)


def test_too_little_confidence_is_an_error_before_anything_is_written(bare):
    bound = bare.model_copy(update={"min_confidence": 1.0}).bind_tools([set_light, get_time])
    pieces = []
    with pytest.raises(Unsure) as told:
        pieces += [chunk for chunk in bound.stream("dim") if chunk.content or chunk.tool_call_chunks]
    assert pieces == []
    with pytest.raises(Unsure, match="under 1"):
        bound.invoke("dim")
    sure = bare.model_copy(update={"min_confidence": told.value.confidence / 2})
    plain = bare.bind_tools([set_light, get_time]).invoke("dim")
    kept = sure.bind_tools([set_light, get_time]).invoke("dim")
    assert kept.response_metadata["confidence"] == pytest.approx(told.value.confidence, rel=1e-3)
    assert (kept.content, [c["args"] for c in kept.tool_calls]) == (
        plain.content,
        [c["args"] for c in plain.tool_calls],
    )


def test_caution_is_set_for_a_model_or_for_a_call(bare):
    careful = bare.model_copy(update={"caution": 100}).bind_tools([set_light, get_time])
    assert careful.invoke("dim").tool_calls == []
    assert len(careful.invoke("dim", caution=-100).tool_calls) > 0
    assert len(bare.bind_tools([set_light, get_time], caution=-100).invoke("dim").tool_calls) > 0
    assert "caution" in bare._identifying_params


def test_a_busy_store_is_tried_again(model, monkeypatch):
    toolset, failures = model.specializer.registry.toolset, iter([StoreError("database is locked")] * 2)

    def busy(name: str) -> Any:
        for error in failures:
            raise error
        return toolset(name)

    monkeypatch.setattr(model.specializer.registry, "toolset", busy)
    assert model.model_copy(update={"max_retries": 2}).invoke("dim") is not None
    failures = iter([StoreError("database is locked")])
    with pytest.raises(StoreError):
        model.model_copy(update={"max_retries": 0}).invoke("dim")


def test_a_serialised_model_is_the_same_model(model):
    dumped = json.loads(json.dumps(dumpd(model)))
    again = load(dumped, valid_namespaces=["agent_specializer"], allowed_objects=[ChatSpecialized])
    assert again.opened().settings == model.specializer.settings
    assert again._identifying_params == model._identifying_params
    assert "zebra" not in json.dumps(dumped)


def test_models_of_the_same_settings_share_one_specializer(home, tiny_bundle):
    first, second = ChatSpecialized(bundle=tiny_bundle), SpecializedLLM(bundle=tiny_bundle)
    assert first.opened() is second.opened()
    assert first.get_num_tokens("dim the light") > 0
    first.opened().close()


def test_the_llm_answers_a_prompt_in_words(specializer):
    llm = SpecializedLLM(agent="home", specializer=specializer, max_tokens=30)
    text = llm.invoke("hello")
    assert text
    assert "".join(llm.stream("hello")) == text
    assert llm.batch(["hello", "hello"]) == [text, text]


async def test_the_llm_answers_asyncio(specializer):
    llm = SpecializedLLM(specializer=specializer, max_tokens=30)
    text = await llm.ainvoke("hello")
    assert "".join([piece async for piece in llm.astream("hello")]) == text
