"""Files and pasted text: every shape, and errors with the file and the line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_specializer.errors import IntakeError, SchemaNotSupported, SpecError
from agent_specializer.intake import read_catalogue, read_text, read_tools

A = {
    "name": "a",
    "description": "First.",
    "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
}
B = {"name": "b", "description": "Second."}
YAML = """
tools:
  - name: a
    description: First.
    parameters:
      type: object
      properties:
        x: {type: string, enum: [yes, no, 2024-05-06]}
"""


def write(path: Path, value: object) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "value",
    [
        [A, B],
        {"tools": [A, B]},
        {"functions": [A, B]},
        {"toolset_id": "t", "description": "d", "tools": [A, B]},
        {"agent": {"name": "n", "instructions": "i"}, "tools": [A, B], "requests": []},
        [{"tools": [A]}, {"tools": [B, A]}],
        [{"functionDeclarations": [A, B]}],
        {"a": {"description": "First.", "parameters": A["parameters"]}, "b": {"description": "Second."}},
    ],
)
def test_every_shape_of_a_json_file(tmp_path: Path, value: object) -> None:
    for source in (write(tmp_path / "tools.json", value), str(tmp_path / "tools.json")):
        assert [tool.name for tool in read_tools(source)] == ["a", "b"]


def test_json_lines_plain_and_gzipped(tmp_path: Path) -> None:
    lines = f"{json.dumps(A)}\n\n{json.dumps({'tools': [B]})}\n"
    write(tmp_path / "tools.jsonl", lines)
    (tmp_path / "tools.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    for name in ("tools.jsonl", "tools.jsonl.gz"):
        assert [tool.name for tool in read_tools(tmp_path / name)] == ["a", "b"]


def test_yaml_keeps_words_and_dates_as_text(tmp_path: Path) -> None:
    [tool] = read_tools(write(tmp_path / "tools.yaml", YAML))
    assert tool.parameters["properties"]["x"]["enum"] == ["yes", "no", "2024-05-06"]


def test_a_directory_is_read_whole_but_for_hidden_files_and_code(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / ".hidden").mkdir()
    write(tmp_path / "one.json", [A])
    write(tmp_path / "inner" / "two.yaml", "name: b\ndescription: Second.\n")
    write(tmp_path / ".hidden" / "three.json", "broken")
    write(tmp_path / "code.py", "def c(x: int): ...")
    assert [tool.name for tool in read_tools(tmp_path)] == ["b", "a"]
    with pytest.raises(IntakeError, match="no files of tools"):
        read_tools(_empty(tmp_path))


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("t.json", '{\n "tools": [\n  {"name": "a",}\n ]\n}', 3, "not JSON"),
        ("t.json", "", 1, "not JSON"),
        ("t.json", '[{"name": NaN}]', None, "NaN is no JSON value"),
        ("t.jsonl", f'{json.dumps(A)}\n{{"name"\n', 2, "not JSON"),
        ("t.yaml", "tools:\n  - name: a\n   bad: [", 3, "not YAML"),
        ("t.py", "def a(x: int):\n  return (", 2, "not Python"),
        ("t.py", "x = 1", None, "no public function"),
        ("t.py", "def fine(x: int): ...\n\ndef bad(x: Spaceship): ...", 3, "'Spaceship' is not supported"),
        ("t.json", '"text"', None, "no tool definitions"),
        ("t.json", '{"name": "tools", "version": 1}', None, "no tool definitions: found the keys"),
        ("t.json", "[]", None, "no tools in it"),
        ("t.jsonl", "\n", None, "the file is empty"),
        (
            "t.json",
            '[{"name": "a", "description": "d"}, {"nome": "b"}]',
            None,
            "item 2: not a tool definition",
        ),
    ],
)
def test_errors_name_the_file_and_the_line(
    tmp_path: Path, name: str, text: str, line: int | None, message: str
) -> None:
    path = write(tmp_path / name, text)
    with pytest.raises(IntakeError, match=message) as caught:
        read_tools(path)
    assert str(path) in str(caught.value)
    assert caught.value.line == line


def test_missing_binary_and_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "damaged.jsonl.gz").write_bytes(gzip.compress(b'{"name": "a"}' * 50)[:30])
    for name, message in (
        ("none.json", "no such file"),
        ("binary.json", "not UTF-8"),
        ("damaged.jsonl.gz", "cannot be read"),
    ):
        with pytest.raises(IntakeError, match=message):
            read_tools(tmp_path / name)


def test_every_bad_tool_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    bad = {**A, "parameters": {"properties": {"x": {"uniqueItems": True}}}}
    path = write(tmp_path / "t.json", [B, {**bad, "name": "c"}, {**bad, "name": "d"}])
    with pytest.raises(IntakeError, match="2 tools cannot be registered") as caught:
        read_tools(path)
    assert "'c'" in str(caught.value)
    assert "'d'" in str(caught.value)
    with pytest.raises(SchemaNotSupported, match="/properties/x/uniqueItems"):
        read_tools(write(path, [B, bad]))


CATALOGUE = {
    "agent": {"name": "n", "title": "Title", "instructions": "Be brief."},
    "tools": [A, B],
    "requests": [
        {"request": "do a", "calls": [{"name": "a", "arguments": {"x": "1"}}]},
        {"request": "hello", "calls": []},
    ],
}


def test_a_catalogue_is_an_agent_with_tools_and_requests(tmp_path: Path) -> None:
    catalogue = read_catalogue(write(tmp_path / "c.json", CATALOGUE))
    assert (catalogue.agent.name, catalogue.agent.tools, catalogue.title) == ("n", ("a", "b"), "Title")
    assert [example.request for example in catalogue.requests] == ["do a", "hello"]
    assert catalogue.requests[0].calls[0].arguments == {"x": "1"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent": None}, "not an agent catalogue"),
        ({"agent": {"name": ""}}, "malformed"),
        ({"requests": [{"request": "x", "calls": [{"name": "c"}]}]}, "request 1 calls 'c'"),
        ({"requests": [{"calls": []}]}, "malformed"),
        ({"requests": [{"request": "x", "calls": [{"nam": "a"}]}]}, "malformed"),
    ],
)
def test_a_malformed_catalogue_says_what_is_wrong(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(IntakeError, match=message):
        read_catalogue(write(tmp_path / "c.json", {**CATALOGUE, **change}))


@pytest.mark.parametrize(
    ("text", "format", "names"),
    [
        (json.dumps(A), "plain", ["a"]),
        (json.dumps([{"type": "function", "function": A}]), "openai", ["a"]),
        (json.dumps({"tools": [{"name": "a", "description": "", "input_schema": {}}]}), "anthropic", ["a"]),
        (f"{json.dumps(A)}\n{json.dumps(B)}", "plain", ["a", "b"]),
        (YAML, "plain", ["a"]),
        ("{'name': 'a', 'description': None, 'parameters': {'x': {'type': 'str'}}}", "plain", ["a"]),
        ('{"name": "a", "description": "trailing comma",}', "plain", ["a"]),
        ("import os\n\ndef a(x: int) -> str:\n    '''First.'''", "python", ["a"]),
        ("@tool\nasync def a(x: int): ...\n\ndef helper(): ...", "python", ["a"]),
        ("openapi: 3.0.0\npaths:\n  /a:\n    get: {operationId: a}", "openapi", ["a"]),
    ],
)
def test_pasted_text_is_recognised(text: str, format: str, names: list[str]) -> None:
    parsed = read_text(text)
    assert parsed.problems == ()
    assert (parsed.format, [tool.name for tool in parsed.tools]) == (format, names)


def test_good_tools_of_a_text_are_kept_beside_its_problems() -> None:
    parsed = read_text(json.dumps([A, {"oops": 1}, {**B, "parameters": {"properties": {"x": {"not": {}}}}}]))
    assert [tool.name for tool in parsed.tools] == ["a"]
    assert [type(problem) for problem in parsed.problems] == [IntakeError, SchemaNotSupported]
    assert "item 2" in str(parsed.problems[0])


@given(text=st.one_of(st.text(), st.text(alphabet='{}[]":,- \n\tabdefn:@()name', max_size=60)))
def test_no_text_makes_read_text_crash(text: str) -> None:
    parsed = read_text(text)
    assert parsed.tools or all(isinstance(problem, SpecError) for problem in parsed.problems)
