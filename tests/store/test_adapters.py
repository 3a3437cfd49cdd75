"""Adapters are a cache: found by key, counted, traced to exact specs, pruned unless they are pinned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent_specializer.errors import NotFound, StoreError
from agent_specializer.specs import AgentSpec, Toolset, ToolSpec
from agent_specializer.store import AdapterRow, AdapterStatus, Registry, adapter_fingerprint
from agent_specializer.store import adapters as adapters_module


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """A clock whose only element is now."""
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    monkeypatch.setattr(adapters_module, "utc_now", lambda: now[0])
    return now


def put(registry: Registry, name: str, size: int = 10) -> AdapterRow:
    return registry.put_adapter(Toolset(instructions=name), "generator", b"x" * size)


def test_the_fingerprint_of_an_adapter_is_pinned() -> None:
    expected = "fa0dafbf43f1f551e536353e9d1a942a8e86e41a0b58dfeaf264ef217f6b862a"  # sha256 of a * 64 + b * 64
    assert adapter_fingerprint("a" * 64, "b" * 64) == expected


def test_an_adapter_is_found_by_its_key_alone(registry: Registry, light: ToolSpec) -> None:
    toolset = Toolset(tools=(light,), instructions="i")
    row = registry.put_adapter(
        toolset, "generator", b"\0gates\xff", agent="home", description_tokens=120, seconds=1.5
    )
    assert (row.agent, row.bytes, row.description_tokens, row.seconds) == ("home", 7, 120, 1.5)
    assert row.fingerprint == adapter_fingerprint(toolset.fingerprint, "generator")
    found = registry.get_adapter(toolset.fingerprint, "generator")
    assert found is not None
    assert found.blob == b"\0gates\xff" == registry.adapter_blob(row.id)
    assert registry.get_adapter(toolset.fingerprint, "other generator") is None
    assert registry.get_adapter("other toolset", "generator") is None


def test_only_a_touch_counts_as_use(registry: Registry, clock: list[datetime]) -> None:
    row = put(registry, "a")
    clock[0] += timedelta(hours=1)
    key = (row.toolset_fp, row.generator_fp)
    assert registry.get_adapter(*key, touch=False) is not None
    assert registry.adapter(row.fingerprint) == row
    found = registry.get_adapter(*key)
    assert found is not None
    kept = registry.adapter(row.fingerprint)
    assert (found.hits, found.last_used_at) == (kept.hits, kept.last_used_at) == (1, clock[0])
    assert kept.created_at == clock[0] - timedelta(hours=1)


def test_a_refined_one_takes_the_place_of_what_it_was_refined_from_and_of_nothing_else(
    registry: Registry, clock: list[datetime]
) -> None:
    was = put(registry, "a")
    registry.get_adapter(was.toolset_fp, was.generator_fp)
    assert was.refinement is None
    report = {"written": 12, "before": {"loss": 1.5}}
    refined = registry.refine_adapter(was, b"refined", report)
    assert (refined.id, refined.bytes, refined.refinement, refined.hits) == (was.id, 7, report, 1)
    assert registry.adapter_blob(was.id) == b"refined"
    found = registry.get_adapter(was.toolset_fp, was.generator_fp, touch=False)
    assert found is not None
    assert (found.blob, found.refinement) == (b"refined", report)
    with pytest.raises(StoreError, match="made anew, or refined"):
        registry.refine_adapter(was, b"by another", report)
    clock[0] += timedelta(seconds=1)
    anew = put(registry, "a")
    assert (anew.id, anew.refinement) == (was.id, None)
    with pytest.raises(StoreError, match="made anew, or refined"):
        registry.refine_adapter(refined, b"late", report)
    assert registry.adapter_blob(was.id) == b"x" * 10
    registry.evict_adapter(was.fingerprint)
    with pytest.raises(NotFound):
        registry.refine_adapter(anew, b"too late", report)


def test_making_it_again_replaces_the_blob_and_keeps_hits_and_pin(
    registry: Registry, light: ToolSpec
) -> None:
    toolset = Toolset(tools=(light,))
    first = registry.put_adapter(toolset, "generator", b"one", agent="home")
    registry.get_adapter(toolset.fingerprint, "generator")
    registry.pin_adapter(first.fingerprint)
    second = registry.put_adapter(toolset, "generator", b"three")
    assert (second.id, second.hits, second.pinned, second.agent) == (first.id, 1, True, "home")
    assert (second.bytes, registry.adapter_blob(second.id)) == (5, b"three")
    assert registry.count_adapters() == 1
    assert [version.spec for version in registry.adapter_tools(second.fingerprint)] == [light]


def test_an_adapter_knows_the_toolset_it_was_made_from(
    registry: Registry, light: ToolSpec, weather: ToolSpec
) -> None:
    registry.add_tools([light])
    toolset = Toolset(tools=(light, weather), instructions="i")  # get_weather is not registered
    row = registry.put_adapter(toolset, "generator", b"")
    registry.add_tools([ToolSpec(name="set_light", description="changed"), ToolSpec(name="get_weather")])
    assert registry.adapter_toolset(row.fingerprint) == toolset
    assert registry.adapter_toolset(row.fingerprint).fingerprint == row.toolset_fp
    assert [
        (tool.spec.name, tool.version, tool.adapters) for tool in registry.adapter_tools(row.fingerprint)
    ] == [
        ("get_weather", None, 1),
        ("set_light", 1, 1),
    ]
    assert [row.version for row in registry.tool_versions("get_weather")] == [1]


def test_a_spec_that_was_used_first_and_registered_later_is_one_version(
    registry: Registry, light: ToolSpec
) -> None:
    row = registry.put_adapter(Toolset(tools=(light,)), "generator", b"")
    registry.add_tools([light], source="file")
    (version,) = registry.tool_versions("set_light")
    assert (version.version, version.source, version.adapters) == (1, "file", 1)
    assert registry.adapter_tools(row.fingerprint) == [version]


def test_status_names_every_difference(registry: Registry, light: ToolSpec, weather: ToolSpec) -> None:
    registry.add_tools([light, weather, ToolSpec(name="new")])
    registry.save_agent(AgentSpec(name="home", instructions="i", tools=("set_light", "get_weather")))
    row = registry.put_adapter(registry.toolset("home"), "generator", b"", agent="home")
    assert registry.adapter_status(row) == AdapterStatus("fresh")
    assert registry.adapter_status(row, generator_fp="generator") == AdapterStatus("fresh")

    registry.add_tools([ToolSpec(name="set_light", description="changed")])
    assert registry.adapter_status(row) == AdapterStatus(
        "outdated", ("tool 'set_light' changed since its version 1",)
    )
    registry.save_agent(AgentSpec(name="home", instructions="other", tools=("new", "set_light")))
    assert registry.adapter_status(row, generator_fp="another").why == (
        "the instructions changed",
        "tool 'get_weather' was taken away",
        "tool 'new' was added",
        "tool 'set_light' changed since its version 1",
        "another generator made it",
    )
    registry.remove_agent("home")
    assert registry.adapter_status(row).why == ("agent 'home' was removed",)


def test_status_is_fresh_again_when_the_tool_goes_back(registry: Registry, light: ToolSpec) -> None:
    registry.add_tools([light])
    registry.save_agent(AgentSpec(name="home", tools=("set_light",)))
    row = registry.put_adapter(registry.toolset("home"), "generator", b"", agent="home")
    registry.add_tools([ToolSpec(name="set_light", description="changed")])
    registry.add_tools([light])
    assert registry.adapter_status(row).state == "fresh"


def test_an_adapter_without_agent_is_fresh_whatever_is_registered(
    registry: Registry, light: ToolSpec
) -> None:
    row = registry.put_adapter(Toolset(tools=(light,)), "generator", b"")
    registry.add_tools([ToolSpec(name="set_light", description="changed")])
    assert registry.adapter_status(row).state == "fresh"


def test_adapters_are_listed_by_use_searched_and_paged(registry: Registry, clock: list[datetime]) -> None:
    rows = []
    for agent in ("Küche", "office", None):
        clock[0] += timedelta(seconds=1)
        rows.append(registry.put_adapter(Toolset(instructions=str(agent)), "0" * 64, b"12", agent=agent))
    assert registry.adapters() == rows[::-1]
    assert all(row.blob is None for row in registry.adapters())
    assert registry.adapters("OFF") == [rows[1]]
    assert registry.adapters(agent="office") == [rows[1]]
    assert registry.adapters(rows[0].fingerprint[:10]) == [rows[0]]
    assert registry.adapters(rows[2].toolset_fp[:10].upper()) == [rows[2]]
    assert registry.adapters(limit=1, offset=1) == [rows[1]]
    assert registry.count_adapters("0000") == 3
    assert registry.count_adapters("%") == 0
    assert registry.adapter_bytes() == 6


def test_a_fingerprint_may_be_shortened_while_it_is_unique(registry: Registry) -> None:
    rows = [put(registry, str(number)) for number in range(17)]  # two of them begin with the same digit
    for row in rows:
        assert registry.adapter(row.fingerprint[:12].upper()) == row
    digits = [row.fingerprint[0] for row in rows]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    with pytest.raises(NotFound, match="several adapters begin with"):
        registry.adapter(twice)
    for wrong in ("", "%", "g" * 64):
        with pytest.raises(NotFound):
            registry.adapter(wrong)
    with pytest.raises(NotFound):
        registry.adapter_blob(99)


def test_evicting_takes_blob_and_specs_that_nobody_needs(
    registry: Registry, light: ToolSpec, weather: ToolSpec
) -> None:
    registry.add_tools([light])
    row = registry.put_adapter(Toolset(tools=(light, weather)), "generator", b"x")
    other = registry.put_adapter(Toolset(tools=(weather,)), "generator", b"y")
    registry.pin_adapter(row.fingerprint)
    assert registry.evict_adapter(row.fingerprint).id == row.id
    assert registry.adapters() == [other]
    with pytest.raises(NotFound):
        registry.adapter_blob(row.id)
    with pytest.raises(NotFound):
        registry.evict_adapter(row.fingerprint)
    assert registry.adapter_toolset(other.fingerprint).names == ("get_weather",)
    registry.evict_adapter(other.fingerprint)
    registry.add_tools([weather])
    assert [version.version for version in registry.tool_versions("get_weather")] == [1]


def test_pruning_by_size_takes_the_least_recently_used_and_never_a_pinned_one(
    registry: Registry, clock: list[datetime]
) -> None:
    rows = []
    for name in "abcd":
        clock[0] += timedelta(seconds=1)
        rows.append(put(registry, name))
    a, b, c, d = rows
    registry.pin_adapter(b.fingerprint)
    clock[0] += timedelta(seconds=1)
    registry.get_adapter(a.toolset_fp, a.generator_fp)  # now the last used
    assert registry.prune_adapters(40) == []
    assert [row.id for row in registry.prune_adapters(25)] == [c.id, d.id]
    assert [row.id for row in registry.prune_adapters(0)] == [a.id]
    assert [row.id for row in registry.adapters()] == [b.id]
    registry.pin_adapter(b.fingerprint, False)
    assert len(registry.prune_adapters(0)) == 1


def test_pruning_by_age(registry: Registry, clock: list[datetime]) -> None:
    old, pinned = put(registry, "old"), put(registry, "pinned")
    registry.pin_adapter(pinned.fingerprint)
    clock[0] += timedelta(days=10)
    young = put(registry, "young")
    assert [row.id for row in registry.prune_adapters(unused_for=timedelta(days=5))] == [old.id]
    assert {row.id for row in registry.adapters()} == {pinned.id, young.id}
    assert registry.prune_adapters() == []
