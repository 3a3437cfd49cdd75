"""`cache`: list, show, verify, evict, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agent_specializer.commands.console import Checkpoint, Json, note, opened, print_json, print_rows

app = typer.Typer(no_args_is_help=True, help="The adapters that were made.")


@app.command("list")
def list_(
    search: Annotated[
        str, typer.Argument(help="Part of the agent's name, or the beginning of a fingerprint.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List the adapters, the last used first."""
    with opened() as (specializer, _):
        rows = specializer.registry.adapters(search)
        status = [specializer.registry.adapter_status(row) for row in rows]
    if as_json:
        print_json(
            {"adapters": [_document(row) | {"status": s.state} for row, s in zip(rows, status, strict=True)]}
        )
        return
    print_rows(
        ("fingerprint", "agent", "status", "hits", "bytes", "last used"),
        [
            (
                r.fingerprint[:12],
                r.agent or "-",
                f"{s.state}, refined" if r.refinement else s.state,
                r.hits,
                r.bytes,
                f"{r.last_used_at:%Y-%m-%d %H:%M}",
            )
            for r, s in zip(rows, status, strict=True)
        ],
        empty="no adapters; make one with `agent-specializer specialize AGENT`",
    )


@app.command()
def show(fingerprint: str, as_json: Json = False) -> None:
    """Show an adapter; the beginning of its FINGERPRINT is enough."""
    with opened() as (specializer, _):
        row = specializer.registry.adapter(fingerprint)
        status = specializer.registry.adapter_status(row)
        tools = [version.spec.name for version in specializer.registry.adapter_tools(row.fingerprint)]
    document = _document(row) | {"status": status.state, "why": list(status.why), "tools": tools}
    if as_json:
        print_json(document)
        return
    for key, value in document.items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")


@app.command()
def verify(
    fingerprint: Annotated[str | None, typer.Argument(help="One adapter; left out, all.")] = None,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Make adapters again and compare; exit code 1 where one is not what it should be."""
    with opened(checkpoint) as (specializer, progress):
        progress("verifying", None)
        results = specializer.verify(fingerprint)
    if as_json:
        print_json({"adapters": [vars(result) for result in results]})
    else:
        print_rows(
            ("fingerprint", "agent", "state", "detail"),
            [(r.fingerprint[:12], r.agent or "-", r.state, r.detail) for r in results],
            empty="no adapters",
        )
    if any(result.state in ("different", "damaged") for result in results):
        note(
            "hint: `agent-specializer cache evict FINGERPRINT` removes one; it is made again when it is needed"
        )
        raise typer.Exit(1)


@app.command()
def evict(
    fingerprints: Annotated[list[str] | None, typer.Argument(help="Adapters to remove.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Remove all adapters.")] = False,
    as_json: Json = False,
) -> None:
    """Remove adapters; each is made again when it is needed."""
    if bool(fingerprints) == every:
        raise typer.BadParameter("name adapters, or give --all")
    with opened() as (specializer, _):
        rows = specializer.registry.adapters() if every else []
        names = [row.fingerprint for row in rows] or fingerprints or []
        gone = [specializer.registry.evict_adapter(name) for name in names]
    if as_json:
        print_json({"evicted": [row.fingerprint for row in gone]})
    else:
        note(f"evicted {len(gone)} adapter{'s' * (len(gone) != 1)}")


@app.command()
def export(
    adapter: Annotated[str, typer.Argument(help="An agent, or the beginning of an adapter's fingerprint.")],
    format: Annotated[Literal["peft", "merged", "gguf"], typer.Option(help="What to write.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder (peft, merged) or file (gguf); by default in the home's exports."),
    ] = None,
    quantization: Annotated[
        Literal["bf16", "f16", "q8_0"], typer.Option(help="Of the merged weights in a GGUF file.")
    ] = "bf16",
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Write an adapter for other programs: PEFT, merged safetensors, or GGUF. Keys, grammar and activated LoRAs stay here."""
    with opened(checkpoint) as (specializer, progress):
        made = specializer.export(
            adapter, format=format, out=out, quantization=quantization, progress=progress
        )
    if as_json:
        print_json(
            {
                "format": made.format,
                "path": str(made.path),
                "bytes": made.bytes,
                "fingerprint": made.fingerprint,
            }
        )
    else:
        print(made.path)


def _document(row: Any) -> dict[str, Any]:
    return {
        "fingerprint": row.fingerprint,
        "agent": row.agent,
        "toolset": row.toolset_fp,
        "generator": row.generator_fp,
        "created": row.created_at.isoformat(),
        "last_used": row.last_used_at.isoformat(),
        "hits": row.hits,
        "bytes": row.bytes,
        "description_tokens": row.description_tokens,
        "seconds": row.seconds,
        "pinned": row.pinned,
        "refinement": row.refinement,
    }
