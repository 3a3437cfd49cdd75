"""What a stream yields, in the order in which it becomes known."""

from __future__ import annotations

from dataclasses import dataclass

from agent_specializer.messages import Choice, Reply


@dataclass(frozen=True)
class ChoiceMade:
    """A step was decided: call number `index` will be of the tool `name`, or (None) no further call follows."""

    index: int
    name: str | None
    confidence: float
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class CallDelta:
    """The next piece of the JSON of call number `index`."""

    index: int
    name: str
    arguments_text: str


@dataclass(frozen=True)
class TextDelta:
    """The next piece of an answer in words."""

    text: str


@dataclass(frozen=True)
class Done:
    """The end, with the whole reply. Pieces that were streamed join to what it holds."""

    reply: Reply


Event = ChoiceMade | CallDelta | TextDelta | Done
