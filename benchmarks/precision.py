"""How long products take on this processor in bfloat16 and in float32, in the shapes of the embedded model.

Prints JSON: milliseconds, medians, for a linear of 640 to 2,048 over some rows of states, and for the head of 262,144 tokens: over one row as it
is and widened, over eight rows widened whole and block by block. `agent_specializer/bundles/precision.py` is built on what it says.

    python benchmarks/precision.py
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import linear

from agent_specializer.bundles.precision import multiplies_bfloat16
from agent_specializer.evaluation.machine import machine, versions
from agent_specializer.loragen.models import HEAD_BLOCK

HIDDEN, INNER, VOCABULARY = 640, 2048, 262_144


def milliseconds(work: Callable[[], object], repetitions: int = 15) -> float:
    taken = []
    for _ in range(repetitions + 1):
        began = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - began))
    return round(statistics.median(taken[1:]), 3)


def main() -> None:
    dice = torch.Generator().manual_seed(0)
    weight, head = (torch.randn(rows, HIDDEN, generator=dice) for rows in (INNER, VOCABULARY))
    narrow_weight, narrow_head = weight.bfloat16(), head.bfloat16()
    found: dict[str, dict[str, float]] = {}
    for rows in (1, 8, 32, 128, 512):
        x = torch.randn(rows, HIDDEN, generator=dice)
        found[f"linear, {rows} rows"] = {
            "bfloat16": milliseconds(partial(linear, x.bfloat16(), narrow_weight)),
            "float32": milliseconds(partial(linear, x, weight)),
        }
    one, eight = (torch.randn(rows, HIDDEN, generator=dice) for rows in (1, 8))

    def widened(block: int) -> torch.Tensor:
        return torch.cat([linear(eight, part.float()) for part in narrow_head.split(block)], -1)

    found["head, 1 row"] = {
        "bfloat16": milliseconds(partial(linear, one.bfloat16(), narrow_head)),
        "float32": milliseconds(partial(linear, one, head)),
    }
    found["head, 8 rows"] = {
        "float32": milliseconds(partial(linear, eight, head)),
        f"bfloat16, widened by {HEAD_BLOCK} rows": milliseconds(lambda: widened(HEAD_BLOCK)),
        "bfloat16, widened whole": milliseconds(lambda: widened(VOCABULARY)),
    }
    report = {"multiplies_bfloat16": multiplies_bfloat16(), "milliseconds": found}
    print(json.dumps(report | {"machine": machine(), "versions": versions()}, indent=2))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
