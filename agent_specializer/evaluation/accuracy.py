"""`bench accuracy`: the same requests in several modes over one edge model, with intervals and paired
differences.

Modes run one after another, each over all groups, so that a group's adapter is merged once per mode. Nothing
is written before everything is measured: an interrupted run leaves no report, and an earlier one as it was.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from agent_specializer.describe import describe_toolset
from agent_specializer.edge.events import ChoiceMade, Event
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.edge.transcript import render
from agent_specializer.errors import ConfigError, DecodeError, SchemaNotSupported
from agent_specializer.evaluation.calibration import calibration
from agent_specializer.evaluation.machine import machine, versions
from agent_specializer.evaluation.metrics import Outcome, failed, judge, paired, summary
from agent_specializer.evaluation.modes import Seat, Workbench, check_modes
from agent_specializer.evaluation.report_files import items_of, write_json, write_lines
from agent_specializer.evaluation.tasks import Group, Item, load_groups
from agent_specializer.examples import read_toolsets
from agent_specializer.examples.compose import Distractors, Names
from agent_specializer.messages import Call, Message, Reply, Usage
from agent_specializer.progress import Progress, silent
from agent_specializer.settings import Settings, load_settings

if TYPE_CHECKING:
    from agent_specializer.bundles import LoadedBundle
    from agent_specializer.specs import Toolset

KNOWN_REQUESTS = 4
"""Of each tool, in the mode with_requests."""
MAX_TOKENS = 200
"""Tokens of one reply's arguments together: the longest gold calls of public sets take about 150."""


def run_accuracy(
    *,
    toolsets: Path,
    examples: Path,
    modes: Sequence[str],
    tools: int,
    distractors: Distractors = "random",
    names: Names = "kept",
    limit: int | None = None,
    seed: int = 0,
    requests: int = KNOWN_REQUESTS,
    caution: float = 0.0,
    out: Path | None = None,
    checkpoint: Path | None = None,
    baselines: dict[str, Path] | None = None,
    calls: bool = True,
    settings: Settings | None = None,
    models: LoadedBundle | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure `modes` on the examples of two files; the report, also written to `out`.

    Beside `out`, e.g. ``R.json``, lies ``R.items.jsonl``: one line per item and mode with the calls made and
    the scores of all choices, for looking into failures and for calibration.

    Args:
        tools: tools per toolset, N; limit: examples, None for all.
        requests: of each tool that the mode with_requests knows, at most; they are drawn from what `limit` leaves out.
        caution: of each reply, in every mode (`ReplyOptions`).
        checkpoint: folder of another generator than the bundle's; baselines: folders of the baselines' by
            mode.
        calls: False stops each reply at its first tool, several times faster: right is any tool of the gold
            calls, and there is no `call_exact`.
        models: loaded already; None loads the bundle that `settings` names.

    Raises:
        IntakeError: the example files; ConfigError: modes or numbers; CheckpointError: a mode lacks its
            checkpoint.
    """
    chosen = check_modes(modes)
    _check(
        tools=tools,
        distractors=distractors,
        names=names,
        limit=limit,
        requests=requests,
        caution=caution,
        out=out,
    )
    settings = settings or load_settings()
    # Words are not judged, so the first one is enough.
    options = ReplyOptions(max_tokens=MAX_TOKENS, stop=(" ",), keep_prefix=True, caution=caution)
    progress("reading the examples", None)
    groups = load_groups(
        toolsets,
        examples,
        tools=tools,
        distractors=distractors,
        names=names,
        limit=limit,
        seed=seed,
        requests=requests if "with_requests" in chosen else 0,
    )
    if models is None:
        from agent_specializer.bundles import models_of

        models = models_of(settings, progress)
    bench = Workbench(models, checkpoint=checkpoint, baselines=baselines)
    bench.check(chosen)
    outcomes: dict[str, list[Outcome]] = {}
    rows: list[dict[str, Any]] = []
    seconds: dict[str, float] = {}
    items = sum(len(group.items) for group in groups)
    spare = _spare(read_toolsets(toolsets).values(), groups)
    for place, mode in enumerate(chosen):
        start = time.perf_counter()
        outcomes[mode] = []
        seats = bench.seats(mode, groups, spare=spare, seed=seed, progress=progress)
        for number, (group, seat) in enumerate(zip(groups, seats, strict=True)):
            for item in group.items:
                done = len(outcomes[mode])
                progress(f"{mode} {done}/{items}", (place + done / items) / len(chosen))
                outcome, row = _ask(seat, group, item, options, calls=calls)
                outcomes[mode].append(outcome)
                rows.append({"mode": mode, "group": number, **row})
        seconds[mode] = time.perf_counter() - start
    progress("computing intervals", 1.0)
    sizes = [len(group.toolset.tools) for group in groups]
    trained = [mode for mode in chosen if mode not in {"base", "prompted"}]
    report = {
        "modes": {mode: summary(outcomes[mode], arguments=calls, seed=seed) for mode in chosen},
        "paired": paired(outcomes, "specialized", arguments=calls, seed=seed),
        "calibration": {mode: calibration([r for r in rows if r["mode"] == mode]) for mode in chosen},
        "settings": {
            "toolsets": str(toolsets),
            "examples": str(examples),
            "modes": chosen,
            "tools": tools,
            "distractors": distractors,
            "names": names,
            "limit": limit,
            "seed": seed,
            "requests": _known(groups) if "with_requests" in chosen else None,
            "calls": calls,
            "bundle": models.bundle.name,
            "dtype": models.dtype,
            "checkpoints": {mode: str(bench.folder(mode)) for mode in trained},
            "generators": {mode: bench.generator(mode).fingerprint for mode in trained},
            "groups": len(groups),
            "tools_per_toolset": {"min": min(sizes), "mean": sum(sizes) / len(sizes), "max": max(sizes)},
            "options": options.model_dump(mode="json"),
            "seconds": seconds,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
        },
    }
    if out is not None:
        write_lines(items_of(out), rows)
        write_json(out, report)
    return report


def item_row(group: Group, item: Item, outcome: Outcome, reply: Reply | None) -> dict[str, Any]:
    """An item's line in the side file. `choices` are ``[name or null, score]``, best first."""
    return {
        "index": item.index,
        "own": list(group.own),
        "category": item.category,
        "request": item.messages[-1].content if item.messages else "",
        "after_a_call": _called(item.messages),
        "gold_names": sorted({call.name for call in item.calls}),
        "gold": [call.model_dump() for call in item.calls],
        "made": [call.model_dump() for call in reply.calls] if reply else [],
        "confidence": reply.confidence if reply else 0.0,
        "choices": [[choice.name, choice.score] for choice in reply.choices] if reply else [],
        **{
            key: value
            for key, value in outcome.to_dict().items()
            if key not in {"index", "made", "has_calls"}
        },
    }


def _called(messages: Sequence[Message]) -> bool:
    """Whether the newest turn has made a call already."""
    for message in reversed(messages):
        if message.role == "user":
            return False
        if message.calls:
            return True
    return False


def _ask(
    seat: Seat, group: Group, item: Item, options: ReplyOptions, *, calls: bool
) -> tuple[Outcome, dict[str, Any]]:
    try:
        reply = (_reply if calls else _first_choice)(seat, group, item, options)
    except (DecodeError, SchemaNotSupported) as error:
        outcome = failed(item, error)
        return outcome, item_row(group, item, outcome, None)
    outcome = judge(item, group.toolset, reply, arguments=calls)
    return outcome, item_row(group, item, outcome, reply)


def _reply(seat: Seat, group: Group, item: Item, options: ReplyOptions) -> Reply:
    return seat.engine.reply(
        item.messages,
        group.toolset,
        adapter=seat.adapter,
        tools_in_prompt=seat.tools_in_prompt,
        options=options,
    )


def _first_choice(seat: Seat, group: Group, item: Item, options: ReplyOptions) -> Reply:
    """A reply that ends with the choice of its first tool: one call without arguments, or none."""
    began = time.perf_counter()
    events = seat.engine.stream(
        item.messages,
        group.toolset,
        adapter=seat.adapter,
        tools_in_prompt=seat.tools_in_prompt,
        options=options,
    )
    with closing(cast("Generator[Event, None, None]", events)):  # the model stops here
        choice = next(event for event in events if isinstance(event, ChoiceMade))
    head = describe_toolset(group.toolset) if seat.tools_in_prompt else ""
    tokenizer = seat.engine.tokenizer
    usage = Usage(
        prompt_tokens=len(tokenizer(head + render(item.messages)).input_ids),
        tool_prompt_tokens=len(tokenizer(head, add_special_tokens=False).input_ids),
        seconds=time.perf_counter() - began,
    )
    calls = () if choice.name is None else (Call(name=choice.name),)
    return Reply(calls=calls, usage=usage, confidence=choice.confidence, choices=choice.choices)


def _known(groups: Sequence[Group]) -> dict[str, float]:
    """How many requests the tools of `groups` have on average, and which share of them has any."""
    counts = [len(tool.requests) for group in groups if group.knowing for tool in group.knowing.tools]
    return {"mean": sum(counts) / len(counts), "tools_with_any": sum(map(bool, counts)) / len(counts)}


def _spare(toolsets: Iterable[Toolset], groups: Sequence[Group]) -> Toolset | None:
    """A toolset of the file that no group was composed around, should a wrong adapter need one."""
    used = {tool.name for group in groups for tool in group.toolset.tools}
    return next((t for t in toolsets if t.tools and not used & set(t.names)), None)


def _check(
    *,
    tools: int,
    distractors: str,
    names: str,
    limit: int | None,
    requests: int,
    caution: float,
    out: Path | None,
) -> None:
    if tools < 1:
        raise ConfigError(f"--tools {tools}: a toolset has at least one tool", hint="12 is usual")
    if requests < 1:
        raise ConfigError(f"--requests {requests}: at least one", hint="4 is usual")
    if not -100 <= caution <= 100:
        raise ConfigError(f"--caution {caution:g} is not between -100 and 100", hint="it is 0 by default")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit}: at least one example", hint="leave it out to use all examples")
    if distractors not in ("random", "similar"):
        raise ConfigError(f"there are no {distractors!r} distractors", hint="they are random or similar")
    if names not in ("kept", "opaque"):
        raise ConfigError(f"names cannot be {names!r}", hint="they are kept or opaque")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(
            f"there is no folder {str(out.absolute().parent)!r}", hint="make it, or write elsewhere"
        )
