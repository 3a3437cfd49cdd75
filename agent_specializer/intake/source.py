"""Python source text as ToolSpecs, parsed and never executed: what somebody pastes into a form."""

from __future__ import annotations

import ast
from typing import Any

from agent_specializer.errors import IntakeError, SpecError
from agent_specializer.intake.docstrings import Documented, read_docstring
from agent_specializer.intake.tool import Parsed, build_tool
from agent_specializer.intake.typenames import type_from_name
from agent_specializer.specs import ToolSpec

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_WRAPPERS = {"Annotated", "Required", "NotRequired", "Final"}
_UNIONS = {"Optional", "Union"}
_HINT = (
    "use str, int, float, bool, list[...], dict[str, ...], Literal[...], X | None, or a dataclass of the text"
)


def read_source(text: str, *, source: str = "") -> Parsed:
    """The tools in Python text: its functions with a `tool` decorator where it has any, else all public ones.

    A function that cannot become a tool is a problem with its line; nothing is executed or imported.

    Raises:
        IntakeError: `text` is not Python, with the line.
    """
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise IntakeError(f"not Python: {error.args[0]}", source=source, line=line) from None
    functions = [node for node in module.body if isinstance(node, _Function)]
    marked = [node for node in functions if any(_is_tool(item) for item in node.decorator_list)]
    reader = _Reader({node.name: node for node in module.body if isinstance(node, ast.ClassDef)}, source)
    tools: list[ToolSpec] = []
    problems: list[SpecError] = []
    for node in marked or [node for node in functions if not node.name.startswith("_")]:
        try:
            tools.append(reader.function(node))
        except SpecError as error:
            problems.append(error)
    return Parsed(tuple(tools), "python" if tools or problems else "", tuple(problems))


class _Reader:
    """Turns the functions of one text into tools; `classes` are those that annotations may name."""

    def __init__(self, classes: dict[str, ast.ClassDef], source: str) -> None:
        self.classes = classes
        self.source = source
        self.defs: dict[str, Any] = {}

    def function(self, node: _Function) -> ToolSpec:
        self.defs = {}
        documented = read_docstring(ast.get_docstring(node))
        for star, argument in (("*", node.args.vararg), ("**", node.args.kwarg)):
            if argument:
                raise self._error(
                    argument,
                    f"{node.name}: parameter '{star}{argument.arg}' has no names and types to fill in",
                    "write each argument as a parameter of its own",
                )
        positional = [*node.args.posonlyargs, *node.args.args]
        defaults: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults))
        pairs = [
            *zip(positional, [*defaults, *node.args.defaults], strict=True),
            *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
        ]
        properties = {
            argument.arg: self._parameter(argument, default, documented, node.name)
            for argument, default in pairs
        }
        schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
        required = [argument.arg for argument, default in pairs if default is None]
        if required:
            schema["required"] = required
        if self.defs:
            schema["$defs"] = self.defs
        return build_tool(node.name, documented.description, schema, source=self.source, line=node.lineno)

    def _parameter(
        self, argument: ast.arg, default: ast.expr | None, documented: Documented, function: str
    ) -> dict[str, Any]:
        value = _constant(default) if default is not None else None
        if argument.annotation is not None:
            schema = self._type(argument.annotation)
        else:
            named = type_from_name(documented.types.get(argument.arg, "?"))
            if named is None and value is not None:
                named = type_from_name(type(value).__name__)
            if named is None:
                hint = f"annotate it: def {function}({argument.arg}: str, ...)"
                raise self._error(argument, f"{function}: parameter {argument.arg!r} has no type", hint)
            schema = named
        text = documented.parameters.get(argument.arg)
        if text:
            schema.setdefault("description", text)
        if default is not None and (
            value is not None or (isinstance(default, ast.Constant) and default.value is None)
        ):
            schema["default"] = value
        return schema

    def _type(self, node: ast.expr) -> dict[str, Any]:
        """The schema of an annotation."""
        if isinstance(node, ast.Constant):
            if node.value is None:
                return {"type": "null"}
            if isinstance(node.value, str):
                return self._quoted(node, node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return self._union([node.left, node.right])
        if isinstance(node, ast.Name | ast.Attribute):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in self.classes:
                return self._class(self.classes[name])
            schema = type_from_name(name)
            if schema is not None and name not in ("text", "map", "value", "json", "number"):
                return schema
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        raise self._error(node, f"type {ast.unparse(node)!r} is not supported", _HINT)

    def _quoted(self, node: ast.expr, text: str) -> dict[str, Any]:
        try:
            inner = ast.parse(text, mode="eval").body
        except SyntaxError:
            raise self._error(node, f"type {text!r} is not Python", _HINT) from None
        for child in ast.walk(inner):
            ast.copy_location(child, node)
        return self._type(inner)

    def _subscript(self, node: ast.Subscript) -> dict[str, Any]:
        base = node.value
        name = base.id if isinstance(base, ast.Name) else base.attr if isinstance(base, ast.Attribute) else ""
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name in _UNIONS:
            return self._union([*inner, *([ast.Constant(None)] if name == "Optional" else [])])
        if name == "Literal":
            return self._values(node, [_constant(item) for item in inner])
        if name in _WRAPPERS:
            schema = self._type(inner[0])
            text = next((said for item in inner[1:] if (said := _described(item))), None)
            return {**schema, "description": text} if text else schema
        kind = (type_from_name(name) or {}).get("type")
        if kind == "object" and len(inner) == 2:
            value = self._type(inner[1])
            return {"type": "object", **({"additionalProperties": value} if value else {})}
        if kind == "array" and name.lower() not in ("set", "frozenset"):
            ellipsis = isinstance(inner[-1], ast.Constant) and inner[-1].value is ...
            if name.lower() == "tuple" and not ellipsis:
                items = [self._type(item) for item in inner]
                return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
            item = self._type(inner[0])
            return {"type": "array", **({"items": item} if item else {})}
        raise self._error(node, f"type {ast.unparse(node)!r} is not supported", _HINT)

    def _union(self, nodes: list[ast.expr]) -> dict[str, Any]:
        branches = [self._type(node) for node in nodes]
        if any(not branch for branch in branches):
            return {}
        flat = [
            inner
            for branch in branches
            for inner in (branch["anyOf"] if set(branch) == {"anyOf"} else [branch])
        ]
        return flat[0] if len(flat) == 1 else {"anyOf": flat}

    def _values(self, node: ast.expr, values: list[Any]) -> dict[str, Any]:
        if not values or any(value is None for value in values):
            raise self._error(node, f"{ast.unparse(node)!r} has values that are not constants", _HINT)
        return {
            "enum": values,
            **({"type": "string"} if all(isinstance(value, str) for value in values) else {}),
        }

    def _class(self, node: ast.ClassDef) -> dict[str, Any]:
        """A reference to the schema of a class with annotated fields, or the values of an enum."""
        bases = {ast.unparse(base).split(".")[-1] for base in node.bases}
        if bases & {"Enum", "StrEnum", "IntEnum"}:
            return self._values(
                ast.copy_location(ast.Name(node.name), node),
                [_constant(item.value) for item in node.body if isinstance(item, ast.Assign)],
            )
        if node.name not in self.defs:
            self.defs[node.name] = {}  # a recursive field finds it
            documented = read_docstring(ast.get_docstring(node))
            properties, required = {}, []
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    schema = self._type(item.annotation)
                    text = _described(item.value) or documented.parameters.get(item.target.id)
                    properties[item.target.id] = {**schema, **({"description": text} if text else {})}
                    if item.value is None:
                        required.append(item.target.id)
            if not properties:
                raise self._error(node, f"class {node.name} has no annotated fields", _HINT)
            self.defs[node.name] = {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{node.name}"}

    def _error(self, node: ast.AST, message: str, hint: str) -> IntakeError:
        return IntakeError(
            message, source=self.source or "line", line=getattr(node, "lineno", None), hint=hint
        )


def _is_tool(decorator: ast.expr) -> bool:
    """@tool, @tool(...), @mcp.tool(), @function_tool."""
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = (
        target.attr
        if isinstance(target, ast.Attribute)
        else target.id
        if isinstance(target, ast.Name)
        else ""
    )
    return name.lower().endswith("tool")


def _constant(node: ast.expr | None) -> Any:
    """The JSON value of a literal; None where it is none."""
    try:
        value = ast.literal_eval(node) if node is not None else None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return (
        list(value)
        if isinstance(value, tuple)
        else value
        if isinstance(value, str | int | float | list | dict)
        else None
    )


def _described(node: ast.expr | None) -> str | None:
    """The text of `"text"` in Annotated, or of `Field(description="text")`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "description" and isinstance(keyword.value, ast.Constant):
                return str(keyword.value.value)
    return None
