"""A big store answers while a person watches: under 50 ms for a search or a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from agent_specializer.specs import AgentSpec, Toolset, ToolSpec
from agent_specializer.store import Registry
from agent_specializer.store.tables import Run, utc_now

SECONDS = 0.05
WORDS = ["order", "customer", "invoice", "weather", "light", "calendar", "ticket", "payment", "route", "song"]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """10,000 tools, 300 agents, 1,000 adapters with blobs of 20 kB, 20,000 runs."""
    tools = [
        ToolSpec(
            name=f"{WORDS[n % 10]}_{n}", description=f"Handles the {WORDS[n // 10 % 10]} number {n}. " * 5
        )
        for n in range(10_000)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "agent_specializer.store.tools._check", lambda spec: None
        )  # its speed is another's promise
        registry = Registry(f"sqlite:///{tmp_path_factory.mktemp('big')}/store.db")
        registry.add_tools(tools)
    for n in range(300):
        names = tuple(tool.name for tool in tools[n * 20 : n * 20 + 20])
        registry.save_agent(AgentSpec(name=f"agent_{n}", tools=names))
    for n in range(1000):
        toolset = Toolset(tools=tuple(tools[n * 5 : n * 5 + 10]))
        registry.put_adapter(toolset, "g" * 64, b"x" * 20_000, agent=f"agent_{n % 300}")
    now = utc_now()
    registry._writing(
        lambda session: session.add_all(
            Run(
                time=now - timedelta(minutes=n),
                agent=f"agent_{n % 300}",
                mode="specialized",
                calls=[],
                prompt_tokens=9,
                tool_prompt_tokens=0,
                completion_tokens=9,
                seconds=0.1,
                first_token_seconds=0.1,
                confidence=1.0,
            )
            for n in range(20_000)
        )
    )
    yield registry
    registry.close()


@pytest.mark.parametrize(
    "ask",
    [
        lambda registry: registry.tools("invoice number 99", limit=50),
        lambda registry: registry.tools(limit=50, offset=9900),
        lambda registry: registry.count_tools("customer"),
        lambda registry: registry.tool("order_5000"),
        lambda registry: registry.agents("agent_2", limit=50),
        lambda registry: registry.toolset("agent_7"),
        lambda registry: registry.adapters("agent_29", limit=50),
        lambda registry: registry.adapters(limit=50, offset=900),
        lambda registry: registry.adapter_bytes(),
        lambda registry: [registry.adapter_status(row) for row in registry.adapters(limit=1)],
        lambda registry: registry.get_adapter(registry.adapters(limit=1)[0].toolset_fp, "g" * 64),
        lambda registry: registry.runs(50, agent="agent_3"),
    ],
)
def test_answers_in_fifty_milliseconds(big: Registry, ask: Callable[[Registry], object]) -> None:
    assert ask(big)  # also fills the caches of statements and pages
    best = float("inf")
    for _ in range(40):  # the best of many: a busy machine slows some of them, not all
        before = time.perf_counter()
        ask(big)
        best = min(best, time.perf_counter() - before)
        if best < SECONDS:
            return
    pytest.fail(f"{best * 1000:.0f} ms at best")


def test_pages_use_indexes_not_scans(big: Registry) -> None:
    plans = {
        "SELECT * FROM runs WHERE agent = 'a' ORDER BY time DESC": "ix_runs_agent_time",
        "SELECT * FROM runs ORDER BY time DESC": "ix_runs_time",
        "SELECT * FROM adapters ORDER BY last_used_at DESC": "ix_adapters_last_used_at",
        "SELECT * FROM adapters WHERE toolset_fp = 'a' AND generator_fp = 'b'": "sqlite_autoindex",
        "SELECT * FROM tool_versions WHERE name = 'a' AND fingerprint = 'b'": "ix_tool_versions_name_",
        "SELECT * FROM tools ORDER BY name": "sqlite_autoindex",
        "SELECT * FROM agent_tools WHERE tool_id = 1": "ix_agent_tools_tool_id",
        "SELECT * FROM adapter_tools WHERE tool_version_id = 1": "ix_adapter_tools_tool_version_id",
    }
    with big._reading() as session:
        for sql, index in plans.items():
            plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}").all()
            assert index in str(plan), f"{sql}: {plan}"
