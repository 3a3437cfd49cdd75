"""The facade on tiny models: tools to calls, cached, from any thread, and honest about what goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import agent_specializer
from agent_specializer import Specializer, Toolset, ToolSpec
from agent_specializer.edge.events import Done
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.errors import (
    AdapterError,
    CheckpointError,
    ConfigError,
    NotFound,
    StoreError,
)
from agent_specializer.messages import Message, Reply

LEVEL = {
    "type": "object",
    "properties": {"level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["level"],
}
TOOLS = (
    ToolSpec(name="set_light", description="Dims the lamps.", parameters=LEVEL),
    ToolSpec(name="get_weather", description="Tells the weather."),
)


@pytest.fixture
def make(home, tiny_folder):
    """Specializers over the tiny bundle and this test's home."""
    made = []

    def factory(**options) -> Specializer:
        made.append(Specializer(**{"bundle": str(tiny_folder / "bundle.yaml")} | options))
        return made[-1]

    yield factory
    for specializer in made:
        specializer.close()


@pytest.fixture
def specializer(make) -> Specializer:
    made = make()
    made.register_tools(TOOLS)
    made.create_agent("home", ["set_light", "get_weather"], "You run a house.")
    return made


SHORT = ReplyOptions(max_tokens=24, max_calls=2)


def test_making_one_loads_and_writes_nothing(home):
    script = (
        "import sys; from agent_specializer import Specializer; Specializer(); "
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    assert list(home.iterdir()) == []


def test_tools_come_in_every_form(specializer):
    def open_blind(room: str) -> None:
        """Opens the blind of a room."""

    changes = specializer.register_tools([open_blind, {"name": "ring", "description": "Rings."}, TOOLS[0]])
    assert [(c.name, c.status) for c in changes] == [
        ("open_blind", "new"),
        ("ring", "new"),
        ("set_light", "same"),
    ]
    agent = specializer.create_agent("mixed", ["ring", open_blind])
    assert agent.toolset.names == ("open_blind", "ring")
    assert agent.spec.tools == ("ring", "open_blind")
    assert [row.name for row in specializer.agents()] == ["home", "mixed"]


def test_specialising_tells_its_steps_and_then_hits(specializer):
    steps = []
    first = specializer.specialize("home", on_step=steps.append)
    assert first.cache == "miss"
    assert [step.name for step in steps] == [
        "describe",
        "forward",
        "route",
        "tools",
        "merge",
        "priors",
        "store",
    ]
    assert tuple(steps) == first.steps
    assert sum(step.seconds for step in steps) <= first.seconds + 0.01
    assert first.description_tokens > 10
    torch.testing.assert_close(first.adapter.gates.sum(-1), torch.ones(3))

    again = specializer.specialize("home", on_step=steps.append)
    assert (again.cache, again.fingerprint) == ("hit", first.fingerprint)
    assert again.adapter.same_as(first.adapter)
    torch.testing.assert_close(again.adapter.priors, first.adapter.priors)
    assert len(steps) == 7  # nothing was done again
    assert specializer.specialize("home", force=True).cache == "miss"


def test_the_cache_key_is_the_toolset_in_any_order(specializer):
    first = specializer.specialize("home")
    specializer.create_agent("home", ["get_weather", "set_light"], "You run a house.")
    assert specializer.specialize("home").cache == "hit"
    specializer.register_tools([ToolSpec(name="set_light", description="Dims one lamp.", parameters=LEVEL)])
    edited = specializer.specialize("home")
    assert edited.cache == "miss"
    assert edited.fingerprint != first.fingerprint


def test_another_process_finds_the_adapter(specializer, make):
    fingerprint = specializer.specialize("home").fingerprint
    other = make().specialize("home")
    assert (other.cache, other.fingerprint) == ("hit", fingerprint)


def test_asking_makes_the_adapter_sends_no_tools_and_keeps_the_run(specializer):
    agent = specializer.agent("home")
    reply = agent.ask("dim the light", options=SHORT)
    assert reply.cache == "miss"
    assert reply.usage.tool_prompt_tokens == 0
    assert reply.usage.saved_prompt_tokens > 10
    assert {choice.name for choice in reply.choices} == {"set_light", "get_weather", None}
    again = agent.ask("dim the light", options=SHORT)
    assert again.cache == "hit"
    assert (again.calls, again.content) == (reply.calls, reply.content)
    runs = specializer.registry.runs()
    assert [(r.agent, r.mode, r.cache, r.request) for r in runs] == [
        ("home", "specialized", "hit", "dim the light"),
        ("home", "specialized", "miss", "dim the light"),
    ]
    assert runs[0].adapter == reply.adapter == specializer.specialize("home").fingerprint


def test_prompted_sends_the_tools_and_no_adapter(specializer):
    prompted = specializer.ask("home", "dim the light", mode="prompted", options=SHORT)
    base = specializer.ask("home", "dim the light", mode="base", options=SHORT)
    assert prompted.usage.tool_prompt_tokens > 10
    assert prompted.usage.prompt_tokens > base.usage.prompt_tokens + 10
    assert base.usage.tool_prompt_tokens == 0
    assert (prompted.adapter, base.adapter, prompted.cache) == (None, None, None)
    assert specializer.registry.count_adapters() == 0


def test_a_toolset_that_nobody_registered_is_cached_by_its_fingerprint(specializer):
    toolset = Toolset(tools=TOOLS[:1], instructions="Only lamps.")
    assert specializer.ask(toolset, "dim", options=SHORT).cache == "miss"
    same = Toolset(tools=TOOLS[:1], instructions="Only lamps.")
    assert specializer.ask(same, "dim", options=SHORT).cache == "hit"


def test_a_system_message_goes_into_the_adapter_not_to_the_edge(specializer):
    plain = specializer.ask("home", "dim", options=SHORT)
    messages = [Message(role="system", content="Be terse. " * 20), Message(role="user", content="dim")]
    reply = specializer.ask("home", messages, options=SHORT)
    assert reply.adapter != plain.adapter
    assert reply.usage.prompt_tokens == plain.usage.prompt_tokens
    stored = specializer.registry.adapter_toolset(reply.adapter)
    assert stored.instructions == "You run a house.\n" + "Be terse. " * 20


def test_a_stream_ends_in_the_reply_of_ask(specializer):
    expected = specializer.ask("home", "dim the light", options=SHORT)
    events = list(specializer.stream("home", "dim the light", options=SHORT))
    assert isinstance(events[-1], Done)
    reply = events[-1].reply
    assert (reply.calls, reply.content, reply.adapter) == (expected.calls, expected.content, expected.adapter)
    assert specializer.registry.count_runs() == 2


async def test_async_never_blocks_the_loop(specializer):
    await specializer.aask("home", "warm up", options=SHORT)
    longest = 0.0
    done = False

    async def watch():
        nonlocal longest
        while not done:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - began)

    watcher = asyncio.create_task(watch())
    reply, events = await asyncio.gather(
        specializer.aask("home", "dim the light", options=SHORT), _collect(specializer)
    )
    done = True
    await watcher
    assert (reply.calls, reply.content) == (events[-1].reply.calls, events[-1].reply.content)
    assert longest < 0.5


async def _collect(specializer):
    return [event async for event in specializer.astream("home", "dim the light", options=SHORT)]


async def test_leaving_a_stream_early_frees_the_engine(specializer):
    async for _ in specializer.astream("home", "dim the light", options=ReplyOptions(max_tokens=200)):
        break
    await asyncio.wait_for(specializer.aask("home", "dim", options=SHORT), timeout=20)


async def test_an_error_in_a_stream_reaches_its_reader(specializer):
    with pytest.raises(NotFound, match="'hom'"):
        [event async for event in specializer.astream("hom", "dim")]


def test_many_agents_in_one_batch_answer_as_each_alone(specializer):
    specializer.create_agent("weather", ["get_weather"], "You know the weather.")
    requests = [("home", "dim the light"), ("weather", "is it raining"), ("home", "thanks")]
    alone = [specializer.ask(agent, text, options=SHORT) for agent, text in requests]
    batch = specializer.ask_many(requests, options=SHORT)
    assert all(isinstance(reply, Reply) for reply in batch)
    assert [reply.adapter for reply in batch] == [reply.adapter for reply in alone]
    assert [{c.name for c in reply.choices} for reply in batch] == [
        {c.name for c in reply.choices} for reply in alone
    ]
    assert specializer.registry.count_runs() == 6


def test_threads_generate_once_and_get_the_same_adapter(specializer):
    results, failures = [], []

    def work():
        try:
            results.append(specializer.specialize("home"))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(result.cache for result in results) == ["hit"] * 5 + ["miss"]
    assert len({result.fingerprint for result in results}) == 1


# What goes wrong ------------------------------------------------------------------------------------------


def test_an_unknown_agent_is_named_with_what_there_is(specializer):
    with pytest.raises(NotFound, match="'hme'") as error:
        specializer.ask("hme", "dim")
    assert "home" in str(error.value)


def test_an_unknown_mode_is_refused(specializer):
    with pytest.raises(ConfigError, match="magic"):
        specializer.ask("home", "dim", mode="magic")


def test_a_checkpoint_for_another_model_is_refused(make, tiny_folder):
    with pytest.raises(CheckpointError, match="another cloud model"):
        make(checkpoint=tiny_folder / "foreign").generator  # noqa: B018


def test_without_a_checkpoint_prompted_works_and_specialising_says_why_not(make, tiny_folder):
    bare = make(bundle=str(tiny_folder / "bare.yaml"))
    bare.create_agent("home", list(TOOLS))
    assert bare.ask("home", "dim", mode="prompted", options=SHORT).usage.tool_prompt_tokens > 0
    with pytest.raises(CheckpointError, match="no generator checkpoint"):
        bare.ask("home", "dim")


def _overwrite_blob(home: Path, change) -> None:
    import sqlite3

    with sqlite3.connect(home / "agent_specializer.db") as db:
        ((blob,),) = db.execute("SELECT blob FROM adapter_blobs").fetchall()
        db.execute("UPDATE adapter_blobs SET blob = ?", (change(blob),))
    db.close()


def _with_keys(change):
    """Changes the keys of an adapter."""

    def changed(blob):
        from agent_specializer.loragen import Adapter

        adapter = Adapter.from_bytes(blob)
        return replace(adapter, keys=change(adapter.keys)).to_bytes()

    return changed


@pytest.mark.parametrize(
    "change",
    [
        lambda blob: blob[: len(blob) // 2],
        lambda blob: b"",
        lambda blob: blob[:-600] + b"\xff" * 600,
        _with_keys(lambda keys: keys.repeat(2, 1, 1)),
    ],
    ids=["cut off", "empty", "overwritten", "too many keys"],
)
def test_a_damaged_adapter_is_found_and_made_again_with_a_warning(specializer, home, caplog, change):
    first = specializer.specialize("home")
    _overwrite_blob(home, change)
    assert specializer.verify()[0].state == "damaged"
    with caplog.at_level(logging.WARNING):
        again = specializer.specialize("home")
    assert again.cache == "miss"
    assert "generated anew" in caplog.text
    assert again.adapter.same_as(first.adapter)
    assert specializer.specialize("home").cache == "hit"


def test_verify_tells_same_from_different_and_from_other_generators(
    specializer, make, tiny_folder, save_tiny_checkpoint, tmp_path, home
):
    from agent_specializer.loragen import Adapter

    first = specializer.specialize("home")
    assert [v.state for v in specializer.verify(first.fingerprint[:8])] == ["same"]

    def swap_gates(blob):
        adapter = Adapter.from_bytes(blob)
        return Adapter(**{**adapter.__dict__, "gates": adapter.gates.roll(1, -1)}).to_bytes()

    _overwrite_blob(home, swap_gates)
    (found,) = specializer.verify()
    assert found.state == "different"
    assert "gates differ" in found.detail

    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder / "model", dtype=torch.float32)
    other = make(checkpoint=save_tiny_checkpoint(model, tmp_path / "other", seed=9))
    assert other.specialize("home").cache == "miss"
    states = {v.fingerprint == first.fingerprint: v.state for v in other.verify()}
    assert states == {True: "other generator", False: "same"}
    with pytest.raises(AdapterError, match="another generator"):
        other.export(first.fingerprint, format="peft")


def test_a_full_database_costs_no_reply(specializer, monkeypatch, caplog):
    def full(*_, **__):
        raise StoreError("database: the disk is full")

    monkeypatch.setattr(specializer.registry, "add_run", full)
    assert specializer.ask("home", "dim", options=SHORT).choices
    assert "disk is full" in caplog.text


def test_after_a_kill_in_the_middle_of_specialising_the_next_run_works(specializer, home, tiny_folder):
    script = f"""
import time
from agent_specializer import Specializer
spec = Specializer(bundle={str(tiny_folder / "bundle.yaml")!r})
put = spec.registry.put_adapter
def hang(*a, **k):
    print("generated", flush=True)
    time.sleep(600)
spec.registry.put_adapter = hang
spec.specialize("home")
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline().strip() == "generated"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    began = time.perf_counter()
    assert specializer.specialize("home").cache == "miss"
    assert time.perf_counter() - began < 10
    assert specializer.specialize("home").cache == "hit"


# Exports --------------------------------------------------------------------------------------------------


def test_exports_are_whole_marked_and_replaceable(specializer, home):
    made = specializer.export("home", format="peft")
    assert made.path.parent == home / "exports"
    assert {file.name for file in made.path.iterdir()} >= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "agent_specializer.json",
    }
    card = json.loads((made.path / "agent_specializer.json").read_text())
    assert [tool["name"] for tool in card["tools"]] == ["get_weather", "set_light"]
    assert card["adapter"] == made.fingerprint
    assert made.bytes == sum(file.stat().st_size for file in made.path.iterdir())
    (made.path / "stale").write_text("x")
    again = specializer.export(made.fingerprint[:10], format="peft")
    assert again.path == made.path
    assert not (made.path / "stale").exists()
    assert [file.name for file in made.path.parent.iterdir()] == [made.path.name]


def test_an_export_replaces_nothing_that_is_not_one(specializer, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match="not an export"):
        specializer.export("home", format="merged", out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_export_refuses_unknown_formats_and_sources_without_gguf(specializer):
    with pytest.raises(ConfigError, match="onnx"):
        specializer.export("home", format="onnx")
    with pytest.raises(ConfigError, match="no GGUF file"):
        specializer.export("home", format="gguf")
    with pytest.raises(NotFound, match="no agent"):
        specializer.export("nobody", format="peft")


def test_the_public_names_are_there():
    for name in agent_specializer.__all__:
        assert getattr(agent_specializer, name) is not None
