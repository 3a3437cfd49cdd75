"""Scripted conversations: what a user says, which calls are right, and what the tools answer. Values and their file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from agent_specializer.errors import IntakeError, NotFound
from agent_specializer.specs import ToolSpec

SHIPPED = Path(__file__).with_name("conversations.yaml")
Kind = Literal["weather_then_mail", "search_then_summarise", "tool_errors", "no_tool", "two_at_once"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScriptedTool(_Value):
    """A tool, and what it answers where a script has nothing for it."""

    name: str
    description: str
    parameters: dict[str, Any]
    reply: str

    @property
    def spec(self) -> ToolSpec:
        return ToolSpec(name=self.name, description=self.description, parameters=self.parameters)


class ScriptedAgent(_Value):
    """`instructions` is the system prompt."""

    instructions: str
    tools: tuple[ScriptedTool, ...]


class ScriptedCall(_Value):
    """A call that is right, and what the tool answers to it: a result or an error.

    `accepted` has further right values by argument. `contains` has arguments of free text: each must be there and hold
    one of the words listed, any text where none is.
    """

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    accepted: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    contains: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    result: str | None = None
    error: str | None = None

    @model_validator(mode="after")
    def _answers_once(self) -> ScriptedCall:
        if (self.result is None) == (self.error is None):
            raise ValueError(f"{self.tool} needs either a result or an error")
        return self


def _listed(step: Any) -> Any:
    return step if isinstance(step, list | tuple) else [step]


Step = Annotated[tuple[ScriptedCall, ...], BeforeValidator(_listed)]
"""Calls that can be made at once, in any order."""


class Turn(_Value):
    """A user's text, the steps that answer it, and words of which an answer has to hold one (none: any answer)."""

    user: str = Field(min_length=1)
    steps: tuple[Step, ...] = ()
    answer: tuple[str, ...] = ()


class Conversation(_Value):
    id: str
    kind: Kind
    agent: str
    turns: tuple[Turn, ...] = Field(min_length=1)


class Script(_Value):
    """A file of conversations and the agents that hold them."""

    agents: dict[str, ScriptedAgent]
    conversations: tuple[Conversation, ...]

    @model_validator(mode="after")
    def _names_are_known(self) -> Script:
        if len({c.id for c in self.conversations}) < len(self.conversations):
            raise ValueError("two conversations have the same id")
        for conversation in self.conversations:
            if conversation.agent not in self.agents:
                raise ValueError(f"{conversation.id}: there is no agent {conversation.agent!r}")
            tools = {tool.name: tool for tool in self.agents[conversation.agent].tools}
            for call in _calls(conversation):
                if call.tool not in tools:
                    raise ValueError(f"{conversation.id}: {conversation.agent} has no tool {call.tool!r}")
                known = tools[call.tool].parameters.get("properties", {})
                unknown = (call.arguments.keys() | call.accepted.keys() | call.contains.keys()) - known.keys()
                if unknown:
                    raise ValueError(f"{conversation.id}: {call.tool} has no {', '.join(sorted(unknown))}")
        return self

    def chosen(self, limit: int | None = None) -> list[Conversation]:
        """The conversations, or `limit` of them, of every kind about equally many; kinds take turns."""
        by_kind = [[c for c in self.conversations if c.kind == kind] for kind in KINDS]
        turns: Iterator[Conversation] = (c for row in zip_longest(*by_kind) for c in row if c is not None)
        return list(turns)[:limit]


def load_script(path: Path = SHIPPED) -> Script:
    """Reads a file of conversations, YAML or JSON.

    Raises:
        NotFound: there is no such file. IntakeError: it is not YAML, or no script.
    """
    try:
        return Script.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NotFound(f"there is no file {str(path)!r}", hint=f"the shipped one is {SHIPPED}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IntakeError(f"cannot be read: {error}", source=str(path)) from error
    except yaml.YAMLError as error:
        raise IntakeError(f"not YAML: {error}", source=str(path)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = "/".join(map(str, first["loc"]))
        raise IntakeError(
            f"not a script of conversations: {place}: {first['msg']}",
            source=str(path),
            hint=f"see {SHIPPED} for what one looks like",
        ) from None


def holds_one_of(text: str, words: Sequence[str]) -> bool:
    """Whether `text` has something in it, and one of `words` as a word or the start of one, where there are any."""
    if not text.strip():
        return False
    return not words or any(
        re.search(rf"(?<![\w.,]){re.escape(word)}(?!(?<=\d)\d)", text, re.IGNORECASE) for word in words
    )


def _calls(conversation: Conversation) -> Iterator[ScriptedCall]:
    return (call for turn in conversation.turns for step in turn.steps for call in step)
