"""Functions and classes become tools by their annotations and docstrings."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from agent_specializer.errors import IntakeError, SchemaNotSupported
from agent_specializer.intake import read_tools
from agent_specializer.specs import ToolSpec


class Room(enum.Enum):
    KITCHEN = "kitchen"
    HALL = "hall"


class Address(BaseModel):
    """Where it is."""

    street: str
    number: int = Field(1, ge=1)


class Folder(BaseModel):
    """A folder.

    Args:
        name: Its name.
    """

    name: str
    inner: list[Folder] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]


@dataclasses.dataclass
class Span:
    """A span of time."""

    start: datetime.date
    days: int = 1


class Options(TypedDict, total=False):
    loud: bool


def set_light(
    room: Room, level: Annotated[int, "per cent", Field(ge=0, le=100)], fade: float | None = None
) -> str:
    """Dims a light.

    Works for every lamp.

    Args:
        room: Which room.
        fade: Seconds
            to take.

    Returns:
        What was done.
    """
    raise NotImplementedError


def one(source: Any) -> ToolSpec:
    [tool] = read_tools(source)
    return tool


def properties(source: Any) -> dict[str, Any]:
    return one(source).parameters["properties"]


def test_a_function_becomes_a_tool_with_its_docstring_and_annotations() -> None:
    assert one(set_light) == ToolSpec(
        name="set_light",
        description="Dims a light.\n\nWorks for every lamp.",
        parameters={
            "type": "object",
            "properties": {
                "room": {"$ref": "#/$defs/Room", "description": "Which room."},
                "level": {"type": "integer", "minimum": 0, "maximum": 100, "description": "per cent"},
                "fade": {
                    "anyOf": [{"type": "number"}, {"type": "null"}],
                    "default": None,
                    "description": "Seconds to take.",
                },
            },
            "required": ["room", "level"],
            "additionalProperties": False,
            "$defs": {"Room": {"type": "string", "enum": ["kitchen", "hall"]}},
        },
    )


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (Any, {}),
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
    ],
)
def test_annotations(annotation: Any, schema: dict[str, Any]) -> None:
    def tool(x) -> None: ...

    tool.__annotations__ = {"x": annotation}
    assert properties(tool) == {"x": schema}


def test_nested_models_dataclasses_and_typed_dicts_are_closed_objects() -> None:
    def tool(at: Address, when: Span, how: Options) -> None: ...

    defs = one(tool).parameters["$defs"]
    assert set(defs) == {"Address", "Span", "Options"}
    assert all(schema["additionalProperties"] is False for schema in defs.values())
    assert defs["Address"]["properties"]["number"] == {"type": "integer", "minimum": 1, "default": 1}
    assert "required" not in defs["Options"]


def test_a_discriminated_union_is_registered() -> None:
    def tool(pet: Annotated[Cat | Dog, Field(discriminator="kind")]) -> None: ...

    assert properties(tool)["pet"]["anyOf"] == [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]


def test_methods_async_functions_partials_and_callables() -> None:
    class Home:
        async def open_door(self, door: str) -> None:
            """Opens a door."""

        @staticmethod
        def ring(times: int = 1) -> None: ...

        def __call__(self, text: str) -> None: ...

    for method in (Home.open_door, Home().open_door):
        assert one(method).name == "open_door"
        assert list(properties(method)) == ["door"]
    assert properties(Home.ring) == {"times": {"type": "integer", "default": 1}}
    assert one(Home()).name == "Home"
    assert one(functools.partial(set_light, Room.HALL)).parameters["required"] == ["level"]


def test_types_come_from_the_docstring_or_the_default_where_there_are_no_annotations() -> None:
    def tool(city, days=3):
        """Weather.

        :param str city: Which city.
        """

    assert properties(tool) == {
        "city": {"type": "string", "description": "Which city."},
        "days": {"type": "integer", "default": 3},
    }


def test_names_that_pydantic_keeps_for_itself_are_parameters_like_others() -> None:
    def tool(schema: str, model_config: int, _private: bool, copy: str) -> None: ...

    assert list(properties(tool)) == ["schema", "model_config", "_private", "copy"]


def test_a_model_is_a_tool_and_a_recursive_one_shows_its_fields() -> None:
    folder = one(Folder)
    assert (folder.name, folder.description) == ("Folder", "A folder.")
    assert folder.parameters["properties"]["name"] == {"type": "string", "description": "Its name."}
    assert folder.parameters["properties"]["inner"]["items"] == {"$ref": "#/$defs/Folder"}
    assert one(Span).description == "A span of time."
    assert one(Options).parameters["properties"] == {"loud": {"type": "boolean"}}


def _star(*args): ...
def _double(**options: int): ...
def _bare(x): ...
def _positional(x: int, /): ...
def _unknown(x: Nowhere): ...  # noqa: F821
def _opaque(x: object()): ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_star, r"parameter '\*args' has no names and types"),
        (_double, r"parameter '\*\*options' has no names and types"),
        (_bare, "parameter 'x' has no type"),
        (_positional, "parameter 'x' cannot be given by name"),
        (_unknown, "'Nowhere' is not defined"),
        (lambda x: x, "a lambda has no name"),
        (len, "cannot be given by name"),
        (pytest, "no source of tools"),
        (int, "class int does not say"),
    ],
)
def test_what_cannot_become_a_tool_says_why(function: Any, message: str) -> None:
    with pytest.raises(IntakeError, match=message) as caught:
        read_tools(function)
    assert caught.value.hint


def test_a_set_is_refused_with_the_place_and_the_tool() -> None:
    def tool(tags: set[str]) -> None: ...

    with pytest.raises(SchemaNotSupported, match=r"uniqueItems.*tool 'tool'") as caught:
        read_tools(tool)
    assert caught.value.path == "/properties/tags/uniqueItems"
