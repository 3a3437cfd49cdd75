"""Start the page: `agent-specializer ui`."""

from __future__ import annotations

from pathlib import Path

from agent_specializer.errors import ConfigError


def main(port: int = 8501, *, address: str = "127.0.0.1", browser: bool = False) -> None:
    """Serve the page until the process is stopped.

    Args:
        port: to listen on. address: only this machine by default: the page has no log-in.
        browser: open it in a browser, too.

    Raises:
        ConfigError: Streamlit or Plotly is not installed.
    """
    try:
        import plotly  # noqa: F401
        import streamlit.config
        from streamlit.web import bootstrap
    except ImportError as missing:
        raise ConfigError(
            f"the page needs the package {missing.name!r}", hint="pip install 'agent-specializer[ui]'"
        ) from None

    script = str(Path(__file__).with_name("app.py"))
    streamlit.config._main_script_path = script  # so that .streamlit/config.toml beside it is read
    options = {
        "server.port": port,
        "server.address": address,
        "server.headless": not browser,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": 20,
        "browser.gatherUsageStats": False,
    }
    bootstrap.load_config_options(options)
    bootstrap.run(script, False, [], options)
