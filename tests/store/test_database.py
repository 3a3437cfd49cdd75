"""What can be wrong with a database is said clearly, and nothing is half written."""

from __future__ import annotations

import re
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import event

from agent_specializer.errors import StoreError
from agent_specializer.specs import AgentSpec, Toolset, ToolSpec
from agent_specializer.store import Registry, current_revision, engines, upgrade
from agent_specializer.store.migrating import HEAD


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def run_sql(url: str, *statements: str) -> None:
    file_of(url).parent.mkdir(exist_ok=True)
    database = sqlite3.connect(file_of(url))
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_a_new_database_is_made_with_its_folder(sqlite_url: str) -> None:
    assert current_revision(sqlite_url) is None
    assert not file_of(sqlite_url).exists()
    assert upgrade(sqlite_url) == HEAD == current_revision(sqlite_url)
    assert upgrade(sqlite_url) == HEAD


def test_sqlite_runs_in_wal_mode_with_foreign_keys_and_waiting_writers(sqlite_url: str) -> None:
    with Registry(sqlite_url) as registry, registry._reading() as session:
        connection = session.connection()
        values = {
            pragma: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
            for pragma in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert values == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": engines.BUSY_SECONDS * 1000}


def test_an_in_memory_database_serves_all_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    with Registry("sqlite://") as registry, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: registry.add_tools([ToolSpec(name=f"t{n}")]), range(40)))
        with registry.claim("t", "g"):
            assert registry.count_tools() == 40


def test_a_database_of_a_newer_version_is_refused_untouched(sqlite_url: str) -> None:
    upgrade(sqlite_url)
    run_sql(sqlite_url, "UPDATE alembic_version SET version_num = '9999'")
    before = file_of(sqlite_url).read_bytes()
    with pytest.raises(StoreError, match="revision '9999', newer than this version's") as refused:
        Registry(sqlite_url)
    assert "pip install -U" in refused.value.hint
    assert file_of(sqlite_url).read_bytes() == before
    assert current_revision(sqlite_url) == "9999"


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE songs (id INTEGER)",),
        ("CREATE TABLE songs (id INTEGER)", "CREATE TABLE alembic_version (version_num TEXT)"),
        (
            "CREATE TABLE tools (id INTEGER)",
            "CREATE TABLE alembic_version (version_num TEXT)",
            f"INSERT INTO alembic_version VALUES ('{HEAD}')",
        ),
        (
            "CREATE TABLE songs (id INTEGER)",
            "CREATE TABLE alembic_version (version_num TEXT)",
            "INSERT INTO alembic_version VALUES ('ab12')",
        ),
    ],
)
def test_another_programs_database_is_refused_untouched(sqlite_url: str, statements: tuple[str, ...]) -> None:
    run_sql(sqlite_url, *statements)
    before = file_of(sqlite_url).read_bytes()
    with pytest.raises(StoreError, match="belongs to another program"):
        Registry(sqlite_url)
    assert file_of(sqlite_url).read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to be one" * 50, b"{}"])
def test_a_file_that_is_no_database_is_named(sqlite_url: str, content: bytes) -> None:
    file_of(sqlite_url).parent.mkdir()
    file_of(sqlite_url).write_bytes(content)
    for call in (Registry, upgrade, current_revision):
        with pytest.raises(
            StoreError, match=rf"{re.escape(str(file_of(sqlite_url)))}.*not a SQLite database"
        ):
            call(sqlite_url)
    assert file_of(sqlite_url).read_bytes() == content


def test_a_damaged_file_is_an_error_that_says_so(sqlite_url: str) -> None:
    with Registry(sqlite_url) as registry:
        registry.add_tools([ToolSpec(name=f"t{n}", description="x" * 2000) for n in range(50)])
    content = bytearray(file_of(sqlite_url).read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)  # all but the header and the first table's root
    file_of(sqlite_url).write_bytes(content)
    with pytest.raises(StoreError, match="damaged") as damaged, Registry(sqlite_url) as registry:
        registry.tools()
    assert "recover" in damaged.value.hint


def test_a_read_only_database_can_be_read_but_says_why_not_written(sqlite_url: str, light: ToolSpec) -> None:
    with Registry(sqlite_url) as registry:
        registry.add_tools([light])
    with Registry(f"sqlite:///file:{file_of(sqlite_url)}?mode=ro&uri=true") as registry:
        assert registry.tool("set_light") == light
        with pytest.raises(StoreError, match="is read-only"):
            registry.save_agent(AgentSpec(name="home"))


def test_a_read_only_database_that_needs_an_upgrade_says_so(sqlite_url: str) -> None:
    run_sql(sqlite_url)
    with pytest.raises(StoreError, match="is read-only"):
        Registry(f"sqlite:///file:{file_of(sqlite_url)}?mode=ro&uri=true")


def test_a_full_disk_keeps_nothing_of_a_change_and_the_next_run_works(sqlite_url: str) -> None:
    many = [ToolSpec(name=f"t{n}", description="x" * 1000) for n in range(500)]
    with Registry(sqlite_url) as registry:
        registry.add_tools([ToolSpec(name="before")])

        @event.listens_for(registry._engine, "checkout")
        def _full(connection: sqlite3.Connection, *_: object) -> None:
            connection.execute(
                "PRAGMA max_page_count = 60"
            )  # what SQLite then raises is what a full disk gives

        with pytest.raises(StoreError, match="the disk is full"):
            registry.add_tools(many)
        assert [row.name for row in registry.tools()] == ["before"]
        with pytest.raises(StoreError, match="the disk is full"):
            registry.put_adapter(Toolset(), "generator", b"x" * 1_000_000)
        assert registry.adapters() == []
    with Registry(sqlite_url) as registry:
        assert len(registry.add_tools(many)) == 500


def test_no_room_for_the_first_migration_leaves_nothing_behind(sqlite_url: str) -> None:
    file_of(sqlite_url).parent.mkdir()
    code = f"from agent_specializer.store import upgrade\nupgrade({sqlite_url!r})"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))  # bytes a file may grow to

    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "StoreError: database" in done.stderr
    with Registry(sqlite_url) as registry:
        assert registry.count_tools() == 0


def test_a_folder_in_place_of_the_file_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        Registry(f"sqlite:///{tmp_path}")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make the folder"):
        Registry(f"sqlite:///{tmp_path}/file/store.db")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("/some/path.db", "not a database URL"),
        ("nosuchdb://host/name", "not a database URL"),
        ("mysql+aiomysql://host/name", "aiomysql"),
    ],
)
def test_a_wrong_url_is_explained(wrong: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        Registry(wrong)


def test_a_writer_that_waited_too_long_says_who_is_in_the_way(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_SECONDS", 0.1)
    with Registry(sqlite_url) as registry:
        other = sqlite3.connect(file_of(sqlite_url), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process has been writing"):
            registry.add_tools([ToolSpec(name="late")])
        assert registry.count_tools() == 0  # reading never waits
        other.execute("ROLLBACK")
        other.close()
        registry.add_tools([ToolSpec(name="late")])


def test_a_password_is_never_shown() -> None:
    with pytest.raises(StoreError) as failed:
        Registry("postgresql+psycopg://user:secret@127.0.0.1:1/name?connect_timeout=1")
    assert "secret" not in str(failed.value)
