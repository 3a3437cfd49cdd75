"""The promises of merge and cache on the real embedded model with its shipped generator."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from agent_specializer import Specializer, ToolSpec
from agent_specializer.loragen.models import LINEARS, decoder, gated_mlps

pytestmark = pytest.mark.embedded

LEVEL = {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}
LIGHT = ToolSpec(name="set_light", description="Set the brightness of the lamps.", parameters=LEVEL)
WEATHER = ToolSpec(name="get_weather", description="Current weather of a city.")
PLAY = ToolSpec(name="play_song", description="Play a song.")


@pytest.fixture(scope="module")
def specializer(embedded_home: Path, tmp_path_factory: pytest.TempPathFactory):
    """The shared home for its converted weights, with a database of this module's own."""
    url = f"sqlite:///{tmp_path_factory.mktemp('embedded')}/agents.db"
    with Specializer(home=embedded_home, bundle="embedded", database_url=url) as made:
        made.create_agent("home", [LIGHT, WEATHER], "You run a house.")
        made.create_agent("music", [PLAY], "You play music.")
        yield made


def weights(specializer: Specializer) -> str:
    """SHA-256 of all FFN weights that are in the model now."""
    digest = hashlib.sha256()
    for mlp in gated_mlps(decoder(specializer.runtime.models.edge)):
        for name in LINEARS:
            digest.update(getattr(mlp, name).weight.detach().view(torch.uint8).numpy())
    return digest.hexdigest()


def test_a_to_b_to_a_and_back_to_base_is_bit_exact(specializer: Specializer) -> None:
    engine = specializer.engine
    home, music = (specializer.specialize(name).adapter for name in ("home", "music"))
    with engine.exclusive():
        base = weights(specializer)
    found = []
    for adapter in (home, music, home):
        engine.merge(adapter)
        found.append(weights(specializer))
    with engine.exclusive():
        assert weights(specializer) == base
    assert found[0] == found[2]
    assert len({base, *found}) == 3


def test_reordering_hits_editing_misses_and_what_is_cached_verifies(specializer: Specializer) -> None:
    first = specializer.specialize("home")
    specializer.create_agent("home", [WEATHER, LIGHT], "You run a house.")
    assert specializer.specialize("home").cache == "hit"
    assert [check.state for check in specializer.verify(first.fingerprint)] == ["same"]
    edited = ToolSpec(name="get_weather", description="Current weather of a town.")
    specializer.create_agent("edited", [edited, LIGHT], "You run a house.")
    again = specializer.specialize("edited")
    assert (again.cache, again.fingerprint != first.fingerprint) == ("miss", True)
