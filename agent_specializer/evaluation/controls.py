"""Adapters in which something is in the wrong place, or missing: the controls of `modes`, which tell what each part brings.

A wrong adapter has the gates of the next group whose tools have nothing to do with this one's, and this adapter's own keys in
an order in which no tool has its own. Each of these is there by itself, too. What was measured under other weights has to be
measured anew: such adapters come without priors.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from agent_specializer.errors import ConfigError
from agent_specializer.evaluation.tasks import Group, families

if TYPE_CHECKING:
    from agent_specializer.loragen import Adapter
    from agent_specializer.specs import Toolset


def foreign_toolset(groups: Sequence[Group], place: int, spare: Toolset | None = None) -> Toolset:
    """The toolset of the next group that was composed around other services; else any other; else `spare`."""
    here = groups[place]
    own = set().union(*(families(toolset_id) for toolset_id in here.own))
    after = [*groups[place + 1 :], *groups[:place]]
    unlike = [g for g in after if not own & set().union(*(families(toolset_id) for toolset_id in g.own))]
    for group in [*unlike, *after]:
        if group.toolset.fingerprint != here.toolset.fingerprint:
            return group.toolset
    if spare is None or spare.fingerprint == here.toolset.fingerprint:
        raise ConfigError(
            "a wrong adapter needs another toolset, and these files have only one",
            hint="leave out the modes that are called wrong, or use a file with several toolsets",
        )
    return spare


def wrong_adapter(own: Adapter, foreign: Adapter, rng: random.Random) -> Adapter:
    """The gates of `foreign` with the keys of `own` out of order. Without priors."""
    return wrong_gates(wrong_keys(own, foreign, rng), foreign)


def wrong_gates(own: Adapter, foreign: Adapter) -> Adapter:
    """The gates of `foreign` with the keys of `own`. Without priors."""
    return replace(
        own, gates=foreign.gates, generator=f"{own.generator}:wrong gates:{foreign.toolset}", priors=None
    )


def wrong_keys(own: Adapter, foreign: Adapter, rng: random.Random) -> Adapter:
    """The gates of `own` with its keys permuted so that no tool has its own. Without priors.

    A single tool, which no permutation moves, gets a key of `foreign`.
    """
    keys, lift = own.keys, own.lift
    tools = len(own.names)
    if keys.numel() and tools > 1:
        cycle = rng.sample(range(tools), tools)  # one cycle through all tools moves every one of them
        source = list(range(tools))
        for here, there in zip(cycle, [*cycle[1:], cycle[0]], strict=True):
            source[here] = there
        keys = keys[source]
        lift = None if lift is None else lift[source]
    elif keys.numel() and len(foreign.keys):
        keys = foreign.keys[:1]
        lift = None if foreign.lift is None else foreign.lift[:1]
    return replace(own, keys=keys, lift=lift, generator=f"{own.generator}:wrong keys", priors=None)


def without_keys(own: Adapter) -> Adapter:
    """Gates and priors alone: names are all that tells tools apart, as in LoRA-Gen itself."""
    return replace(
        own, keys=own.keys.new_empty(0, 0, 0), lift=None, generator=f"{own.generator}:without keys"
    )


def without_priors(own: Adapter) -> Adapter:
    """Names count by their log-probability behind the request, however likely each is behind an empty one."""
    priors = own.gates.new_zeros(len(own.names) + 1)
    return replace(own, priors=priors, generator=f"{own.generator}:without priors")
