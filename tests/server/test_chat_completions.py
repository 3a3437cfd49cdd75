"""The OpenAI-compatible server on a tiny model, over HTTP as a client sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from agent_specializer import Specializer, ToolSpec
from agent_specializer.server.app import create_app

LEVEL = {
    "type": "object",
    "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["level"],
}
TOOLS = [
    {"type": "function", "function": {"name": "set_light", "description": "Dims.", "parameters": LEVEL}},
    {"type": "function", "function": {"name": "get_time", "description": "Tells the time."}},
]
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(tmp_path_factory, tiny_folder):
    path = tiny_folder / "bundle.yaml"
    folder = tmp_path_factory.mktemp("tiny-server")
    with Specializer(bundle=str(path), home=folder / "home") as specializer:
        specializer.create_agent("home", [ToolSpec(name="set_light", description="Dims.", parameters=LEVEL)])
        with TestClient(create_app(specializer)) as client:
            client.bundle = str(path)
            yield client


def _ask(client, **body: Any) -> Any:
    return client.post(
        "/v1/chat/completions", json={"model": "home", "messages": HELLO, "max_tokens": 30} | body
    )


def _events(response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_agents_are_models(client):
    ids = [model["id"] for model in client.get("/v1/models").json()["data"]]
    assert ids == ["home", client.bundle]


def test_a_reply_of_an_agent(client):
    answer = _ask(client, tool_choice="required").json()
    choice = answer["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert (answer["object"], answer["model"]) == ("chat.completion", "home")
    assert choice["finish_reason"] == "tool_calls"
    assert call["function"]["name"] == "set_light"
    assert 0 <= json.loads(call["function"]["arguments"])["level"] <= 9
    assert answer["usage"]["total_tokens"] > answer["usage"]["prompt_tokens"] > 0
    assert answer["specialized"]["saved_tokens"] > 0


def test_tools_of_the_request(client):
    wish = {"type": "function", "function": {"name": "get_time"}}
    answer = _ask(client, model=client.bundle, tools=TOOLS, tool_choice=wish).json()
    assert [c["function"]["name"] for c in answer["choices"][0]["message"]["tool_calls"]] == ["get_time"]
    words = _ask(client, model=client.bundle, tools=TOOLS, tool_choice="none").json()["choices"][0]
    assert words["message"]["content"]
    assert words["finish_reason"] == "stop"


def test_caution_is_a_word_of_ours(client):
    def finish(**body: Any) -> str:
        return _ask(client, **body).json()["choices"][0]["finish_reason"]

    assert finish(caution=-100) == "tool_calls"
    assert finish(caution=100) != "tool_calls"
    assert _ask(client, caution=1e9).status_code == 400


def test_a_stream_joins_to_the_reply(client):
    body = {"model": client.bundle, "tools": TOOLS, "tool_choice": "required", "stream": True}
    response = _ask(client, **body, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    events = _events(response)
    whole = _ask(client, **body | {"stream": False}).json()
    pieces: dict[int, list[str]] = {}
    names: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls", []):
                pieces.setdefault(call["index"], []).append(call["function"]["arguments"])
                if "name" in call["function"]:
                    names[call["index"]] = call["function"]["name"]
                    assert call["id"]
    expected = whole["choices"][0]["message"]["tool_calls"]
    assert [names[i] for i in sorted(names)] == [c["function"]["name"] for c in expected]
    assert [json.loads("".join(pieces[i])) for i in sorted(pieces)] == [
        json.loads(c["function"]["arguments"]) for c in expected
    ]
    assert events[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert events[-1]["usage"] == whole["usage"]
    assert len({event["id"] for event in events}) == 1


def test_a_stream_of_words_joins_to_the_reply(client):
    events = _events(_ask(client, tool_choice="none", stream=True))
    text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
    assert text == _ask(client, tool_choice="none").json()["choices"][0]["message"]["content"]


def test_a_schema_for_the_answer(client):
    schema = {"type": "object", "properties": {"stars": {"type": "integer"}}, "required": ["stars"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "rating", "schema": schema}}
    answer = _ask(client, model=client.bundle, response_format=wanted).json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["stars"], int)


def test_a_conversation_with_results_of_tools(client):
    call = {"id": "1", "type": "function", "function": {"name": "set_light", "arguments": '{"level": 2}'}}
    turns = [
        {"role": "system", "content": "Be kind."},
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]
    assert _ask(client, messages=turns).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"model": "nobody"}, 404),
        ({"model": "nobody", "stream": True}, 404),
        ({"tool_choice": {"type": "function", "function": {"name": "fire"}}}, 404),
        ({"messages": []}, 400),
        ({"messages": [{"role": "wizard", "content": "x"}]}, 400),
        ({"tools": [{"type": "function"}]}, 400),
        ({"n": 2}, 400),
        ({"temperature": -1}, 400),
    ],
)
def test_what_is_wrong_is_said_as_openai_says_it(client, body, status):
    response = _ask(client, **body)
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"
