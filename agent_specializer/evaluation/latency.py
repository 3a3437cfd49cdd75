"""`bench latency`: one request sent in four ways, what an adapter costs, and when it has paid for itself.

The ways take turns, request by request, so that a machine that grows slower or warmer does so for all of
them; figures are medians, and every ratio is of figures of one run. Each reply is one call of the tool that
the request needs, so that all ways write the same kind of text.

- ``prompted_cold``: tool definitions in the prompt, read anew with every request: what stateless serving
  pays.
- ``prompted_hot``: the same with the definitions' keys and values kept from the request before.
- ``specialized_merged``: the request alone, the adapter merged into the weights.
- ``specialized_pooled``: a batch of requests over several toolsets at once; times are of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.catalogue_cases import Case, catalogue_cases, mixed
from agent_specializer.evaluation.machine import machine, versions
from agent_specializer.evaluation.modes import Workbench
from agent_specializer.evaluation.report_files import write_json
from agent_specializer.messages import Reply
from agent_specializer.progress import Progress, silent
from agent_specializer.settings import Settings, load_settings

if TYPE_CHECKING:
    from agent_specializer.bundles import LoadedBundle
    from agent_specializer.edge.options import ReplyOptions
    from agent_specializer.edge.request import Request
    from agent_specializer.loragen import Adapter

BATCH = 8
TOOLSETS = 4
MAX_TOKENS = 96
GENERATE_TOKENS = 24
MERGED_TOOLSETS = TOOLSETS + 1
"""Merged weights that stay in memory: all toolsets of the batch, and the one that is generated."""
WAYS = ("prompted_cold", "prompted_hot", "specialized_merged")


def run_latency(
    *,
    tools: int,
    out: Path | None = None,
    repetitions: int = 5,
    requests: int = 3,
    seed: int = 0,
    checkpoint: Path | None = None,
    settings: Settings | None = None,
    models: LoadedBundle | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure on toolsets of `tools` tools from the shipped catalogues; the report, also written to `out`.

    Args:
        repetitions: of everything; requests: different ones of the first toolset.
        checkpoint: folder of another generator than the bundle's.
        models: loaded already; None loads the bundle that `settings` names.

    Raises:
        ConfigError: the numbers; CheckpointError: there is no generator for the bundle.
    """
    if repetitions < 1 or requests < 1:
        raise ConfigError("repetitions and requests must be at least 1", hint="5 and 3 are usual")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {str(out.absolute().parent)!r}", hint="make it first")
    settings = settings or load_settings()
    cases = catalogue_cases(tools=tools, count=TOOLSETS, seed=seed)
    if models is None:
        from agent_specializer.bundles import models_of

        models = models_of(settings, progress)
    bench = Workbench(models, checkpoint=checkpoint, merged_toolsets=MERGED_TOOLSETS)
    bench.check(["specialized"])
    run = _Run(bench, cases, requests)
    rounds = []
    run.round(0)  # warms up: compiles grammars, fills caches, touches pages
    for number in range(repetitions):
        progress(f"repetition {number + 1}/{repetitions}", number / repetitions)
        rounds.append(run.round(number + 1))
    report = _report(run, rounds)
    report["settings"] = {
        "tools": tools,
        "repetitions": repetitions,
        "requests": len(run.single),
        "batch": BATCH,
        "toolsets": len(cases),
        "seed": seed,
        "max_tokens": MAX_TOKENS,
        "bundle": models.bundle.name,
        "dtype": models.dtype,
        "checkpoint": str(bench.folder("specialized")),
        "generator": bench.generator().fingerprint,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
    }
    if out is not None:
        write_json(out, report)
    return report


class _Run:
    """Models, adapters and requests that are ready to be timed."""

    def __init__(self, bench: Workbench, cases: Sequence[Case], requests: int) -> None:
        self.generator, self.engine = bench.generator(), bench.engine("specialized")
        self.models, self.cases = bench.models, cases
        self.adapters: list[Adapter] = [bench.adapter(case.toolset) for case in cases]
        self.single = [(0, number) for number in range(min(requests, len(cases[0].requests)))]
        self.batch = mixed(cases, BATCH)

    def round(self, number: int) -> dict[str, Any]:
        """One repetition of everything: the replies of each way and the single measurements."""
        from agent_specializer.evaluation import probes

        replies: dict[str, list[Reply]] = {way: [] for way in WAYS}
        for place, which in enumerate(self.single):
            # Another way comes first each time: what runs behind a long prefill finds cold caches.
            turn = (number + place) % len(WAYS)
            for way in (*WAYS[turn:], *WAYS[:turn]):
                replies[way].append(self._ask(way, which))
        one_by_one, merged = probes.timed(lambda: [self._ask("specialized_merged", w) for w in self.batch])
        requests = [self._request(which) for which in self.batch]
        together, pooled = probes.timed(lambda: self.engine.reply_batch(requests))
        first = self.cases[0].requests[0]
        model, tokenizer = self.models.edge, self.models.edge_tokenizer
        with self.engine.exclusive():
            generate = probes.generate_rate(model, tokenizer, first, tokens=GENERATE_TOKENS)
        fresh = probes.fresh(self.cases[0].toolset, number)
        return {
            "replies": replies,
            "pooled": [reply for reply in pooled if isinstance(reply, Reply)],
            "one_by_one": one_by_one,
            "together": together,
            "decode": probes.decode_rate([*replies["specialized_merged"], *merged]),
            "generate": generate,
            "generation": probes.generation(self.generator, self.engine, fresh),
            "swap": probes.swap(self.engine, self.adapters[number % len(self.adapters)]),
        }

    def _ask(self, way: str, which: tuple[int, int]) -> Reply:
        case, number = self.cases[which[0]], which[1]
        return self.engine.reply(
            case.requests[number],
            case.toolset,
            adapter=self.adapters[which[0]] if way == "specialized_merged" else None,
            tools_in_prompt=way != "specialized_merged",
            options=_options(case.gold[number], keep_prefix=way == "prompted_hot"),
        )

    def _request(self, which: tuple[int, int]) -> Request:
        from agent_specializer.edge.request import Request

        case, number = self.cases[which[0]], which[1]
        options = _options(case.gold[number], keep_prefix=False)
        return Request(case.requests[number], case.toolset, self.adapters[which[0]], options=options)


def _options(tool: str, *, keep_prefix: bool) -> ReplyOptions:
    from agent_specializer.edge.options import ReplyOptions

    return ReplyOptions(
        max_tokens=MAX_TOKENS, tool_choice=tool, parallel_calls=False, keep_prefix=keep_prefix
    )


def _report(run: _Run, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    from agent_specializer.evaluation import probes

    def middle(value: Callable[[dict[str, Any]], float]) -> float:
        return float(median(value(each) for each in rounds))

    rows = [_row(way, [reply for each in rounds for reply in each["replies"][way]]) for way in WAYS]
    cold, hot, merged = rows
    pooled = _row("specialized_pooled", [reply for each in rounds for reply in each["pooled"]])
    pooled |= {"requests": BATCH, "total_seconds": middle(lambda each: each["together"])}
    pooled["requests_per_second"] = BATCH / pooled["total_seconds"]
    rows.append(pooled)
    parts = rounds[0]["generation"]
    generation = {part: middle(lambda each, part=part: each["generation"][part]) for part in parts}  # type: ignore[misc]
    saved = {way["name"]: way["total_seconds"] - merged["total_seconds"] for way in (cold, hot)}
    held = probes.held_bytes(run.generator, run.engine, run.adapters[0], int(cold["tool_prompt_tokens"]))
    return {
        "rows": rows,
        "ratios": {
            "first_token_vs_prompted_cold": cold["first_token_seconds"] / merged["first_token_seconds"],
            "first_token_vs_prompted_hot": hot["first_token_seconds"] / merged["first_token_seconds"],
            "total_vs_prompted_cold": cold["total_seconds"] / merged["total_seconds"],
            "total_vs_prompted_hot": hot["total_seconds"] / merged["total_seconds"],
            "decode_vs_transformers_generate": middle(lambda each: each["decode"] / each["generate"]),
            "generation_vs_prefill": middle(
                lambda each: (
                    (each["generation"]["gates"] + each["generation"]["keys"]) / each["generation"]["prefill"]
                )
            ),
            "swap_vs_memcpy": middle(lambda each: each["swap"]["merge"] / each["swap"]["memcpy"]),
            "pooled_vs_merged_throughput": middle(lambda each: each["one_by_one"] / each["together"]),
        },
        "bytes_per_toolset": held["adapter"],
        "bytes_held": held,
        "calls_to_break_even": _calls(generation["seconds"], saved["prompted_cold"]),
        "calls_to_break_even_hot": _calls(generation["seconds"], saved["prompted_hot"]),
        "generation": generation,
        "swap": {part: middle(lambda each, part=part: each["swap"][part]) for part in rounds[0]["swap"]},  # type: ignore[misc]
        "decode_tokens_per_second": {
            "ours": middle(lambda each: each["decode"]),
            "transformers_generate": middle(lambda each: each["generate"]),
        },
    }


def _row(name: str, replies: Sequence[Reply]) -> dict[str, Any]:
    usages = [reply.usage for reply in replies]
    total = float(median(usage.seconds for usage in usages))
    return {
        "name": name,
        "requests": 1,
        "prompt_tokens": float(median(usage.prompt_tokens for usage in usages)),
        "tool_prompt_tokens": float(median(usage.tool_prompt_tokens for usage in usages)),
        "completion_tokens": float(median(usage.completion_tokens for usage in usages)),
        "first_token_seconds": float(median(usage.first_token_seconds for usage in usages)),
        "total_seconds": total,
        "requests_per_second": 1 / total,
        "measured": len(usages),
    }


def _calls(spent: float, saved: float) -> float | None:
    """Calls until `spent` seconds are saved; None where a call saves nothing."""
    return spent / saved if saved > 0 else None
