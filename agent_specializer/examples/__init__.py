"""Requests with their right calls: how they are read, and how toolsets are composed around them."""

from agent_specializer.examples.compose import Composer, Renaming, families, opaque
from agent_specializer.examples.files import Example, read_examples, read_toolsets

__all__ = ["Composer", "Example", "Renaming", "families", "opaque", "read_examples", "read_toolsets"]
