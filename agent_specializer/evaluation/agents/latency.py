"""`bench langchain-latency`: the same agent on three chat models over the same weights, streamed.

- ``chat_specialized``: `ChatSpecialized`, its adapter made and merged before, as it is for an agent in use.
- ``chat_specialized_prompted``: the same class with the tools in the prompt: what the class itself gains.
- ``chat_huggingface``: `ChatHuggingFace` over a transformers pipeline, with the tools in the prompt.

A call is one call of the agent's model, through `create_agent` and LangGraph's stream of messages: the time to the first
chunk of any kind, and the time until the model's step is over. No tool is run.

What is done so that the comparison is fair:

- `ChatHuggingFace.bind_tools` keeps the tools in the request, but a pipeline never gets them: its prompt is rendered from
  the messages alone. So the tools are in its system message, in the same words in which our prompted mode has them.
- Where the model has no chat template (Gemma 3 270M is a base model), a plain one renders the very text that our prompted
  mode sends, so that both read the same tokens.
- A pipeline does not know where a call ends. It writes as many tokens as `chat_specialized` wrote for the request, so that
  both write equally much. Nothing is sampled.
- Ways take turns, in another order each time. Only first model calls are compared: with a tool's result as the last message
  `ChatHuggingFace` refuses to answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from agent_specializer.describe import describe_toolset
from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.agents.own_store import own_store
from agent_specializer.evaluation.catalogue_cases import Case, catalogue_cases
from agent_specializer.progress import Progress, silent
from agent_specializer.settings import Settings, load_settings
from agent_specializer.specs import Toolset

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_specializer.specializer import Specializer

WAYS = ("chat_specialized", "chat_specialized_prompted", "chat_huggingface")
MAX_TOKENS = 96
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}User: {{ message.content }}\n"
    "{% else %}Call: none\nAnswer: {{ message.content }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Call:{% endif %}"
)
"""The edge's wire format as a chat template, for models that have none."""


@dataclass(frozen=True)
class Streamed:
    """One model call. Seconds since the agent was asked; tokens are the edge's."""

    first_chunk_seconds: float
    total_seconds: float
    prompt_tokens: int
    completion_tokens: int


def run_langchain_latency(
    *,
    tools: int = 12,
    requests: int = 3,
    repetitions: int = 5,
    seed: int = 0,
    out: Path | None = None,
    checkpoint: Path | None = None,
    settings: Settings | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure on a shipped catalogue's agent, filled up to `tools` tools; the report, also written to `out`.

    Raises:
        ConfigError: langchain or langchain-huggingface is not installed, or an argument makes no sense.
    """
    from agent_specializer.evaluation.machine import machine, versions
    from agent_specializer.evaluation.report_files import write_json

    if repetitions < 1 or requests < 1:
        raise ConfigError("repetitions and requests must be at least 1", hint="5 and 3 are usual")
    if out is not None and not out.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {str(out.absolute().parent)!r}", hint="make it first")
    case = catalogue_cases(tools=tools, count=1, seed=seed)[0]
    count = min(requests, len(case.requests))
    with own_store(settings or load_settings(), checkpoint, progress) as specializer:
        progress("loading the models", None)
        bench = _Bench(specializer, case)
        for number in range(count):
            bench.round(number, 0)  # warms up: compiles grammars, makes the adapter, touches pages
        rounds: list[dict[str, Streamed]] = []
        for repetition in range(repetitions):
            progress(f"repetition {repetition + 1}/{repetitions}", repetition / repetitions)
            rounds += [bench.round(number, repetition * count + number) for number in range(count)]
        report = {
            "rows": [_row(way, [each[way] for each in rounds]) for way in WAYS],
            "ratios": {
                f"{figure}_vs_{other}": _ratio(rounds, other, f"{figure}_seconds")
                for other in ("chat_huggingface", "chat_specialized_prompted")
                for figure in ("first_chunk", "total")
            },
            "settings": {
                "tools": tools,
                "requests": count,
                "repetitions": repetitions,
                "seed": seed,
                "max_tokens": MAX_TOKENS,
                "chat_template": bench.template,
                "bundle": specializer.settings.bundle,
                "checkpoint": str(specializer.runtime.checkpoint),
                "generator": specializer.generator.fingerprint,
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": machine(),
                "versions": versions() | _langchain_versions(),
            },
        }
    if out is not None:
        write_json(out, report)
    return report


class _Bench:
    """The three models with the tools of one case, ready to be asked."""

    def __init__(self, specializer: Specializer, case: Case) -> None:
        try:
            from agent_specializer.langchain import ChatSpecialized

            self.huggingface, self.template = _huggingface(specializer)
            import langchain.agents  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"bench langchain-latency needs LangChain and its models of Hugging Face: {error}",
                hint='pip install "agent-specializer[langchain]" langchain-huggingface',
            ) from error
        from agent_specializer.evaluation.agents.stream import silent_tools
        from agent_specializer.langchain.tools import read_bound

        self.specializer, self.case = specializer, case
        self.ours = ChatSpecialized(specializer=specializer, max_tokens=MAX_TOKENS)
        self.tools = silent_tools(case.toolset.tools)
        # As LangChain reads them, so that this is the adapter that the agent uses.
        self.toolset = Toolset(tools=read_bound(self.tools), instructions=case.toolset.instructions)
        self.adapter = specializer.specialize(self.toolset).adapter
        self._lengths: dict[int, int] = {}

    def round(self, number: int, turn: int) -> dict[str, Streamed]:
        """Request `number` in all ways. Another way comes first each time; ours alone says how much to write."""
        streamed = {"chat_specialized": self._specialized(number)} if turn % 2 == 0 else {}
        length = self._length(number)
        asked: dict[str, Callable[[], Streamed]] = {
            "chat_specialized_prompted": lambda: self._prompted(number),
            "chat_huggingface": lambda: self._huggingface(number, length),
        }
        for way in asked if turn % 4 < 2 else reversed(asked):
            streamed[way] = asked[way]()
        if "chat_specialized" not in streamed:
            streamed["chat_specialized"] = self._specialized(number)
        return streamed

    def _length(self, number: int) -> int:
        """Tokens that the specialised model writes for a request; greedy, so that they are always the same."""
        if number not in self._lengths:
            options = _settings_of(self.case.gold[number])
            bound = self.ours.model_copy(update={"toolset": self.toolset})
            usage = bound.invoke(self._text(number), **options).usage_metadata
            self._lengths[number] = int(usage["output_tokens"]) if usage else 1
        return self._lengths[number]

    def _specialized(self, number: int) -> Streamed:
        self.specializer.engine.merge(self.adapter)  # the other ways have put the base in its place
        return self._ask(self.ours, number, _settings_of(self.case.gold[number]), None)

    def _prompted(self, number: int) -> Streamed:
        with self.specializer.engine.exclusive():
            pass  # puts the base in its place
        model = self.ours.model_copy(update={"mode": "prompted"})
        return self._ask(model, number, _settings_of(self.case.gold[number]), None)

    def _huggingface(self, number: int, length: int) -> Streamed:
        written = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": False}
        # The pipeline runs the same model object; nobody else may put an adapter into it meanwhile.
        with self.specializer.engine.exclusive():
            return self._ask(self.huggingface, number, {"pipeline_kwargs": written}, length)

    def _ask(
        self, model: BaseChatModel, number: int, settings: dict[str, Any], length: int | None
    ) -> Streamed:
        """Streams one model call of an agent; `length` where the model does not count its tokens."""
        from agent_specializer.evaluation.agents.stream import stream_one_call

        told = self.toolset.instructions if length is None else describe_toolset(self.toolset)
        seconds, message = stream_one_call(model, self.tools, told, self._text(number), settings)
        if length is not None:
            return Streamed(*seconds, self._prompt_tokens(told, self._text(number)), length)
        usage: Any = message.usage_metadata
        return Streamed(*seconds, usage["input_tokens"], usage["output_tokens"])

    def _prompt_tokens(self, told: str, text: str) -> int:
        """What ChatHuggingFace makes of a system and a user message."""
        messages = [{"role": "system", "content": told}, {"role": "user", "content": text}]
        tokenizer = self.huggingface.tokenizer
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return len(tokenizer(prompt).input_ids)

    def _text(self, number: int) -> str:
        return self.case.requests[number][0].content


def _settings_of(tool: str) -> dict[str, Any]:
    """One call of the tool that the request needs, so that all ways write the same kind of text."""
    return {"tool_choice": tool, "parallel_tool_calls": False}


def _huggingface(specializer: Specializer) -> tuple[Any, str]:
    """ChatHuggingFace over the edge model itself, and whose chat template it uses."""
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline
    from transformers import pipeline

    models: Any = specializer.runtime.models
    tokenizer: Any = copy.copy(models.edge_tokenizer)
    whose = "the model's" if tokenizer.chat_template else "plain"
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_TEMPLATE
    generation: Any = pipeline("text-generation", model=models.edge, tokenizer=tokenizer)
    llm = HuggingFacePipeline(pipeline=generation)
    return ChatHuggingFace(llm=llm, tokenizer=tokenizer), whose


def _row(way: str, streamed: Sequence[Streamed]) -> dict[str, Any]:
    figures = ("prompt_tokens", "completion_tokens", "first_chunk_seconds", "total_seconds")
    return {
        "name": way,
        **{figure: float(median(getattr(each, figure) for each in streamed)) for figure in figures},
        "measured": len(streamed),
    }


def _ratio(rounds: Sequence[dict[str, Streamed]], other: str, figure: str) -> dict[str, Any]:
    """How many times faster ours is, pair by pair: the median of the pairs, their quartiles and number."""
    pairs = [getattr(each[other], figure) / getattr(each["chat_specialized"], figure) for each in rounds]
    low, _, high = quantiles(pairs, n=4, method="inclusive") if len(pairs) > 1 else [pairs[0]] * 3
    return {"median": float(median(pairs)), "quartiles": [low, high], "n": len(pairs)}


def _langchain_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {
        name: version(name) for name in ("langchain", "langchain-core", "langchain-huggingface", "langgraph")
    }
