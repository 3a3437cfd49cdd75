"""Whatever step of the main job is killed, or finds the disk full: a clear error, nothing half done, and the
next run works and ends where an undisturbed one does."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fault_workers import FILLER, PLACES, Job, run
from packaged_model import install

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "agent_specializer.cli",
        "agent_specializer.edge.engine",
        "agent_specializer.quickstart",
        "alembic.command",
        "rich.progress",
        "transformers.models.gemma3.modeling_gemma3",
    ]
)  # imported once, by a process without threads; each command is a fork of it

AGENT = "kitchen-helper"
QUICKSTART = ("quickstart", "--agent", AGENT, "--prompted-seconds", "0.01", "--json")
EXPORT = ("cache", "export", AGENT, "--format", "peft")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def program(tmp_path_factory, packaged_gemma, tiny_gguf, save_tiny_checkpoint) -> Path:
    """The packaged tiny model with its checkpoint, as `fault_workers.Job.folder`."""
    folder = tmp_path_factory.mktemp("program")
    package = install(tiny_gguf, folder / "site")
    (folder / "digest").write_text(package.sha256)
    save_tiny_checkpoint(packaged_gemma, folder / "checkpoint")
    source = "{kind: package, name: tiny}"
    (folder / "bundle.yaml").write_text(f"cloud: {source}\nedge: {source}\ncheckpoint: ./checkpoint\n")
    return folder


@pytest.fixture(scope="module")
def command(program, tmp_path_factory) -> Command:
    """Runs a command line in a process of its own, in a home, struck or not."""
    out = tmp_path_factory.mktemp("out") / "stdout"

    def command(home: Path, *arguments: str, fault: tuple[str, str] | None = None) -> Ended:
        process = SERVER.Process(target=run, args=(Job(arguments, program, home, out, fault),))  # type: ignore[arg-type]
        process.start()
        process.join(120)
        assert process.exitcode is not None
        return Ended(process.exitcode, out.read_text(), out.with_suffix(".err").read_text())

    return command


@pytest.fixture(scope="module")
def undisturbed(command, tmp_path_factory) -> tuple[Path, Any]:
    """A home in which nothing went wrong, and what quickstart said."""
    home = tmp_path_factory.mktemp("undisturbed")
    return home, command(home, *QUICKSTART).document


@pytest.fixture(scope="module")
def start(undisturbed, tmp_path_factory) -> Callable[[str, Path], None]:
    """Puts into a folder what a home holds before a place is reached, so that nothing else is done twice."""

    def start(place: str, home: Path) -> None:
        home.mkdir()
        if place == "exporting":
            shutil.copytree(undisturbed[0], home, dirs_exist_ok=True)
        elif place not in ("joining the packages", "converting", "finishing the conversion"):
            shutil.copytree(undisturbed[0] / "models", home / "models")

    return start


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A disk of its own of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def rows(home: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(home / "agent_specializer.db")) as database:
        return database.execute(statement).fetchall()


def adapters(home: Path) -> dict[str, bytes]:
    """The tensors of each adapter by its fingerprint; the header before them names things in any order."""
    blobs = rows(
        home, "SELECT a.fingerprint, b.blob FROM adapters a JOIN adapter_blobs b ON b.adapter_id = a.id"
    )
    return {name: blob[8 + int.from_bytes(blob[:8], "little") :] for name, blob in blobs}


def files(home: Path) -> set[str]:
    """All that lies in a home, but what SQLite keeps beside a database and the locks."""
    found = (path.relative_to(home) for path in home.rglob("*") if path.is_file())
    return {str(path) for path in found if not path.name.endswith((".lock", "-wal", "-shm"))}


def is_as_undisturbed(home: Path, document: Any, undisturbed: tuple[Path, Any]) -> None:
    whole, expected = undisturbed
    assert files(home) == files(whole)
    assert rows(home, "PRAGMA integrity_check") == [("ok",)]
    assert adapters(home) == adapters(whole)
    for statement in (
        "SELECT name, fingerprint, version FROM tool_versions ORDER BY 1, 2",
        "SELECT a.name, t.name FROM agents a JOIN agent_tools u ON u.agent_id = a.id "
        "JOIN tools t ON t.id = u.tool_id ORDER BY 1, 2",
        "SELECT count(*) FROM adapter_tools",
        "SELECT count(*) FROM claims",
    ):
        assert rows(home, statement) == rows(whole, statement), statement
    answers = [
        [
            (row["request"], row["specialized"]["calls"], row["specialized"]["content"])
            for row in d["requests"]
        ]
        for d in (document, expected)
    ]
    assert answers[0] == answers[1]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("place", PLACES)
def test_a_process_killed_there_leaves_nothing_half_done_and_the_next_run_works(
    command, start, undisturbed, tmp_path, place
):
    home = tmp_path / "home"
    start(place, home)
    arguments = EXPORT if place == "exporting" else QUICKSTART
    assert command(home, *arguments, fault=("killed", place)).code == -signal.SIGKILL
    if place == "exporting":
        assert not any(path.name[0] != "." for path in (home / "exports").iterdir())
        made = Path(command(home, *EXPORT, "--json").document["path"])
        assert (made / "adapter_model.safetensors").is_file()
        return
    is_as_undisturbed(home, command(home, *QUICKSTART).document, undisturbed)


WRITING = [
    "migrating",
    "joining the packages",
    "converting",
    "finishing the conversion",
    "registering tools",
    "making an agent",
    "describing",
    "storing",
    "answering",
]
"""Where something is written next; from "describing" on nothing is until "storing". The full disk of an export is in
adapters/test_export.py: there the reserve that it wants need not be filled."""


@pytest.mark.parametrize("place", WRITING)
def test_a_disk_that_is_full_there_is_a_clear_error_and_the_next_run_works(
    command, start, undisturbed, disk, place
):
    home = disk / "home"
    start(place, home)
    struck = command(home, *QUICKSTART, fault=("full disk", place))
    assert "Traceback" not in struck.err
    if place == "answering":
        assert struck.document["requests"][0]["specialized"]["seconds"] > 0
        assert "disk is full" in struck.err  # a warning: the replies are there, the records of them are not
    else:
        assert (struck.code, struck.out) == (1, "")
        error, hint = struck.err.rstrip().splitlines()[-2:]
        assert error.startswith("error:")
        assert "full" in error or "MB are free" in error
        assert "hint:" in hint
        assert "space" in hint
    (home / FILLER).unlink()
    is_as_undisturbed(home, command(home, *QUICKSTART).document, undisturbed)
