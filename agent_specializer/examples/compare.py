"""When a call that was made is the call that should have been made.

Strings are casefolded and stripped, ints equal floats (but never booleans), lists compare in order, objects
by key. Every argument of the gold call must be there with its value or one of the accepted ones. An argument
that the gold call does not have must be absent, or have an accepted value where the example lists some for
it. The order of calls does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent_specializer.messages import Call


def same_call(call: Call, gold: Call, accepted: Mapping[str, Any] | None = None) -> bool:
    """Whether `call` is `gold`; `accepted` is ``{tool name: {argument: [right values]}}``, as in files."""
    if call.name != gold.name:
        return False
    right: Mapping[str, Any] = (accepted or {}).get(gold.name) or {}
    if not gold.arguments.keys() <= call.arguments.keys():
        return False
    for name, value in call.arguments.items():
        values = list(right.get(name, ()))
        if name in gold.arguments:
            values.append(gold.arguments[name])
        if not any(same_value(value, each) for each in values):
            return False
    return True


def same_calls(
    calls: Sequence[Call], gold: Sequence[Call], accepted: Sequence[Mapping[str, Any]] = ()
) -> bool:
    """Whether `calls` and `gold` pair off in any order; `accepted` has one entry per gold call, or none."""
    if len(calls) != len(gold):
        return False
    if not gold:
        return True
    allowed = [*accepted, *({} for _ in range(len(gold) - len(accepted)))]
    pairs = [[same_call(call, g, a) for g, a in zip(gold, allowed, strict=True)] for call in calls]
    if len(gold) == 1:
        return pairs[0][0]
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    # A matching rather than a walk: with accepted values one call may fit two gold calls, another only one.
    return bool((maximum_bipartite_matching(csr_array(pairs), perm_type="column") >= 0).all())


def same_value(a: Any, b: Any) -> bool:
    """Whether two JSON values count as equal."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, str) and isinstance(b, str):
        return a.strip().casefold() == b.strip().casefold()
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_value(a[key], b[key]) for key in a)
    return bool(a == b)
