"""An adapter as files that other programs read: a PEFT LoRA, or whole merged models in safetensors and GGUF.

What is exported is the toolset's LoRA. The tool keys and the grammar, which choose the tool and keep calls valid, and the activated LoRAs,
for arguments, for what follows a call and for answers, are this program's: an exported model continues the same text (`edge/transcript.py`),
with whatever decoding its runtime has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from agent_specializer.adapters.merged import linear_names, merged_weights
from agent_specializer.errors import AdapterError, ConfigError
from agent_specializer.loragen import ExpertPool
from agent_specializer.loragen.models import LINEARS
from agent_specializer.progress import Progress, silent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["bf16", "f16", "q8_0"]

_GGUF_LINEARS = {"gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def write_peft(folder: Path, model: nn.Module, pool: ExpertPool, gates: Tensor, *, base: str) -> None:
    """Write ``adapter_config.json`` and ``adapter_model.safetensors`` for `PeftModel.from_pretrained`.

    In float32. The LoRA's scale is in B, so alpha equals the rank. Layers with fewer experts than others are
    filled with zeros: PEFT has one rank for all.

    Args:
        base: the name of the edge model, for people and for PEFT's automatic loading.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    names = linear_names(model)
    factors = pool.lora(gates)
    rank = max(lora.A.shape[0] for lora in factors.values())
    tensors: dict[str, Tensor] = {}
    for key, lora in factors.items():
        missing = rank - lora.A.shape[0]
        path = f"base_model.model.{names[key]}"
        tensors[f"{path}.lora_A.weight"] = nn.functional.pad(lora.A, (0, 0, 0, missing)).contiguous()
        tensors[f"{path}.lora_B.weight"] = nn.functional.pad(lora.B, (0, missing)).contiguous()
    save_file(
        {name: tensor.detach().cpu() for name, tensor in tensors.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=list(LINEARS),
        inference_mode=True,
    ).save_pretrained(str(folder))


def write_merged(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pool: ExpertPool,
    gates: Tensor,
) -> None:
    """Write model and tokenizer as transformers' `from_pretrained` reads them, in the dtype in which the weights came.

    In memory they may be wider (`bundles.precision`).
    """
    names, own = linear_names(model), model.config.dtype or model.dtype
    state = dict(model.state_dict())  # references: only the merged tensors are new
    for key, weight in merged_weights(model, pool, gates):
        state[f"{names[key]}.weight"] = weight
    shared: dict[int, Tensor] = {}  # what is one tensor under two names stays one
    state = {name: shared.setdefault(tensor.data_ptr(), tensor.to(own)) for name, tensor in state.items()}
    model.save_pretrained(folder, state_dict=state)
    model.config.dtype = own  # as it was: saving puts in what the model is in
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_gguf(
    path: Path,
    source: Path,
    model: nn.Module,
    pool: ExpertPool,
    gates: Tensor,
    *,
    quantization: Quantization = "bf16",
    name: str = "",
    progress: Progress = silent,
) -> None:
    """Write the GGUF file `source` with the FFN weights of `model` plus LoRA in place of its own.

    Everything else, the tokenizer and all metadata but the name, is copied as it is.

    Args:
        source: the GGUF file that `model` was converted from.
        quantization: of the FFN weights: "bf16" is what the embedded models come in, "q8_0" halves them.

    Raises:
        AdapterError: `source` is of another model.
    """
    import gguf

    from agent_specializer.bundles.gguf_reader import gguf_shortcuts

    with gguf_shortcuts():
        reader = gguf.GGUFReader(source)
    kinds = {
        "bf16": gguf.GGMLQuantizationType.BF16,
        "f16": gguf.GGMLQuantizationType.F16,
        "q8_0": gguf.GGMLQuantizationType.Q8_0,
    }
    if quantization not in kinds:
        raise ConfigError(f"there is no quantization {quantization!r}", hint=f"there are {', '.join(kinds)}")
    kind = kinds[quantization]
    shapes = _ffn_shapes(model)
    _check_source(reader, shapes, source)

    writer = gguf.GGUFWriter(path, reader.fields[gguf.Keys.General.ARCHITECTURE].contents())
    try:
        _copy_metadata(reader, writer, name)
        for tensor in reader.tensors:
            if tensor.name in shapes:
                size = gguf.quant_shape_to_byte_shape(shapes[tensor.name], kind)
                writer.add_tensor_info(
                    tensor.name,
                    size,
                    torch.zeros(0, dtype=torch.uint8).numpy().dtype,
                    size[0] * size[1],
                    kind,
                )
            else:
                writer.add_tensor_info(
                    tensor.name,
                    tensor.data.shape,
                    tensor.data.dtype,
                    tensor.data.nbytes,
                    tensor.tensor_type,
                )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        merged = _on_demand(model, pool, gates)
        for number, tensor in enumerate(reader.tensors):
            progress("writing tensors", number / len(reader.tensors))
            if tensor.name in shapes:
                weight = merged(tensor.name).float().cpu().numpy()
                data = gguf.quants.quantize(weight, kind)
                writer.write_tensor_data(data.view("uint8").reshape(weight.shape[0], -1))
            else:
                writer.write_tensor_data(tensor.data, tensor_endianess=reader.endianess)
    finally:
        writer.close()


def _gguf_name(layer: int, linear: str) -> str:
    return f"blk.{layer}.{_GGUF_LINEARS[linear]}.weight"


def _ffn_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    modules = dict(model.named_modules())
    return {
        _gguf_name(*key): tuple(modules[path].weight.shape)  # type: ignore[union-attr, misc, arg-type]
        for key, path in linear_names(model).items()
    }


def _check_source(reader: Any, shapes: dict[str, tuple[int, int]], source: Path) -> None:
    there = {tensor.name: tuple(int(n) for n in reversed(tensor.shape)) for tensor in reader.tensors}
    wrong = [name for name, shape in shapes.items() if there.get(name) != shape]
    if wrong:
        raise AdapterError(
            f"{source.name} is not the file of this edge model: {wrong[0]!r} is {there.get(wrong[0])}, "
            f"expected {shapes[wrong[0]]}",
            hint="export with --format merged, and convert that with llama.cpp's convert_hf_to_gguf.py",
        )


def _copy_metadata(reader: Any, writer: Any, name: str) -> None:
    import gguf

    for field in reader.fields.values():
        if field.name == gguf.Keys.General.ARCHITECTURE or field.name.startswith("GGUF."):
            continue  # the writer writes these
        value = name if name and field.name == gguf.Keys.General.NAME else field.contents()
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(field.name, value, field.types[0], sub_type=field.types[-1] if array else None)


def _on_demand(model: nn.Module, pool: ExpertPool, gates: Tensor) -> Callable[[str], Tensor]:
    """Merged weights by GGUF name. A file's order is not ours, so a layer's three may wait, no more."""
    waiting: dict[str, Tensor] = {}
    made: Iterator[tuple[tuple[int, str], Tensor]] = merged_weights(model, pool, gates)

    def take(name: str) -> Tensor:
        while name not in waiting:
            key, weight = next(made)
            waiting[_gguf_name(*key)] = weight
        return waiting.pop(name)

    return take
