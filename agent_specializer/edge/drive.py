"""Replies are generators that ask for forward passes; here those of several share each pass."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from agent_specializer.edge.decode import Outcome
from agent_specializer.edge.passes import Feed, Lanes, Seen
from agent_specializer.edge.turns import Deadline
from agent_specializer.errors import DecodeError


def drive(
    lanes: Lanes, replies: Sequence[Generator[Feed, Seen, Outcome]], deadline: Deadline
) -> list[Outcome | DecodeError]:
    """Advance all replies together, one forward pass at a time, until each has ended.

    Returns:
        Of each of `replies`, lane by lane, what came of it; the error where it failed, or where `deadline` came first.
    """
    ended: dict[int, Outcome | DecodeError] = {}
    seen: dict[int, Seen | None] = dict.fromkeys(range(len(replies)))
    while seen:
        try:
            deadline.check()
        except DecodeError as late:
            ended |= dict.fromkeys(seen, late)
            break
        feeds: dict[int, Feed] = {}
        for lane, what in seen.items():
            try:
                feeds[lane] = replies[lane].send(what)  # type: ignore[arg-type]
            except StopIteration as stop:
                ended[lane] = stop.value
            except DecodeError as error:
                ended[lane] = error
        seen = dict(lanes.run(feeds)) if feeds else {}
    return [ended[lane] for lane in range(len(replies))]
