"""Bundles by name and by file: what is known is listed, what is wrong is named."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from agent_specializer.bundles import BUNDLES, ModelSource, bundle
from agent_specializer.errors import ConfigError


def test_the_default_bundle_shares_one_packaged_model_and_ships_a_checkpoint_folder():
    embedded = bundle("embedded")
    assert embedded.cloud == embedded.edge
    assert embedded.cloud.kind == "package"
    assert embedded.checkpoint is not None
    assert embedded.checkpoint.parts[-3:] == ("agent_specializer", "checkpoints", "embedded")


@pytest.mark.parametrize(
    ("name", "cloud", "edge"),
    [
        ("paper", "hub:meta-llama/Meta-Llama-3-8B", "hub:google/gemma-2b"),
        ("gemma-2-2b", "hub:meta-llama/Meta-Llama-3-8B", "hub:google/gemma-2-2b"),
        ("tinyllama", "hub:meta-llama/Meta-Llama-3-8B", "hub:TinyLlama/TinyLlama_v1.1"),
        (
            "embedded-large",
            "package:qwen2.5-coder-1.5b-instruct@cc324af0",
            "package:gemma-3-270m@a5fd3b62",
        ),
        ("smollm2", "package:smollm2-135m-instruct@b179c952", "package:smollm2-135m-instruct@b179c952"),
    ],
)
def test_known_bundles_name_their_weights(name, cloud, edge):
    assert (bundle(name).cloud.key, bundle(name).edge.key) == (cloud, edge)
    assert bundle(name).key == f"{cloud} -> {edge}"


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(ConfigError) as caught:
        bundle("embeded")
    assert "'embeded'" in caught.value.message
    assert "did you mean 'embedded'?" in caught.value.hint
    assert all(name in caught.value.hint for name in BUNDLES)


def test_bundles_are_values():
    with pytest.raises(ValidationError, match="frozen"):
        bundle("embedded").name = "other"
    assert hash(bundle("embedded")) == hash(bundle("embedded").model_copy())


def test_a_file_names_any_two_models_with_paths_relative_to_itself(tmp_path):
    (tmp_path / "check").mkdir()
    file = tmp_path / "pair.yaml"
    file.write_text(
        "cloud: {kind: hub, name: org/cloud, revision: abc}\n"
        "edge: {kind: local, name: ./models/../models/edge}\n"
        "checkpoint: check\n"
    )
    pair = bundle(file)
    assert pair.name == "pair"
    assert pair.cloud == ModelSource(kind="hub", name="org/cloud", revision="abc")
    assert pair.edge.name == str(tmp_path / "models" / "edge")
    assert pair.checkpoint == tmp_path / "check"
    assert bundle(str(file)) == pair


_SOUND = "cloud: {kind: package, name: gemma-3-270m}\nedge: {kind: package, name: gemma-3-270m}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("cloud: {kind: package, name: gemma-3-270m}\n", "edge: Field required"),
        (_SOUND + "head: 1\n", "head: Extra inputs"),
        (_SOUND.replace("package", "ftp", 1), "cloud.kind"),
        (
            _SOUND.replace("gemma-3-270m", "gemma-9", 1),
            "there is no packaged model 'gemma-9'; there are gemma-3",
        ),
        (_SOUND.replace("270m}", "270m, revision: x}", 1), "only a model on the hub has a revision"),
        (_SOUND + "checkpoint: nowhere\n", "checkpoint: there is no folder"),
        (_SOUND + "name: embedded\n", "is the name of a built-in bundle"),
        ("- one\n- two\n", "holds a list, not a mapping"),
        ("cloud: [unclosed\n", "is not YAML"),
        (None, "cannot be read"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_its_name_and_the_fault(tmp_path, content, said):
    file = tmp_path / "faulty.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError) as caught:
        bundle(file)
    assert "faulty.yaml" in caught.value.message
    assert said in caught.value.message


def test_naming_bundles_does_not_load_torch():
    code = "import sys, agent_specializer.bundles as b; b.bundle('paper'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
