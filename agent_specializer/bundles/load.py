"""Load a bundle: two models and their tokenizers, the same objects where the sources are the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_specializer.bundles.convert import ensure_converted, verify_folder
from agent_specializer.bundles.packages import PACKAGES
from agent_specializer.bundles.sources import Bundle, ModelSource, bundle
from agent_specializer.bundles.tokenizer import load_plain_tokenizer
from agent_specializer.errors import ConfigError, WeightsError
from agent_specializer.progress import Progress, silent, span

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agent_specializer.settings import Dtype, Settings


@dataclass(frozen=True)
class LoadedBundle:
    """Models in eval mode, without gradients, on one device.

    Where the bundle names one source twice, `edge is cloud` and `edge_tokenizer is cloud_tokenizer`: merging
    an adapter into the edge changes the cloud with it, so the base has to be restored before the cloud reads.
    """

    bundle: Bundle
    cloud: PreTrainedModel
    edge: PreTrainedModel
    cloud_tokenizer: PreTrainedTokenizerBase
    edge_tokenizer: PreTrainedTokenizerBase

    @property
    def dtype(self) -> str:
        """What the edge's layers calculate in, as torch names it: "bfloat16", "float32"."""
        from agent_specializer.loragen.models import layers_dtype

        return str(layers_dtype(self.edge)).removeprefix("torch.")


def load_models(
    bundle: Bundle,
    home: Path,
    progress: Progress | None = None,
    *,
    device: str = "cpu",
    dtype: Dtype = "auto",
    threads: int | None = None,
) -> LoadedBundle:
    """Load a bundle's models; packaged weights are converted under `home` on the first call.

    Args:
        device: as torch names it: "cpu", "cuda", "cuda:1", "mps".
        dtype: of all weights; "auto": bfloat16, but layers in float32 on a CPU that is slow in bfloat16 (`bundles.precision`).
        threads: CPU threads of torch, for the whole process; None leaves them alone.

    Raises:
        WeightsError: weights are missing, damaged or incomplete, cannot be fetched or converted.
        ConfigError: there is no such device.
    """
    progress = progress or silent
    set_threads(threads)
    sources = tuple(dict.fromkeys((bundle.cloud, bundle.edge)))
    loaded = {}
    for i, source in enumerate(sources):
        part = span(progress, i / len(sources), (i + 1) / len(sources))
        loaded[source] = _load(source, home, part, device=device, dtype=dtype)
    (cloud, cloud_tokenizer), (edge, edge_tokenizer) = loaded[bundle.cloud], loaded[bundle.edge]
    return LoadedBundle(bundle, cloud, edge, cloud_tokenizer, edge_tokenizer)


def models_of(settings: Settings, progress: Progress | None = None) -> LoadedBundle:
    """The models of the bundle that `settings` name, as they say; raises what `load_models` raises."""
    return load_models(
        bundle(settings.bundle), settings.home, progress, dtype=settings.dtype, threads=settings.threads
    )


def set_threads(threads: int | None) -> None:
    """Let torch use so many CPU threads in this process; None leaves torch's own choice."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own progress bars off the terminal while ours speaks."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _load(
    source: ModelSource, home: Path, progress: Progress, *, device: str, dtype: Dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if source.kind == "package":
        where: str | Path = ensure_converted(PACKAGES[source.name], home, span(progress, 0.0, 0.95))
    else:
        where = _local_folder(source.name) if source.kind == "local" else source.name
    progress(f"loading {source.name}", 0.95)
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from agent_specializer.bundles.precision import suited

    at, held = _device(device), torch.bfloat16 if dtype == "auto" else getattr(torch, dtype)
    options = {"revision": source.revision} if source.kind == "hub" else {"local_files_only": True}
    with quiet_transformers():
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                where, dtype=held, output_loading_info=True, **options
            )
            model, report = loaded
            if source.kind == "package":
                tokenizer: Any = load_plain_tokenizer(Path(where))
            else:
                tokenizer = AutoTokenizer.from_pretrained(where, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if source.kind == "package":
                # Damage that size and time did not show: found by hash, so that the next run converts anew.
                verify_folder(Path(where))
            raise WeightsError(
                f"{source.key} cannot be loaded: {_first_line(error)}", hint=_hint(source)
            ) from error
    # transformers fills what is missing with random numbers and says so in a log line only.
    if missing := sorted(report["missing_keys"]):
        raise WeightsError(
            f"{source.key} lacks {len(missing)} of its weights, the first is {missing[0]!r}",
            hint=_hint(source),
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise WeightsError(
            f"the tokenizer of {source.key} has {len(tokenizer):,} tokens, its model only {rows:,}",
            hint=_hint(source),
        )
    if tokenizer.pad_token is None:
        # Llama 3 has none; what stands under the padding is masked, so any token does.
        tokenizer.pad_token = tokenizer.eos_token
    model = model.to(at).eval().requires_grad_(False)
    if dtype == "auto":
        model = suited(model)
    progress(f"{source.name} is loaded", 1.0)
    return model, tokenizer


def _local_folder(name: str) -> Path:
    folder = Path(name)
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{name!r} is not a model folder: it has no config.json",
            hint="name a folder as transformers' save_pretrained() writes it, of a model and its tokenizer",
        )
    return folder


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {name!r} cannot be used: {_first_line(error)}", hint='"cpu" is always there'
        ) from error
    return device


def _hint(source: ModelSource) -> str:
    if source.kind == "hub":
        return (
            "check the name and the network; for a gated model accept its terms on huggingface.co and run "
            "`hf auth login`; the bundle 'embedded' needs neither network nor account"
        )
    if source.kind == "local":
        return "save the model and its tokenizer there again with save_pretrained()"
    return "install the package again: " + PACKAGES[source.name].install


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
