"""`specialize`, `ask` and `quickstart`."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from agent_specializer.commands.console import Caution, Checkpoint, Json, note, opened, print_json


def specialize(
    agent: str,
    force: Annotated[
        bool, typer.Option("--force", help="Make the adapter anew, even if it is there.")
    ] = False,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Make the adapter of AGENT in one forward pass, or find it in the cache."""
    with opened(checkpoint) as (specializer, _):
        made = specializer.specialize(
            agent,
            force=force,
            on_step=None if as_json else lambda step: note(f"{step.name:<9} {step.seconds:8.3f} s"),
        )
    if as_json:
        print_json(
            {
                "fingerprint": made.fingerprint,
                "cache": made.cache,
                "seconds": made.seconds,
                "description_tokens": made.description_tokens,
                "gates": made.adapter.gates.tolist(),
            }
        )
        return
    print(
        f"{made.fingerprint}  cache {made.cache}, {made.seconds:.2f} s, "
        f"{made.description_tokens} tokens read once, {made.adapter.nbytes:,} bytes kept"
    )


def ask(
    agent: str,
    text: str,
    mode: Annotated[
        Literal["specialized", "prompted", "base"],
        typer.Option(help="With the adapter; with the tools in the prompt; or with neither."),
    ] = "specialized",
    caution: Caution = 0.0,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Ask AGENT and print the calls that it makes, or its words."""
    from agent_specializer.edge.options import ReplyOptions

    with opened(checkpoint) as (specializer, _):
        reply = specializer.ask(agent, text, mode=mode, options=ReplyOptions(caution=caution))
    usage = reply.usage
    if as_json:
        print_json(
            {
                "calls": [call.model_dump() for call in reply.calls],
                "content": reply.content,
                "prompt_tokens": usage.prompt_tokens,
                "tool_prompt_tokens": usage.tool_prompt_tokens,
                "completion_tokens": usage.completion_tokens,
                "seconds": usage.seconds,
                "first_token_seconds": usage.first_token_seconds,
                "confidence": reply.confidence,
                "missing": list(reply.missing),
            }
        )
        return
    for call in reply.calls:
        print(f"{call.name} {json.dumps(call.arguments, ensure_ascii=False)}")
    if reply.content:
        print(reply.content)
    if reply.missing:
        note(f"not said: {', '.join(reply.missing)}")
    note(
        f"{usage.prompt_tokens} tokens sent ({usage.tool_prompt_tokens} of tools), "
        f"{usage.completion_tokens} made, {usage.seconds:.2f} s, confidence {reply.confidence:.0%}"
    )


def quickstart(
    agent: Annotated[str | None, typer.Option(help="Whose example requests to ask.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Ask the requests of all agents.")] = False,
    prompted_seconds: Annotated[
        float, typer.Option(help="Seconds that the comparison with tools in the prompt may take.")
    ] = 15.0,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """The whole main job on the shipped catalogues: register, specialise, ask, compare."""
    from agent_specializer.commands.tables import quickstart_table
    from agent_specializer.quickstart import DEFAULT_AGENT, run_quickstart

    if every and agent:
        raise typer.BadParameter("give --agent or --all, not both")
    with opened(checkpoint) as (specializer, _):
        report = run_quickstart(
            specializer,
            agents=None if every else (agent or DEFAULT_AGENT,),
            prompted_seconds=prompted_seconds,
            say=note,
        )
    if as_json:
        print_json(report.to_dict())
    else:
        quickstart_table(report)


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(quickstart)
    app.command()(specialize)
    app.command()(ask)
