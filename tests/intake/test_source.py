"""Python text becomes tools without being executed."""

from __future__ import annotations

from typing import Any

import pytest

from agent_specializer.errors import IntakeError
from agent_specializer.intake import read_tools
from agent_specializer.intake.source import read_source

TEXT = '''
from __future__ import annotations
import os
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Literal, Optional

raise RuntimeError("executed")

class Size(Enum):
    SMALL = "small"
    LARGE = "large"

@dataclass
class Address:
    """Where.

    Args:
        street: Its street.
    """
    street: str
    number: int = 1

def order(item: str, size: Size, to: Address, count: Annotated[int, "how many"] = 1, *,
          gift: bool = False, notes: Optional[list[str]] = None, speed: Literal["slow", "fast"] = "slow",
          extra: "dict[str, float] | None" = None) -> str:
    """Orders something.

    Args:
        item: What to order.
    """

def _private(x): ...
'''


def test_a_function_is_read_with_classes_of_the_same_text() -> None:
    [tool] = read_source(TEXT).tools
    assert (tool.name, tool.description) == ("order", "Orders something.")
    assert tool.parameters["required"] == ["item", "size", "to"]
    assert tool.parameters["properties"] == {
        "item": {"type": "string", "description": "What to order."},
        "size": {"type": "string", "enum": ["small", "large"]},
        "to": {"$ref": "#/$defs/Address"},
        "count": {"type": "integer", "description": "how many", "default": 1},
        "gift": {"type": "boolean", "default": False},
        "notes": {
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "default": None,
        },
        "speed": {"type": "string", "enum": ["slow", "fast"], "default": "slow"},
        "extra": {
            "anyOf": [{"type": "object", "additionalProperties": {"type": "number"}}, {"type": "null"}],
            "default": None,
        },
    }
    assert tool.parameters["$defs"]["Address"]["required"] == ["street"]


def test_text_and_function_agree() -> None:
    def f(a: str, b: int = 2, c: list[float] | None = None) -> None:
        """Does it.

        Args:
            a: First.
        """

    text = 'def f(a: str, b: int = 2, c: list[float] | None = None):\n    """Does it.\n\n    Args:\n        a: First.\n    """'
    assert list(read_source(text).tools) == read_tools(f)


def test_decorated_tools_are_taken_alone() -> None:
    text = (
        "@mcp.tool()\ndef a(x: int): ...\n\n@function_tool\ndef b(x: int): ...\n\ndef helper(x: int): ...\n"
    )
    assert [tool.name for tool in read_source(text).tools] == ["a", "b"]


def test_recursive_classes_refer_to_themselves() -> None:
    [tool] = read_source("class N:\n    inner: list['N']\n\ndef f(n: N): ...").tools
    assert tool.parameters["$defs"]["N"]["properties"]["inner"]["items"] == {"$ref": "#/$defs/N"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n\ndef f(x: Nowhere): ...", 3, "type 'Nowhere' is not supported"),
        ("def f(\n  a: int,\n  *args,\n): ...", 3, r"'\*args'"),
        ("def f(**kw): ...", 1, r"'\*\*kw'"),
        ("def f(x): ...", 1, "has no type"),
        ("def f(x: set[str]): ...", 1, "not supported"),
        ("def f(x: Literal[undefined]): ...", 1, "not constants"),
        ("def f(x: 'list['): ...", 1, "is not Python"),
        ("class E: ...\n\ndef f(x: E): ...", 1, "no annotated fields"),
    ],
)
def test_problems_have_a_line(text: str, line: int, message: str) -> None:
    parsed = read_source(f"{text}\n\ndef good(x: int): ...")
    assert [tool.name for tool in parsed.tools] == ["good"]
    [problem] = parsed.problems
    assert isinstance(problem, IntakeError)
    assert problem.line == line
    with pytest.raises(IntakeError, match=message):
        raise problem


@pytest.mark.parametrize("text", ["def f(:", "\x00", "def f():\n  return ("])
def test_what_is_no_python_is_refused(text: str) -> None:
    with pytest.raises(IntakeError, match="not Python"):
        read_source(text)


def test_defaults_that_are_no_constants_make_a_parameter_optional() -> None:
    [tool] = read_source("def f(x: int = compute()): ...").tools
    expected: dict[str, Any] = {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert tool.parameters == expected
