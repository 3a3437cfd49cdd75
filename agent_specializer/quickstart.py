"""The main job, end to end: from an empty home to a small model that calls the right one of its tools.

Every step is said when it begins and timed. The same requests are asked with the user's message alone and with
the tool definitions in the prompt, and set side by side. A second run finds everything in place.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agent_specializer.errors import DecodeError, NotFound
from agent_specializer.examples.compare import same_calls
from agent_specializer.messages import Call, Mode
from agent_specializer.specializer import Specializer

if TYPE_CHECKING:
    from tool_specs import Catalogue, ExampleRequest

DEFAULT_AGENT = "smart-home"
PROMPTED_SECONDS = 15.0
"""How long the comparison with tools in the prompt may take by default: it is the slow part."""

MAX_TOKENS = 96
"""Of one reply here: more than any of these calls needs. A small model that rambles would take half a minute."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Answer:
    """What one mode made of a request. Tokens and seconds as in `Usage`; `error` where nothing valid came."""

    calls: tuple[Call, ...]
    content: str
    right: bool
    prompt_tokens: int
    tool_prompt_tokens: int
    completion_tokens: int
    seconds: float
    first_token_seconds: float
    confidence: float
    cache: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Row:
    """A request with its right calls, and both answers; `prompted` is None where there was no time for it."""

    agent: str
    request: str
    expected: tuple[Call, ...]
    specialized: Answer
    prompted: Answer | None = None


@dataclass(frozen=True)
class AgentLine:
    """An agent and how its adapter was come by."""

    name: str
    tools: int
    cache: str
    fingerprint: str
    seconds: float
    description_tokens: int
    bytes: int


@dataclass
class QuickstartReport:
    home: str = ""
    bundle: str = ""
    generator: str = ""
    max_tokens: int = MAX_TOKENS
    steps: list[dict[str, Any]] = field(default_factory=list)
    agents: list[AgentLine] = field(default_factory=list)
    requests: list[Row] = field(default_factory=list)
    again: AgentLine | None = None
    seconds: float = 0.0

    @property
    def summary(self) -> dict[str, Any]:
        """Right answers, tokens and seconds of both modes, over the requests that both were asked."""
        both = [row for row in self.requests if row.prompted is not None]
        ours = [row.specialized for row in both]
        theirs = [row.prompted for row in both if row.prompted is not None]
        sent, theirs_sent = _mean(ours, "prompt_tokens"), _mean(theirs, "prompt_tokens")
        return {
            "requests": len(self.requests),
            "specialized_right": sum(row.specialized.right for row in self.requests),
            "compared": len(both),
            "specialized": _figures(ours),
            "prompted": _figures(theirs),
            "compression": round(theirs_sent / sent, 1) if both and sent else None,
        }

    def to_dict(self) -> dict[str, Any]:
        """The report as one JSON document."""
        raw = asdict(self)
        for row, made in zip(raw["requests"], self.requests, strict=True):
            row["expected"] = [call.model_dump() for call in made.expected]
            for mode in ("specialized", "prompted"):
                if row[mode] is not None:
                    row[mode]["calls"] = [call.model_dump() for call in getattr(made, mode).calls]
        return {**raw, "summary": self.summary}


def run_quickstart(
    specializer: Specializer,
    *,
    agents: Sequence[str] | None = (DEFAULT_AGENT,),
    prompted_seconds: float = PROMPTED_SECONDS,
    say: Say = lambda line: None,
) -> QuickstartReport:
    """Import the shipped catalogues, specialise every agent, and ask some agents their example requests.

    Args:
        agents: whose requests are asked; None asks all.
        prompted_seconds: the comparison ends with the request during which this time has passed.
        say: told of each step when it begins, and of what came of it.

    Raises:
        NotFound: no catalogue has such an agent. And what loading, specialising and the database raise.
    """
    import tool_specs

    began = time.perf_counter()
    report = QuickstartReport(home=str(specializer.settings.home), bundle=specializer.settings.bundle)
    catalogues = {
        catalogue.agent.name: catalogue for catalogue in map(tool_specs.load, tool_specs.catalogues())
    }
    asked = list(catalogues if agents is None else agents)
    if unknown := [name for name in asked if name not in catalogues]:
        raise NotFound(
            f"no shipped catalogue has the agent {unknown[0]!r}", hint=f"there are {', '.join(catalogues)}"
        )

    with _step(report, say, "home", f"opening {report.home}"):
        specializer.registry  # noqa: B018  # makes the folder and the database, through the migrations
    with _step(report, say, "models", f"loading the models of {report.bundle!r} (converted once)"):
        report.generator = specializer.generator.fingerprint
    with _step(report, say, "tools", f"registering the tools of {len(catalogues)} catalogues") as told:
        changes = [c for made in catalogues.values() for c in _register(specializer, made)]
        new = sum(change.status != "same" for change in changes)
        told(f"{len(changes)} tools, {new} new or changed; {len(catalogues)} agents")
    widest = max(map(len, catalogues))
    with _step(report, say, "specialize", f"specialising {len(catalogues)} agents, one pass each"):
        for name in catalogues:
            line = _specialize(specializer, name, say)
            report.agents.append(line)
            say(
                f"  {name:<{widest}}  {line.tools:>2} tools, {line.description_tokens:>5,} tokens read, "
                f"{line.bytes:>6,} bytes kept, {line.cache:<4} {line.seconds:5.2f} s"
            )
    examples = [(name, example) for name in asked for example in catalogues[name].requests]
    with _step(report, say, "ask", f"asking {len(examples)} requests, the user's message alone") as told:
        for name, example in examples:
            answer = _ask(specializer, name, example, "specialized")
            report.requests.append(Row(name, example.request, example.calls, answer))
        told(f"{report.summary['specialized_right']} of {len(examples)} right")
    with _step(report, say, "compare", "asking the same with the tools in the prompt") as told:
        _compare(specializer, report, examples, prompted_seconds)
        done = report.summary["compared"]
        left = (
            f"; the other {len(examples) - done} were left out to save time" if done < len(examples) else ""
        )
        told(f"{done} of {len(examples)} requests{left}")
    with _step(report, say, "again", f"specialising {asked[0]} once more") as told:
        report.again = _specialize(specializer, asked[0], say)
        told(f"cache {report.again.cache}, {report.again.seconds * 1000:.0f} ms")
    report.seconds = time.perf_counter() - began
    return report


@contextmanager
def _step(report: QuickstartReport, say: Say, name: str, doing: str) -> Iterator[Say]:
    """Says what is being done, then how long it took; the block may tell what came of it."""
    say(doing)
    results: list[str] = []
    began = time.perf_counter()
    yield results.append
    seconds = time.perf_counter() - began
    report.steps.append({"name": name, "seconds": round(seconds, 3), "result": "; ".join(results)})
    say(f"  {''.join(f'{result}, ' for result in results)}{seconds:.1f} s")


def _register(specializer: Specializer, catalogue: Catalogue) -> list[Any]:
    changes = specializer.register_tools(catalogue.tools, source=f"catalogue {catalogue.agent.name}")
    specializer.create_agent(catalogue.agent.name, catalogue.agent.tools, catalogue.agent.instructions)
    return changes


def _specialize(specializer: Specializer, name: str, say: Say) -> AgentLine:
    steps: list[str] = []
    made = specializer.specialize(name, on_step=lambda step: steps.append(f"{step.name} {step.seconds:.2f}"))
    if steps:
        say(f"  {', '.join(steps)} s")
    return AgentLine(
        name=name,
        tools=len(made.toolset.tools),
        cache=made.cache,
        fingerprint=made.fingerprint,
        seconds=made.seconds,
        description_tokens=made.description_tokens,
        bytes=made.adapter.nbytes,
    )


def _compare(
    specializer: Specializer,
    report: QuickstartReport,
    examples: Sequence[tuple[str, ExampleRequest]],
    seconds: float,
) -> None:
    began = time.perf_counter()
    for number, (name, example) in enumerate(examples):
        if time.perf_counter() - began >= seconds:
            return
        row = report.requests[number]
        answer = _ask(specializer, name, example, "prompted")
        report.requests[number] = Row(row.agent, row.request, row.expected, row.specialized, answer)


def _ask(specializer: Specializer, name: str, example: ExampleRequest, mode: Mode) -> Answer:
    from agent_specializer.edge.options import ReplyOptions

    began = time.perf_counter()
    try:
        reply = specializer.ask(name, example.request, mode=mode, options=ReplyOptions(max_tokens=MAX_TOKENS))
    except DecodeError as error:  # one request must not end the demonstration
        seconds = time.perf_counter() - began
        return Answer((), "", False, 0, 0, 0, seconds, seconds, 0.0, error=error.message)
    usage = reply.usage
    return Answer(
        calls=reply.calls,
        content=reply.content,
        right=same_calls(reply.calls, example.calls, example.accepted or ()),
        prompt_tokens=usage.prompt_tokens,
        tool_prompt_tokens=usage.tool_prompt_tokens,
        completion_tokens=usage.completion_tokens,
        seconds=usage.seconds,
        first_token_seconds=usage.first_token_seconds,
        confidence=reply.confidence,
        cache=reply.cache,
    )


def _mean(answers: Sequence[Answer], name: str) -> float:
    return sum(getattr(answer, name) for answer in answers) / len(answers) if answers else 0.0


def _figures(answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "right": sum(answer.right for answer in answers),
        "prompt_tokens_mean": round(_mean(answers, "prompt_tokens"), 1),
        "tool_prompt_tokens_mean": round(_mean(answers, "tool_prompt_tokens"), 1),
        "seconds_mean": round(_mean(answers, "seconds"), 3),
        "first_token_seconds_mean": round(_mean(answers, "first_token_seconds"), 3),
    }
