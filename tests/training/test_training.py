"""Training: what is drawn is determined by the seed, only the generator moves, a cut run resumes exactly."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch

from agent_specializer.edge.attention import PAD
from agent_specializer.edge.choose import NameTree
from agent_specializer.edge.transcript import EMPTY, render
from agent_specializer.errors import CheckpointError, ConfigError, IntakeError
from agent_specializer.examples import Example
from agent_specializer.loragen import load_checkpoint
from agent_specializer.loragen.models import decoder
from agent_specializer.loragen.router import balance_loss
from agent_specializer.messages import Call, Message
from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.training import stages
from agent_specializer.training.calibrate import scored
from agent_specializer.training.data import Composition, Compositions, Source, read_sources
from agent_specializer.training.objective import BALANCE_WEIGHT, loss
from agent_specializer.training.rows import IGNORE, collate, empty_row, example_row


def test_sources_never_open_test_files_and_make_up_requests_for_bare_tools(data):
    train, _ = read_sources(data)
    assert {source.name for source in train} == {"set", "bare"}
    bare = next(source for source in train if source.name == "bare")
    assert bare.choice_only
    assert len(bare.examples) == 6


def test_no_examples_is_a_clear_error(tmp_path):
    with pytest.raises(IntakeError, match="no training examples"):
        read_sources(tmp_path)


def test_dev_families_are_disjoint_from_training(data):
    train, dev = read_sources(data)
    trained = {id_ for source in train for id_ in source.by_toolset}
    held_out = {id_ for source in dev for id_ in source.by_toolset}
    assert not trained & held_out


def test_a_composition_depends_on_seed_and_number_alone(data):
    train, _ = read_sources(data)
    first, again = Compositions(train, seed=5), Compositions(train, seed=5)
    expected = [first[i] for i in range(6)]
    assert [again[i] for i in reversed(range(6))][::-1] == expected
    assert [Compositions(train, seed=6)[i] for i in range(6)] != expected


def test_every_call_of_a_composition_is_in_its_toolset_also_when_opaque(data):
    train, _ = read_sources(data)
    for share in (0.0, 1.0):
        compositions = Compositions(train, seed=0, opaque_share=share)
        for i in range(20):
            composition = compositions[i]
            names = set(composition.toolset.names)
            assert {c.name for e in composition.examples for c in e.calls} <= names
            assert all(name.startswith("tool_") for name in names) == (share == 1.0)


def test_a_row_scores_each_branch_as_if_it_stood_alone(make_tiny_gemma, tiny_tokenizer):
    """The packed row's log-probabilities equal those of separate passes over prefix + name."""
    from agent_specializer.loragen.toolkeys import ChoiceHead
    from agent_specializer.training.objective import score

    model = make_tiny_gemma()
    names = ("set_light", "get", "getter")
    tools = tuple(
        ToolSpec(name=name, description="d", parameters={"properties": {"a": {"type": "string"}}})
        for name in names
    )
    toolset = Toolset(tools=tools)
    tree = NameTree.of(tiny_tokenizer, toolset.names)
    example = Example(
        "x", (Message(role="user", content="light please"),), (Call(name="set_light", arguments={"a": "b"}),)
    )
    rows = [example_row(tiny_tokenizer, example, toolset, tree, random.Random(1)), empty_row(tiny_tokenizer)]
    batch = collate(rows, tree, 0)
    scores = score(model, ChoiceHead(16, 0), batch, torch.empty(0, 0, 0))

    def alone(text: str, label: tuple[int, ...]) -> float:
        prefix = tiny_tokenizer(text).input_ids
        ids = torch.tensor([prefix + list(label)])
        logp = torch.log_softmax(model(ids).logits[0].float(), -1)
        return float(sum(logp[len(prefix) - 1 + i, token] for i, token in enumerate(label)))

    expected = [alone(render(example.messages), label) - alone(EMPTY, label) for label in tree.labels]
    assert torch.allclose(scores.names[0], torch.tensor(expected), atol=1e-4)
    # The reply is supervised as if it followed its own name alone.
    prefix = tiny_tokenizer(render(example.messages)).input_ids
    sequence = prefix + list(tree.labels[rows[0].gold]) + list(rows[0].reply)
    logp = torch.log_softmax(model(torch.tensor([sequence])).logits[0].float(), -1)
    start = len(sequence) - len(rows[0].reply)
    nll = -sum(float(logp[i - 1, sequence[i]]) for i in range(start, len(sequence))) / len(rows[0].reply)
    assert abs(float(scores.reply_nll) - nll) < 1e-4
    assert (batch.segments == PAD).sum() == batch.ids.numel() - batch.tokens
    assert int((batch.targets != IGNORE).sum()) == len(rows[0].reply)


def test_training_and_the_engine_score_a_request_alike(make_tiny_gemma, tiny_tokenizer):
    """Query and sum, of the newest turn, with an earlier one in front of it and the tools' names behind it."""
    from agent_specializer.edge.engine import EdgeEngine
    from agent_specializer.loragen import Adapter, ExpertPool, shape_of
    from agent_specializer.loragen.toolkeys import ChoiceHead
    from agent_specializer.training.objective import score

    model = make_tiny_gemma()
    toolset = Toolset(tools=tuple(ToolSpec(name=name, description="d") for name in ("a", "light", "lights")))
    tree = NameTree.of(tiny_tokenizer, toolset.names)
    earlier = (
        Message(role="user", content="a User: b"),
        Message(role="assistant", calls=(Call(name="light"),)),
        Message(role="tool", name="light", content="ok"),
        Message(role="assistant", content="Done."),
    )
    torch.manual_seed(0)
    head = ChoiceHead(16, 8).eval().requires_grad_(False)
    head.query.weight.weight.normal_()
    queries: list[torch.Tensor] = []  # the vectors of the words that are compared
    head.query.register_forward_hook(lambda _, inputs, out: queries.append(out[0][out[0].norm(dim=-1) > 0]))
    keys = torch.nn.functional.normalize(torch.randn(3, 2, 8), dim=-1)
    keys = keys * torch.tensor([[0.3], [0.7]])
    pool = ExpertPool(shape_of(model), experts=2, rank=1, alpha=1.0, dropout=0.0)
    adapter = Adapter(
        gates=torch.zeros(pool.layers, pool.experts),
        names=toolset.names,
        keys=keys,
        toolset=toolset.fingerprint,
        generator="g",
    )
    for before in ((), earlier):
        queries.clear()
        messages = (*before, Message(role="user", content="dim the lights"))
        example = Example("x", messages, (Call(name="lights"),))
        row = next(
            row
            for seed in range(50)
            if not (row := example_row(tiny_tokenizer, example, toolset, tree, random.Random(seed))).called
        )
        batch = collate([row, empty_row(tiny_tokenizer)], tree, 0)
        trained = score(model, head, batch, keys)
        reply = EdgeEngine(model, tiny_tokenizer, pool=pool, head=head).reply(
            messages, toolset, adapter=adapter
        )
        # The engine's first choice; others may follow.
        assert len(queries[0]) == row.turn[1] - row.turn[0]
        assert torch.allclose(queries[0], queries[1], atol=1e-4)
        scores = {choice.name: choice.score for choice in reply.choices}
        expected = dict(zip((*toolset.names, None), trained.total[0].tolist(), strict=True))
        assert scores == pytest.approx(expected, abs=1e-3)
        said = tiny_tokenizer.decode(row.prefix[row.turn[0] : row.turn[1]])
        assert said == "User: dim the lights\nCall:"


def test_a_row_knows_whether_it_ends_in_a_result(tiny_tokenizer):
    toolset = Toolset(tools=tuple(ToolSpec(name=name, description="d") for name in ("light", "song")))
    tree = NameTree.of(tiny_tokenizer, toolset.names)
    asked = Message(role="user", content="light and song")
    made = (
        Message(role="assistant", calls=(Call(name="light"),)),
        Message(role="tool", name="light", content="ok"),
    )
    for messages, calls in (((asked,), ("light", "song")), ((asked, *made), ("song",))):
        example = Example("x", messages, tuple(Call(name=name) for name in calls))
        rows = [
            example_row(tiny_tokenizer, example, toolset, tree, random.Random(seed)) for seed in range(40)
        ]
        found = {(len(row.made), row.answered) for row in rows}
        results = len(messages) > 1
        assert found == ({(1, True), (2, False)} if results else {(0, False), (1, False), (2, False)})
        assert collate(rows, tree, 0).answered.tolist() == [row.answered for row in rows]


def test_training_moves_the_generator_and_nothing_else(trainer):
    run = trainer()
    frozen = {name: p.clone() for name, p in run.edge.named_parameters()}
    before = {name: p.clone() for name, p in run.generator.named_parameters()}
    run.train_step()
    run.train_step()
    assert all(torch.equal(frozen[name], p) for name, p in run.edge.named_parameters())
    moved = {
        name.split(".")[0] for name, p in run.generator.named_parameters() if not torch.equal(before[name], p)
    }
    assert moved == {"pool", "head", "reader", "router", "keys"}


def test_a_step_s_gradients_are_those_of_the_whole_loss(trainer):
    """Each composition is differentiated by itself."""
    run = trainer(per_step=2, clip=1e9)
    other = trainer("other", per_step=2)
    run.train_step()
    other.generator.train()
    drawn = []
    for number in other.compositions(0):
        rng = random.Random(f"{other.options.seed}/step/0/{number}")
        torch.manual_seed(rng.getrandbits(32))
        drawn.append((other.train_set[number], other.batch(other.train_set[number], rng)))
    gates = other.gates([composition.toolset for composition, _ in drawn])
    total = BALANCE_WEIGHT * balance_loss(gates)
    for (composition, batch), row in zip(drawn, gates, strict=True):
        scores = other.scores(composition.toolset, batch, row)
        total = total + loss(scores, batch, opaque=composition.opaque) / len(drawn)
    total.backward()
    expected = {name: p.grad for name, p in other.generator.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in run.generator.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-3, atol=1e-6), name


@pytest.fixture
def one_thread():
    """Sums that are split among threads differ in their last bit from run to run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_cut_run_resumes_to_the_same_weights(trainer, finished):
    whole = finished
    cut = trainer("cut")
    cut.run(stop_after=0.0)
    assert cut.step < whole.step
    resumed = trainer("cut")
    resumed.run(resume=True)
    for (name, a), (_, b) in zip(
        whole.generator.state_dict().items(), resumed.generator.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    assert [row.get("loss") for row in resumed.history] == [row.get("loss") for row in whole.history]


def test_a_finished_run_is_not_overwritten_and_other_options_do_not_resume(trainer, make_trainer, finished):
    with pytest.raises(ConfigError, match="holds a run"):
        make_trainer(finished.out).run()
    with pytest.raises(ConfigError, match="lr"):
        make_trainer(finished.out, lr=5e-4).run(resume=True)
    with pytest.raises(CheckpointError, match="no run to resume"):
        trainer("elsewhere").run(resume=True)


@pytest.mark.parametrize("kind", ["generator", "shared_lora", "prompted_lora"])
def test_a_run_leaves_a_checkpoint_that_loads(trainer, finished, tiny_tokenizer, kind):
    run = finished
    if kind != "generator":
        run = trainer(kind=kind)
        run.run()
    generator = load_checkpoint(run.out, cloud=run.edge, edge=run.edge, tokenizer=tiny_tokenizer)
    adapter = generator.generate(Toolset(tools=(ToolSpec(name="a"), ToolSpec(name="b"))))
    assert torch.allclose(adapter.gates.sum(-1), torch.ones(len(adapter.gates)))
    assert len(adapter.keys) == (2 if kind == "generator" else 0)


def test_training_learns(trainer):
    """On three compositions, seen over and over, the loss falls by a third and every layer's experts are used."""
    run = trainer(steps=30, lr=1e-2, dev_every=100, save_every=100)
    run.run()
    losses = [row["loss"] for row in run.history if "loss" in row]
    assert sum(losses[-3:]) < 0.67 * sum(losses[:3])
    assert all(p.abs().sum() > 0 for p in run.generator.pool.B.values())
    assert decoder(run.edge) is not None


def test_when_calls_are_complete_is_learned_from_held_out_requests_for_several(trainer):
    """Of these only what stands behind a call counts."""
    run = trainer()
    assert not stages._several(run), "none of this data asks for several"
    one = run.dev_sources[0]
    example = one.examples[0]
    other = next(e for e in one.examples if e.toolset_id == example.toolset_id and e.calls != example.calls)
    both = replace(example, calls=(*example.calls, *other.calls))
    run.dev_sources = [Source(one.name, one.toolsets, [*one.examples, both])]
    found = stages._several(run)
    assert len(found) == run.options.calibration_compositions // 2
    assert {len(asked.calls) for each in found for asked in each.examples} == {2}
    part = scored(run, found[0], 0)
    some = replace(part, called=torch.arange(len(part.gold)) % 2 == 0)
    assert torch.equal(stages._after_a_call(some).weight, some.called.float())


def test_scalars_behind_a_call_are_fitted_on_conversations_of_several_draws(trainer, monkeypatch):
    run = trainer()
    found: list[list[Composition]] = []
    monkeypatch.setattr(stages, "scored", lambda _, composition, __: found[-1].append(composition))
    monkeypatch.setattr(stages, "_after_a_call", lambda part: part)
    for draws in (1, 1, 2):
        monkeypatch.setattr(stages, "DRAWS", draws)
        found.append([])
        stages._behind_calls(run)
    once, again, twice = found
    assert once
    assert once == again, "the same draw makes the same"
    assert twice[: len(once)] == once
    assert len(twice) == 2 * len(once)
    assert not any(composition in once for composition in twice[len(once) :])


def test_the_second_stage_fits_keys_to_requests(trainer):
    """Keys alone choose the right tool of a toolset that was fitted, where before they chose at random."""
    run = trainer(key_compositions=8, key_examples=8, key_epochs=30, key_lr=1e-2)
    run.run()
    assert run.finished
    fitted = next(row for row in run.history if row.get("stage") == "keys")
    assert fitted["keys_train_tool"] > 0.5  # six to twelve tools each: chance is below 0.17
    assert fitted["ask"] == pytest.approx(run.generator.head.ask.item())
    assert fitted["ask"] >= 0
    assert fitted["temperature"] > 0


def test_a_run_of_no_steps_fits_keys_and_scalars_to_the_experts_that_it_starts_with(trainer, finished):
    run = trainer(start=finished.out, steps=0, seed=1)
    experts = {name: value.clone() for name, value in run.generator.pool.named_parameters()}
    before = {name: value.clone() for name, value in run.generator.head.named_parameters()}
    run.run()
    assert run.finished
    assert all(torch.equal(value, experts[name]) for name, value in run.generator.pool.named_parameters())
    after = dict(run.generator.head.named_parameters())
    assert all(
        not torch.equal(after[name], before[name]) for name in ("log_alpha", "words_bias", "talk.weight")
    )


def test_experts_and_keys_of_a_finished_checkpoint_are_trained_on_and_its_loras_stay(trainer, finished):
    run = trainer(start=finished.out, only="experts", steps=3, seed=1)
    before = {name: value.clone() for name, value in run.generator.state_dict().items()}
    kept = finished.generator.state_dict()
    assert all(torch.allclose(value, kept[n], atol=0.02, rtol=0.01) for n, value in before.items())
    run.run()
    assert run.finished
    assert [row["step"] for row in run.history if "loss" in row] == [1, 2, 3]
    moved = {
        name.split(".")[0]
        for name, value in run.generator.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"pool", "router", "reader", "keys", "head"}
    card = json.loads((run.out / "generator.json").read_text())["card"]
    assert (card["steps_done"], card["options"]["seed"]) == (3, 1)
    assert (card["before"]["steps_done"], card["before"]["options"]["seed"]) == (4, 0)
    assert card["arguments"]["steps_done"] == 2
    with pytest.raises(ConfigError, match="no part 'experts' to train"):
        trainer(out="none", only="experts")


@pytest.mark.usefixtures("one_thread")
def test_such_a_run_is_resumed_as_another(trainer, finished):
    start = {"start": finished.out, "only": "experts", "steps": 4, "seed": 1}
    whole, cut, resumed = trainer("whole", **start), trainer("cut", **start), trainer("cut", **start)
    whole.run()
    cut.run(stop_after=0.0)
    assert cut.step == 1
    resumed.run(resume=True)
    expected = whole.generator.state_dict()
    for name, value in resumed.generator.state_dict().items():
        assert torch.equal(value, expected[name]), name
