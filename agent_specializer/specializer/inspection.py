"""What can be told of an agent's adapter without running a model: which it has, what it saves, what it holds."""

from __future__ import annotations

from dataclasses import dataclass

from agent_specializer.describe import describe_toolset
from agent_specializer.errors import AdapterError, NotFound
from agent_specializer.specializer.facade import Specializer
from agent_specializer.store import AdapterRow, AdapterStatus, Registry


@dataclass(frozen=True)
class Saved:
    """What each specialised call of an agent no longer carries.

    Attributes:
        prompt_tokens: as the last specialised call counted them; before the first, those of the task description.
        text_bytes: of the tool definitions that a prompted call sends.
        first_token_seconds: the mean of prompted calls minus that of specialised ones; None where not both were
            measured; negative where prompting was faster.
    """

    prompt_tokens: int
    text_bytes: int
    first_token_seconds: float | None


def generator_fingerprint(specializer: Specializer) -> str | None:
    """Of the generator in use; None until it is loaded, and where there is none."""
    runtime = specializer.runtime
    return runtime.generator.fingerprint if runtime.loaded and runtime.checkpoint else None


def current_adapter(specializer: Specializer, agent: str) -> tuple[AdapterRow, AdapterStatus] | None:
    """The agent's adapter: the fresh one where there is one, else the last used; None where there is none."""
    registry, generator_fp = specializer.registry, generator_fingerprint(specializer)
    rows = registry.adapters(limit=20, agent=agent)
    states = [(row, registry.adapter_status(row, generator_fp=generator_fp)) for row in rows]
    return next((pair for pair in states if pair[1].state == "fresh"), states[0] if states else None)


def merged_bytes(specializer: Specializer, row: AdapterRow | None = None) -> int:
    """Memory that merged weights take: those of one adapter, 0 where it is not resident, or of all of them."""
    runtime = specializer.runtime
    merged = runtime.engine.merged if runtime.loaded else None
    if merged is None:
        return 0
    if row is None:
        return merged.nbytes
    if not merged.nbytes or row.generator_fp != runtime.generator.fingerprint:
        return 0
    from agent_specializer.edge.request import weights_key
    from agent_specializer.loragen.adapter import Adapter

    try:
        adapter = Adapter.from_bytes(specializer.registry.adapter_blob(row.id))
    except (AdapterError, NotFound):
        return 0  # damaged or evicted: it is not what is resident
    return merged.adapter_bytes if weights_key(adapter) in merged else 0


def saved_per_call(registry: Registry, agent: str, row: AdapterRow) -> Saved:
    """What the agent's adapter `row` saves. Raises NotFound: no such agent."""
    last = registry.runs(1, agent=agent, mode="specialized")
    means: dict[str, float] = {}
    stats = registry.run_stats("day", agent=agent)
    for mode in ("specialized", "prompted"):
        own = [each for each in stats if each.mode == mode]
        runs = sum(each.runs for each in own)
        if runs:
            means[mode] = sum(each.first_token_seconds * each.runs for each in own) / runs
    both = len(means) == 2
    return Saved(
        prompt_tokens=(last[0].saved_prompt_tokens if last else 0) or row.description_tokens,
        text_bytes=len(describe_toolset(registry.toolset(agent)).encode()),
        first_token_seconds=means["prompted"] - means["specialized"] if both else None,
    )
