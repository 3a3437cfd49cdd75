"""From functions, frameworks, files, documents and servers to ToolSpecs."""

from agent_specializer.intake.files import Catalogue, ExampleRequest, read_catalogue, read_text
from agent_specializer.intake.formats import detect_format
from agent_specializer.intake.read import read_tools
from agent_specializer.intake.schema import check_schema, normalize_schema
from agent_specializer.intake.tool import Parsed

__all__ = [
    "Catalogue",
    "ExampleRequest",
    "Parsed",
    "check_schema",
    "detect_format",
    "normalize_schema",
    "read_catalogue",
    "read_text",
    "read_tools",
]
