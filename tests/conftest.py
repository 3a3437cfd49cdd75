"""Shared fixtures: tiny random models and a tokenizer in code, a redirected home, the real bundle."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from agent_specializer.bundles import LoadedBundle

pytest_plugins = ("packaged_model",)

# Merged tokens of the tiny tokenizer: enough that words are neither single letters nor single tokens.
_MERGED_WORDS = (
    "Call:",
    "User:",
    "Answer:",
    "Result:",
    "▁none",
    "▁set",
    "▁get",
    "▁the",
    "light",
    "_light",
    '":▁',
)


SLOWEST = (
    "test_browser_real.py",
    "test_browser_looks.py",
    "test_training.py",
    "test_faults.py",
    "test_standard.py",
    "test_embedded_bench.py",
    "test_browser_journey.py",
)
"""Files that take longest, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take longest come first, so that none runs alone in the end (with xdist's `--no-loadscope-reorder`)."""
    place = {name: number for number, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(SLOWEST)))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder that every setting made in this test points at."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("AGENT_SPECIALIZER_HOME", str(folder))
    monkeypatch.delenv("AGENT_SPECIALIZER_DATABASE_URL", raising=False)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A BPE tokenizer built like Gemma's (▁ for spaces, byte fallback, `<bos>` put in front).

    `<pad>`, `<eos>`, `<bos>`, `<unk>` are 0..3; then 256 byte tokens, printable ASCII, newline, some words.
    Any text survives encoding and decoding. Treat it as read-only: it is shared by all tests.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    letters = ["\n", "▁", *(chr(code) for code in range(33, 127))]
    vocab = {token: i for i, token in enumerate([*special, *(f"<0x{b:02X}>" for b in range(256)), *letters])}
    merges: list[tuple[str, str]] = []
    for word in _MERGED_WORDS:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
            vocab.setdefault("".join(pair), len(vocab))
    core = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def make_tiny_gemma(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., PreTrainedModel]:
    """A factory of random Gemma 3 models; keyword arguments change the config, `seed` the weights."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    def make(seed: int = 0, **changes: object) -> PreTrainedModel:
        settings: dict[str, object] = {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "max_position_embeddings": 4096,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            "tie_word_embeddings": True,
            # Larger than usual, so that the logits of a random model differ from token to token.
            "initializer_range": 0.2,
        } | changes
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = Gemma3ForCausalLM(Gemma3TextConfig(**settings))
        return model.to(torch.float32).eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def make_tiny_llama(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., PreTrainedModel]:
    """A factory of random Llama models; keyword arguments change the config, `seed` the weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def make(seed: int = 0, **changes: object) -> PreTrainedModel:
        settings: dict[str, object] = {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            "initializer_range": 0.2,
        } | changes
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**settings))
        return model.to(torch.float32).eval().requires_grad_(False)

    return make


@pytest.fixture
def tiny_gemma(make_tiny_gemma: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    """Gemma 3, fp32, eval: 3 layers (sliding, sliding, full), hidden 16, FFN 32, tied head. New each time."""
    return make_tiny_gemma()


@pytest.fixture
def tiny_llama(make_tiny_llama: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    """Llama, fp32, eval: 2 layers, hidden 16, FFN 24, a head of its own. New for each test."""
    return make_tiny_llama()


@pytest.fixture(scope="session")
def save_tiny_checkpoint(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Path]:
    """Saves a random generator for a model that is cloud and edge, whose experts change the logits."""
    import torch

    from agent_specializer.loragen import Generator, GeneratorConfig, save_checkpoint, shape_of

    def save(model: PreTrainedModel, folder: Path, seed: int = 0) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            shape = shape_of(model)
            config = GeneratorConfig(cloud=shape, edge=shape, experts=4, rank=2, key_dim=8)
            generator = Generator(config, model, tiny_tokenizer)
            for B in generator.pool.B.values():
                torch.nn.init.normal_(B, std=0.3)
        return save_checkpoint(generator, folder)

    return save


@pytest.fixture(scope="session")
def tiny_folder(
    tmp_path_factory: pytest.TempPathFactory,
    make_tiny_gemma: Callable[..., PreTrainedModel],
    tiny_tokenizer: PreTrainedTokenizerFast,
    save_tiny_checkpoint: Callable[..., Path],
) -> Path:
    """`bundle.yaml` of one tiny `model` with its `checkpoint`, `bare.yaml` without, and a `foreign` checkpoint."""
    folder = tmp_path_factory.mktemp("tiny")
    model = make_tiny_gemma(max_position_embeddings=32768)
    model.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    save_tiny_checkpoint(model, folder / "checkpoint")
    save_tiny_checkpoint(make_tiny_gemma(seed=5), folder / "foreign")
    models = "cloud: {kind: local, name: ./model}\nedge: {kind: local, name: ./model}\n"
    (folder / "bare.yaml").write_text(models)
    (folder / "bundle.yaml").write_text(f"{models}checkpoint: ./checkpoint\n")
    return folder


@pytest.fixture(scope="session")
def embedded_home() -> Path:
    """A home that outlives the test run, so that the embedded model is converted once, not once per run."""
    from platformdirs import user_cache_dir

    named = os.environ.get("AGENT_SPECIALIZER_TEST_HOME")
    folder = Path(named) if named else Path(user_cache_dir("agent-specializer")) / "test-home"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def embedded_bundle(embedded_home: Path) -> LoadedBundle:
    """The real embedded models, loaded through the product. Shared: leave the weights as they are."""
    from agent_specializer.bundles import bundle, load_models

    return load_models(bundle("embedded"), embedded_home)
