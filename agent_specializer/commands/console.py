"""What commands share: the Specializer they work on, and the two ways of reporting."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from agent_specializer.progress import Progress
    from agent_specializer.specializer import Specializer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Folder of another generator checkpoint than the bundle's own.")
]


def _between(value: float) -> float:
    if not -100 <= value <= 100:  # no number is not, either
        raise typer.BadParameter(f"{value:g} is not between -100 and 100")
    return value


Caution = Annotated[
    float,
    typer.Option(
        help="Nats that words gain on the first call: above 0 rather words, below 0 rather calls.",
        callback=_between,
    ),
]


@contextmanager
def opened(checkpoint: Path | None = None) -> Iterator[tuple[Specializer, Progress]]:
    """A Specializer on the home of the settings, which reports slow work on stderr."""
    from agent_specializer.progress import console_progress
    from agent_specializer.specializer import Specializer

    with (
        console_progress() as progress,
        Specializer(checkpoint=checkpoint, progress=progress) as specializer,
    ):
        yield specializer, progress


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def print_rows(header: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """A table on stdout: aligned for a terminal, tab-separated for a pipe. `empty` on stderr where it has no rows."""
    lines = [[str(cell) for cell in row] for row in rows]
    if not lines:
        note(empty)
        return
    if not sys.stdout.isatty():
        for line in [list(header), *lines]:
            print("\t".join(" ".join(cell.split()) for cell in line))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    Console().print(table)


def note(line: str) -> None:
    """A line for people, on stderr."""
    print(line, file=sys.stderr, flush=True)
