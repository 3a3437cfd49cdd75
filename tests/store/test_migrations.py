"""The schema is pinned, models and migrations agree, and old databases come up with their rows."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from agent_specializer.specs import Toolset, ToolSpec
from agent_specializer.store import AdapterStatus, Registry, current_revision, upgrade
from agent_specializer.store.migrating import HEAD, _alembic_config, migrations_folder
from agent_specializer.store.tables import Base

SCHEMA = """
adapter_blobs: adapter_id INTEGER NOT NULL, blob BLOB NOT NULL,
  CONSTRAINT pk_adapter_blobs PRIMARY KEY (adapter_id),
  CONSTRAINT fk_adapter_blobs_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id) ON DELETE CASCADE
adapter_tools: adapter_id INTEGER NOT NULL, tool_version_id INTEGER NOT NULL,
  CONSTRAINT pk_adapter_tools PRIMARY KEY (adapter_id, tool_version_id),
  CONSTRAINT fk_adapter_tools_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id) ON DELETE CASCADE,
  CONSTRAINT fk_adapter_tools_tool_version_id FOREIGN KEY(tool_version_id)
    REFERENCES tool_versions (id) ON DELETE RESTRICT
adapters: id INTEGER NOT NULL, fingerprint VARCHAR(64) NOT NULL, toolset_fp VARCHAR(64) NOT NULL,
  generator_fp VARCHAR(64) NOT NULL, agent VARCHAR(128), instructions TEXT NOT NULL, bytes INTEGER NOT NULL,
  description_tokens INTEGER NOT NULL, seconds DOUBLE NOT NULL, created_at DATETIME NOT NULL,
  last_used_at DATETIME NOT NULL, hits INTEGER NOT NULL, pinned BOOLEAN DEFAULT 0 NOT NULL, refinement TEXT,
  CONSTRAINT pk_adapters PRIMARY KEY (id),
  CONSTRAINT uq_adapters_fingerprint UNIQUE (fingerprint),
  CONSTRAINT uq_adapters_toolset_fp_generator_fp UNIQUE (toolset_fp, generator_fp)
agent_tools: agent_id INTEGER NOT NULL, tool_id INTEGER NOT NULL, position INTEGER NOT NULL,
  CONSTRAINT pk_agent_tools PRIMARY KEY (agent_id, tool_id),
  CONSTRAINT fk_agent_tools_agent_id FOREIGN KEY(agent_id) REFERENCES agents (id) ON DELETE CASCADE,
  CONSTRAINT fk_agent_tools_tool_id FOREIGN KEY(tool_id) REFERENCES tools (id) ON DELETE RESTRICT
agents: id INTEGER NOT NULL, name VARCHAR(128) NOT NULL, instructions TEXT NOT NULL, search TEXT NOT NULL,
  created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  CONSTRAINT pk_agents PRIMARY KEY (id),
  CONSTRAINT uq_agents_name UNIQUE (name)
claims: fingerprint VARCHAR(64) NOT NULL, holder VARCHAR(32) NOT NULL, host VARCHAR(255) NOT NULL,
  pid INTEGER NOT NULL, beat INTEGER NOT NULL,
  CONSTRAINT pk_claims PRIMARY KEY (fingerprint)
runs: id INTEGER NOT NULL, time DATETIME NOT NULL, agent VARCHAR(128), adapter VARCHAR(64),
  mode VARCHAR(32) NOT NULL, request TEXT, calls TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
  tool_prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, seconds DOUBLE NOT NULL,
  first_token_seconds DOUBLE NOT NULL, confidence DOUBLE NOT NULL, decision VARCHAR(32) DEFAULT '' NOT NULL,
  reason VARCHAR(500) DEFAULT '' NOT NULL, cache VARCHAR(8), saved_prompt_tokens INTEGER DEFAULT '0' NOT NULL,
  CONSTRAINT pk_runs PRIMARY KEY (id)
tool_versions: id INTEGER NOT NULL, name VARCHAR(128) NOT NULL, version INTEGER,
  fingerprint VARCHAR(64) NOT NULL, description TEXT NOT NULL, parameters TEXT NOT NULL, source TEXT NOT NULL,
  created_at DATETIME NOT NULL, requests TEXT,
  CONSTRAINT pk_tool_versions PRIMARY KEY (id),
  CONSTRAINT uq_tool_versions_name_version UNIQUE (name, version)
tools: id INTEGER NOT NULL, name VARCHAR(128) NOT NULL, version_id INTEGER NOT NULL, search TEXT NOT NULL,
  created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL,
  CONSTRAINT pk_tools PRIMARY KEY (id),
  CONSTRAINT uq_tools_name UNIQUE (name),
  CONSTRAINT uq_tools_version_id UNIQUE (version_id),
  CONSTRAINT fk_tools_version_id FOREIGN KEY(version_id) REFERENCES tool_versions (id) ON DELETE RESTRICT
"""

INDEXES = """
ix_adapter_tools_tool_version_id ON adapter_tools (tool_version_id)
ix_adapters_agent ON adapters (agent)
ix_adapters_last_used_at ON adapters (last_used_at)
ix_agent_tools_tool_id ON agent_tools (tool_id)
ix_runs_agent_time ON runs (agent, time)
ix_runs_time ON runs (time)
ix_tool_versions_name_fingerprint ON tool_versions (name, fingerprint)
"""


def words(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("( ", "(").replace(" )", ")").strip()


def upgrade_to(path: Path, revision: str) -> None:
    config = _alembic_config()
    path.parent.mkdir(exist_ok=True, parents=True)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def first_revision_with_rows(path: Path, light: ToolSpec) -> None:
    upgrade_to(path, "0001")
    when = "2026-01-02 03:04:05.000006"
    run = (when, "home", "f" * 64, "Licht an", '[{"name": "set_light", "arguments": {"level": 1}}]')
    with sqlite3.connect(path) as old:
        old.execute(
            "INSERT INTO tool_versions VALUES (1, ?, 1, ?, ?, ?, 'file', ?)",
            (
                light.name,
                light.fingerprint,
                light.description,
                json.dumps(light.parameters),
                when,
            ),
        )
        old.execute("INSERT INTO tools VALUES (1, ?, 1, 'set_light', ?, ?)", (light.name, when, when))
        old.execute("INSERT INTO agents VALUES (1, 'home', 'i', 'home', ?, ?)", (when, when))
        old.execute("INSERT INTO agent_tools VALUES (1, 1, 0)")
        old.execute(
            "INSERT INTO adapters VALUES (1, ?, ?, 'g', 'home', 'i', 5, 70, 1.5, ?, ?, 3)",
            ("f" * 64, Toolset(tools=(light,), instructions="i").fingerprint, when, when),
        )
        old.execute("INSERT INTO adapter_blobs VALUES (1, X'0001020304')")
        old.execute("INSERT INTO adapter_tools VALUES (1, 1)")
        for mode in ("specialized", "prompted"):
            old.execute(
                "INSERT INTO runs VALUES (NULL, ?, ?, ?, ?, ?, ?, 9, 0, 12, 0.5, 0.1, 0.9)",
                (*run[:3], mode, *run[3:]),
            )
    old.close()


def test_the_schema_is_pinned(sqlite_url: str) -> None:
    upgrade(sqlite_url)
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as database:
        rows = database.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name"
        ).fetchall()
    database.close()
    tables = [
        words(sql.replace("CREATE TABLE", "").replace('"', "")) for kind, _, sql in rows if kind == "table"
    ]
    indexes = [sql.removeprefix("CREATE INDEX ") for kind, _, sql in rows if kind == "index"]
    expected = [words(table) for table in re.split(r"\n(?=\w+: )", SCHEMA.strip())]
    tables = [re.sub(r"^(\w+) \((.*)\)$", r"\1: \2", table) for table in tables]
    assert [table for table in tables if not table.startswith("alembic_version")] == expected
    assert indexes == INDEXES.split("\n")[1:-1]


def test_models_and_migrations_agree(url: str) -> None:
    upgrade(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
    engine.dispose()


def test_the_code_names_the_newest_revision() -> None:
    script = ScriptDirectory.from_config(_alembic_config())
    assert script.get_heads() == [HEAD]
    assert len(list(script.walk_revisions())) >= 2


def test_the_first_revision_with_rows_comes_up_with_all_of_them(tmp_path: Path, light: ToolSpec) -> None:
    path = tmp_path / "old.db"
    first_revision_with_rows(path, light)
    url = f"sqlite:///{path}"
    assert current_revision(url) == "0001"
    with Registry(url) as registry:
        assert current_revision(url) == HEAD
        assert registry.tool("set_light") == light
        assert registry.tool("set_light").fingerprint == light.fingerprint
        assert registry.toolset("home").names == ("set_light",)
        (adapter,) = registry.adapters()
        assert (adapter.hits, adapter.pinned, adapter.description_tokens) == (3, False, 70)
        assert adapter.created_at.isoformat() == "2026-01-02T03:04:05.000006+00:00"
        assert registry.adapter_blob(adapter.id) == bytes(range(5))
        assert [version.spec for version in registry.adapter_tools(adapter.fingerprint)] == [light]
        assert registry.adapter_status(adapter) == AdapterStatus("fresh")
        prompted, specialized = registry.runs()
        assert (prompted.decision, specialized.decision) == ("prompted", "specialized")
        assert (specialized.reason, specialized.cache, specialized.saved_prompt_tokens) == ("", None, 0)
        assert specialized.request == "Licht an"
        assert specialized.calls[0].arguments == {"level": 1}
        registry.pin_adapter(adapter.fingerprint)
        assert registry.prune_adapters(0) == []


def test_down_and_up_again_keeps_the_rows_of_the_first_revision(tmp_path: Path, light: ToolSpec) -> None:
    path = tmp_path / "old.db"
    first_revision_with_rows(path, light)
    upgrade_to(path, "head")
    engine = create_engine(f"sqlite:///{path}")
    config = _alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    engine.dispose()
    with Registry(f"sqlite:///{path}") as registry:
        assert len(registry.runs()) == 2
        assert registry.tool("set_light") == light


DIES_IN_0002 = """
import os, signal, sys
from sqlalchemy import Engine, event
from agent_specializer.store import upgrade

@event.listens_for(Engine, "before_cursor_execute")
def die(connection, cursor, statement, *rest):
    if statement.startswith("UPDATE runs"):  # the last step of 0002
        os.kill(os.getpid(), signal.SIGKILL)

upgrade(sys.argv[1])
"""


def test_a_process_killed_in_a_migration_leaves_the_old_schema(tmp_path: Path, light: ToolSpec) -> None:
    path = tmp_path / "old.db"
    first_revision_with_rows(path, light)
    died = subprocess.run([sys.executable, "-c", DIES_IN_0002, f"sqlite:///{path}"], check=False, timeout=120)
    assert died.returncode == -signal.SIGKILL
    assert current_revision(f"sqlite:///{path}") == "0001"
    with Registry(f"sqlite:///{path}") as registry:
        assert len(registry.runs()) == 2
        assert registry.adapters()[0].pinned is False


def test_another_folder_called_migrations_is_not_taken_for_ours(tmp_path: Path, url: str) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    code = f"from agent_specializer.store import upgrade; print(upgrade({url!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout, done.returncode) == (HEAD + "\n", 0), done.stderr


def test_opening_an_up_to_date_database_imports_neither_alembic_nor_torch(url: str) -> None:
    upgrade(url)
    code = (
        "import sys\nfrom agent_specializer.store import Registry\n"
        f"Registry({url!r}).close()\nprint({{'alembic', 'torch', 'transformers'}} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "set()\n"


def test_the_alembic_command_line_uses_the_settings(home: Path) -> None:
    ini = migrations_folder() / "alembic.ini"
    for arguments in (["upgrade", "head"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(ini), *arguments],
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    assert current_revision(f"sqlite:///{home}/agent_specializer.db") == HEAD
