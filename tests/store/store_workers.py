"""What the processes of the concurrency tests do: importable, as spawned processes find them by name."""

from __future__ import annotations

import os
import signal
import time
from multiprocessing.synchronize import Barrier, Event

from agent_specializer.specs import AgentSpec, ToolSpec
from agent_specializer.store import Registry


def register_and_specialize(url: str, worker: int, start: Barrier, log: str) -> None:
    """Opens an empty home, registers its own and shared tools, and needs the same adapter as the others."""
    start.wait(60)
    with Registry(url) as registry:
        own = [ToolSpec(name=f"own_{worker}_{number}") for number in range(20)]
        shared = [ToolSpec(name=f"shared_{number}") for number in range(20)]
        for tool in own:
            registry.add_tools([tool, *shared])
        registry.save_agent(AgentSpec(name=f"agent_{worker}", tools=("shared_0", own[0].name)))
        registry.save_agent(AgentSpec(name="team", tools=tuple(tool.name for tool in shared)))
        toolset = registry.toolset("team")
        with registry.claim(toolset.fingerprint, "generator"):
            if registry.get_adapter(toolset.fingerprint, "generator") is None:
                with open(log, "a") as file:
                    file.write(f"{os.getpid()}\n")
                time.sleep(0.3)  # so long that the others arrive meanwhile
                registry.put_adapter(toolset, "generator", b"gates", agent="team")
        for _ in range(10):
            registry.get_adapter(toolset.fingerprint, "generator")
            registry.add_run(mode="specialized", agent=f"agent_{worker}")


def open_only(url: str, start: Barrier) -> None:
    start.wait(60)
    Registry(url).close()


def change_together(url: str, worker: int, start: Barrier) -> None:
    """Changes one tool over and over, as others do."""
    start.wait(60)
    with Registry(url) as registry:
        for number in range(10):
            registry.add_tools([ToolSpec(name="contested", description=f"{worker}.{number}")])


def hold_claim(url: str, held: Event) -> None:
    """Claims and never lets go."""
    with Registry(url) as registry, registry.claim("toolset", "generator"):
        held.set()
        time.sleep(600)


def die_while_writing(url: str) -> None:
    with Registry(url) as registry:

        def work(session: object) -> None:
            from agent_specializer.store.tools import _register

            _register(session, {"half": ToolSpec(name="half")}, "")  # type: ignore[arg-type]
            session.flush()  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

        registry._writing(work)
