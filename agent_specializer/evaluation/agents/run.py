"""`bench agents`: scripted conversations through LangChain's agents, without and with a model to fall back to.

Each conversation that is held is at once a line beside the report, so that a run that was interrupted can be resumed:
`R.json` has its lines in `R.items.jsonl`. Adapters are made in a database of the run's own; the home's is not touched.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.agents.conversations import SHIPPED, Conversation, Script, load_script
from agent_specializer.evaluation.agents.judge import Held, paired, summary
from agent_specializer.evaluation.agents.own_store import own_store
from agent_specializer.progress import Progress, silent
from agent_specializer.settings import Settings, load_settings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_specializer.specializer import Specializer

PROMPTED = "prompted"
"""The fallback that is always there: the same edge model with the tools in its prompt."""
MAX_TOKENS = 64
Play = Callable[[Conversation], Held]


def run_agents(
    *,
    conversations: Path = SHIPPED,
    limit: int | None = None,
    fallback: str | None = PROMPTED,
    threshold: float = 0.7,
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    checkpoint: Path | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Hold the conversations; the report, also written to `out`.

    Args:
        limit: conversations, of all kinds about equally many; None for all.
        fallback: "prompted", or "package.module:name" of a chat model or of a function that makes one; None leaves the
            second way out.
        threshold: confidence under which it is fallen back; max_tokens: of one reply.
        seed: of the intervals.
        resume: keep the lines beside `out` that were made with the same settings.

    Raises:
        ConfigError: LangChain is not installed, or an argument makes no sense. IntakeError: the conversations.
    """
    _check(limit=limit, threshold=threshold, out=out, resume=resume)
    script = load_script(conversations)
    chosen = script.chosen(limit)
    settings = settings or load_settings()
    with own_store(settings, checkpoint, progress) as specializer:
        ways = _ways(specializer, script, fallback=fallback, threshold=threshold, max_tokens=max_tokens)
        progress("loading the models", None)
        made_with = {
            "generator": specializer.generator.fingerprint,
            "bundle": settings.bundle,
            "fallback": fallback,
            "threshold": threshold,
            "max_tokens": max_tokens,
            "script": hashlib.sha256(script.model_dump_json().encode()).hexdigest(),
        }
        held = _hold(ways, chosen, _Lines(out, made_with, resume=resume), progress)
        from agent_specializer.evaluation.machine import machine, versions
        from agent_specializer.evaluation.report_files import write_json

        report = {
            "ways": {way: summary(some, seed=seed) for way, some in held.items()},
            "paired": paired(held, seed=seed),
            "settings": {
                "conversations": str(conversations),
                "limit": limit,
                "seed": seed,
                "resumed": resume,
                "checkpoint": str(specializer.runtime.checkpoint),
                **made_with,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(),
                "versions": versions(),
            },
        }
    if out is not None:
        write_json(out, report)
    return report


def importable(name: str) -> BaseChatModel:
    """The chat model called "package.module:name", or what the function of that name returns.

    Raises:
        ConfigError: there is no such thing, or it is no chat model.
    """
    from langchain_core.language_models import BaseChatModel

    module, sign, attribute = name.partition(":")
    hint = 'give "prompted", or "package.module:name" of a chat model or of a function that makes one'
    if not sign or not module or not attribute:
        raise ConfigError(f"--fallback {name!r} names no model", hint=hint)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a file of the folder in which the command is given, as with `python -m`
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"--fallback {name!r}: {error}", hint=hint) from error
    model = found if isinstance(found, BaseChatModel) else found() if callable(found) else found
    if not isinstance(model, BaseChatModel):
        raise ConfigError(f"--fallback {name!r} is a {type(model).__name__}, no chat model", hint=hint)
    return model


def _ways(
    specializer: Specializer, script: Script, *, fallback: str | None, threshold: float, max_tokens: int
) -> dict[str, Play]:
    """How the conversations are held: by the specialised model alone, and with another one behind it."""
    try:
        from agent_specializer.evaluation.agents.play import play
        from agent_specializer.langchain import ChatSpecialized, SpecializedMiddleware
    except ImportError as error:
        raise ConfigError(
            f"bench agents needs LangChain: {error}", hint='pip install "agent-specializer[langchain]"'
        ) from error
    model = ChatSpecialized(specializer=specializer, max_tokens=max_tokens)
    ways: dict[str, Play] = {"specialized": lambda c: play(c, script.agents[c.agent], model)}
    if fallback is not None:
        prompted = model.model_copy(update={"mode": "prompted"})
        other = prompted if fallback == PROMPTED else importable(fallback)
        middleware = SpecializedMiddleware(model=model, threshold=threshold, fallback=other)
        ways["with_fallback"] = lambda c: play(c, script.agents[c.agent], other, [middleware])
    return ways


def _hold(
    ways: dict[str, Play], chosen: Sequence[Conversation], lines: _Lines, progress: Progress
) -> dict[str, list[Held]]:
    """All conversations in all ways. Ways take turns, so that a slower machine is slower for both."""
    held: dict[str, list[Held]] = {way: [] for way in ways}
    for place, conversation in enumerate(chosen):
        for way, hold in ways.items():
            one = lines.found(way, conversation)
            if one is None:
                progress(f"{conversation.id}, {way}", place / len(chosen))
                one = hold(conversation)
                lines.add(way, one)
            held[way].append(one)
    return held


class _Lines:
    """The side file: one line for each conversation that was held, added as soon as it was."""

    def __init__(self, out: Path | None, made_with: dict[str, Any], *, resume: bool) -> None:
        self._path = None if out is None else out.with_suffix(".items.jsonl")
        self._key = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:16]
        self._known: dict[tuple[str, str], Held] = {}
        if self._path is None:
            return
        rows = list(_rows(self._path)) if resume and self._path.is_file() else []
        kept = [row for row in rows if row.get("key") == self._key]
        names = {field.name for field in fields(Held)}
        for row in kept:
            values = {name: value for name, value in row.items() if name in names}
            self._known[row["way"], row["id"]] = Held(**values)
        self._path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept), "utf-8")

    def found(self, way: str, conversation: Conversation) -> Held | None:
        return self._known.get((way, conversation.id))

    def add(self, way: str, held: Held) -> None:
        if self._path is not None:
            row = {"way": way, "key": self._key, **held.to_dict()}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text("utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue  # the line at which the run was interrupted


def _check(*, limit: int | None, threshold: float, out: Path | None, resume: bool) -> None:
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit {limit}: at least one conversation", hint="leave it out to hold all")
    if not 0 <= threshold <= 1:
        raise ConfigError(
            f"--threshold {threshold:g} is no probability", hint="give 0 to 1; 1 always falls back"
        )
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {str(out.absolute().parent)!r}", hint="make it first")
    if resume and out is None:
        raise ConfigError("--resume needs --out", hint="name the report that was being made")
