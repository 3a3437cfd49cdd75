"""What a docstring (Google, NumPy, reST, Epydoc) says of a function and of its parameters."""

from __future__ import annotations

import inspect
from typing import NamedTuple


class Documented(NamedTuple):
    description: str
    parameters: dict[str, str]
    types: dict[str, str]
    """Types written in the docstring, for parameters without annotations."""


def read_docstring(text: str | None) -> Documented:
    """Description (summary and body, no sections), and what it says of each parameter."""
    import docstring_parser

    text = inspect.cleandoc(text or "")
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:  # prose that looks like a broken section
        return Documented(text, {}, {})
    body = "\n\n".join(part.strip() for part in (parsed.short_description, parsed.long_description) if part)
    return Documented(
        body,
        {item.arg_name: " ".join((item.description or "").split()) for item in parsed.params},
        {item.arg_name: item.type_name for item in parsed.params if item.type_name},
    )
