"""Python functions, methods and classes (pydantic models, dataclasses, typed dictionaries) as ToolSpecs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import typing_extensions

from agent_specializer.errors import IntakeError
from agent_specializer.intake.docstrings import Documented, read_docstring
from agent_specializer.intake.tool import build_tool
from agent_specializer.intake.typenames import type_from_name
from agent_specializer.specs import ToolSpec


def read_function(function: Callable[..., Any]) -> ToolSpec:
    """The tool that calls `function`: its name, its docstring, and a schema made of its annotations.

    Raises:
        IntakeError: a parameter has no type, or cannot be given by name.
        SchemaNotSupported: a type cannot be enforced while decoding.
    """
    plain = function.func if isinstance(function, functools.partial) else function
    name = getattr(plain, "__name__", type(plain).__name__)
    source = _place(plain)
    if name == "<lambda>":
        raise IntakeError(
            "a lambda has no name and no types", source=source, hint="write it as a function with def"
        )
    documented = read_docstring(inspect.getdoc(plain))
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError) as error:
        raise IntakeError(
            f"{name}: no signature: {error}", hint="wrap it in a function with annotations"
        ) from None
    hints = _hints(plain, name, source)
    fields: dict[str, Any] = {}
    parameters = list(signature.parameters.values())
    if (
        parameters
        and parameters[0].name in ("self", "cls")
        and parameters[0].annotation is inspect.Parameter.empty
    ):
        parameters = parameters[1:]
    for index, parameter in enumerate(parameters):
        fields[f"field{index}"] = _field(parameter, hints, documented, name, source)
    return build_tool(name, documented.description, _schema_of(fields, name, source), source=source)


def read_class(cls: type) -> ToolSpec:
    """The tool whose arguments are the fields of a pydantic model, dataclass or TypedDict.

    Raises:
        IntakeError: `cls` is another kind of class; SchemaNotSupported: a field's type cannot be enforced.
    """
    documented = read_docstring(_own_doc(cls))
    schema = model_schema(cls)
    for name, text in documented.parameters.items():
        field = schema.get("properties", {}).get(name)
        if isinstance(field, dict) and text:
            field.setdefault("description", text)
    return build_tool(cls.__name__, documented.description, schema, source=_place(cls))


def model_schema(cls: type) -> dict[str, Any]:
    """The JSON Schema of a pydantic model (version 1 or 2), dataclass or TypedDict, without generated titles.

    Raises:
        IntakeError: `cls` is none of these, or has a field that JSON has no words for.
    """
    if not (
        hasattr(cls, "model_json_schema")
        or dataclasses.is_dataclass(cls)
        or typing_extensions.is_typeddict(cls)
    ):
        if hasattr(cls, "__fields__") and hasattr(cls, "schema"):  # pydantic.v1
            return _compact(cls.schema())
        raise IntakeError(
            f"class {cls.__name__} does not say what its arguments are",
            source=_place(cls),
            hint="pass a pydantic model, a dataclass, a TypedDict or a function",
        )
    return _json_schema(cls, cls.__name__, _place(cls))


def _field(
    parameter: inspect.Parameter, hints: Mapping[str, Any], documented: Documented, name: str, source: str
) -> tuple[Any, Any]:
    """Annotation and pydantic field of one parameter."""
    from pydantic import Field, WithJsonSchema

    where = f"{name}: parameter {parameter.name!r}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise IntakeError(
            f"{name}: parameter '{stars}{parameter.name}' has no names and types to fill in",
            source=source,
            hint="write each argument as a parameter of its own, or take one list or dict parameter",
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise IntakeError(
            f"{where} cannot be given by name", source=source, hint="remove the / from the signature"
        )
    default = ... if parameter.default is parameter.empty else parameter.default
    annotation = hints.get(parameter.name, parameter.empty)
    if annotation is parameter.empty:
        named = type_from_name(documented.types.get(parameter.name, "?"))
        if named is not None:
            annotation = typing.Annotated[Any, WithJsonSchema(named)]
        elif isinstance(default, str | int | float | bool):
            annotation = type(default)
        else:
            raise IntakeError(
                f"{where} has no type",
                source=source,
                hint=f"annotate it: def {name}({parameter.name}: str, ...)",
            )
    annotation = _with_text(annotation)
    text = documented.parameters.get(parameter.name)
    said: dict[str, Any] = {"description": text} if text and not _described(annotation) else {}
    return annotation, Field(default, alias=parameter.name, **said)


def _described(annotation: Any) -> bool:
    """Whether `Annotated[..., Field(description=...)]` says what the parameter is."""
    return any(getattr(item, "description", None) for item in getattr(annotation, "__metadata__", ()))


def _schema_of(fields: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    from pydantic import ConfigDict, create_model
    from pydantic.errors import PydanticUserError

    try:
        model = create_model(
            name, __config__=ConfigDict(arbitrary_types_allowed=False, extra="forbid"), **fields
        )
    except (PydanticUserError, TypeError, NameError) as error:
        raise _no_schema(name, source, error) from None
    return _json_schema(model, name, source)


def _with_text(annotation: Any) -> Any:
    """`Annotated[int, "per cent"]` as `Annotated[int, Field(description="per cent")]`."""
    from pydantic import Field

    if isinstance(annotation, str) or not any(
        isinstance(item, str) for item in getattr(annotation, "__metadata__", ())
    ):
        return annotation
    items = [Field(description=item) if isinstance(item, str) else item for item in annotation.__metadata__]
    return typing.Annotated[(annotation.__origin__, *items)]


def _json_schema(cls: type, name: str, source: str) -> dict[str, Any]:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a default that JSON cannot hold is left out
            return _compact(TypeAdapter(cls).json_schema())
    except (PydanticUserError, TypeError, NameError) as error:
        raise _no_schema(name, source, error) from None


def _no_schema(name: str, source: str, error: Exception) -> IntakeError:
    reason = str(error).split("\n\nFor further information")[0].split("\n")[0]
    return IntakeError(
        f"{name}: {reason}",
        source=source,
        hint="use types that JSON can hold: str, int, float, bool, list, dict, models",
    )


def _compact(schema: dict[str, Any]) -> dict[str, Any]:
    """Without the titles that pydantic makes of names, closed, and with the root in place of a reference."""
    schema = _closed(_untitled(schema))
    if "$ref" in schema and schema["$ref"].startswith("#/$defs/"):  # a recursive model
        target = schema["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        schema = {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    schema.pop("description", None)  # the tool has it
    return schema


def _closed(node: Any) -> Any:
    """Every object that lists its properties has no others: a model would ignore or refuse them."""
    if isinstance(node, list):
        return [_closed(child) for child in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(child) for key, child in node.items()}
    if closed.get("type") == "object" and isinstance(closed.get("properties"), dict):
        closed.setdefault("additionalProperties", False)
    return closed


def _untitled(node: Any, *, names: bool = False) -> Any:
    """`names` where the keys of `node` are names of properties or definitions, not keywords."""
    if isinstance(node, list):
        return [_untitled(child) for child in node]
    if not isinstance(node, dict):
        return node
    return {
        key: child
        if not names and key in ("default", "const", "enum", "examples")
        else _untitled(
            child, names=not names and key in ("properties", "$defs", "definitions", "patternProperties")
        )
        for key, child in node.items()
        if names or key != "title"
    }


def _hints(function: Any, name: str, source: str) -> dict[str, Any]:
    target = function if inspect.isroutine(function) else type(function).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError as error:
        raise IntakeError(
            f"{name}: an annotation cannot be resolved: {error}", source=source, hint="import its type"
        ) from None


def _own_doc(cls: type) -> str | None:
    """The docstring that the class itself has, and not the one that dataclass() writes."""
    text = cls.__dict__.get("__doc__")
    return None if text and dataclasses.is_dataclass(cls) and text.startswith(f"{cls.__name__}(") else text


def _place(obj: Any) -> str:
    return f"{getattr(obj, '__module__', None) or '?'}.{getattr(obj, '__qualname__', type(obj).__name__)}"
