"""In which numbers a model calculates: bfloat16, or float32 on processors that do not multiply in bfloat16.

Without instructions for it (AVX512-BF16, AMX, Arm's BF16) a product of matrices in bfloat16 takes several times as long as in float32, and
many laptops have none.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""As `torch.cpu.get_capabilities` names them."""
SHARE = 0.5
"""Of the memory that is free, how much the wider weights may take more."""


def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products in bfloat16, and a library that uses them."""
    if not torch.backends.mkldnn.is_available():
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        return any(able.get(name) for name in INSTRUCTIONS)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # older torch


def suited(model: PreTrainedModel) -> PreTrainedModel:
    """`model`, which is in bfloat16, with layers in float32 if it is on a CPU that does not multiply in bfloat16 and there is memory for it.

    Embeddings stay as they are: looking them up multiplies nothing, and as the head they are read once a token, which takes the longer the
    wider they are.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    weight = embedding.weight
    if weight.device.type != "cpu" or multiplies_bfloat16():
        return model
    layers = [module for module in model.base_model.children() if module is not embedding]
    # Each weight is replaced by one of twice its size, one after another.
    more = sum(parameter.nbytes for module in layers for parameter in module.parameters())
    free = psutil.virtual_memory().available
    if more > SHARE * free:
        logger.warning(
            "this processor is slow in bfloat16, and %.1f GB of free memory are too few for float32, which needs %.1f GB more",
            free / 1e9,
            more / 1e9,
        )
        return model
    for module in layers:
        module.float()
    embedding.register_forward_hook(_widened)
    head.register_forward_pre_hook(_narrowed)
    return model


def _widened(_: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> Tensor:
    return out.float()


def _narrowed(head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
    return (inputs[0].to(head.get_parameter("weight").dtype),)
