"""A set of requests with the calls they should lead to, asked one by one and scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

import tool_specs
from agent_specializer.edge.options import ReplyOptions
from agent_specializer.errors import DecodeError, IntakeError
from agent_specializer.examples.compare import same_calls
from agent_specializer.messages import Call, Mode, Reply
from agent_specializer.specializer.facade import Specializer
from tool_specs import ExampleRequest


@dataclass(frozen=True)
class Scored:
    """One request in one mode. `tool`: the right tools were called; `exact`: with the right arguments, too."""

    request: str
    mode: Mode
    expected: tuple[Call, ...]
    made: tuple[Call, ...]
    tool: bool
    exact: bool
    error: str = ""


def shipped_examples(tools: Sequence[str]) -> dict[str, tuple[ExampleRequest, ...]]:
    """By title, the requests of the catalogues all of whose tools are among `tools`."""
    loaded = map(tool_specs.load, tool_specs.catalogues())
    return {each.title: each.requests for each in loaded if set(each.agent.tools) <= set(tools)}


def read_requests(text: str) -> tuple[ExampleRequest, ...]:
    """Requests in JSON Lines, ``{"request": TEXT, "calls": [{"name", "arguments"}]}``.

    Raises:
        IntakeError: a line is none, with its number.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(ExampleRequest.model_validate(json.loads(line)))
        except (ValidationError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise IntakeError(
                f"not a request: {reason}",
                source="line",
                line=number,
                hint='write {"request": "dim the light", "calls": [{"name": "set_light", "arguments": {}}]}',
            ) from None
    return tuple(found)


def score(
    service: Specializer,
    agent: str,
    requests: Sequence[ExampleRequest],
    modes: Sequence[Mode],
    on_done: Callable[[int, int], None],
    *,
    options: ReplyOptions | None = None,
) -> list[Scored]:
    """Ask every request in every mode, with the same `options`. A reply that cannot be completed counts as wrong."""
    rows: list[Scored] = []
    total = len(requests) * len(modes)
    for mode in modes:
        for example in requests:
            try:
                reply, error = service.ask(agent, example.request, mode=mode, options=options), ""
            except DecodeError as failed:
                reply, error = Reply(), failed.message
            names = sorted(call.name for call in reply.calls) == sorted(call.name for call in example.calls)
            exact = same_calls(reply.calls, example.calls, example.accepted or ())
            right = not error
            rows.append(
                Scored(
                    example.request, mode, example.calls, reply.calls, names and right, exact and right, error
                )
            )
            on_done(len(rows), total)
    return rows
