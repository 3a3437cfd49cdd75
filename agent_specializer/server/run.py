"""Starting the server. Imports the web framework only when it is asked to serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_specializer.errors import ConfigError

if TYPE_CHECKING:
    from agent_specializer.specializer import Specializer


def serve(port: int = 8000, *, host: str = "127.0.0.1", specializer: Specializer | None = None) -> None:
    """Serve the agents of `specializer` (None: the default home's) on http://HOST:PORT/v1 until interrupted.

    Raises:
        ConfigError: the package `agent-specializer[server]` is not installed.
    """
    try:
        import uvicorn

        from agent_specializer.server.app import create_app
    except ImportError as error:
        raise ConfigError(
            f"the server needs {error.name}", hint="pip install 'agent-specializer[server]'"
        ) from error
    uvicorn.run(create_app(specializer), host=host, port=port)
