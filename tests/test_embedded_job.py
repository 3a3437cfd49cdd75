"""The promises of merge and cache on the real embedded model with its shipped generator."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from agent_specializer import Specializer, ToolSpec
from agent_specializer.edge import sentences
from agent_specializer.edge.job import Scorer
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.loragen.models import LINEARS, decoder, gated_mlps
from agent_specializer.refinement.writing import write_requests
from tool_specs import ExampleRequest

pytestmark = pytest.mark.embedded

ANY = ReplyOptions(tool_choice="any", max_calls=1)
LEVEL = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}
LIGHT = ToolSpec(name="set_light", description="Set the brightness of the lamps.", parameters=LEVEL)
WEATHER = ToolSpec(name="get_weather", description="Current weather of a city.")
PLAY = ToolSpec(name="play_song", description="Play a song.")


@pytest.fixture(scope="module")
def specializer(embedded_home: Path, tmp_path_factory: pytest.TempPathFactory):
    """The shared home for its converted weights, with a database of this module's own."""
    url = f"sqlite:///{tmp_path_factory.mktemp('embedded')}/agents.db"
    with Specializer(home=embedded_home, bundle="embedded", database_url=url) as made:
        made.create_agent("home", [LIGHT, WEATHER], "You run a house.")
        made.create_agent("music", [PLAY], "You play music.")
        yield made


def weights(specializer: Specializer) -> str:
    """SHA-256 of all FFN weights that are in the model now."""
    digest = hashlib.sha256()
    for mlp in gated_mlps(decoder(specializer.runtime.models.edge)):
        for name in LINEARS:
            digest.update(getattr(mlp, name).weight.detach().view(torch.uint8).numpy())
    return digest.hexdigest()


def test_a_to_b_to_a_and_back_to_base_is_bit_exact(specializer: Specializer) -> None:
    engine = specializer.engine
    home, music = (specializer.specialize(name).adapter for name in ("home", "music"))
    with engine.exclusive():
        base = weights(specializer)
    found = []
    for adapter in (home, music, home):
        engine.merge(adapter)
        found.append(weights(specializer))
    with engine.exclusive():
        assert weights(specializer) == base
    assert found[0] == found[2]
    assert len({base, *found}) == 3


def test_reordering_hits_editing_misses_and_what_is_cached_verifies(specializer: Specializer) -> None:
    first = specializer.specialize("home")
    specializer.create_agent("home", [WEATHER, LIGHT], "You run a house.")
    assert specializer.specialize("home").cache == "hit"
    assert [check.state for check in specializer.verify(first.fingerprint)] == ["same"]
    edited = ToolSpec(name="get_weather", description="Current weather of a town.")
    specializer.create_agent("edited", [edited, LIGHT], "You run a house.")
    again = specializer.specialize("edited")
    assert (again.cache, again.fingerprint != first.fingerprint) == ("miss", True)


def test_it_is_refined_on_what_the_model_writes_itself(specializer: Specializer) -> None:
    """Requests that can be read, of which the shipped adapter tells most to their tools, and that can be learned."""
    models = specializer.runtime.models
    with specializer.engine.exclusive():
        written = write_requests(models.cloud, models.cloud_tokenizer, (LIGHT, WEATHER), count=8, seed=0)
    assert all(len(some) >= 4 for some in written)
    assert "weather" in " ".join(written[1]).lower()
    plain = specializer.specialize("home")
    made, report = specializer.refine(
        "home", keep=True, examples=[ExampleRequest(request="what can you do?")]
    )
    assert report.written >= 16
    assert report.held_out == report.written // 4
    assert report.before.right >= 0.6 * report.held_out
    assert report.written // 2 <= report.fitted <= report.written - report.held_out
    assert report.examples == report.right_before == report.right_after == 1
    assert made.fingerprint == plain.fingerprint
    assert made.refinement == report.to_dict()
    assert [check.state for check in specializer.verify(made.fingerprint)] == ["same"]
    assert specializer.specialize("home", force=True).adapter.same_as(plain.adapter)


@pytest.mark.parametrize(
    ("parameter", "said", "unsaid"),
    [
        ("city", "Which weather will it be in Lisbon tomorrow?", "Which weather will it be tomorrow?"),
        ("recipient", "write a mail to bob@example.org", "write a mail for me please"),
    ],
)
def test_a_value_that_a_request_says_is_told_from_one_that_it_does_not(
    specializer: Specializer, monkeypatch: pytest.MonkeyPatch, parameter: str, said: str, unsaid: str
) -> None:
    text = {"type": "object", "properties": {parameter: {"type": "string"}}, "required": [parameter]}
    run = ToolSpec(name="run", description=f"Takes a {parameter}.", parameters=text)
    agent = specializer.create_agent(f"asks-{parameter}", [run])
    found: list[float] = []
    gives = Scorer.gives

    def watched(*args: Any) -> torch.Tensor:
        out = gives(*args)
        found.extend(out.tolist())
        return out

    monkeypatch.setattr(Scorer, "gives", watched)
    for request in (said, unsaid):
        agent.ask(request)
    assert found[0] > 0 > found[1]


@pytest.mark.parametrize(
    ("request_", "arguments"),
    [
        ("set an alarm for six am", {"time": "six am"}),
        ("set an alarm please", {}),
        ("wake me on monday", {"day": "monday"}),
        ("play the playlist gym", {"playlist": "gym"}),
        ("play something by Miles Davis", {"artist": "Miles Davis"}),
        ("play music", {}),
    ],
)
def test_optional_parameters_are_given_where_the_request_says_them(
    specializer: Specializer, request_: str, arguments: dict[str, str]
) -> None:
    text = {"type": "string"}
    alarm = {"type": "object", "properties": {"time": text, "day": text, "label": text}}
    music = {"type": "object", "properties": {"artist": text, "song": text, "playlist": text}}
    agent = specializer.create_agent(
        "bedside",
        [
            ToolSpec(name="set_alarm", description="Set an alarm.", parameters=alarm),
            ToolSpec(name="play_music", description="Play music.", parameters=music),
        ],
    )
    assert agent.ask(request_).calls[0].arguments == arguments


def test_two_known_requests_tell_tools_apart_of_which_nothing_else_is_known(specializer: Specializer) -> None:
    known = {
        "tool_01": ["what is the weather like in Paris", "do I need an umbrella today"],
        "tool_02": ["wake me up at six", "set a timer for ten minutes"],
        "tool_03": ["put on some Miles Davis", "play my workout playlist"],
    }
    asked = {
        "will it rain in Oslo tomorrow?": "tool_01",
        "how cold is it outside": "tool_01",
        "set an alarm for 7 am": "tool_02",
        "remind me in half an hour": "tool_02",
        "play some jazz": "tool_03",
        "I want to hear the Beatles": "tool_03",
    }
    specializer.create_agent("unsaid", [ToolSpec(name=name, description="A function.") for name in known])

    def right() -> int:
        chosen = {text: specializer.ask("unsaid", text, options=ANY).calls[0].name for text in asked}
        return sum(chosen[text] == tool for text, tool in asked.items())

    without = right()
    for name, requests in known.items():
        specializer.add_requests(name, requests)
    assert right() == len(asked)
    assert without <= len(asked) // 2


def test_of_two_chores_each_gets_its_own_words(
    specializer: Specializer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tool(name: str, description: str, first: str, **others: str) -> ToolSpec:
        properties = {name: {"type": type_} for name, type_ in {first: "string", **others}.items()}
        parameters = {"type": "object", "properties": properties, "required": [first]}
        return ToolSpec(name=name, description=description, parameters=parameters)

    many = [
        tool("book_table", "Book a table at a restaurant", "restaurant", people="integer", time="string"),
        tool("get_directions", "Directions from one place to another", "destination", start="string"),
        tool("delete_user", "Delete a user's account", "user_id", reason="string"),
        tool("order_parts", "Order spare parts for a machine", "part", quantity="integer", machine="string"),
    ]
    specializer.create_agent("many", many)
    asked = {
        "Delete the account of user K7Qf2. Then order spare parts: the pump wheel.": "order_parts",
        "Order 12 pump wheels for the press. Then book a table at Luigi's at eight.": "book_table",
    }

    def arguments(text: str) -> dict[str, Any]:
        options = ReplyOptions(tool_choice=asked[text], max_calls=1)
        return specializer.ask("many", text, options=options).calls[0].arguments

    orders, booking = map(arguments, asked)
    assert "K7Qf2" not in orders.values()
    assert booking == {"restaurant": "Luigi's", "time": "eight"}
    monkeypatch.setattr(sentences, "AHEAD", 9.0)  # each sentence is everybody's
    assert "K7Qf2" in arguments(next(iter(asked))).values()
