"""Processes and threads on one home lose nothing, generate once, and outlive each other's deaths."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import store_workers

from agent_specializer.errors import StoreError
from agent_specializer.specs import ToolSpec
from agent_specializer.store import Registry, claims
from agent_specializer.store.adapters import adapter_fingerprint
from agent_specializer.store.tables import Claim

SPAWN = multiprocessing.get_context("spawn")


def finish(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_processes_that_register_and_specialise_at_once_lose_nothing_and_generate_once(
    url: str, tmp_path: Path
) -> None:
    start, log = SPAWN.Barrier(2), tmp_path / "generated"
    finish(
        [
            SPAWN.Process(target=store_workers.register_and_specialize, args=(url, n, start, str(log)))
            for n in range(2)
        ]
    )
    assert len(log.read_text().splitlines()) == 1
    with Registry(url) as registry:
        assert registry.count_tools() == 60
        assert all(row.version == 1 for row in registry.tools())
        assert [row.name for row in registry.agents()] == ["agent_0", "agent_1", "team"]
        assert len(registry.toolset("team").tools) == 20
        (adapter,) = registry.adapters()
        assert registry.adapter_blob(adapter.id) == b"gates"
        assert adapter.hits in (20, 21)  # one of the two may have found it inside its claim
        assert registry.count_runs() == 20


def test_an_empty_home_opened_by_processes_at_once_opens_for_all(url: str) -> None:
    start = SPAWN.Barrier(3)
    finish([SPAWN.Process(target=store_workers.open_only, args=(url, start)) for _ in range(3)])


def test_processes_that_change_one_tool_keep_every_version(url: str) -> None:
    start = SPAWN.Barrier(2)
    finish([SPAWN.Process(target=store_workers.change_together, args=(url, n, start)) for n in range(2)])
    with Registry(url) as registry:
        versions = registry.tool_versions("contested")
        assert [row.version for row in versions] == list(range(1, 21))
        assert len({row.spec.description for row in versions}) == 20
        assert registry.tool("contested") == versions[-1].spec


def test_an_empty_home_opened_by_threads_at_once_opens_for_all(url: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        for registry in threads.map(lambda _: Registry(url), range(8)):
            registry.close()


def test_different_homes_opened_by_threads_at_once_do_not_mix(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}/store.db" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for number, registry in enumerate(threads.map(Registry, urls)):
            assert registry.count_tools() == 0
            registry.add_tools([ToolSpec(name=str(number))])
            registry.close()


def test_threads_share_one_registry(registry: Registry) -> None:
    def work(number: int) -> None:
        registry.add_tools([ToolSpec(name=f"tool_{number % 30}", description=str(number % 30))])
        registry.tools("tool", limit=5)
        registry.add_run(mode="base")

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(120)))
    assert registry.count_tools() == 30
    assert {row.version for row in registry.tools()} == {1}
    assert registry.count_runs() == 120


def test_a_claim_keeps_others_waiting_until_it_ends(registry: Registry) -> None:
    order: list[str] = []
    held = threading.Event()

    def second() -> None:
        held.wait(10)
        with registry.claim("toolset", "generator") as waited:
            order.append(f"second, waited: {waited}")

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(second)
        with registry.claim("toolset", "generator") as waited:
            held.set()
            with registry.claim("toolset", "other generator"):  # another adapter is another claim
                time.sleep(0.3)
            order.append(f"first, waited: {waited}")
        waiting.result(10)
    assert order == ["first, waited: False", "second, waited: True"]
    with registry.claim("toolset", "generator") as waited:
        assert not waited


def test_a_claim_ends_with_an_error_inside_it(registry: Registry) -> None:
    with pytest.raises(RuntimeError, match="generator broke"), registry.claim("toolset", "generator"):
        raise RuntimeError("generator broke")
    with registry.claim("toolset", "generator") as waited:
        assert not waited


def test_a_killed_holder_on_this_machine_blocks_no_one(url: str, registry: Registry) -> None:
    held = SPAWN.Event()
    holder = SPAWN.Process(target=store_workers.hold_claim, args=(url, held))
    holder.start()
    assert held.wait(60)
    os.kill(holder.pid or 0, signal.SIGKILL)
    holder.join(10)
    before = time.monotonic()
    with registry.claim("toolset", "generator") as waited:
        assert waited
    assert time.monotonic() - before < registry.claim_expiry_seconds / 2


def plant_claim(registry: Registry, host: str) -> None:
    claim = Claim(
        fingerprint=adapter_fingerprint("toolset", "generator"), holder="gone", host=host, pid=1, beat=7
    )
    registry._writing(lambda session: session.add(claim))


def test_a_silent_holder_on_another_machine_expires(registry: Registry) -> None:
    plant_claim(registry, "another machine")
    registry.claim_expiry_seconds = 0.4
    before = time.monotonic()
    with registry.claim("toolset", "generator") as waited:
        assert waited
    assert 0.4 <= time.monotonic() - before < 10


def test_of_many_who_wait_for_a_silent_holder_one_at_a_time_goes_on(registry: Registry) -> None:
    plant_claim(registry, "another machine")
    registry.claim_expiry_seconds, registry.claim_beat_seconds = 0.5, 0.05
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with registry.claim("toolset", "generator"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.05)
            inside.remove(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert most == [1, 1, 1, 1]


def test_a_living_holder_is_waited_for_however_long_it_takes(registry: Registry) -> None:
    registry.claim_expiry_seconds, registry.claim_beat_seconds = 1.0, 0.05
    held, done = threading.Event(), threading.Event()

    def slow() -> None:
        with registry.claim("toolset", "generator"):
            held.set()
            time.sleep(2.5)
            done.set()

    with ThreadPoolExecutor(1) as threads:
        working = threads.submit(slow)
        held.wait(10)
        with registry.claim("toolset", "generator"):
            assert done.is_set()
        working.result(10)


def test_a_full_disk_at_the_end_of_a_claim_does_not_undo_the_work(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(work: object) -> None:
        raise StoreError("the disk is full")

    with registry.claim("toolset", "generator"):
        monkeypatch.setattr(registry, "_writing", full)
    monkeypatch.undo()
    monkeypatch.setattr(claims, "_is_dead", lambda claim: False)
    registry.claim_expiry_seconds = 0.2
    with registry.claim("toolset", "generator") as waited:
        assert waited


def test_a_process_killed_while_writing_leaves_nothing_half_written(url: str) -> None:
    process = SPAWN.Process(target=store_workers.die_while_writing, args=(url,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    with Registry(url) as registry:
        assert registry.count_tools() == 0
        assert registry.add_tools([ToolSpec(name="half")])[0].status == "new"
