"""The command line. Progress and logs go to stderr, results to stdout; with --json those are one JSON document.

Exit codes: 0 done; 1 an error, said with a hint on stderr; 2 a wrong use of the command.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from agent_specializer.commands import agents, asking, bench, cache, service, tools
from agent_specializer.errors import SpecializerError

app = typer.Typer(
    name="agent-specializer",
    help="Specialise a small language model to a set of tools in seconds, with no training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is there in half the time
)
asking.register(app)
app.add_typer(tools.app, name="tools")
app.add_typer(agents.app, name="agents")
app.add_typer(cache.app, name="cache")
app.add_typer(bench.app, name="bench")
service.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("agent-specializer"))
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[
        int, typer.Option("-v", "--verbose", count=True, help="Say more on stderr; -vv still more.")
    ] = 0,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from agent_specializer.settings import load_settings

    level = {0: load_settings().log_level, 1: "INFO"}.get(verbose, "DEBUG")
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("agent_specializer").setLevel(level)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit."""
    try:
        app(args=arguments)
    except SpecializerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:  # a disk or network that refuses, where no layer below knew more to say
        logging.getLogger(__name__).debug("where it happened", exc_info=True)
        print(f"error: {error}\n  hint: -vv before the command shows where it happened", file=sys.stderr)
        raise SystemExit(1) from None
