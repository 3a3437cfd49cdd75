"""An adapter is its gates: what the generator makes of one toolset, some tens of kilobytes, and all that is stored of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from agent_specializer.errors import AdapterError

FORMAT = "agent-specializer-adapter-4"


@dataclass(frozen=True, eq=False)
class Adapter:
    """Gates, and what the adapter says of each tool.

    Attributes:
        gates: (layers, experts) float32, K non-zeros per layer that sum to 1.
        names: the tools, in the order of `keys`.
        keys: (tools, vectors, key_dim) float32, one generated key per tool: vectors whose length is what they weigh, zero
            where a tool has fewer; (0, 0, 0) where the generator makes none.
        toolset: fingerprint of the toolset; generator: fingerprint of the generator.
        priors: (tools + 1,) float32, log-probability of each name after an empty request, in nats; None until an edge
            model has measured them.
        lift: (tools,) float32, how much the requests in its key raise each tool's likeness to anything (`loragen.requests`);
            None where no tool has any.
    """

    gates: Tensor
    names: tuple[str, ...]
    keys: Tensor
    toolset: str
    generator: str
    priors: Tensor | None = None
    lift: Tensor | None = None

    def with_priors(self, priors: Tensor) -> Adapter:
        return replace(self, priors=priors.detach().float().cpu())

    def to_bytes(self) -> bytes:
        """safetensors bytes: what the store keeps. Keys in 8 bits, the rest in float32."""
        tensors = {"gates": self.gates.float().contiguous()}
        if self.keys.numel():
            tensors |= _packed(self.keys)
        if self.priors is not None:
            tensors["priors"] = self.priors.float().contiguous()
        if self.lift is not None:
            tensors["lift"] = self.lift.float().contiguous()
        return save(
            tensors,
            metadata={
                "format": FORMAT,
                "names": json.dumps(self.names, ensure_ascii=False),
                "toolset": self.toolset,
                "generator": self.generator,
            },
        )

    @staticmethod
    def from_bytes(data: bytes) -> Adapter:
        """The adapter in `data`; AdapterError when the bytes are damaged."""
        try:
            tensors = load(data)
            meta = _metadata(data)
            return Adapter(
                gates=tensors["gates"],
                names=tuple(json.loads(meta["names"])),
                keys=_unpacked(tensors) if "keys" in tensors else torch.empty(0, 0, 0),
                toolset=meta["toolset"],
                generator=meta["generator"],
                priors=tensors.get("priors"),
                lift=tensors.get("lift"),
            )
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise AdapterError(
                f"the stored adapter is damaged ({error})",
                hint="evict it from the cache and specialise again",
            ) from error

    @property
    def nbytes(self) -> int:
        """Bytes held per toolset: gates, keys and priors as stored."""
        return len(self.to_bytes())

    def same_as(self, other: Adapter, *, tolerance: float = 2e-3) -> bool:
        """Whether both say the same, up to the rounding of storage."""
        return (
            self.names == other.names
            and torch.allclose(self.gates, other.gates, atol=tolerance)
            and self.keys.shape == other.keys.shape
            and torch.allclose(self.keys, other.keys, atol=tolerance)
            and (self.lift is None) == (other.lift is None)
            and (self.lift is None or torch.allclose(self.lift, other.lift, atol=tolerance))  # type: ignore[arg-type]
        )


def rounded(keys: Tensor) -> Tensor:
    """`keys` as they come back from the store."""
    return _unpacked(_packed(keys)) if keys.numel() else keys


def _packed(keys: Tensor) -> dict[str, Tensor]:
    """Keys (tools, vectors, key_dim) as 8-bit numbers with a scale per vector; vectors that are zero are left out."""
    there = keys.abs().amax(-1) > 0
    vectors = keys[there].float()
    scales = (vectors.abs().amax(-1) / 127).half()
    steps = (vectors / scales.float().clamp_min(TINY)[:, None]).round().clamp(-127, 127)
    return {
        "keys": steps.to(torch.int8),
        "key_scales": scales,
        "key_vectors": there.sum(1).to(torch.int32),
    }


def _unpacked(tensors: dict[str, Tensor]) -> Tensor:
    vectors = tensors["keys"].float() * tensors["key_scales"].float()[:, None]
    counts = tensors["key_vectors"].tolist()
    return torch.nn.utils.rnn.pad_sequence(vectors.split(counts), batch_first=True)


TINY = 1e-9


def _metadata(data: bytes) -> dict[str, str]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]  # type: ignore[index]
    return header
