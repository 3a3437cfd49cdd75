"""The task description says what a tool takes, and stays readable where a schema lists thousands of values."""

from __future__ import annotations

from agent_specializer.describe import MANY, describe_tool
from agent_specializer.specs import ToolSpec

VALUES = [f"city {n}" for n in range(2000)]


def described(**properties: object) -> str:
    return describe_tool(ToolSpec(name="go", parameters={"type": "object", "properties": properties}))


def test_few_values_are_all_said() -> None:
    assert described(to={"enum": VALUES[:MANY]}).count("city") == MANY


def test_of_many_values_the_first_are_said_and_how_many_follow_wherever_they_stand() -> None:
    many = {"type": "string", "enum": VALUES}
    for text in (
        described(to=many),
        described(to={"type": "array", "items": many}),
        described(to={"anyOf": [many, {"type": "null"}]}),
    ):
        assert text.count("city") == MANY
        assert '"city 31"' in text
        assert "and 1968 more" in text


def test_a_parameter_may_be_called_enum() -> None:
    text = described(at={"type": "object", "properties": {"enum": {"type": "string"}}})
    assert '"enum":{"type":"string"}' in text
