"""`agents`: create, list, show, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from agent_specializer.commands.console import Json, note, opened, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="Make agents of registered tools.")


@app.command()
def create(
    name: str,
    tools: Annotated[str, typer.Option(help="Names of registered tools, with commas between them.")],
    instructions: Annotated[str, typer.Option(help="What the agent is for, and how it behaves.")] = "",
    as_json: Json = False,
) -> None:
    """Make the agent NAME, or make the one of that name so."""
    names = [part.strip() for part in tools.split(",") if part.strip()]
    with opened() as (specializer, _):
        agent = specializer.create_agent(name, names, instructions)
        document = {**agent.spec.model_dump(), "toolset": agent.toolset.fingerprint}
    if as_json:
        print_json(document)
    else:
        note(f"agent {name!r} has {len(names)} tool{'s' * (len(names) != 1)}")


@app.command("list")
def list_(
    search: Annotated[str, typer.Argument(help="Words that the name or instructions hold.")] = "",
    as_json: Json = False,
) -> None:
    """List the agents."""
    with opened() as (specializer, _):
        rows = specializer.registry.agents(search)
    if as_json:
        print_json(
            {"agents": [{"name": r.name, "instructions": r.instructions, "tools": r.tools} for r in rows]}
        )
        return
    print_rows(
        ("agent", "tools", "instructions"),
        [(r.name, len(r.tools), r.instructions) for r in rows],
        empty="no agents; make one with `agent-specializer agents create NAME --tools a,b`",
    )


@app.command()
def show(name: str, as_json: Json = False) -> None:
    """Show an agent: instructions, tools, and the task description that the cloud model reads."""
    from agent_specializer.describe import describe_toolset

    with opened() as (specializer, _):
        agent = specializer.agent(name)
        spec, toolset = agent.spec, agent.toolset
        adapters = specializer.registry.adapters(agent=name)
    if as_json:
        print_json(
            {
                **spec.model_dump(),
                "toolset": toolset.fingerprint,
                "description": describe_toolset(toolset),
                "adapters": [row.fingerprint for row in adapters],
            }
        )
        return
    print(describe_toolset(toolset), end="")
    note(f"{len(spec.tools)} tools, {len(adapters)} adapters in the cache")


@app.command()
def remove(name: str) -> None:
    """Remove an agent; its tools and adapters stay."""
    with opened() as (specializer, _):
        specializer.registry.remove_agent(name)
    note(f"removed {name}")
