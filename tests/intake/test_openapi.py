"""OpenAPI documents: one tool per operation."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from agent_specializer.errors import IntakeError
from agent_specializer.intake import read_tools
from agent_specializer.intake.openapi import read_openapi

DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Pets", "version": "1"},
    "paths": {
        "/pets/{id}": {
            "parameters": [
                {
                    "name": "id",
                    "in": "path",
                    "required": True,
                    "schema": {"type": "integer", "format": "int64"},
                }
            ],
            "get": {
                "operationId": "getPet",
                "summary": "One pet.",
                "description": "By its number.",
                "parameters": [{"$ref": "#/components/parameters/Lang"}],
            },
            "put": {
                "operationId": "putPet",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
                },
            },
            "delete": {},
        },
        "/pets": {
            "post": {
                "operationId": "addPets",
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Pet"}}
                        }
                    }
                },
            }
        },
    },
    "components": {
        "parameters": {
            "Lang": {"name": "lang", "in": "query", "description": "Language.", "schema": {"type": "string"}}
        },
        "schemas": {
            "Pet": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "serial": {"type": "string", "readOnly": True},
                    "name": {"type": "string", "nullable": True},
                    "weight": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                    "parent": {"$ref": "#/components/schemas/Pet"},
                },
            }
        },
    },
}


def tools() -> dict[str, Any]:
    return {tool.name: tool for tool in read_tools(DOCUMENT)}


def test_each_operation_is_a_tool_named_by_its_id_or_its_path() -> None:
    assert set(tools()) == {"getPet", "putPet", "delete_pets_id", "addPets"}
    assert tools()["getPet"].description == "One pet.\n\nBy its number."
    assert tools()["delete_pets_id"].description == "DELETE /pets/{id}"


def test_parameters_of_path_and_operation_are_merged() -> None:
    assert tools()["getPet"].parameters == {
        "type": "object",
        "properties": {
            "id": {"type": "integer", "format": "int64"},
            "lang": {"type": "string", "description": "Language."},
        },
        "additionalProperties": False,
        "required": ["id"],
    }


def test_a_json_body_is_merged_and_its_references_and_dialect_are_resolved() -> None:
    parameters = tools()["putPet"].parameters
    assert parameters["required"] == ["id", "name"]
    assert set(parameters["properties"]) == {"id", "name", "weight", "parent"}
    assert parameters["properties"]["name"] == {"type": ["string", "null"]}
    assert parameters["properties"]["weight"] == {"type": "number", "exclusiveMinimum": 0}
    assert parameters["properties"]["parent"] == {"$ref": "#/$defs/Pet"}
    assert parameters["$defs"]["Pet"]["properties"]["parent"] == {"$ref": "#/$defs/Pet"}


def test_a_body_that_is_no_object_stays_whole() -> None:
    parameters = tools()["addPets"].parameters
    assert parameters["properties"]["body"] == {"type": "array", "items": {"$ref": "#/$defs/Pet"}}
    assert "required" not in parameters


def test_an_operation_that_cannot_be_enforced_leaves_the_others(tmp_path: Path) -> None:
    document = copy.deepcopy(DOCUMENT)
    document["paths"]["/bad"] = {
        "get": {
            "parameters": [{"name": "x", "in": "query", "schema": {"type": "array", "uniqueItems": True}}]
        },
        "post": {"parameters": [{"$ref": "#/components/parameters/None"}]},
        "put": {"parameters": [{"$ref": "other.yaml#/X"}]},
    }
    path = tmp_path / "api.json"
    path.write_text(json.dumps(document))
    parsed = read_openapi(path)
    assert len(parsed.tools) == 4
    reasons = [str(problem) for problem in parsed.problems]
    assert "/properties/x/uniqueItems" in reasons[0]
    assert "PUT /bad" in reasons[1]
    assert "leaves the document" in reasons[1]
    assert "points at nothing" in reasons[2]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"swagger": "2.0", "paths": {}}, "OpenAPI 2.0 is not supported"),
        ({"openapi": "3.1.0"}, "has no paths"),
        (
            {"openapi": "3.1.0", "paths": {"/a": {"get": {"parameters": [{"in": "query"}]}}}},
            "a parameter has no name",
        ),
        ({"openapi": "3.1.0", "paths": {"/a": {"get": {"parameters": ["x"]}}}}, "expected an object"),
    ],
)
def test_malformed_documents_say_what_is_wrong(document: dict[str, Any], message: str) -> None:
    with pytest.raises(IntakeError, match=message):
        read_tools(document)


def test_a_document_is_fetched_from_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import httpx

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=DOCUMENT) if request.url.path == "/api.json" else httpx.Response(404)

    client = httpx.Client(transport=httpx.MockTransport(answer))
    monkeypatch.setattr(httpx, "get", lambda url, **options: client.get(url))
    assert len(read_tools("https://example.org/api.json")) == 4
    with pytest.raises(IntakeError, match="the server answers 404"):
        read_tools("https://example.org/none.json")
