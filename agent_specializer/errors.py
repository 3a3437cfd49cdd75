"""One error hierarchy. Each error says what was given, what was expected, and what to do next."""

from __future__ import annotations


class SpecializerError(Exception):
    """Base of every error that a user can cause or must act on.

    Args:
        message: what was given and what was expected.
        hint: what to do next, shown on a line of its own.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class SpecError(SpecializerError):
    """A tool, toolset or agent spec is malformed."""


class SchemaNotSupported(SpecError):
    """A JSON Schema says something that the decoding grammar cannot enforce.

    Args:
        path: where in the schema, as a JSON pointer, e.g. ``/properties/when/not``.
    """

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(f"{path or '/'}: {message}", hint=hint)
        self.path = path or "/"


class IntakeError(SpecError):
    """A source of tool specs (file, URL, function, server) could not be read.

    Args:
        source: the file, URL or object; line: 1-based line in it, where known.
    """

    def __init__(self, message: str, *, source: str = "", line: int | None = None, hint: str = "") -> None:
        where = f"{source}:{line}" if line else source
        super().__init__(f"{where}: {message}" if where else message, hint=hint)
        self.source, self.line = source, line


class NotFound(SpecializerError):
    """A tool, agent, adapter or file that was named does not exist."""


class InUse(SpecializerError):
    """Something cannot be removed because something else refers to it."""


class StoreError(SpecializerError):
    """The database cannot be opened, is at another revision, or the disk is full."""


class ConfigError(SpecializerError):
    """A setting or bundle file is wrong."""


class WeightsError(SpecializerError):
    """Model weights are missing, damaged, or could not be converted or written."""


class CheckpointError(SpecializerError):
    """A generator checkpoint is damaged or was trained for other models."""


class AdapterError(SpecializerError):
    """An adapter does not fit the generator, toolset or edge model it is used with."""


class DecodeError(SpecializerError):
    """A valid call could not be completed within the token budget."""
