"""One home and one engine for threads, tasks and processes at once: everyone gets their own right answer."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_specializer import Specializer, ToolSpec
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.messages import Mode, Reply

LEVEL = {
    "type": "object",
    "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["level"],
}
AGENTS = {
    "home": [ToolSpec(name="set_light", description="Dims the lamps.", parameters=LEVEL)],
    "weather": [ToolSpec(name="get_weather", description="Tells the weather."), ToolSpec(name="warn")],
    "music": [ToolSpec(name="play", description="Plays a song."), ToolSpec(name="stop")],
}
SHORT = ReplyOptions(max_tokens=24, max_calls=2)
WISHES: list[tuple[str, str, Mode]] = [
    (agent, text, mode)
    for text in ("dim the light", "louder")
    for agent in AGENTS
    for mode in ("specialized", "prompted", "base")
]


def said(reply: Reply) -> tuple[object, ...]:
    return reply.calls, reply.content, reply.adapter, reply.usage.prompt_tokens


@pytest.fixture
def specializer(home: Path, tiny_folder: Path):
    with Specializer(bundle=str(tiny_folder / "bundle.yaml")) as made:
        for name, tools in AGENTS.items():
            made.create_agent(name, tools, f"You are {name}.")
        yield made


@pytest.fixture
def alone(specializer: Specializer) -> list[tuple[object, ...]]:
    """What each wish gets when nobody else asks; the merged weights of one adapter have room."""
    return [said(specializer.ask(agent, text, mode=mode, options=SHORT)) for agent, text, mode in WISHES]


def test_the_wishes_are_answered_differently(alone: list[tuple[object, ...]]) -> None:
    assert len(set(map(repr, alone))) > len(AGENTS)  # else a mix-up would not show


def test_threads_get_what_they_get_alone(specializer: Specializer, alone: list[tuple[object, ...]]) -> None:
    with ThreadPoolExecutor(6) as threads:
        for _ in range(2):
            replies = threads.map(lambda w: specializer.ask(w[0], w[1], mode=w[2], options=SHORT), WISHES)
            assert [said(reply) for reply in replies] == alone
    assert specializer.registry.count_runs() == 3 * len(WISHES)
    assert specializer.registry.count_adapters() == len(AGENTS)


async def test_tasks_get_what_they_get_alone(
    specializer: Specializer, alone: list[tuple[object, ...]]
) -> None:
    replies = await asyncio.gather(
        *(specializer.aask(agent, text, mode=mode, options=SHORT) for agent, text, mode in WISHES)
    )
    assert [said(reply) for reply in replies] == alone


_PROCESS = """
import json, sys
from agent_specializer import Specializer
from agent_specializer.edge.options import ReplyOptions
from test_concurrent_use import AGENTS, SHORT
with Specializer(bundle=sys.argv[1]) as spec:
    for name, tools in AGENTS.items():
        spec.create_agent(name, tools, f"You are {name}.")
    spec.engine  # loaded before both begin
    print("ready", flush=True)
    sys.stdin.readline()
    replies = [spec.ask(name, "dim the light", options=SHORT) for name in AGENTS]
    print(json.dumps([[r.adapter, r.cache, [c.model_dump() for c in r.calls], r.content] for r in replies]))
"""


def test_processes_on_one_empty_home_lose_nothing_generate_once_and_answer_alike(
    home: Path, tiny_folder: Path
) -> None:
    bundle = str(tiny_folder / "bundle.yaml")
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, bundle],
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [json.loads(child.communicate(timeout=120)[0]) for child in children]
    assert [child.returncode for child in children] == [0, 0]
    for one, other in zip(*answers, strict=True):
        assert sorted([one.pop(1), other.pop(1)]) == ["hit", "miss"]  # generated once
        assert one == other
    with Specializer(bundle=bundle) as specializer:
        assert [row.name for row in specializer.agents()] == sorted(AGENTS)
        assert specializer.registry.count_tools() == 5
        assert specializer.registry.count_adapters() == len(AGENTS)
        assert specializer.registry.count_runs() == 2 * len(AGENTS)
        assert {check.state for check in specializer.verify()} == {"same"}
