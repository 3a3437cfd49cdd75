"""How slow work reports on itself: a function that takes a message and a fraction.

Everything that may take seconds (converting weights, importing catalogues, training) accepts a `Progress`;
the command line passes `console_progress()`, the page passes one of its own, and the default is `silent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float | None], None]
"""`progress(message, fraction)`: what is being done, and how much of it is done, 0..1, or None if unknown."""


def silent(message: str, fraction: float | None = None) -> None:
    """A `Progress` that says nothing."""


def span(progress: Progress, start: float, end: float) -> Progress:
    """A `Progress` for one part of a longer work: its 0..1 is drawn as `start`..`end` of the whole."""

    def part(message: str, fraction: float | None = None) -> None:
        progress(message, None if fraction is None else start + (end - start) * fraction)

    return part


@contextmanager
def console_progress() -> Iterator[Progress]:
    """A bar on stderr while the block runs; stdout stays clean. Where no terminal reads it, plain lines.

    The bar appears with the first message and is gone after the block.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    console = Console(stderr=True)
    if not console.is_terminal:
        last = ""

        def line(message: str, fraction: float | None = None) -> None:
            nonlocal last
            if message != last:  # the bar's many fractions would be as many lines
                console.print(message, markup=False, highlight=False)
                last = message

        yield line
        return

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with RichProgress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("", total=None, visible=False)

        def draw(message: str, fraction: float | None = None) -> None:
            # total=None draws a moving bar: work of unknown length.
            bars.update(
                task,
                description=message,
                total=None if fraction is None else 1.0,
                completed=0 if fraction is None else fraction,
                visible=True,
            )

        yield draw
