"""`specialize`, `ask` and `quickstart`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agent_specializer.commands.console import Caution, Checkpoint, Json, note, opened, print_json

if TYPE_CHECKING:
    from agent_specializer.refinement.refine import Refinement
    from tool_specs import ExampleRequest


def specialize(
    agent: str,
    force: Annotated[
        bool, typer.Option("--force", help="Make the adapter anew, even if it is there.")
    ] = False,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine",
            help="Then fit it to requests that the model writes itself, for minutes, and say what that came to.",
        ),
    ] = False,
    examples: Annotated[
        Path | None,
        typer.Option(
            help='With --refine: requests of people, JSON Lines of {"request", "calls"}, asked before and after; '
            "where more come out right, the refined adapter is put in use."
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="With --refine: put the refined adapter in use in any case.")
    ] = False,
    requests: Annotated[
        int | None, typer.Option(help="With --refine: requests that are written for each tool (16).")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --refine: of what is drawn.")] = 0,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Make the adapter of AGENT in one forward pass, or find it in the cache."""
    if not refine and (examples is not None or requests is not None or keep):
        raise typer.BadParameter("--examples, --keep and --requests are of --refine")
    asked = _requests(examples) if examples else ()
    report = None
    with opened(checkpoint) as (specializer, _):
        made = specializer.specialize(
            agent,
            force=force,
            on_step=None if as_json else lambda step: note(f"{step.name:<9} {step.seconds:8.3f} s"),
        )
        if refine:
            made, report = specializer.refine(agent, examples=asked, keep=keep, requests=requests, seed=seed)
    refinement = report.to_dict() if report else made.refinement
    if as_json:
        print_json(
            {
                "fingerprint": made.fingerprint,
                "cache": made.cache,
                "seconds": made.seconds,
                "description_tokens": made.description_tokens,
                "gates": made.adapter.gates.tolist(),
                **({"refinement": refinement} if refinement else {}),
            }
        )
        return
    print(
        f"{made.fingerprint}  cache {made.cache}, {made.seconds:.2f} s, "
        f"{made.description_tokens} tokens read once, {made.adapter.nbytes:,} bytes kept"
    )
    if report is not None:
        _say(report)
    elif refinement:
        note(f"refined on {refinement['date']}; --force makes it as it was")


def _requests(path: Path) -> tuple[ExampleRequest, ...]:
    from agent_specializer.errors import IntakeError
    from agent_specializer.specializer.scoring import read_requests

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise IntakeError(
            f"cannot read {path}: {error}", hint="give a file in JSON Lines, in UTF-8"
        ) from None
    found = read_requests(text)
    if not found:
        raise IntakeError(f"there are no requests in {path}", hint="one JSON object a line")
    return found


def _say(report: Refinement) -> None:
    """What refining came to, for people."""
    print(
        f"{report.written} requests written, {report.fitted} of them fitted; of {report.held_out} held out {report.before.right} got the tool "
        f"they were written for before, {report.after.right} after "
        f"(loss {report.before.loss:.2f}, {report.after.loss:.2f} nats); {report.seconds:.0f} s"
    )
    if report.examples:
        print(
            f"right tools on {report.right_before} of {report.examples} examples before, {report.right_after} after"
        )
    elif not report.kept:
        note(
            "whether it serves people better only their requests can tell: give some as --examples, or --keep it"
        )
    print(
        "the refined adapter is in use; --force makes it as it was"
        if report.kept
        else "the adapter stays as it was"
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
