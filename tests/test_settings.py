"""Settings come from the environment or keywords, and nonsense is refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from agent_specializer.errors import ConfigError
from agent_specializer.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("AGENT_SPECIALIZER_"):
            monkeypatch.delenv(name)


def test_the_defaults_need_no_environment() -> None:
    settings = load_settings()
    assert settings.home.is_absolute()
    assert settings.home.name == "agent-specializer"
    assert settings.bundle == "embedded"
    assert settings.merged_budget_bytes == 1_000_000_000
    assert (settings.threads, settings.log_level, settings.keep_texts) == (None, "WARNING", True)
    assert settings.db_url == f"sqlite:///{settings.home}/agent_specializer.db"


def test_the_environment_sets_everything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "HOME": str(tmp_path),
        "DATABASE_URL": "postgresql://user:secret@host/name",
        "BUNDLE": "paper",
        "MERGED_BUDGET_BYTES": "2GB",
        "THREADS": "3",
        "LOG_LEVEL": "debug",
        "KEEP_TEXTS": "no",
    }.items():
        monkeypatch.setenv(f"AGENT_SPECIALIZER_{name}", value)
    settings = load_settings()
    assert settings == Settings(
        home=tmp_path,
        database_url="postgresql://user:secret@host/name",
        bundle="paper",
        merged_budget_bytes=2_000_000_000,
        threads=3,
        log_level="DEBUG",
        keep_texts=False,
    )
    assert settings.db_url == "postgresql://user:secret@host/name"


def test_keywords_go_before_the_environment_and_none_is_not_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AGENT_SPECIALIZER_BUNDLE", "paper")
    monkeypatch.setenv("AGENT_SPECIALIZER_THREADS", "2")
    settings = load_settings(bundle="embedded", threads=None, home=tmp_path)
    assert (settings.bundle, settings.threads, settings.home) == ("embedded", 2, tmp_path)


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "DATABASE_URL", "THREADS", "MERGED_BUDGET_BYTES"):
        monkeypatch.setenv(f"AGENT_SPECIALIZER_{name}", "")
    assert load_settings() == Settings()


def test_a_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert load_settings(home="~/here").home == tmp_path / "here"
    assert load_settings(home="there").home == tmp_path / "there"
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("name", ["a b", "what?", "50%25", "#1", "ä+ö&x=y"])
def test_any_name_of_a_home_makes_a_url_that_leads_there(tmp_path: Path, name: str) -> None:
    url = load_settings(home=tmp_path / name).db_url
    assert make_url(url).database == str(tmp_path / name / "agent_specializer.db")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threads", "0"),
        ("threads", "many"),
        ("merged_budget_bytes", "-1"),
        ("merged_budget_bytes", "lots"),
        ("log_level", "LOUD"),
        ("keep_texts", "perhaps"),
        ("database_url", "not a url"),
    ],
)
def test_nonsense_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AGENT_SPECIALIZER_{name.upper()}", value)
    with pytest.raises(ConfigError, match=f"AGENT_SPECIALIZER_{name.upper()} = ") as refused:
        load_settings()
    assert f"change or unset AGENT_SPECIALIZER_{name.upper()}" in refused.value.hint
    monkeypatch.delenv(f"AGENT_SPECIALIZER_{name.upper()}")
    with pytest.raises(ConfigError, match=f"setting '{name}'"):
        load_settings(**{name: value})


def test_a_home_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file, not a folder"):
        load_settings(home=tmp_path / "file")


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ConfigError, match="no setting 'hom'") as refused:
        load_settings(hom="x")
    assert "home, database_url" in refused.value.hint


def test_a_wrong_url_does_not_show_its_password() -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(database_url="postgresql//user:secret@host")
    assert "secret" not in str(refused.value)


def test_settings_import_quickly_and_without_torch_or_sqlalchemy() -> None:
    code = (
        "import sys\nimport agent_specializer.settings\n"
        "print({'torch', 'transformers', 'sqlalchemy', 'langchain_core'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "set()\n"
