"""The generator: task description -> meta states -> router -> gates, and a key per tool. This is the adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from agent_specializer.describe import describe_toolset
from agent_specializer.loragen.activated import ActivatedConfig, ActivatedLora
from agent_specializer.loragen.adapter import Adapter, rounded
from agent_specializer.loragen.cloud import CloudReader, tokenize
from agent_specializer.loragen.experts import ExpertPool
from agent_specializer.loragen.models import ModelShape
from agent_specializer.loragen.router import Router
from agent_specializer.loragen.toolkeys import (
    ChoiceHead,
    ToolKeys,
    ToolReading,
    read_tools,
    stacked,
)
from agent_specializer.specs import Toolset, ToolSpec, canonical_json

ACTIVATED = ("arguments", "following", "answers")
"""The activated LoRAs (`loragen.activated`) that a generator may have."""


@dataclass(frozen=True)
class GeneratorConfig:
    """What a generator is. `routed` False makes the baseline: one LoRA for all toolsets, nothing read, no keys."""

    cloud: ModelShape
    edge: ModelShape
    experts: int = 8
    top_k: int = 2
    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05
    router_width: int = 64
    cloud_lora_rank: int = 8
    key_dim: int = 128
    """Width of the vectors that tools and requests are compared by; 0: none."""
    routed: bool = True
    tools_in_prompt: bool = False
    """Whether the edge reads the tool definitions: only in the `prompted_lora` baseline."""
    arguments: ActivatedConfig | None = None
    """The LoRA under which arguments are written; None: none."""
    following: ActivatedConfig | None = None
    """The one under which it is told what follows a call; None: none."""
    answers: ActivatedConfig | None = None
    """The one under which answers in words are written; None: none."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.experts:
            raise ValueError(f"top_k must be between 1 and experts = {self.experts}, got {self.top_k}")

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key not in ACTIVATED or value}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> GeneratorConfig:
        shapes = {"cloud": ModelShape(**data["cloud"]), "edge": ModelShape(**data["edge"])}
        activated = {key: ActivatedConfig.from_dict(data[key]) for key in ACTIVATED if data.get(key)}
        return GeneratorConfig(**{**data, **shapes, **activated})


class Generator(nn.Module):
    """The trained parts. The cloud model itself is no part of it and is never changed."""

    def __init__(self, config: GeneratorConfig, cloud: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.config = config
        # In a list, so that the frozen model is not a submodule: not trained, not saved, not moved.
        self._cloud, self.tokenizer = [cloud], tokenizer
        key_dim = config.key_dim if config.routed else 0
        self.pool = ExpertPool(
            config.edge, experts=config.experts, rank=config.rank, alpha=config.alpha, dropout=config.dropout
        )
        self.head = ChoiceHead(config.edge.hidden, key_dim)
        self.arguments, self.following, self.answers = (
            ActivatedLora(sizes, layers=config.edge.layers) if sizes else None
            for sizes in (config.arguments, config.following, config.answers)
        )
        if config.routed:
            self.reader = CloudReader(
                config.cloud, cloud, meta_tokens=config.edge.layers, lora_rank=config.cloud_lora_rank
            )
            self.router = Router(
                layers=config.edge.layers,
                hidden=config.cloud.hidden,
                width=config.router_width,
                experts=config.experts,
                top_k=config.top_k,
            )
        if key_dim:
            self.keys = ToolKeys(config.cloud.hidden, key_dim=key_dim)
        self._readings: dict[str, ToolReading] = {}
        self._fingerprint: str | None = None

    def restart_keys(self, seed: int) -> None:
        """New random key networks: the second stage of training begins from nothing."""
        config = self.config
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            keys = ToolKeys(config.cloud.hidden, key_dim=config.key_dim)
            head = ChoiceHead(config.edge.hidden, config.key_dim)
        self.keys.load_state_dict(keys.state_dict())
        self.head.load_state_dict(head.state_dict())

    @property
    def cloud(self) -> nn.Module:
        return self._cloud[0]

    @property
    def activated(self) -> dict[str, ActivatedLora]:
        """The activated LoRAs that there are, by name."""
        return {name: lora for name in ACTIVATED if (lora := getattr(self, name)) is not None}

    def train(self, mode: bool = True) -> Generator:
        self._fingerprint = None  # the weights are about to change
        super().train(mode)
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the configuration and of every tensor as saved: half of the adapter cache's key."""
        if self._fingerprint is None:
            digest = hashlib.sha256(canonical_json(self.config.to_dict()).encode())
            for name, tensor in sorted(self.state_dict().items()):
                digest.update(name.encode())
                digest.update(
                    tensor.detach()
                    .to("cpu", torch.bfloat16)
                    .reshape(-1)  # a number alone has no bytes to view
                    .contiguous()
                    .view(torch.uint8)
                    .numpy()
                    .tobytes()
                )
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def readings(self, tools: Sequence[ToolSpec], *, batch: int = 1) -> list[ToolReading]:
        """What the cloud makes of each of `tools`, read once per tool and kept; `batch` as in `read_tools`."""
        missing = [tool for tool in tools if tool.fingerprint not in self._readings]
        found = read_tools(self.cloud, self.tokenizer, missing, batch=batch)
        self._readings |= {tool.fingerprint: one for tool, one in zip(missing, found, strict=True)}
        return [self._readings[tool.fingerprint] for tool in tools]

    @property
    def remembered(self) -> Mapping[str, ToolReading]:
        """All readings so far, by the fingerprints of their tools."""
        return self._readings

    def remember(self, readings: Mapping[str, ToolReading]) -> None:
        """Take readings that were kept elsewhere."""
        self._readings |= readings

    @torch.no_grad()
    def gates(self, toolset: Toolset) -> tuple[Tensor, int]:
        """Gates (layers, experts) of `toolset` and its description's length in tokens: one forward pass."""
        device = next(self.cloud.parameters()).device
        ids = tokenize(self.tokenizer, describe_toolset(toolset), device)
        if not self.config.routed:
            return torch.full((self.config.edge.layers, self.config.experts), 1 / self.config.experts), len(
                ids
            )
        states = self.reader.states(self.cloud, ids)
        return self.router(states[None])[0].cpu(), len(ids)

    def keys_of(self, tools: Sequence[ToolSpec]) -> Tensor:
        """Keys (tools, vectors, key_dim) of `tools`, differentiable; (0, 0, 0) without any."""
        if not tools:
            return torch.empty(0, 0, 0)
        words, inside = stacked(self.readings(tools))
        device = next(self.keys.parameters()).device
        keys: Tensor = self.keys(words.to(device), inside.to(device))
        return keys

    @torch.no_grad()
    def tool_keys(self, toolset: Toolset) -> Tensor:
        """Keys (tools, vectors, key_dim), in the order of the toolset's tools, rounded as they are stored; (0, 0, 0)
        where there are none."""
        if not self.config.routed or not self.config.key_dim:
            return torch.empty(0, 0, 0)
        return rounded(self.keys_of(toolset.tools).cpu())

    def generate(self, toolset: Toolset) -> Adapter:
        """The adapter of `toolset`, without priors. Puts the generator into eval mode: deterministic."""
        if self.training:
            self.eval()
        gates, _ = self.gates(toolset)
        return self.assemble(toolset, gates, self.tool_keys(toolset))

    def assemble(self, toolset: Toolset, gates: Tensor, keys: Tensor) -> Adapter:
        """The adapter made of parts that were computed one by one."""
        return Adapter(
            gates=gates.float(),
            names=toolset.names,
            keys=keys.float(),
            toolset=toolset.fingerprint,
            generator=self.fingerprint,
        )
