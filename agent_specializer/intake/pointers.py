"""JSON pointers and local references inside one schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from agent_specializer.errors import SchemaNotSupported

MAX_DEPTH = 60
"""Levels of JSON nesting: the metaschema's validator and llguidance's parser both recurse."""


def escape(part: object) -> str:
    """One step of a pointer."""
    return str(part).replace("~", "~0").replace("/", "~1")


def pointer(parts: list[str]) -> str:
    """The pointer of these steps; empty for the whole document."""
    return "".join(f"/{escape(part)}" for part in parts)


def anchors(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Each `$anchor` under `node`, which stands at `path`, with its pointer."""
    if isinstance(node, Mapping):
        if isinstance(node.get("$anchor"), str):
            yield node["$anchor"], path
        for key, child in node.items():
            yield from anchors(child, f"{path}/{escape(key)}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from anchors(child, f"{path}/{index}")


def local(reference: str, root: Mapping[str, Any], named: Mapping[str, str], here: str) -> str:
    """The JSON pointer that the `$ref` at `here` names; `named` has the anchors of `root`.

    Raises:
        SchemaNotSupported: the reference leaves the schema.
    """
    base, _, fragment = reference.partition("#")
    if base and base != str(root.get("$id", "")).partition("#")[0]:
        raise SchemaNotSupported(
            f"$ref {reference!r} leaves the schema",
            path=here,
            hint="copy the definition into $defs and refer to it there",
        )
    fragment = unquote(fragment)
    return named.get(fragment, fragment) if fragment and not fragment.startswith("/") else fragment


def resolve(root: Any, pointer: str) -> Any:
    """The subschema at `pointer`; KeyError, IndexError, ValueError or TypeError where there is none."""
    node = root
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        node = node[int(part)] if isinstance(node, list) else node[part]
    if pointer and not pointer.startswith("/"):
        raise KeyError(pointer)
    if not isinstance(node, Mapping | bool):
        raise TypeError(pointer)
    return node


def check_depth(schema: Any) -> None:
    """Refuse a schema nested deeper than `MAX_DEPTH`, whatever it is."""
    level, depth = [schema], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise SchemaNotSupported(
                f"nested deeper than {MAX_DEPTH} levels",
                hint="give inner objects a name in $defs and refer to them",
            )
        level = [
            child
            for node in level
            for child in (
                node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
            )
        ]
