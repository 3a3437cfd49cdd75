"""A folder becomes one file; a file stays what it is."""

from __future__ import annotations

import zipfile
from pathlib import Path

from agent_specializer.adapters import archived


def test_a_folder_becomes_a_zip_of_all_it_holds_made_anew_each_time(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "below").mkdir(parents=True)
    (folder / "a.json").write_text("{}")
    (folder / "below" / "b.bin").write_bytes(b"\0" * 1000)
    made = archived(folder)
    assert made == tmp_path / "export.zip"
    with zipfile.ZipFile(made) as archive:
        assert sorted(archive.namelist()) == ["a.json", "below/b.bin"]
        assert archive.read("below/b.bin") == b"\0" * 1000
    (folder / "a.json").unlink()
    with zipfile.ZipFile(archived(folder)) as archive:
        assert archive.namelist() == ["below/b.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "export.zip"], "no half file stays"


def test_a_file_is_its_own_archive(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    assert archived(file) == file
