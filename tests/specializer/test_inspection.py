"""What is told of an adapter without running a model."""

from __future__ import annotations

import pytest

from agent_specializer import Specializer, ToolSpec
from agent_specializer.describe import describe_toolset
from agent_specializer.messages import Usage
from agent_specializer.specializer.inspection import (
    current_adapter,
    generator_fingerprint,
    merged_bytes,
    saved_per_call,
)


def test_the_generator_is_known_once_it_is_loaded(two_agents: Specializer) -> None:
    assert generator_fingerprint(two_agents) is None
    two_agents.engine  # noqa: B018
    assert generator_fingerprint(two_agents) == two_agents.generator.fingerprint


def test_the_current_adapter_is_the_fresh_one_else_the_last_used(two_agents: Specializer) -> None:
    assert current_adapter(two_agents, "home") is None
    first = two_agents.specialize("home").fingerprint
    two_agents.register_tools([ToolSpec(name="get_time", description="Now another text")])
    row, status = current_adapter(two_agents, "home")
    assert (row.fingerprint, status.state) == (first, "outdated")
    second = two_agents.specialize("home").fingerprint
    two_agents.registry.get_adapter(row.toolset_fp, row.generator_fp)  # the old one is used last
    row, status = current_adapter(two_agents, "home")
    assert (row.fingerprint, status.state) == (second, "fresh")


def test_resident_weights_are_counted_for_the_adapter_that_has_them(two_agents: Specializer) -> None:
    assert merged_bytes(two_agents) == 0, "nothing is loaded to find that out"
    assert not two_agents.runtime.loaded
    rows = {}
    for agent in ("home", "clock"):
        two_agents.specialize(agent)
        rows[agent] = current_adapter(two_agents, agent)[0]
    merged = two_agents.engine.merged
    one = merged_bytes(two_agents, rows["clock"])
    assert one == merged.adapter_bytes
    assert (
        merged_bytes(two_agents) == merged.nbytes == sum(merged_bytes(two_agents, r) for r in rows.values())
    )
    merged._evict(keep=0)
    assert merged_bytes(two_agents, rows["clock"]) == 0


def test_savings_need_both_ways_to_be_measured(two_agents: Specializer) -> None:
    store = two_agents.registry
    two_agents.specialize("home")
    row = current_adapter(two_agents, "home")[0]
    saved = saved_per_call(store, "home", row)
    assert (saved.prompt_tokens, saved.first_token_seconds) == (row.description_tokens, None)
    assert saved.text_bytes == len(describe_toolset(store.toolset("home")).encode())
    for mode, seconds, tokens in (("prompted", 3.0, 0), ("prompted", 5.0, 0), ("specialized", 0.5, 77)):
        usage = Usage(first_token_seconds=seconds, saved_prompt_tokens=tokens)
        store.add_run(mode=mode, agent="home", usage=usage)
    saved = saved_per_call(store, "home", row)
    assert saved.prompt_tokens == 77
    assert saved.first_token_seconds == pytest.approx(3.5)
