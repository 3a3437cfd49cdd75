"""`bench agents`, `langchain-latency` and `threshold`: the specialised model inside LangChain, and when to trust it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent_specializer.commands.console import Checkpoint, Json, print_json

Out = Annotated[Path | None, typer.Option(help="Write the report there, as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `bench`."""
    app.command()(agents)
    app.command()(langchain_latency)
    app.command()(threshold)


def agents(
    conversations: Annotated[
        Path | None, typer.Option(help="Scripted conversations, YAML or JSON; 50 are shipped.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Conversations, of every kind as many; all by default.")
    ] = None,
    fallback: Annotated[
        str, typer.Option(help="prompted, or package.module:name of a LangChain chat model.")
    ] = "prompted",
    no_fallback: Annotated[bool, typer.Option("--no-fallback", help="Only the specialised model.")] = False,
    threshold: Annotated[float, typer.Option(help="Confidence under which it is fallen back.")] = 0.7,
    max_tokens: Annotated[int, typer.Option(help="Of one reply.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run with the same --out was interrupted.")
    ] = False,
    out: Out = None,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Hold scripted conversations through LangChain's create_agent: which end, with which calls."""
    from agent_specializer.evaluation.agents.conversations import SHIPPED
    from agent_specializer.evaluation.agents.run import run_agents
    from agent_specializer.progress import console_progress

    with console_progress() as progress:
        report = run_agents(
            conversations=conversations or SHIPPED,
            limit=limit,
            fallback=None if no_fallback else fallback,
            threshold=threshold,
            max_tokens=max_tokens,
            seed=seed,
            out=out,
            resume=resume,
            checkpoint=checkpoint,
            progress=progress,
        )
    if as_json:
        print_json(report)
        return
    from rich.console import Console

    from agent_specializer.evaluation.agents.table import table

    Console().print(table(report))


def langchain_latency(
    tools: Annotated[int, typer.Option(help="Tools of the agent.")] = 12,
    requests: Annotated[int, typer.Option(help="Different ones.")] = 3,
    repetitions: Annotated[int, typer.Option(help="Of each request; medians are reported.")] = 5,
    seed: Annotated[int, typer.Option(help="Which agent, and what fills up its tools.")] = 0,
    out: Out = None,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Time an agent's streamed model call beside LangChain's ChatHuggingFace on the same weights."""
    from agent_specializer.evaluation.agents.latency import run_langchain_latency
    from agent_specializer.progress import console_progress

    with console_progress() as progress:
        report = run_langchain_latency(
            tools=tools,
            requests=requests,
            repetitions=repetitions,
            seed=seed,
            out=out,
            checkpoint=checkpoint,
            progress=progress,
        )
    if as_json:
        print_json(report)
        return
    from rich.console import Console

    from agent_specializer.evaluation.agents.table import latency_table

    Console().print(latency_table(report))


def threshold(
    report: Annotated[Path, typer.Argument(help="A report of `bench accuracy`.")],
    accuracy: Annotated[float, typer.Option(help="How often what is kept has to be right, 0 to 1.")] = 0.9,
    mode: Annotated[str, typer.Option(help="Whose confidence.")] = "specialized",
    as_json: Json = False,
) -> None:
    """Tell from which confidence on replies are right often enough: for SpecializedMiddleware."""
    from agent_specializer.evaluation.threshold import lines, run_threshold

    found = run_threshold(report, accuracy=accuracy, mode=mode)
    if as_json:
        print_json(found)
        return
    print("\n".join(lines(found)))
