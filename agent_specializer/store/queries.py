"""What the Registry's parts share: searching, text that a database can keep, and names that are not there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, and_, true
from sqlalchemy.orm import InstrumentedAttribute

from agent_specializer.errors import NotFound, SpecError

T = TypeVar("T")
SelectT = TypeVar("SelectT", bound=Select)  # type: ignore[type-arg]

_BATCH = 500  # values in one IN (...): databases limit the parameters of a statement


def batches(values: Iterable[T]) -> Iterator[list[T]]:
    """`values` in lists short enough for one statement."""
    rest = iter(values)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def searchable(*texts: str) -> str:
    """What a search column keeps: casefolded, as LIKE ignores the case of ASCII letters only, or of none."""
    return "\n".join(texts).casefold()


def matches(column: InstrumentedAttribute[str], search: str) -> ColumnElement[bool]:
    """Every word of `search` occurs in the search column; % and _ mean themselves."""
    return and_(true(), *(column.contains(word, autoescape=True) for word in search.casefold().split()))


def paged(statement: SelectT, limit: int | None, offset: int) -> SelectT:
    """One page of `statement`. `limit` None: all the rest.

    Raises:
        ValueError: a negative limit or offset.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise ValueError(f"limit {limit} and offset {offset} must not be negative")
    if limit is None and offset == 0:
        return statement
    return statement.limit(2**31 - 1 if limit is None else limit).offset(offset)


def storable(text: str, what: str) -> str:
    """`text`, once it is certain that every database can keep it.

    Raises:
        SpecError: it holds half a surrogate pair or a NUL character.
    """
    bad = next((letter for letter in text if letter == "\0" or "\ud800" <= letter <= "\udfff"), None)
    if bad is not None:
        raise SpecError(f"{what} holds the character {bad!r}, which is not text", hint="remove it")
    return text


def not_found(kind: str, names: Sequence[str], known: Iterable[str], *, hint: str) -> NotFound:
    """The error for names of `kind` that do not exist; its hint suggests the nearest ones that do."""
    known = list(known)
    close = [near for name in names for near in get_close_matches(name, known, n=2, cutoff=0.7)]
    plural = "s" if len(names) > 1 else ""
    return NotFound(
        f"there is no {kind}{plural} {', '.join(map(repr, names))}",
        hint=f"did you mean {' or '.join(map(repr, dict.fromkeys(close)))}?" if close else hint,
    )
