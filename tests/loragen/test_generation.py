"""LoRA-Gen on tiny random models: what the paper says of gates, passes, batches and experts holds to the letter."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load, save

from agent_specializer.errors import AdapterError, CheckpointError
from agent_specializer.loragen import (
    Adapter,
    Generator,
    GeneratorConfig,
    load_checkpoint,
    save_checkpoint,
    shape_of,
)
from agent_specializer.loragen.adapter import rounded
from agent_specializer.loragen.cloud import tokenize
from agent_specializer.loragen.experts import ExpertPool
from agent_specializer.loragen.models import LINEARS, decoder
from agent_specializer.loragen.router import Router
from agent_specializer.loragen.toolkeys import KEPT, ToolKeys, ToolReading, stacked
from agent_specializer.specs import Toolset, ToolSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

TOOLSETS = tuple(
    Toolset(
        tools=tuple(ToolSpec(name=name, description=f"does {name} " * times) for name in names),
        instructions=instructions,
    )
    for names, times, instructions in (
        (("set_light", "get_light"), 1, "You run a home."),
        (("get_weather",), 3, "You know the weather."),
        (("a", "b", "c", "d"), 2, ""),
    )
)
K, EXPERTS = 2, 5


@pytest.fixture
def generator(tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast) -> Generator:
    return make(tiny_gemma, tiny_gemma, tiny_tokenizer)


def make(
    cloud: PreTrainedModel, edge: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, **changes: object
) -> Generator:
    """A generator whose every part differs from its start, so that none of them can be left out unseen."""
    settings: dict[str, object] = {
        "cloud": shape_of(cloud),
        "edge": shape_of(edge),
        "experts": EXPERTS,
        "top_k": K,
        "rank": 2,
        "router_width": 8,
        "cloud_lora_rank": 2,
        "key_dim": 8,
    } | changes
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Generator(GeneratorConfig(**settings), cloud, tokenizer)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
            if made.config.routed:
                made.router.running_mean.normal_()
                made.router.running_var.uniform_(0.5, 2.0)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("toolset", TOOLSETS)
def test_gates_sum_to_one_with_k_not_zero(generator: Generator, toolset: Toolset) -> None:
    adapter = generator.generate(toolset)
    assert adapter.gates.shape == (3, EXPERTS)
    assert torch.allclose(adapter.gates.sum(-1), torch.ones(3))
    assert ((adapter.gates > 0).sum(-1) == K).all()
    assert (adapter.gates >= 0).all()


def test_gates_are_the_renormalised_top_k_of_the_softmax() -> None:
    router = Router(layers=2, hidden=6, width=4, experts=5, top_k=3).eval()
    states = torch.randn(1, 2, 6)
    p, gates = router.probabilities(states)[0], router(states)[0]
    for layer in range(2):
        top = p[layer].argsort(descending=True)[:3]
        assert torch.allclose(gates[layer, top], p[layer, top] / p[layer, top].sum())


@pytest.mark.parametrize("toolset", TOOLSETS)
def test_gates_take_one_forward_pass_of_the_cloud(generator: Generator, toolset: Toolset) -> None:
    passes = []
    hook = decoder(generator.cloud).register_forward_hook(lambda *_: passes.append(1))
    generator.gates(toolset)
    hook.remove()
    assert len(passes) == 1


def test_a_tool_is_read_once_for_all_toolsets(generator: Generator) -> None:
    generator.generate(TOOLSETS[0])
    passes = []
    hook = decoder(generator.cloud).register_forward_hook(lambda *_: passes.append(1))
    generator.generate(TOOLSETS[0])
    assert len(passes) == 1, "the description alone"
    more = Toolset(tools=(*TOOLSETS[0].tools, *TOOLSETS[1].tools))
    generator.generate(more)
    hook.remove()
    assert len(passes) == 3, "the description and the one tool that is new"


def test_a_generation_depends_neither_on_its_batch_nor_on_what_came_before(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    alone = [make(tiny_gemma, tiny_gemma, tiny_tokenizer).generate(toolset) for toolset in TOOLSETS]
    shared = make(tiny_gemma, tiny_gemma, tiny_tokenizer)
    backwards = [shared.generate(toolset) for toolset in reversed(TOOLSETS)][::-1]
    for one, other in zip(alone, backwards, strict=True):
        assert torch.equal(one.gates, other.gates)
        assert torch.equal(one.keys, other.keys)
    states = torch.randn(7, 3, 16)
    together = shared.router(states)
    for row in range(7):
        assert torch.allclose(shared.router(states[row : row + 1])[0], together[row], atol=1e-6)
    assert not torch.allclose(alone[0].gates, alone[1].gates, atol=1e-3)


def test_the_order_of_tools_does_not_matter(generator: Generator) -> None:
    turned = Toolset(tools=TOOLSETS[0].tools[::-1], instructions=TOOLSETS[0].instructions)
    assert torch.equal(generator.generate(turned).gates, generator.generate(TOOLSETS[0]).gates)
    back = [turned.names.index(name) for name in TOOLSETS[0].names]
    assert torch.equal(generator.generate(turned).keys[back], generator.generate(TOOLSETS[0]).keys)


# Keys ---------------------------------------------------------------------------------------------------------------


def made_keys(size: int = 5) -> ToolKeys:
    """Key networks whose weights differ from word to word."""
    torch.manual_seed(0)
    keys = ToolKeys(6, key_dim=size).requires_grad_(False)
    keys.tool.weight.weight.normal_(std=0.5)
    return keys


def read(*lengths: int) -> list[ToolReading]:
    """Tools of so many words each."""
    dice = torch.Generator().manual_seed(1)
    unit = torch.nn.functional.normalize
    words = [unit(torch.randn(length, 6, generator=dice), dim=-1).bfloat16() for length in lengths]
    return [ToolReading(each) for each in words]


def test_tools_are_stacked_behind_each_other_with_what_is_there() -> None:
    readings = read(3, 1, 5)
    words, inside = stacked(readings)
    assert (words.shape, words.dtype) == ((3, 5, 6), torch.bfloat16)
    assert inside.sum(1).tolist() == [3, 1, 5]
    for row, reading in enumerate(readings):
        assert torch.equal(words[row][inside[row]], reading.words)
        assert not words[row][~inside[row]].any()


def test_a_tools_key_weighs_one() -> None:
    keys = made_keys()(*stacked(read(3, 1, 5)))
    assert keys.shape == (3, 5, 5)
    lengths = keys.norm(dim=-1)
    assert torch.allclose(lengths.sum(1), torch.ones(3))
    assert (lengths > 0).sum(1).tolist() == [3, 1, 5]


def test_a_tools_key_does_not_depend_on_the_others() -> None:
    net, readings = made_keys(), read(3, 1, 5)
    keys = net(*stacked(readings))
    for row, reading in enumerate(readings):
        alone = net(*stacked([reading]))[0]
        assert torch.allclose(keys[row, : len(alone)], alone, atol=1e-6)


def test_the_vectors_that_weigh_most_are_kept_in_the_order_of_the_words() -> None:
    net = made_keys()
    words, inside = stacked(read(KEPT + 9, 4, KEPT))
    every, kept = net.tool(words.float(), inside), net(words, inside)
    assert kept.shape == (3, KEPT, 5)
    lightest = every[0].norm(dim=-1).argsort()[:9].tolist()
    heaviest = [at for at in range(KEPT + 9) if at not in lightest]
    assert min(lightest) < KEPT, "those that weigh least are the last: this test shows nothing"
    assert torch.equal(kept[0], every[0, heaviest])
    assert kept[0].norm(dim=-1).sum() < 1
    for row, length in ((1, 4), (2, KEPT)):
        there = kept[row].norm(dim=-1) > 0
        assert torch.equal(kept[row][there], every[row, :length]), "none is left out where they are few"
    few = net(words[1:, :KEPT], inside[1:, :KEPT])
    assert torch.allclose(few, every[1:, :KEPT], atol=1e-6)


def test_all_that_makes_keys_is_learned_where_some_are_left_out() -> None:
    net = made_keys().requires_grad_(True)
    (net(*stacked(read(KEPT + 9, 4))) * torch.randn(2, KEPT, 5)).sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


def test_keys_are_those_of_the_readings_rounded_as_they_are_stored(generator: Generator) -> None:
    for toolset in TOOLSETS:
        whole = generator.keys_of(toolset.tools)
        assert torch.equal(whole, generator.keys(*stacked(generator.readings(toolset.tools))))
        keys = generator.tool_keys(toolset)
        assert torch.equal(keys, rounded(whole))
        assert not torch.equal(keys, whole)
        assert keys.shape[1:] == (max(len(each.words) for each in generator.readings(toolset.tools)), 8)
    assert generator.generate(Toolset()).keys.shape == (0, 0, 0)


def ragged(seed: int = 0) -> torch.Tensor:
    """Keys of tools of 6, 1, 4 and 2 vectors that weigh from a hundredth to one."""
    dice = torch.Generator().manual_seed(seed)
    keys = torch.nn.functional.normalize(torch.randn(4, 6, 8, generator=dice), dim=-1)
    keys = keys * 10 ** -(2 * torch.rand(4, 6, 1, generator=dice))
    for row, count in enumerate((6, 1, 4, 2)):
        keys[row, count:] = 0
    return keys


def test_rounding_keeps_each_vector_to_a_part_in_a_hundred_and_is_done_once() -> None:
    keys = ragged()
    once = rounded(keys)
    assert once.shape == keys.shape
    assert torch.equal(once.norm(dim=-1) > 0, keys.norm(dim=-1) > 0)
    assert ((once - keys).norm(dim=-1) <= 0.02 * keys.norm(dim=-1)).all()
    assert not torch.equal(once, keys)
    assert torch.equal(rounded(once), once)


def test_rounding_cuts_columns_in_which_no_tool_has_a_vector() -> None:
    keys = ragged()
    assert torch.equal(rounded(torch.nn.functional.pad(keys, (0, 0, 0, 3))), rounded(keys))
    assert rounded(torch.empty(0, 0, 0)).shape == (0, 0, 0)


def adapter_of(keys: torch.Tensor) -> Adapter:
    return Adapter(torch.full((3, 4), 0.25), ("a", "b", "c", "d"), keys, toolset="t", generator="g")


def test_keys_of_tools_of_several_lengths_survive_their_bytes() -> None:
    keys = rounded(ragged())
    data = adapter_of(keys).to_bytes()
    back = Adapter.from_bytes(data)
    assert torch.equal(back.keys, keys)
    assert back.keys.dtype == torch.float32
    assert torch.equal(Adapter.from_bytes(adapter_of(ragged()).to_bytes()).keys, keys), "stored rounded"
    stored, again = load(data), load(back.to_bytes())
    assert all(torch.equal(stored[name], again[name]) for name in stored)
    assert (stored["keys"].dtype, stored["keys"].shape) == (torch.int8, (13, 8)), "what is zero is not stored"
    without = Adapter.from_bytes(adapter_of(torch.empty(0, 0, 0)).to_bytes())
    assert without.keys.shape == (0, 0, 0)


@pytest.mark.parametrize(
    "damage",
    [
        {"key_scales": None},
        {"key_vectors": None},
        {"key_scales": torch.ones(12).half()},
        {"key_scales": torch.ones(0).half()},
        {"keys": torch.ones(12, 8, dtype=torch.int8)},
        {"key_vectors": torch.tensor([6, 1, 4], dtype=torch.int32)},
        {"key_vectors": torch.tensor([6, 1, 4, 3], dtype=torch.int32)},
        {"key_vectors": torch.tensor([6, 1, -4, 10], dtype=torch.int32)},
        {"key_vectors": torch.tensor([[6, 1, 4, 2]], dtype=torch.int32)},
        {"key_vectors": torch.tensor([], dtype=torch.int32)},
    ],
    ids=lambda damage: " ".join(
        f"{name}={getattr(some, 'tolist', str)()}"[:40] for name, some in damage.items()
    ),
)
def test_keys_that_do_not_fit_together_are_damage(damage: dict[str, torch.Tensor | None]) -> None:
    data = adapter_of(ragged()).to_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = load(data)
    assert Adapter.from_bytes(save(tensors, metadata=header)).keys.numel()
    changed = {name: tensor for name, tensor in (tensors | damage).items() if tensor is not None}
    with pytest.raises(AdapterError, match="damaged"):
        Adapter.from_bytes(save(changed, metadata=header))


# Experts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud_lora_rank", [0, 2])
def test_states_behind_a_kept_description_are_those_of_one_pass(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, cloud_lora_rank: int
) -> None:
    """What training differentiates is what generation computes."""
    generator = make(tiny_gemma, tiny_gemma, tiny_tokenizer, cloud_lora_rank=cloud_lora_rank)
    ids = tokenize(tiny_tokenizer, "User: a description of some length, with commas, and words.")
    whole = generator.reader.states(tiny_gemma, ids)
    behind = generator.reader.states_behind(tiny_gemma, generator.reader.read(tiny_gemma, ids))
    assert whole.shape == (3, 16)
    assert torch.allclose(whole, behind, atol=1e-5)


def test_the_cloud_lora_reaches_the_meta_tokens(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    generator = make(tiny_gemma, tiny_gemma, tiny_tokenizer)
    ids = tokenize(tiny_tokenizer, "a description")
    before = generator.reader.states(tiny_gemma, ids)
    for B in generator.reader.B:
        B.data.zero_()
    assert not torch.allclose(before, generator.reader.states(tiny_gemma, ids), atol=1e-3)


def test_a_description_beyond_the_context_is_an_error(
    make_tiny_gemma: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = make_tiny_gemma(max_position_embeddings=64)
    with pytest.raises(AdapterError, match="at most 61"):
        make(model, model, tiny_tokenizer).generate(TOOLSETS[0])


def test_the_materialised_lora_is_gates_times_pool(generator: Generator) -> None:
    pool, gates = generator.pool, generator.generate(TOOLSETS[0]).gates
    factors = pool.lora(gates)
    assert set(factors) == {(layer, name) for layer in range(3) for name in LINEARS}
    for (layer, name), lora in factors.items():
        mixed = sum(
            pool.scale * gates[layer, j] * pool.B[name][layer, j] @ pool.A[name][layer, j]
            for j in range(EXPERTS)
        )
        assert torch.allclose(lora.delta, mixed, atol=1e-5)
        assert lora.A.shape[0] == K * pool.rank, "exactly rank K * r"
        x = torch.randn(2, 4, lora.A.shape[1])
        gated = pool.apply_gated(x, layer, name, gates[layer].expand(2, -1))
        assert torch.allclose(gated, x @ mixed.T, atol=1e-4)


def test_a_fresh_pool_leaves_the_edge_as_it_is(tiny_gemma: PreTrainedModel) -> None:
    pool = ExpertPool(shape_of(tiny_gemma), experts=3, rank=2, alpha=4.0)
    for lora in pool.lora(torch.full((3, 3), 1 / 3)).values():
        assert not lora.delta.any()


def test_an_adapter_survives_its_bytes(generator: Generator) -> None:
    adapter = generator.generate(TOOLSETS[0]).with_priors(torch.tensor([-1.0, -2.0, -3.0]))
    data = adapter.to_bytes()
    back = Adapter.from_bytes(data)
    assert torch.equal(back.gates, adapter.gates)
    assert torch.equal(back.keys, adapter.keys)
    assert back.same_as(adapter)
    assert (back.names, back.toolset, back.generator) == (adapter.names, adapter.toolset, adapter.generator)
    assert back.priors is not None
    assert torch.equal(back.priors, torch.tensor([-1.0, -2.0, -3.0]))
    assert back.lift is None
    raised = Adapter.from_bytes(replace(adapter, lift=torch.tensor([0.25, 0.0])).to_bytes())
    assert raised.lift is not None
    assert raised.lift.tolist() == [0.25, 0.0]
    for damaged in (data[:-3], b"", b"nonsense", data[:40] + b"\0" * 8 + data[48:]):
        with pytest.raises(AdapterError, match="damaged"):
            Adapter.from_bytes(damaged)


def test_a_checkpoint_brings_back_the_same_generator(
    generator: Generator, tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_checkpoint(generator, tmp_path, card={"steps": 3})
    loaded = load_checkpoint(tmp_path, cloud=tiny_gemma, edge=tiny_gemma, tokenizer=tiny_tokenizer)
    assert loaded.fingerprint == generator.fingerprint
    assert loaded.generate(TOOLSETS[0]).same_as(generator.generate(TOOLSETS[0]), tolerance=0.05)
    again = load_checkpoint(tmp_path, cloud=tiny_gemma, edge=tiny_gemma, tokenizer=tiny_tokenizer)
    assert torch.equal(loaded.generate(TOOLSETS[1]).gates, again.generate(TOOLSETS[1]).gates)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["generator.json", "generator.safetensors"]


def test_a_checkpoint_refuses_models_it_was_not_trained_for(
    generator: Generator,
    tiny_gemma: PreTrainedModel,
    make_tiny_gemma: Callable[..., PreTrainedModel],
    tiny_llama: PreTrainedModel,
    tiny_tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
) -> None:
    save_checkpoint(generator, tmp_path)
    for role, models in (
        ("cloud", {"cloud": tiny_llama, "edge": tiny_gemma}),
        ("edge", {"cloud": tiny_gemma, "edge": tiny_llama}),
        ("edge", {"cloud": tiny_gemma, "edge": make_tiny_gemma(seed=1)}),  # the same shape, other weights
        ("edge", {"cloud": tiny_gemma, "edge": make_tiny_gemma(intermediate_size=24)}),
    ):
        with pytest.raises(CheckpointError, match=f"another {role} model"):
            load_checkpoint(tmp_path, **models, tokenizer=tiny_tokenizer)


def test_a_damaged_checkpoint_is_refused(
    generator: Generator, tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    def load() -> None:
        load_checkpoint(tmp_path, cloud=tiny_gemma, edge=tiny_gemma, tokenizer=tiny_tokenizer)

    with pytest.raises(CheckpointError, match="no generator checkpoint"):
        load()
    save_checkpoint(generator, tmp_path)
    weights, config = tmp_path / "generator.safetensors", tmp_path / "generator.json"
    good, text = weights.read_bytes(), config.read_text()
    for bad in (good[:-1], good[: len(good) // 2], good[:-4] + b"\x01\x02\x03\x04"):
        weights.write_bytes(bad)
        with pytest.raises(CheckpointError, match="SHA-256"):
            load()
    weights.unlink()
    with pytest.raises(CheckpointError, match="cannot read"):
        load()
    weights.write_bytes(good)
    raw = json.loads(text)
    for broken in (
        text[:-20],
        "[]",
        json.dumps(raw | {"experts": EXPERTS + 1}),
        json.dumps(raw | {"format": 9}),
    ):
        config.write_text(broken)
        with pytest.raises(CheckpointError):
            load()
    config.write_text(json.dumps({key: value for key, value in raw.items() if key != "cloud"}))
    with pytest.raises(CheckpointError, match="damaged"):
        load()
    config.write_text(text)
    load()


def test_the_fingerprint_changes_with_any_tensor(generator: Generator) -> None:
    seen = {generator.fingerprint}
    for tensor in generator.state_dict().values():
        tensor.view(-1)[0] += 1.0
        generator.train(False)
        seen.add(generator.fingerprint)
    assert len(seen) == len(generator.state_dict()) + 1


def test_one_shared_lora_reads_nothing(
    tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    generator = make(tiny_gemma, tiny_gemma, tiny_tokenizer, routed=False, experts=1, top_k=1)
    first, second = (generator.generate(toolset) for toolset in TOOLSETS[:2])
    assert torch.equal(first.gates, torch.ones(3, 1))
    assert torch.equal(first.gates, second.gates)
    assert first.keys.shape == (0, 0, 0)


def test_cloud_and_edge_may_be_other_architectures(
    tiny_llama: PreTrainedModel, tiny_gemma: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    generator = make(tiny_llama, tiny_gemma, tiny_tokenizer)
    assert generator.generate(TOOLSETS[0]).gates.shape == (3, EXPERTS)
    generator.pool.lora(generator.generate(TOOLSETS[0]).gates)
