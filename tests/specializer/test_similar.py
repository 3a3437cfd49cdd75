"""Tools that are hard to tell apart are named, others are not."""

from __future__ import annotations

from agent_specializer.specializer.similar import alike
from agent_specializer.specs import ToolSpec

LIGHT = ToolSpec(name="set_light", description="Dims or brightens the light in one room of the house")
TWIN = ToolSpec(name="change_lamp", description="Dims or brightens the light in one room of a house")
CLOCK = ToolSpec(name="get_time", description="Says what time it is")


def test_nearly_one_description_or_one_name_is_told_once_per_pair() -> None:
    lights = ToolSpec(name="set_lights", description="Turns on everything at once")
    found = alike([LIGHT, TWIN, CLOCK, lights])
    assert {(pair.first, pair.second, pair.why) for pair in found} == {
        ("set_light", "change_lamp", "descriptions"),
        ("set_light", "set_lights", "names"),
    }


def test_different_tools_and_single_ones_are_not_alike() -> None:
    assert alike([LIGHT, CLOCK]) == []
    assert alike([LIGHT]) == alike([]) == []
    assert alike([ToolSpec(name="a"), ToolSpec(name="b")]) == [], "no description at all"
