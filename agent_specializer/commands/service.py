"""`train`, `serve`, `ui` and `db`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from agent_specializer.commands.console import Json, note, print_json

db = typer.Typer(no_args_is_help=True, help="The database's schema.")


def train(
    data: Annotated[Path, typer.Option(help="Folder of example files: X.train.jsonl and their toolsets.")],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that OUT holds.")] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps in all; 0 with --start: only keys and scalars are fitted. With --only: steps of that."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    kind: Annotated[
        Literal["generator", "shared_lora", "prompted_lora"],
        typer.Option(help="The generator, or a baseline: one LoRA for all toolsets."),
    ] = "generator",
    exclude: Annotated[str, typer.Option(help="Names of files to leave out, with commas.")] = "",
    start: Annotated[
        Path | None, typer.Option(help="Begin with the experts of the checkpoint in this folder.")
    ] = None,
    only: Annotated[
        Literal["experts", "arguments", "following", "answers"] | None,
        typer.Option(
            help="With --start: keep the rest of it, train on its experts and keys, how arguments or answers are written, or what follows a call."
        ),
    ] = None,
    hours: Annotated[float | None, typer.Option(help="Save and stop after so long, to be resumed.")] = None,
) -> None:
    """Train a generator checkpoint, or a baseline on the same data. Each step is a JSON line on stdout."""
    import json
    import sys

    from agent_specializer.errors import ConfigError
    from agent_specializer.progress import console_progress
    from agent_specializer.settings import load_settings
    from agent_specializer.training.run import train as run
    from agent_specializer.training.state import STEPS
    from agent_specializer.training.trainer import TrainOptions

    if not data.is_dir():
        raise ConfigError(f"there is no folder {str(data)!r}", hint="name the folder of the example files")
    lines = sys.stdout  # the bar takes what is printed to its own place on stderr
    counted = {STEPS.get(only or "", "steps"): steps} if steps is not None else {}
    options = TrainOptions(kind=kind, seed=seed, **counted)
    with console_progress() as progress:
        folder = run(
            data,
            out,
            settings=load_settings(),
            resume=resume,
            options=options,
            exclude=tuple(name.strip() for name in exclude.split(",") if name.strip()),
            start=start,
            only=only or "",
            stop_after=None if hours is None else hours * 3600,
            progress=progress,
            log=lambda row: print(json.dumps(row), file=lines, flush=True),
        )
    note(f"the checkpoint is in {folder}")


def serve(
    port: Annotated[int, typer.Option(help="To listen on.")] = 8000,
    host: Annotated[str, typer.Option(help="To listen on; 127.0.0.1 is this machine only.")] = "127.0.0.1",
) -> None:
    """Serve the agents over the OpenAI API."""
    from agent_specializer.server import serve as start

    start(port, host=host)


def ui(
    port: Annotated[int, typer.Option(help="To listen on.")] = 8501,
    host: Annotated[str, typer.Option(help="To listen on; 127.0.0.1 is this machine only.")] = "127.0.0.1",
    browser: Annotated[bool, typer.Option("--browser", help="Open it in a browser.")] = False,
) -> None:
    """Serve the page: register, specialise, try, inspect."""
    from ui.run import main

    note(f"http://{host}:{port}")
    main(port, address=host, browser=browser)


@db.command()
def upgrade(as_json: Json = False) -> None:
    """Make the database, or bring it to the newest revision."""
    from agent_specializer.settings import load_settings
    from agent_specializer.store import upgrade as bring_up

    revision = bring_up(load_settings().db_url)
    print_json({"revision": revision}) if as_json else print(revision)


@db.command()
def current(as_json: Json = False) -> None:
    """The database's revision. Changes nothing."""
    from agent_specializer.settings import load_settings
    from agent_specializer.store import current_revision

    revision = current_revision(load_settings().db_url)
    print_json({"revision": revision}) if as_json else print(revision or "no database yet")


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    app.command()(train)
    app.command()(serve)
    app.command()(ui)
    app.add_typer(db, name="db")
