"""`bench threshold`: the threshold that a report of `bench accuracy` speaks for."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from agent_specializer.errors import ConfigError, IntakeError, NotFound
from agent_specializer.evaluation.calibration import calibration
from agent_specializer.evaluation.threshold import choose, gaps, lines, run_threshold

COVERAGE = [
    {"coverage": 0.25, "accuracy": 1.0, "confidence": 0.95},
    {"coverage": 0.5, "accuracy": 0.85, "confidence": 0.8},
    {"coverage": 0.75, "accuracy": 0.9, "confidence": 0.6},
    {"coverage": 1.0, "accuracy": 0.7, "confidence": 0.1},
]


def rows(toolsets: int, each: int, *, boast: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    """Requests whose confidence is right on average, or by `boast` too high."""
    rng = np.random.default_rng(seed)
    made = []
    for group in range(toolsets):
        for p in rng.uniform(0.5, 0.9, each):
            right = rng.random() < p - boast
            score = float(np.log(p / (1 - p)))
            choices = [["a" if right else "b", score], ["b" if right else "a", 0.0]]
            made.append(
                {
                    "mode": "specialized",
                    "group": group,
                    "gold_names": ["a"],
                    "choices": choices,
                    "confidence": float(p),
                }
            )
    return made


def test_most_requests_are_kept_that_are_right_often_enough():
    assert choose(COVERAGE, 0.9) == COVERAGE[2]
    assert choose(COVERAGE, 0.95) == COVERAGE[0]
    assert choose(COVERAGE[1:], 0.95) is None


def test_a_confidence_that_means_the_same_everywhere_differs_by_chance_alone():
    honest = gaps(rows(40, 50))
    assert abs(honest["gap_mean"]) < 0.03
    assert honest["spread"] == pytest.approx(honest["noise"], rel=0.4)
    uneven = gaps(rows(20, 50) + [r | {"group": r["group"] + 20} for r in rows(20, 50, boast=0.4, seed=1)])
    assert uneven["spread"] > 2 * uneven["noise"]


def test_the_findings_of_a_report(tmp_path):
    items = rows(10, 30)
    report = tmp_path / "r.json"
    report.write_text(json.dumps({"calibration": {"specialized": calibration(items)}}))
    (tmp_path / "r.items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in items))
    found = run_threshold(report, accuracy=0.75)
    assert found["n"] == 300
    assert found["toolsets"]["n"] == 10
    assert found["chosen"]["accuracy"] >= 0.75
    told = "\n".join(lines(found))
    assert f"threshold {found['chosen']['confidence']:.3f}" in told
    assert "over 10 toolsets" in told
    assert "no threshold reaches 100 %" in "\n".join(
        lines(run_threshold(report, accuracy=1.0) | {"chosen": None})
    )


@pytest.mark.parametrize(
    ("text", "error"), [(None, NotFound), ("{", IntakeError), ("[]", IntakeError), ("{}", ConfigError)]
)
def test_a_file_that_is_no_such_report_is_refused(tmp_path, text, error):
    if text is not None:
        (tmp_path / "r.json").write_text(text)
    with pytest.raises(error):
        run_threshold(tmp_path / "r.json")
    with pytest.raises(ConfigError, match="no share"):
        run_threshold(tmp_path / "r.json", accuracy=90)
