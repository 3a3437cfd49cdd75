"""`tools`: import, list, show, remove."""

from __future__ import annotations

from typing import Annotated

import typer

from agent_specializer.commands.console import Json, note, opened, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="Register tools and look at them.")


@app.command("import")
def import_(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Files (JSON, YAML, Python), directories, URLs of OpenAPI documents or tool files, or "
            "'mcp:COMMAND' or 'mcp:URL' of MCP servers."
        ),
    ],
    as_json: Json = False,
) -> None:
    """Register the tools of SOURCES: all of them, or none."""
    from agent_specializer.intake import read_tools

    with opened() as (specializer, _):
        found = {source: read_tools(source) for source in sources}
        read_tools([tool for tools in found.values() for tool in tools])  # no two different ones of one name
        changes = [
            change
            for source, tools in found.items()
            for change in specializer.registry.add_tools(tools, source=source)
        ]
    if as_json:
        print_json({"tools": [{"name": c.name, "status": c.status, "version": c.version} for c in changes]})
        return
    print_rows(
        ("tool", "status", "version"),
        [(c.name, c.status, c.version) for c in changes],
        empty="no tools were found",
    )


@app.command("list")
def list_(
    search: Annotated[str, typer.Argument(help="Words that the name or description holds.")] = "",
    as_json: Json = False,
) -> None:
    """List the registered tools."""
    with opened() as (specializer, _):
        rows = specializer.registry.tools(search)
    if as_json:
        print_json(
            {
                "tools": [
                    {
                        "name": r.name,
                        "description": r.description,
                        "version": r.version,
                        "fingerprint": r.fingerprint,
                        "source": r.source,
                        "agents": r.agents,
                    }
                    for r in rows
                ]
            }
        )
        return
    print_rows(
        ("tool", "version", "agents", "description"),
        [(r.name, r.version, r.agents, r.description) for r in rows],
        empty="no tools; register some with `agent-specializer tools import FILE`",
    )


@app.command()
def show(name: str, as_json: Json = False) -> None:
    """Show a tool's definition, and who uses it."""
    import json

    with opened() as (specializer, _):
        tool = specializer.registry.tool(name)
        versions = specializer.registry.tool_versions(name)
        agents = specializer.registry.agents_using(name)
    document = {
        **tool.model_dump(),
        "fingerprint": tool.fingerprint,
        "versions": len(versions),
        "agents": agents,
    }
    if as_json:
        print_json(document)
        return
    print(f"{tool.name}: {tool.description}")
    print(json.dumps(tool.parameters, indent=2, ensure_ascii=False))
    for said in tool.requests:
        print(f"users say: {said}")
    print(f"versions: {len(versions)}; used by: {', '.join(agents) or 'no agent'}")


@app.command()
def requests(
    name: str,
    texts: Annotated[
        list[str], typer.Argument(help="What users say when they want the tool, each in quotes.")
    ],
    replace: Annotated[
        bool, typer.Option("--replace", help="Instead of the requests that are known, not beside them.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what users say when they want the tool NAME: adapters look for what a request is like in that, too."""
    with opened() as (specializer, _):
        change = specializer.add_requests(name, texts, replace=replace)
        known = specializer.registry.tool(name).requests
    if as_json:
        print_json({"name": name, "status": change.status, "version": change.version, "requests": known})
    else:
        note(f"{name} has {len(known)} request{'s' * (len(known) != 1)}, version {change.version}")


@app.command()
def remove(names: list[str]) -> None:
    """Unregister tools that no agent uses."""
    with opened() as (specializer, _):
        for name in names:
            specializer.registry.remove_tool(name)
            note(f"removed {name}")
