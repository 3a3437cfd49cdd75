"""`bench dev-split`: what training holds out, as files that the benchmark reads."""

from __future__ import annotations

import pytest

from agent_specializer.errors import ConfigError
from agent_specializer.examples import read_examples, read_toolsets
from agent_specializer.training import data as training_data
from agent_specializer.training.data import read_sources
from agent_specializer.training.dev_split import (
    EXAMPLES,
    SEEN_EXAMPLES,
    SEEN_TOOLSETS,
    TOOLSETS,
    write_dev_split,
)


@pytest.fixture(autouse=True)
def half_held_out(monkeypatch):
    monkeypatch.setattr(training_data, "DEV_SHARE", 2)


def test_the_files_hold_exactly_what_training_leaves_out(data, tmp_path):
    train, dev = read_sources(data)
    counts = write_dev_split(data, tmp_path, per_file=1000)
    toolsets, examples = read_toolsets(tmp_path / TOOLSETS), read_examples(tmp_path / EXAMPLES)
    assert counts == {source.name: len(source.examples) for source in dev}
    assert {e.toolset_id for e in examples} == set(toolsets) == {id_ for s in dev for id_ in s.by_toolset}
    assert not set(toolsets) & {id_ for source in train for id_ in source.by_toolset}
    assert sorted(map(repr, examples)) == sorted(repr(e) for source in dev for e in source.examples)


def test_beside_them_stand_as_many_of_the_same_files_that_are_trained_on(data, tmp_path):
    train, _ = read_sources(data)
    counts = write_dev_split(data, tmp_path, per_file=3)
    toolsets, examples = read_toolsets(tmp_path / SEEN_TOOLSETS), read_examples(tmp_path / SEEN_EXAMPLES)
    learned = {source.name: source for source in train if source.name in counts}
    assert 0 < len(toolsets) <= len(read_toolsets(tmp_path / TOOLSETS))
    assert set(toolsets) <= {id_ for source in learned.values() for id_ in source.by_toolset}
    assert 0 < len(examples) <= sum(counts.values())
    known = [repr(example) for source in learned.values() for example in source.examples]
    assert all(example.toolset_id in toolsets and repr(example) in known for example in examples)


def test_a_draw_depends_on_the_seed_alone(data, tmp_path):
    texts = []
    for seed in (0, 0, 1):
        write_dev_split(data, tmp_path, per_file=3, seed=seed)
        texts.append([(tmp_path / name).read_text() for name in (EXAMPLES, SEEN_EXAMPLES)])
    assert texts[0] == texts[1] != texts[2]


def test_nothing_held_out_is_a_clear_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training_data, "DEV_SHARE", 10**9)
    with pytest.raises(ConfigError, match="too few toolsets"):
        write_dev_split(data, tmp_path)
