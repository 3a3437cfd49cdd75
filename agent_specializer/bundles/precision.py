"""In which numbers a model calculates: bfloat16, or float32 on processors that do not multiply in bfloat16.

Without instructions for it (AVX512-BF16, AMX, Arm's BF16) a product of matrices in bfloat16 takes several times as long as in float32, and
many laptops have none.
"""

from __future__ import annotations

import logging
from typing import Literal

import psutil
import torch
from torch import nn

Dtype = Literal["auto", "bfloat16", "float16", "float32"]

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


def suited(model: nn.Module) -> nn.Module:
    """`model`, which is in bfloat16, in float32 if it is on a CPU that does not multiply in bfloat16 and there is memory for it."""
    weights = list(model.parameters())
    if weights[0].device.type != "cpu" or multiplies_bfloat16():
        return model
    # Each weight is replaced by one of twice its size, one after another.
    more, free = sum(weight.nbytes for weight in weights), psutil.virtual_memory().available
    if more > SHARE * free:
        logger.warning(
            "this processor is slow in bfloat16, and %.1f GB of free memory are too few for float32, which needs %.1f GB more",
            free / 1e9,
            more / 1e9,
        )
        return model
    return model.float()
