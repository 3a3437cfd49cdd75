"""Text and its places: JSON and YAML with the line of an error, files plain or gzipped, URLs."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

from agent_specializer.errors import IntakeError


def parse_json(text: str, *, source: str = "", first_line: int = 1) -> Any:
    """`text` as JSON.

    Raises:
        IntakeError: with the line of the mistake, counted from `first_line`.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise IntakeError(
            f"not JSON: {error.msg} (column {error.colno})",
            source=source or "line",
            line=error.lineno + first_line - 1,
            hint="correct the text at this place",
        ) from None
    except ValueError as error:
        raise IntakeError(f"not JSON: {error}", source=source) from None
    except RecursionError:
        raise IntakeError("not JSON: nested too deeply", source=source) from None


def parse_yaml(text: str, *, source: str = "") -> Any:
    """`text` as YAML, of plain values only.

    Raises:
        IntakeError: with the line of the mistake.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2's plain values: dates stay text, and only true and false are booleans."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, rule) for tag, rule in rules if not tag.endswith((":timestamp", ":bool"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
    )
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise IntakeError(
            f"not YAML: {reason}",
            source=source or "line",
            line=mark.line + 1 if mark else None,
            hint="correct the text at this place",
        ) from None
    except (RecursionError, ValueError) as error:
        raise IntakeError(f"not YAML: {error}", source=source) from None


def parse_document(text: str, *, source: str = "") -> Any:
    """`text` as JSON where it begins like JSON, else as YAML."""
    return (
        parse_json(text, source=source)
        if text.lstrip()[:1] in ("{", "[")
        else parse_yaml(text, source=source)
    )


def read_file_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked where it is gzip.

    Raises:
        IntakeError: missing, unreadable, damaged or not text.
    """
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise IntakeError("no such file", source=str(path), hint="check the path") from None
    except (OSError, EOFError) as error:
        raise IntakeError(f"cannot be read: {error}", source=str(path)) from None
    except UnicodeDecodeError as error:
        raise IntakeError(
            f"not UTF-8 text: {error.reason}", source=str(path), hint="save it as UTF-8"
        ) from None


def fetch(url: str, *, timeout: float = 30.0) -> str:
    """The text at `url`; `timeout` in seconds.

    Raises:
        IntakeError: no answer, or an answer other than success.
    """
    import httpx

    try:
        answer = httpx.get(url, timeout=timeout, follow_redirects=True)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        raise IntakeError(f"the server answers {error.response.status_code}", source=url) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise IntakeError(
            f"cannot be fetched: {error}", source=url, hint="check the address and the network"
        ) from None
    return answer.text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")
