"""`bench`: accuracy, latency."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from agent_specializer.commands import bench_langchain
from agent_specializer.commands.console import Caution, Checkpoint, Json, print_json

if TYPE_CHECKING:
    from agent_specializer.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Measure: how often right, and how fast.")

Out = Annotated[Path | None, typer.Option(help="Write the report there, as JSON.")]


@app.command()
def accuracy(
    toolsets: Annotated[Path, typer.Option(help="Toolsets, JSON Lines, plain or gzip.")],
    examples: Annotated[Path, typer.Option(help="Requests with their right calls, JSON Lines.")],
    modes: Annotated[
        str,
        typer.Option(
            help="base, prompted, specialized, with_requests, refined, wrong_adapter, wrong_gates, wrong_keys, without_keys, without_priors, "
            "shared_lora, prompted_lora; with commas."
        ),
    ] = "base,prompted,specialized,wrong_adapter",
    tools: Annotated[int, typer.Option(help="Tools per toolset, distractors included.")] = 12,
    distractors: Annotated[
        Literal["random", "similar"], typer.Option(help="Which tools fill up.")
    ] = "random",
    names: Annotated[
        Literal["kept", "opaque"], typer.Option(help="Opaque: tool_01, tool_02, ...; only descriptions tell.")
    ] = "kept",
    limit: Annotated[int | None, typer.Option(help="Examples; all by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of all draws.")] = 0,
    requests: Annotated[
        int,
        typer.Option(
            help="With with_requests: known of each tool, drawn from the examples that --limit leaves out."
        ),
    ] = 4,
    out: Out = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="MODE=FOLDER, the checkpoint of a trained baseline; repeatable.")
    ] = None,
    caution: Caution = 0.0,
    calls: Annotated[bool, typer.Option(help="Decode whole calls, or decide on the tool only.")] = True,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Compare ways of asking on the same requests, with confidence intervals."""
    from agent_specializer.evaluation.accuracy import run_accuracy
    from agent_specializer.progress import console_progress

    with console_progress() as progress:
        report = run_accuracy(
            toolsets=toolsets,
            examples=examples,
            modes=[mode.strip() for mode in modes.split(",") if mode.strip()],
            tools=tools,
            distractors=distractors,
            names=names,
            limit=limit,
            seed=seed,
            requests=requests,
            caution=caution,
            out=out,
            checkpoint=checkpoint,
            baselines=_folders(baseline or []),
            calls=calls,
            settings=_settings(),
            progress=progress,
        )
    _report(report, as_json)


@app.command()
def caution(
    report: Annotated[Path, typer.Argument(help="A report of `bench accuracy`.")],
    mode: Annotated[str, typer.Option(help="Whose first choices.")] = "specialized",
    as_json: Json = False,
) -> None:
    """Tell how often calls and words would be right with another --caution."""
    from agent_specializer.evaluation.caution import lines, run_caution

    found = run_caution(report, mode=mode)
    print_json(found) if as_json else print("\n".join(lines(found)))


@app.command()
def overall(
    reports: Annotated[
        list[Path], typer.Argument(help="Reports of `bench accuracy`, one a file of requests.")
    ],
    as_json: Json = False,
) -> None:
    """Tell what several reports say together, each file of requests weighing the same."""
    from agent_specializer.evaluation.overall import run_overall

    found = run_overall(reports)
    if as_json:
        print_json(found)
        return
    from rich.console import Console

    from agent_specializer.evaluation.report import overall_tables

    for each in overall_tables(found):
        Console().print(each)


@app.command()
def latency(
    tools: Annotated[int, typer.Option(help="Tools per toolset.")] = 12,
    repetitions: Annotated[int, typer.Option(help="Of everything; medians are reported.")] = 5,
    requests: Annotated[int, typer.Option(help="Different ones of the first toolset, each way.")] = 3,
    out: Out = None,
    as_json: Json = False,
    checkpoint: Checkpoint = None,
) -> None:
    """Time ways of asking: prompt cold and hot, specialised merged and pooled, generation and swapping."""
    from agent_specializer.evaluation.latency import run_latency
    from agent_specializer.progress import console_progress

    with console_progress() as progress:
        report = run_latency(
            tools=tools,
            repetitions=repetitions,
            requests=requests,
            out=out,
            checkpoint=checkpoint,
            settings=_settings(),
            progress=progress,
        )
    _report(report, as_json)


@app.command()
def dev_split(
    data: Annotated[Path, typer.Option(help="Folder of example files, as for `train`.")],
    out: Annotated[Path, typer.Option(help="Folder to write {dev,seen}.{toolsets,examples}.jsonl to.")],
    per_file: Annotated[int, typer.Option(help="Requests of one file at most.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    exclude: Annotated[str, typer.Option(help="Names of files to leave out, with commas.")] = "",
    as_json: Json = False,
) -> None:
    """Write what training holds out as example files, to choose thresholds on, and between ways; and as much that it has seen."""
    from agent_specializer.training.dev_split import write_dev_split

    left_out = tuple(name.strip() for name in exclude.split(",") if name.strip())
    counts = write_dev_split(data, out, per_file=per_file, seed=seed, exclude=left_out)
    print_json(counts) if as_json else print(", ".join(f"{k} {v}" for k, v in counts.items()))


bench_langchain.register(app)


def _settings() -> Settings:
    from agent_specializer.settings import load_settings

    return load_settings()


def _report(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    from rich.console import Console

    from agent_specializer.evaluation.report import table

    Console().print(table(report))


def _folders(pairs: list[str]) -> dict[str, Path]:
    folders = {}
    for pair in pairs:
        mode, sign, folder = pair.partition("=")
        if not sign or not folder:
            raise typer.BadParameter(f"--baseline {pair!r} is not MODE=FOLDER")
        folders[mode] = Path(folder)
    return folders
