"""The catalogues shipped with the product: realistic agents with their tools and example requests.

One JSON file is one agent. The tool names of all catalogues differ, so that any number of them can be
registered in one home. The requests were written for this purpose; they are test data, and training must
not read them.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agent_specializer.errors import IntakeError, NotFound
from agent_specializer.messages import Call
from agent_specializer.specs import AgentSpec, Toolset, ToolSpec

__all__ = ["Catalogue", "ExampleRequest", "catalogues", "load"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))


class ExampleRequest(_Value):
    """What a user types, and the calls that answer it, in the order in which the user says them.

    `calls` is empty where no tool should be called. `accepted`, where present, has one entry for each call,
    ``{name: {argument: [right values]}}``; an argument that only occurs there may be given or left out.
    """

    request: str = Field(min_length=1)
    calls: tuple[Call, ...] = ()
    accepted: tuple[dict[str, dict[str, list[Any]]], ...] | None = None

    @model_validator(mode="after")
    def _accepted_fits_calls(self) -> ExampleRequest:
        if self.accepted is None:
            return self
        if [list(entry) for entry in self.accepted] != [[call.name] for call in self.calls]:
            raise ValueError(
                f"accepted must name one tool per call, in the order of the calls: {self.request!r}"
            )
        for call, entry in zip(self.calls, self.accepted, strict=True):
            values = entry[call.name]
            wrong = [key for key, value in call.arguments.items() if value not in values.get(key, [])]
            if wrong:
                raise ValueError(f"accepted lacks the value in calls of {wrong}: {self.request!r}")
        return self


class Catalogue(_Value):
    """One agent: its spec, the title shown to people, its tools in the file's order, and example requests."""

    agent: AgentSpec
    title: str
    tools: tuple[ToolSpec, ...]
    requests: tuple[ExampleRequest, ...]

    @model_validator(mode="after")
    def _calls_name_tools(self) -> Catalogue:
        unknown = {call.name for example in self.requests for call in example.calls} - set(self.agent.tools)
        if unknown:
            raise ValueError(f"requests call {sorted(unknown)}, which are not tools of {self.agent.name!r}")
        return self

    @cached_property
    def toolset(self) -> Toolset:
        """The toolset that the agent's adapter is made for."""
        return Toolset(tools=self.tools, instructions=self.agent.instructions)


def catalogues() -> list[Path]:
    """The shipped files, sorted by name."""
    return sorted(Path(__file__).parent.glob("*.json"))


def load(path: str | Path) -> Catalogue:
    """Reads one catalogue file.

    Raises:
        NotFound: there is no such file.
        IntakeError: it is not JSON, or not a catalogue.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        agent = dict(data["agent"])
        title = agent.pop("title", agent["name"])
        agent["tools"] = [tool["name"] for tool in data["tools"]]
        return Catalogue.model_validate({**data, "agent": agent, "title": title})
    except FileNotFoundError:
        known = ", ".join(shipped.stem for shipped in catalogues())
        raise NotFound(f"there is no catalogue {str(path)!r}", hint=f"shipped are: {known}") from None
    except json.JSONDecodeError as error:
        raise IntakeError(f"not JSON: {error.msg}", source=str(path), line=error.lineno) from error
    except OSError as error:
        raise IntakeError(f"cannot be read: {error.strerror}", source=str(path)) from error
    except (KeyError, TypeError, ValueError) as error:  # a pydantic ValidationError is a ValueError
        raise IntakeError(
            f"not a catalogue: {type(error).__name__}: {error}",
            source=str(path),
            hint='expected {"agent": {"name", "title", "instructions"}, "tools": [...], "requests": [...]}',
        ) from error
