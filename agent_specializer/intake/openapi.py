"""OpenAPI 3.0 and 3.1 documents: one ToolSpec per operation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent_specializer.errors import IntakeError, SpecError
from agent_specializer.intake.documents import fetch, parse_document, read_file_text
from agent_specializer.intake.pointers import escape
from agent_specializer.intake.tool import Parsed, build_tool
from agent_specializer.specs import ToolSpec

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_ERROR_HINT = "validate the document, e.g. with `openapi-spec-validator`"


def is_openapi(document: Any) -> bool:
    """Whether `document` says that it is an OpenAPI (or Swagger) document."""
    return isinstance(document, Mapping) and ("openapi" in document or "swagger" in document)


def read_openapi(given: Mapping[str, Any] | str | Path, *, source: str = "") -> Parsed:
    """One tool per operation of an OpenAPI document, given as dict, path or URL.

    The arguments of an operation are its path, query, header and cookie parameters, and the properties of its
    JSON body (or the body as a whole, as `body`, where it is no object or a name is taken). An operation that
    cannot become a tool is a problem that names it.

    Raises:
        IntakeError: unreadable, not OpenAPI 3, or without paths.
    """
    document: Any = given
    if isinstance(given, str | Path):
        source = source or str(given)
        is_url = str(given).startswith(("http://", "https://"))
        text = fetch(str(given)) if is_url else read_file_text(Path(given))
        document = parse_document(text, source=source)
    if not is_openapi(document):
        raise IntakeError("not an OpenAPI document", source=source, hint='it has no "openapi" field')
    version = str(document.get("openapi", document.get("swagger")))
    if not version.startswith("3."):
        raise IntakeError(
            f"OpenAPI {version} is not supported",
            source=source,
            hint="convert it to OpenAPI 3, e.g. with swagger2openapi",
        )
    paths = document.get("paths")
    if not isinstance(paths, Mapping):
        raise IntakeError("the document has no paths", source=source, hint=_ERROR_HINT)
    tools: list[ToolSpec] = []
    problems: list[SpecError] = []
    reader = _Reader(document, source)
    for method, path, operation, shared in _operations(paths):
        try:
            tools.append(reader.tool(method, path, operation, shared))
        except SpecError as error:
            problems.append(error)
    return Parsed(tuple(tools), "openapi", tuple(problems))


def _operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any], list[Any]]]:
    for path, item in paths.items():
        if isinstance(item, Mapping):
            shared = item.get("parameters") or []
            for method in METHODS:
                if isinstance(item.get(method), Mapping):
                    yield method, path, item[method], shared


class _Reader:
    def __init__(self, document: Mapping[str, Any], source: str) -> None:
        self.document = document
        self.source = source
        self.defs: dict[str, Any] = {}
        self.names: set[str] = set()

    def tool(self, method: str, path: str, operation: Mapping[str, Any], shared: list[Any]) -> ToolSpec:
        self.defs = {}
        place = f"{self.source}: {method.upper()} {path}" if self.source else f"{method.upper()} {path}"
        properties: dict[str, Any] = {}
        required: list[str] = []
        own = [self._resolved(item, place) for item in operation.get("parameters") or []]
        taken = {(item.get("name"), item.get("in")) for item in own}
        general = [self._resolved(item, place) for item in shared]
        for item in [*(item for item in general if (item.get("name"), item.get("in")) not in taken), *own]:
            name, argument = self._parameter(item, place)
            if name in properties:  # the same name in path and query
                name = f"{name}_{item.get('in')}"
            properties[name] = argument
            if item.get("required") or item.get("in") == "path":
                required.append(name)
        self._add_body(operation.get("requestBody"), properties, required, place)
        schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        if required:
            schema["required"] = required
        if self.defs:
            schema["$defs"] = self.defs
        name = self._name(
            str(operation.get("operationId") or method + re.sub(r"[^A-Za-z0-9]+", "_", f"/{path}"))
        )
        texts = [str(operation.get(key) or "").strip() for key in ("summary", "description")]
        description = "\n\n".join(dict.fromkeys(text for text in texts if text)) or f"{method.upper()} {path}"
        return build_tool(name, description, schema, source=place)

    def _parameter(self, item: Mapping[str, Any], place: str) -> tuple[str, dict[str, Any]]:
        name = item.get("name")
        if not isinstance(name, str):
            raise IntakeError("a parameter has no name", source=place, hint=_ERROR_HINT)
        schema = item.get("schema")
        if schema is None:  # a serialised one: content: {"application/json": {"schema": ...}}
            content = item.get("content")
            schema = (
                next((media.get("schema") for media in content.values()), None)
                if isinstance(content, Mapping)
                else None
            )
        schema = self._schema({} if schema is None else schema, place)
        text = item.get("description")
        return name, {**schema, **({"description": text} if text else {})}

    def _add_body(self, body: Any, properties: dict[str, Any], required: list[str], place: str) -> None:
        if not isinstance(body, Mapping):
            return
        body = self._resolved(body, place)
        content = body.get("content")
        if not isinstance(content, Mapping) or not content:
            return
        media = next((kind for kind in content if "json" in kind), next(iter(content)))
        given = content[media].get("schema") if isinstance(content[media], Mapping) else None
        given = {} if given is None else given
        flat = self._resolved(given, place)
        if flat.get("type") == "object" or "properties" in flat:
            fields = flat.get("properties")
            plain = not flat.keys() & {
                "allOf",
                "anyOf",
                "oneOf",
                "not",
                "if",
                "patternProperties",
                "minProperties",
            }
            if isinstance(fields, Mapping) and fields and plain and not fields.keys() & properties.keys():
                for name, schema in fields.items():
                    if not (isinstance(schema, Mapping) and schema.get("readOnly")):
                        properties[name] = self._schema(schema, place)
                needed = [name for name in flat.get("required") or () if name in properties]
                required.extend(needed if body.get("required", False) else [])
                return
        schema = self._schema(given, place)
        text = body.get("description")
        properties["body"] = {**schema, **({"description": text} if text else {})}
        if body.get("required"):
            required.append("body")

    def _schema(self, schema: Any, place: str) -> Any:
        """`schema` with its references pointing into this tool's own $defs."""
        if isinstance(schema, list):
            return [self._schema(item, place) for item in schema]
        if not isinstance(schema, Mapping):
            return schema
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return {key: self._schema(value, place) for key, value in schema.items()}
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", reference.rsplit("/", 1)[-1])
        if name not in self.defs:
            self.defs[name] = {}  # a recursive schema finds it
            self.defs[name] = self._schema(self._target(reference, place), place)
        siblings = {key: self._schema(value, place) for key, value in schema.items() if key != "$ref"}
        return {"$ref": f"#/$defs/{escape(name)}", **siblings}

    def _resolved(self, item: Any, place: str) -> Mapping[str, Any]:
        for _ in range(20):
            if not isinstance(item, Mapping):
                raise IntakeError(f"expected an object, got {item!r:.60}", source=place, hint=_ERROR_HINT)
            if not isinstance(item.get("$ref"), str):
                return item
            item = self._target(item["$ref"], place)
        raise IntakeError("references that refer to each other in a circle", source=place, hint=_ERROR_HINT)

    def _target(self, reference: str, place: str) -> Any:
        if not reference.startswith("#/"):
            raise IntakeError(
                f"$ref {reference!r} leaves the document",
                source=place,
                hint="bundle it first, e.g. with `redocly bundle`",
            )
        node: Any = self.document
        for part in reference.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(node, Mapping) or part not in node:
                raise IntakeError(f"$ref {reference!r} points at nothing", source=place, hint=_ERROR_HINT)
            node = node[part]
        return node

    def _name(self, wanted: str) -> str:
        """A name as models like them, unique in the document."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("_")[:120] or "operation"
        unique, number = name, 1
        while unique in self.names:
            number += 1
            unique = f"{name}_{number}"
        self.names.add(unique)
        return unique
