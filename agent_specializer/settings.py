"""Where things are kept and how much memory they may take. Read from AGENT_SPECIALIZER_* or keywords."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from platformdirs import user_data_dir
from pydantic import ByteSize, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from agent_specializer.errors import ConfigError

PREFIX = "AGENT_SPECIALIZER_"
Dtype = Literal["auto", "bfloat16", "float16", "float32"]


class Settings(BaseSettings):
    """The program's settings. Read them with `load_settings`, which explains what is wrong with a value."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True)

    home: Path = Field(default_factory=lambda: Path(user_data_dir("agent-specializer", appauthor=False)))
    """Folder of the database, the converted weights and exports; absolute. Made on first use."""
    database_url: str | None = None
    """Any SQLAlchemy URL; None is a SQLite file in the home."""
    bundle: str = Field(default="embedded", min_length=1)
    """Name of a model bundle, or the path of a YAML file that defines one."""
    merged_budget_bytes: ByteSize = Field(default=ByteSize(1_000_000_000), ge=0)
    """Memory for merged weights, in bytes; "2GB" and "500 MiB" are understood. 0 keeps none."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads for tensors; None leaves the choice to torch."""
    dtype: Dtype = "auto"
    """Of the models' weights; "auto" is bfloat16, but that layers are in float32 on a CPU that is slow in bfloat16."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "WARNING"
    keep_texts: bool = True
    """Whether runs keep the text of requests and the arguments of calls."""

    @field_validator("home")
    @classmethod
    def _folder(cls, home: Path) -> Path:
        home = home.expanduser().absolute()
        if home.exists() and not home.is_dir():
            raise ValueError("is a file, not a folder")
        return home

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, level: Any) -> Any:
        return level.upper() if isinstance(level, str) else level

    @field_validator("database_url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        if url is not None:
            from sqlalchemy import make_url  # only when asked for: it costs a third of the start-up time
            from sqlalchemy.exc import ArgumentError

            try:
                make_url(url)
            except (ArgumentError, ValueError) as error:
                raise ValueError(
                    "is not a SQLAlchemy URL such as postgresql+psycopg://user@host/name"
                ) from error
        return url

    @property
    def db_url(self) -> str:
        """The database as a SQLAlchemy URL."""
        if self.database_url:
            return self.database_url
        from sqlalchemy import URL  # escapes the ?, # and % that a folder's name may hold

        return URL.create("sqlite", database=str(self.home / "agent_specializer.db")).render_as_string()


def load_settings(**overrides: Any) -> Settings:
    """The settings from the environment, with `overrides` on top; an override of None counts as not given.

    Raises:
        ConfigError: a value makes no sense, or an override names no setting.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        if first["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            raise ConfigError(f"there is no setting {name!r}", hint=f"the settings are {known}") from error
        where = repr(name) if name in given else PREFIX + name.upper()
        reason = first["msg"].removeprefix("Value error, ")
        shown = "(hidden, as it may hold a password)" if name == "database_url" else repr(str(first["input"]))
        hint = f"change or unset {PREFIX}{name.upper()}" if name not in given else "give another value"
        raise ConfigError(f"setting {where} = {shown}: {reason}", hint=hint) from error
