"""The bank of requests: every one in its turn, against tools that are surely wrong, read as the engine reads them."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest
import torch

from agent_specializer.edge.choose import NameTree
from agent_specializer.errors import CheckpointError
from agent_specializer.examples import Example
from agent_specializer.loragen.checkpoint import load_checkpoint, load_parts, save_checkpoint
from agent_specializer.loragen.toolkeys import ChoiceHead, ToolKeys, ToolReading, required
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training import bank as banks
from agent_specializer.training import keys as second
from agent_specializer.training.bank import ABSENT, fill, key_scores, need_loss, read_bank, read_rows, some_of
from agent_specializer.training.data import MADE_UP, Composition, Kinships, read_sources, vague
from agent_specializer.training.objective import score
from agent_specializer.training.rows import collate, empty_row

HIDDEN = 16


def tool(
    name: str, description: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> ToolSpec:
    properties = {each: {"type": "string"} for each in (*required, *optional)}
    return ToolSpec(
        name=name, description=description, parameters={"properties": properties, "required": [*required]}
    )


LIGHT = tool("light", "Sets a light of a room", ("level", "room"), ("note",))
SONG = tool("song", "Plays a song for you", ("title",), ("note",))
STOP = tool("stop", "Stops all that is going on")
LAMP = tool("lamp", "sets a  LIGHT of a room", ("level",))
MUSIC = tool("music", "Some other words for songs", ("title",))
HOME = Toolset(tools=(LIGHT, SONG, STOP))
OTHER = Toolset(tools=(LAMP, MUSIC))


def asked(text: str, *calls: Call, category: str = "") -> Example:
    return Example("x", (Message(role="user", content=text),), calls, category=category)


EXAMPLES = (
    asked("dim it", Call(name="light", arguments={"level": "1"})),
    asked("sets a light", Call(name="light", arguments={"level": "1"}), category=MADE_UP),
    asked("play this and that", Call(name="song", arguments={"title": "b", "note": "c"})),
    asked("stop"),
    asked("a much longer request " * 3, Call(name="stop")),
    asked("dim it and stop", Call(name="light", arguments={"room": "a"}), Call(name="stop")),
)
LAST = (asked("dim", Call(name="lamp", arguments={"level": "1"})), asked("music", Call(name="music")))


def made_up_readings(tools: list[ToolSpec]) -> list[ToolReading]:
    """Each tool and parameter has random features of its own."""
    readings = []
    for each in tools:
        dice = torch.Generator().manual_seed(int(each.fingerprint[:8], 16))
        names = each.parameters.get("properties") or {}
        parameters = {name: torch.randn(3 * HIDDEN, generator=dice) for name in names}
        readings.append(ToolReading(torch.randn(4 * HIDDEN, generator=dice), parameters))
    return readings


@pytest.fixture
def bank(tiny_tokenizer, monkeypatch):
    """Of first calls alone, but for what a test changes."""
    real = banks.example_row
    monkeypatch.setattr(
        banks, "example_row", lambda *a, **k: next(r for _ in range(50) if not (r := real(*a, **k)).called)
    )
    kin = {SONG: (1,), MUSIC: (1,), STOP: (0, 2)}
    return fill(
        [Composition(HOME, EXAMPLES), Composition(OTHER, LAST)],
        tiny_tokenizer,
        made_up_readings,
        lambda spec: kin.get(spec, ()),
        seed=0,
    )


@pytest.fixture
def nets():
    torch.manual_seed(0)
    keys = ToolKeys(HIDDEN, width=4, key_dim=8, need_dim=6).requires_grad_(False)
    return keys, ChoiceHead(HIDDEN, 8, 6, width=4).requires_grad_(False)


SPECS = (*HOME.tools, *OTHER.tools)
"""In the order of the bank's tools."""


# What is in it ------------------------------------------------------------------------------------------------------


def test_a_request_points_at_its_toolset_and_its_right_tool(bank):
    assert torch.equal(bank.tools, torch.stack([reading.tool for reading in made_up_readings([*SPECS])]))
    assert bank.candidates.tolist() == [[0, 1, 2]] * 6 + [[3, 4, -1]] * 2
    assert bank.gold.tolist() == [0, 0, 1, 3, 2, 0, 0, 1], "3 is answering in words"
    assert bank.excluded.nonzero().tolist() == [[5, 2]], "the other call of the turn"


def test_a_request_says_what_is_in_its_call_and_a_made_up_one_says_nothing(bank):
    readings = dict(zip(SPECS, made_up_readings([*SPECS]), strict=True))

    def said(row: int, spec: ToolSpec) -> dict[str, bool]:
        found = {}
        for at, filled in zip(bank.asked[row].tolist(), bank.filled[row].tolist(), strict=True):
            for name, feature in readings[spec].parameters.items():
                if at >= 0 and torch.equal(bank.parameters[at], feature):
                    found[name] = bool(filled)
        return found

    assert said(0, LIGHT) == {"level": True, "room": False, "note": False}
    assert said(1, LIGHT) == {"level": False, "room": False, "note": False}
    assert said(2, SONG) == {"title": True, "note": True}
    assert (bank.asked[3:5] == -1).all(), "words, and a tool without parameters"
    # What other tools want is not said, and not asked for where the right tool has a parameter of that name.
    assert not said(2, LIGHT).get("note")
    assert all(not any(said(row, SONG).values()) for row in (0, 1, 5))


def test_every_request_is_in_one_batch_that_keeps_to_the_tokens(bank):
    lengths = [len(row.prefix) for row in bank.rows]
    for tokens in (*range(1, 4 * max(lengths), 10), 10_000):
        batches = bank.batches(tokens, random.Random(1))
        assert sorted(i for batch in batches for i in batch) == list(range(len(bank)))
        assert all(len(b) == 1 or len(b) * max(lengths[i] for i in b) <= tokens for b in batches)
    assert len(bank.batches(1, random.Random(1))) == len(bank)
    assert len(batches) == 1
    draws = [bank.batches(2 * max(lengths), random.Random(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_some_requests_keep_all_tools_and_all_that_is_theirs(bank):
    part = some_of(bank, [6, 2])
    assert part.rows == (bank.rows[6], bank.rows[2])
    for each in ("candidates", "gold", "excluded", "asked", "filled"):
        assert torch.equal(getattr(part, each), getattr(bank, each)[[6, 2]])
    for each in ("tools", "parameters", "bodies", "kin"):
        assert getattr(part, each) is getattr(bank, each)


# Scores -------------------------------------------------------------------------------------------------------------


def test_own_tools_score_as_in_an_adapter_and_those_that_are_absent_or_right_too_have_no_say(bank, nets):
    keys, head = nets
    requests = torch.randn(len(bank), 4 * HIDDEN)
    scores = key_scores(keys, head, bank, torch.arange(len(bank)), requests)
    for toolset, rows in ((HOME, range(6)), (OTHER, range(6, 8))):
        unit = keys(torch.stack([reading.tool for reading in made_up_readings([*toolset.tools])]))
        expected = head.key_scores(requests[rows], unit)
        tools = len(toolset.tools)
        own = scores[rows][:, [*range(tools), 3]].clone()
        assert (scores[rows][:, tools:3] == ABSENT).all()
        if toolset is HOME:
            assert own[5, 2] == ABSENT
            own[5, 2] = expected[5, 2]
        assert torch.allclose(own, expected, atol=1e-5)


def test_foreign_tools_of_the_same_service_or_the_same_description_have_no_say(bank, nets):
    keys, head = nets
    requests = torch.randn(len(bank), 4 * HIDDEN)
    foreign = torch.tensor([0, 1, 2, 3, 4])
    scores = key_scores(keys, head, bank, torch.arange(len(bank)), requests, foreign=foreign)[:, 4:]
    # HOME has its own, a lamp in the words of its light, and music of the service of its song.
    assert (scores[:6] == ABSENT).all()
    # For OTHER, of both of which HOME has another wording, the stop alone is foreign.
    assert (scores[6:] == ABSENT).tolist() == [[True, True, False, True, True]] * 2
    unit = keys.tool(bank.tools[2:3])
    assert torch.allclose(scores[6:, 2], head.key_scores(requests[6:], unit)[:, 0], atol=1e-5)


@pytest.mark.parametrize("fate", ["taken away", "strange", "as it is"])
def test_where_the_right_tool_is_not_there_words_are_right(bank, nets, monkeypatch, fate):
    keys, head = nets
    monkeypatch.setattr(second, "TAKEN_AWAY", 1.0 if fate == "taken away" else 0.0)
    monkeypatch.setattr(second, "STRANGE", 1.1 if fate == "strange" else -1.0)
    # Stop is of no service here, so that some requests may be asked of the other toolset.
    rows, requests = torch.tensor([0, 6]), torch.randn(2, 4 * HIDDEN)
    apart = replace(bank, kin=torch.zeros_like(bank.kin))
    before = {f.name: getattr(apart, f.name) for f in fields(apart) if f.name != "rows"}
    before = {name: tensor.clone() for name, tensor in before.items()}
    dice = torch.Generator().manual_seed(4)  # of two rows, one where they change places
    loss = second.choice_loss(keys, head, apart, rows, requests, dice, foreign=0)
    gold, excluded, candidates = bank.gold[rows], bank.excluded[rows].clone(), bank.candidates[rows]
    if fate == "taken away":
        excluded[[0, 1], gold] = True
    if fate == "strange":
        candidates = candidates.flip(0)
    scores = key_scores(keys, head, apart, rows, requests, excluded=excluded, candidates=candidates)
    right = gold if fate == "as it is" else torch.tensor([3, 3])
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(scores, right))
    assert all(torch.equal(getattr(apart, name), tensor) for name, tensor in before.items())


def test_needs_are_learned_from_the_requests_that_ask_for_them_alone(bank, nets, tiny_gemma):
    keys, head = nets
    read = read_rows(tiny_gemma, bank.rows)
    loss = need_loss(keys, head, bank, torch.arange(len(bank)), read)
    total = []
    for row in range(len(bank)):
        for at, filled in zip(bank.asked[row].tolist(), bank.filled[row].tolist(), strict=True):
            if at >= 0:
                need = keys.need(bank.parameters[at][None])
                said = head.evidence(read.words[row][None], read.inside[row][None], need)[0, 0]
                total.append(-torch.nn.functional.logsigmoid(said if filled else -said))
    assert torch.allclose(loss, torch.stack(total).mean(), atol=1e-5)
    nothing = torch.tensor([3, 4])
    assert need_loss(keys, head, bank, nothing, second.chosen(read, nothing)) == 0


# Reading ------------------------------------------------------------------------------------------------------------


def test_a_request_is_read_alike_alone_in_a_batch_and_in_training_with_names_behind_it(
    bank, tiny_gemma, tiny_tokenizer, nets
):
    _, head = nets
    every, whole = read_rows(tiny_gemma, bank.rows), read_bank(tiny_gemma, bank)
    seen = []
    head.query.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0][0]))
    head.found.register_forward_hook(lambda _, inputs, out: seen.append(inputs[0][0]))
    tree = NameTree.of(tiny_tokenizer, HOME.names)
    for row in range(6):
        (features, words, inside) = vars(read_rows(tiny_gemma, [bank.rows[row]])).values()
        length = len(bank.rows[row].prefix)
        assert inside[0].nonzero().flatten().tolist() == list(range(1, bank.rows[row].turn[1]))
        assert torch.equal(every.inside[row, :length], inside[0])
        assert not every.inside[row, length:].any()
        assert torch.allclose(every.features[row], features[0], atol=1e-4)
        assert torch.allclose(every.words[row, :length], words[0], atol=1e-4)
        assert torch.allclose(whole.features[row], features[0], atol=1e-4)
        assert torch.equal(whole.inside[row, :length], inside[0])
        assert torch.allclose(whole.words[row, :length].float()[inside[0]], words[0][inside[0]], atol=1e-2)
        seen.clear()
        batch = collate([bank.rows[row], empty_row(tiny_tokenizer)], tree, 0)
        score(tiny_gemma, head, batch, torch.ones(4, 8), (torch.ones(1, 6), torch.tensor([0])))
        trained_words, trained_features = sorted(seen[:2], key=lambda each: each.dim(), reverse=True)
        assert torch.allclose(trained_features, features[0], atol=1e-4)
        assert torch.allclose(trained_words[:length][inside[0]], words[0][inside[0]], atol=1e-4)


# Data ---------------------------------------------------------------------------------------------------------------


def test_asked_vaguely_words_are_right_exactly_where_something_is_required():
    toolset = Toolset(tools=(*HOME.tools, tool("go", "Go")))
    asked_vaguely = vague(Composition(toolset, EXAMPLES, opaque=True))
    assert (asked_vaguely.toolset, asked_vaguely.opaque) == (toolset, True)
    calls = {each.request: [call.name for call in each.calls] for each in asked_vaguely.examples}
    assert len(calls) == 3, "a description of one word makes no request"
    for request, names in calls.items():
        (about,) = [t for t in HOME.tools if t.description[1:] in request]
        assert names == ([] if required(about) else [about.name])


def test_kin_are_the_tools_that_describe_one_service_in_several_wordings(data):
    (source, _) = read_sources(data)[0]
    name, toolset = next(iter(source.toolsets.items()))
    other = Toolset(tools=(tool("words", "The same in other words"),))
    source = replace(source, toolsets=source.toolsets | {f"{name}@v2": other})
    kin = Kinships([source])
    (shared,) = {tuple(kin(each)) for each in (*toolset.tools, *other.tools)}
    assert len(shared) == 1
    assert not kin(STOP)


# Runs ---------------------------------------------------------------------------------------------------------------


def test_a_run_can_start_from_the_experts_of_another(trainer, tmp_path, tiny_tokenizer):
    run = trainer("first")
    save_checkpoint(run.generator, tmp_path / "first")
    left = load_checkpoint(tmp_path / "first", cloud=run.edge, edge=run.edge, tokenizer=tiny_tokenizer)
    fresh, begun = trainer("second", seed=7), trainer("second", seed=7, start=tmp_path / "first")
    for name, tensor in begun.generator.state_dict().items():
        taken = name.split(".")[0] in ("pool", "router", "reader")
        expected = left if taken else fresh.generator
        assert torch.equal(tensor, expected.state_dict()[name]), name
    assert not torch.equal(begun.generator.pool.A["up_proj"], fresh.generator.pool.A["up_proj"])
    begun.train_step(), begun.train_step()  # the first is of the warm-up: it moves nothing
    moved = begun.generator.pool.B["up_proj"]
    assert not torch.equal(moved, left.pool.B["up_proj"]), "what was taken is trained on"


def test_a_start_that_does_not_fit_is_a_clear_error(trainer, tmp_path):
    run = trainer("first")
    with pytest.raises(CheckpointError, match="no generator checkpoint"):
        trainer("second", start=tmp_path / "first")
    save_checkpoint(run.generator, tmp_path / "first")
    for options in ({"experts": 3}, {"rank": 3}, {"kind": "shared_lora"}):
        with pytest.raises(CheckpointError, match="lacks 'pool") as error:
            trainer("second", start=tmp_path / "first", **options)
        assert "same models, experts and rank" in str(error.value)
    before = {name: tensor.clone() for name, tensor in run.generator.state_dict().items()}
    weights = tmp_path / "first" / "generator.safetensors"
    whole = weights.read_bytes()
    for damage in (lambda: weights.write_bytes(whole[: len(whole) // 2]), weights.unlink):
        damage()
        with pytest.raises(CheckpointError, match="cannot read"):
            load_parts(run.generator, tmp_path / "first", ("pool",))
    assert all(torch.equal(before[name], tensor) for name, tensor in run.generator.state_dict().items())


def test_what_the_cloud_makes_of_the_bank_is_read_once_and_kept_beside_the_run(trainer, monkeypatch):
    from agent_specializer.loragen import generator

    read, passes = generator.read_tools, []

    def counted(model, tokenizer, tools, *, batch=1):
        if batch > 1:
            passes.append(len(tools))
        return read(model, tokenizer, tools, batch=batch)

    monkeypatch.setattr(generator, "read_tools", counted)
    run = trainer(steps=2)
    run.run(stop_after=0.0)
    assert sum(passes) >= len(run.bank.tools)
    assert (run.out / "readings.pt").exists()
    passes.clear()
    again = trainer(steps=2)
    again.run(resume=True)
    assert not any(passes)
    assert torch.equal(run.bank.tools, again.bank.tools)
    assert torch.equal(run.bank.parameters, again.bank.parameters)
