"""`bench caution`: what another caution would have changed, told from the scores of a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent_specializer.errors import ConfigError, IntakeError, NotFound
from agent_specializer.evaluation.accuracy import run_accuracy
from agent_specializer.evaluation.caution import lines, run_caution
from agent_specializer.evaluation.report_files import write_lines


def row(gold: str | None, *, words: float, first: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "mode": "specialized",
        "gold_names": [gold] if gold else [],
        "choices": sorted([[first, 0.0], ["b", -9.0], [None, words]], key=lambda choice: -choice[1]),
        **more,
    }


@pytest.fixture
def report(tmp_path: Path):
    def write(rows: list[dict[str, Any]], caution: float = 0.0) -> Path:
        path = tmp_path / "r.json"
        path.write_text(json.dumps({"settings": {"options": {"caution": caution}}}))
        path.with_suffix(".items.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        return path

    return write


ROWS = [
    row("a", words=-3.2),
    row("a", words=0.8),  # answered in words
    row("b", words=-5.0),  # another tool
    row(None, words=-1.2),  # called
    row(None, words=2.0),
    row("a", words=5.0, after_a_call=True),
]


def shares(found: dict[str, Any]) -> dict[float, tuple[float, float]]:
    return {p["caution"]: (p["tool_accuracy"], p["no_call_accuracy"]) for p in found["points"]}


def test_each_caution_is_told_from_the_scores(report) -> None:
    found = run_caution(report(ROWS))
    assert (found["calls"], found["no_calls"]) == (3, 2)
    told = shares(found)
    assert told[0.0] == (pytest.approx(1 / 3), 0.5)
    assert told[-1.0] == (pytest.approx(2 / 3), 0.5)
    assert told[1.5] == (pytest.approx(1 / 3), 1.0)
    assert told[4.0] == (0.0, 1.0)
    assert found["balanced"]["caution"] == 1.5
    assert "+1.5" in lines(found)[-1]


def test_a_report_that_was_made_under_a_caution_is_told_from_there(report) -> None:
    plain = shares(run_caution(report(ROWS)))
    moved = [
        each
        | {"choices": [[name, score + (2.0 if name is None else 0.0)] for name, score in each["choices"]]}
        for each in ROWS
    ]
    told = shares(run_caution(report(moved, caution=2.0)))
    assert max(told) == 6.0
    assert all(told[caution] == plain[caution] for caution in told.keys() & plain.keys())


def test_a_request_may_hold_other_ends_of_lines(report) -> None:
    path = report([])
    write_lines(path.with_suffix(".items.jsonl"), [each | {"request": "a\u2028b\x85c"} for each in ROWS])
    assert run_caution(path)["calls"] == 3


def test_without_requests_for_no_tool_nothing_is_balanced(report) -> None:
    found = run_caution(report(ROWS[:2]))
    assert found["balanced"] is None
    assert shares(found)[0.0][1] is None
    assert any(line.split() == ["+0.0", "50", "-"] for line in lines(found))


def test_what_is_no_report_is_a_clear_error(report, tmp_path) -> None:
    with pytest.raises(NotFound, match="no report"):
        run_caution(tmp_path / "none.json")
    path = report(ROWS)
    with pytest.raises(ConfigError, match="wrong_adapter"):
        run_caution(path, mode="wrong_adapter")
    path.with_suffix(".items.jsonl").write_text("{")
    with pytest.raises(IntakeError, match="lines of a report"):
        run_caution(path)
    path.with_suffix(".items.jsonl").unlink()
    with pytest.raises(NotFound, match=r"r\.items\.jsonl"):
        run_caution(path)


def test_what_is_told_is_what_is_measured(tiny_bench, tmp_path) -> None:
    def measured(caution: float, out: Path | None = None) -> dict[str, Any]:
        return run_accuracy(
            toolsets=tiny_bench.toolsets,
            examples=tiny_bench.examples,
            models=tiny_bench.models,
            modes=["specialized"],
            tools=8,
            limit=20,
            calls=False,
            caution=caution,
            out=out,
        )["modes"]["specialized"]

    out = tmp_path / "r.json"
    measured(0.0, out)
    rows = [json.loads(line) for line in out.with_suffix(".items.jsonl").read_text().splitlines()]
    # How far tools are ahead of words, in the middle: there caution matters.
    ahead = [max(s for name, s in r["choices"] if name) - dict(r["choices"])[None] for r in rows]
    middle = float(round(sorted(ahead)[len(ahead) // 2]))
    measured(middle, out)
    told = shares(run_caution(out))
    assert len(set(told.values())) > 1, "no caution changes anything: this test shows nothing"
    for caution in (middle - 2.0, middle + 3.0):
        row = measured(caution)
        assert told[caution] == (row["tool_accuracy"], row["no_call_accuracy"])
