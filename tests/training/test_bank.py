"""The bank of requests: every one in its turn, against tools that are surely wrong, read as the engine reads them."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from agent_specializer.edge.choose import NameTree
from agent_specializer.errors import CheckpointError
from agent_specializer.examples import Example
from agent_specializer.loragen.checkpoint import load_checkpoint, load_parts, save_checkpoint
from agent_specializer.loragen.toolkeys import ChoiceHead, ToolKeys, ToolReading, stacked
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training import bank as banks
from agent_specializer.training import keys as second
from agent_specializer.training.bank import (
    ABSENT,
    Read,
    chosen,
    fill,
    key_scores,
    read_bank,
    read_rows,
    some_of,
)
from agent_specializer.training.data import Composition, Kinships, read_sources
from agent_specializer.training.made_up import MADE_UP
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
    """Each tool has random words of its own, and another number of them."""
    readings = []
    for number, each in enumerate(tools):
        dice = torch.Generator().manual_seed(int(each.fingerprint[:8], 16))
        names = each.parameters.get("properties") or {}
        words = torch.randn(2 + number + 2 * len(names), HIDDEN, generator=dice)
        readings.append(ToolReading(torch.nn.functional.normalize(words, dim=-1).bfloat16()))
    return readings


def made_up_read(rows: int, seed: int = 0) -> Read:
    """What an edge might make of requests of several lengths, of which the newest turn is a part."""
    dice = torch.Generator().manual_seed(seed)
    words = torch.nn.functional.normalize(torch.randn(rows, 9, HIDDEN, generator=dice), dim=-1)
    place, length = torch.arange(9), 9 - torch.arange(rows)[:, None] % 4
    inside = (place >= 1) & (place < length)
    return Read(words, inside, inside & (place >= 3))


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
    keys = ToolKeys(HIDDEN, key_dim=8).requires_grad_(False)
    head = ChoiceHead(HIDDEN, 8).requires_grad_(False)
    for weight in (keys.tool.weight.weight, head.query.weight.weight):
        weight.normal_(std=0.5)
    return keys, head


SPECS = (*HOME.tools, *OTHER.tools)
"""In the order of the bank's tools."""


# What is in it ------------------------------------------------------------------------------------------------------


def test_a_request_points_at_its_toolset_and_its_right_tool(bank):
    words, inside = stacked(made_up_readings([*SPECS]))
    assert torch.equal(bank.tools, words)
    assert torch.equal(bank.present, inside)
    assert bank.present.sum(1).tolist() == [8, 7, 4, 7, 8]
    assert bank.candidates.tolist() == [[0, 1, 2]] * 6 + [[3, 4, -1]] * 2
    assert bank.gold.tolist() == [0, 0, 1, 3, 2, 0, 0, 1], "3 is answering in words"
    assert bank.excluded.nonzero().tolist() == [[5, 2]], "the other call of the turn"


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
    for each in ("candidates", "gold", "excluded"):
        assert torch.equal(getattr(part, each), getattr(bank, each)[[6, 2]])
    for each in ("tools", "present", "bodies", "kin"):
        assert getattr(part, each) is getattr(bank, each)


# Scores -------------------------------------------------------------------------------------------------------------


def test_own_tools_score_as_in_an_adapter_and_those_that_are_absent_or_right_too_have_no_say(bank, nets):
    keys, head = nets
    read = made_up_read(len(bank))
    scores = key_scores(keys, head, bank, torch.arange(len(bank)), read)
    every = dict(zip(SPECS, made_up_readings([*SPECS]), strict=True))
    for toolset, rows in ((HOME, range(6)), (OTHER, range(6, 8))):
        of_tools = keys(*stacked([every[spec] for spec in toolset.tools]))
        expected = head.key_scores(head.read(read.words[rows], read.newest[rows]), of_tools)
        tools = len(toolset.tools)
        own = scores[rows][:, :tools].clone()
        assert (scores[rows][:, tools:3] == ABSENT).all()
        if toolset is HOME:
            assert own[5, 2] == ABSENT
            own[5, 2] = expected[5, 2]
        assert torch.allclose(own, expected, atol=1e-5)


def test_foreign_tools_of_the_same_service_or_the_same_description_have_no_say(bank, nets):
    keys, head = nets
    read = made_up_read(len(bank))
    foreign = torch.tensor([0, 1, 2, 3, 4])
    scores = key_scores(keys, head, bank, torch.arange(len(bank)), read, foreign=foreign)[:, 3:]
    # HOME has its own, a lamp in the words of its light, and music of the service of its song.
    assert (scores[:6] == ABSENT).all()
    # For OTHER, of both of which HOME has another wording, the stop alone is foreign.
    assert (scores[6:] == ABSENT).tolist() == [[True, True, False, True, True]] * 2
    stop = keys(bank.tools[2:3], bank.present[2:3])
    expected = head.key_scores(head.read(read.words[6:], read.newest[6:]), stop)
    assert torch.allclose(scores[6:, 2], expected[:, 0], atol=1e-5)


def test_some_rows_score_as_among_all_and_by_their_newest_turn_alone(bank, nets):
    keys, head = nets
    read, foreign = made_up_read(len(bank)), torch.tensor([0, 2, 4])
    every = key_scores(keys, head, bank, torch.arange(len(bank)), read, foreign=foreign)
    some = torch.tensor([6, 2, 0])
    part = chosen(read, some)
    assert torch.allclose(key_scores(keys, head, bank, some, part, foreign=foreign), every[some], atol=1e-5)
    strange = torch.where(read.newest[..., None], read.words, made_up_read(len(bank), seed=1).words)
    other = replace(read, words=strange)
    assert torch.allclose(
        key_scores(keys, head, bank, torch.arange(len(bank)), other, foreign=foreign), every, atol=1e-5
    )
    all_said = replace(read, newest=read.inside)
    scores = key_scores(keys, head, bank, torch.arange(len(bank)), all_said, foreign=foreign)
    assert not torch.allclose(scores, every, atol=1e-2), "earlier turns make no difference"


def test_chosen_rows_lose_what_is_padding_in_all_of_them():
    read = made_up_read(4)
    some = chosen(replace(read, words=read.words.bfloat16()), torch.tensor([3, 2]))
    assert some.words.shape == (2, 7, HIDDEN)
    assert some.words.dtype == torch.float32
    assert torch.equal(some.words, read.words[[3, 2], :7].bfloat16().float())
    assert torch.equal(some.inside, read.inside[[3, 2], :7])
    assert torch.equal(some.newest, read.newest[[3, 2], :7])


def test_dropout_is_of_both_sides_and_none_unless_asked_for(bank, nets):
    keys, head = nets
    rows, read = torch.arange(len(bank)), made_up_read(len(bank))
    plain, again = (key_scores(keys, head, bank, rows, read) for _ in range(2))
    assert torch.equal(plain, again)
    assert not torch.allclose(key_scores(keys, head, bank, rows, read, dropout=0.3), plain, atol=1e-2)


def test_the_right_tool_is_told_apart_from_its_own_and_foreign_ones_where_one_is_right(bank, nets):
    keys, head = nets
    rows, read = torch.tensor([0, 3, 6]), made_up_read(3)
    foreign = torch.randint(5, (4,), generator=torch.Generator().manual_seed(4))
    loss = second.choice_loss(keys, head, bank, rows, read, torch.Generator().manual_seed(4), foreign=4)
    scores = key_scores(keys, head, bank, rows, read, foreign=foreign)[[0, 2]]
    assert torch.allclose(loss, torch.nn.functional.cross_entropy(scores, bank.gold[[0, 6]]))
    nothing = torch.tensor([3])
    assert second.choice_loss(keys, head, bank, nothing, made_up_read(1), torch.Generator()) == 0


def test_how_a_request_sounds_is_learned_from_first_choices_both_kinds_counting_alike(bank, nets):
    _, head = nets
    read = made_up_read(len(bank))
    later = replace(bank.rows[4], called=True)
    bank = replace(bank, rows=(*bank.rows[:4], later, *bank.rows[5:]))
    loss = second.talk_loss(head, bank, torch.arange(len(bank)), read)
    talk, sigmoid = head.read(read.words, read.newest).talk, torch.nn.functional.logsigmoid
    calls = [
        second.SOFT * -sigmoid(talk[i]) + (1 - second.SOFT) * -sigmoid(-talk[i]) for i in (0, 1, 2, 5, 6, 7)
    ]
    expected = (torch.stack(calls).mean() - sigmoid(talk[3])) / 2
    assert torch.allclose(loss, expected, atol=1e-5)
    head.talk.weight.requires_grad_(True)
    second.talk_loss(head, bank, torch.tensor([4]), second.chosen(read, torch.tensor([4]))).backward()
    assert not head.talk.weight.grad.any(), "a later choice"


# Reading ------------------------------------------------------------------------------------------------------------


def test_a_request_is_read_alike_alone_in_a_batch_and_in_training_with_names_behind_it(
    bank, tiny_gemma, tiny_tokenizer, nets
):
    _, head = nets
    every, whole = read_rows(tiny_gemma, bank.rows), read_bank(tiny_gemma, bank)
    assert whole.words.dtype == torch.bfloat16
    seen = []
    head.query.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0][0], inputs[1][0])))
    tree = NameTree.of(tiny_tokenizer, HOME.names)
    for row in range(6):
        (words, inside, newest) = (part[0] for part in vars(read_rows(tiny_gemma, [bank.rows[row]])).values())
        length, (start, end) = len(bank.rows[row].prefix), bank.rows[row].turn
        assert inside.nonzero().flatten().tolist() == list(range(1, end))
        assert newest.nonzero().flatten().tolist() == list(range(start, end))
        for read, close in ((every, 1e-4), (whole, 1e-2)):
            assert torch.equal(read.inside[row, :length], inside)
            assert torch.equal(read.newest[row, :length], newest)
            assert not read.inside[row, length:].any()
            assert not read.newest[row, length:].any()
            assert torch.allclose(read.words[row, :length].float()[inside], words[inside], atol=close)
        seen.clear()
        batch = collate([bank.rows[row], empty_row(tiny_tokenizer)], tree, 0)
        score(tiny_gemma, head, batch, torch.ones(3, 2, 8))
        (trained, turn) = seen[0]
        assert torch.allclose(trained[:length][inside], words[inside], atol=1e-4)
        assert torch.equal(turn[:length], newest)
        assert not turn[length:].any()


def test_an_earlier_turn_is_read_and_does_not_belong_to_the_newest(tiny_gemma, tiny_tokenizer):
    earlier = (
        Message(role="user", content="play"),
        Message(role="assistant", calls=(Call(name="song"),)),
        Message(role="tool", name="song", content="ok"),
        Message(role="assistant", content="Done."),
    )
    example = Example("x", (*earlier, Message(role="user", content="stop")), (Call(name="stop"),))
    tree = NameTree.of(tiny_tokenizer, HOME.names)
    row = banks.example_row(tiny_tokenizer, example, HOME, tree, random.Random(1), arguments=False)
    read = read_rows(tiny_gemma, [row])
    said = [
        tiny_tokenizer.decode(
            [token for token, there in zip(row.prefix, of[0].tolist(), strict=True) if there]
        )
        for of in (read.inside, read.newest)
    ]
    assert said[0].startswith("User: play\nCall: song\n")
    assert said[1] == "User: stop\nCall:"
    assert said[0].endswith(said[1])


# Data ---------------------------------------------------------------------------------------------------------------


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
