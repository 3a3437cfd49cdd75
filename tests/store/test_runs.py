"""Runs come back as they were, can be kept without texts, and add up for charts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent_specializer.messages import Call, Usage
from agent_specializer.store import Registry, RunStats

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_run_comes_back_as_it_was(registry: Registry) -> None:
    usage = Usage(
        prompt_tokens=9,
        tool_prompt_tokens=1,
        saved_prompt_tokens=800,
        completion_tokens=12,
        seconds=0.5,
        first_token_seconds=0.125,
    )
    calls = (Call(name="set_light", arguments={"zeta": "ä", "alpha": [1, None]}),)
    run_id = registry.add_run(
        mode="specialized",
        agent="home",
        adapter="f" * 64,
        request="Licht „an“",
        calls=calls,
        usage=usage,
        confidence=0.75,
        decision="fallback",
        reason="confidence 0.75 is under 0.9",
        cache="hit",
        time=NOON,
    )
    (run,) = registry.runs()
    assert run.id == run_id
    assert (run.time, run.agent, run.adapter, run.mode, run.request) == (
        NOON,
        "home",
        "f" * 64,
        "specialized",
        "Licht „an“",
    )
    assert run.calls == calls
    assert list(run.calls[0].arguments) == ["zeta", "alpha"]
    assert {name: getattr(run, name) for name in Usage.model_fields} == usage.model_dump()
    assert (run.confidence, run.decision, run.cache) == (0.75, "fallback", "hit")
    assert run.reason == "confidence 0.75 is under 0.9"


def test_a_run_without_more_is_of_now_and_did_what_was_asked(registry: Registry) -> None:
    registry.add_run(mode="prompted")
    (run,) = registry.runs()
    assert abs(datetime.now(UTC) - run.time) < timedelta(minutes=1)
    assert (run.decision, run.reason, run.request, run.calls, run.cache) == ("prompted", "", None, (), None)


def test_without_texts_neither_requests_nor_arguments_are_written(sqlite_url: str) -> None:
    with Registry(sqlite_url, keep_texts=False) as registry:
        registry.add_run(
            mode="specialized", request="my secret", calls=[Call(name="note", arguments={"text": "secret"})]
        )
        (run,) = registry.runs()
    assert run.request is None
    assert run.calls == (Call(name="note"),)
    files = Path(sqlite_url.removeprefix("sqlite:///")).parent.iterdir()
    assert all(b"secret" not in file.read_bytes() for file in files)


def test_a_request_that_no_database_keeps_loses_a_letter_and_not_the_run(registry: Registry) -> None:
    registry.add_run(mode="base", request="a\ud800b\0c", calls=[Call(name="x", arguments={"y": "\ud800\0"})])
    (run,) = registry.runs()
    assert run.request == "a?b\N{REPLACEMENT CHARACTER}c"
    assert run.calls[0].arguments == {"y": "\ud800\0"}


def test_times_are_utc_whatever_they_came_in(registry: Registry) -> None:
    registry.add_run(mode="base", time=datetime(2026, 3, 1, 14, 0, tzinfo=timezone(timedelta(hours=2))))
    (run,) = registry.runs()
    assert run.time == NOON
    assert run.time.utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="has no timezone"):
        registry.add_run(mode="base", time=datetime(2026, 3, 1))


def test_runs_are_listed_newest_first_and_filtered(registry: Registry) -> None:
    for minute, (agent, mode) in enumerate([("a", "base"), ("b", "specialized"), ("a", "specialized")]):
        registry.add_run(agent=agent, mode=mode, time=NOON + timedelta(minutes=minute))

    def minutes(**filters: object) -> list[int]:
        return [run.time.minute for run in registry.runs(**filters)]  # type: ignore[arg-type]

    assert minutes() == [2, 1, 0]
    assert minutes(agent="a") == [2, 0]
    assert minutes(mode="specialized", agent="a") == [2]
    assert minutes(since=NOON + timedelta(minutes=1)) == [2, 1]
    assert minutes(limit=1, offset=1) == [1]
    assert registry.count_runs(agent="a") == 2


def test_stats_sum_tokens_and_average_seconds_by_mode_and_hour(registry: Registry) -> None:
    for minute, seconds, mode in (
        (59.9, 1.0, "specialized"),
        (60, 2.0, "specialized"),
        (61, 4.0, "specialized"),
    ):
        registry.add_run(
            mode=mode,
            time=NOON + timedelta(minutes=minute),
            usage=Usage(prompt_tokens=10, saved_prompt_tokens=100, seconds=seconds, first_token_seconds=0.5),
            confidence=0.5,
            cache="hit" if minute == 61 else "miss",
            decision="fallback" if minute == 60 else "",
        )
    registry.add_run(mode="prompted", time=NOON + timedelta(minutes=61))
    assert registry.run_stats("hour") == [
        RunStats(NOON, "specialized", 1, 10, 0, 100, 0, 1.0, 0.5, 0.5, 0, 0),
        RunStats(NOON + timedelta(hours=1), "prompted", 1, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0, 0),
        RunStats(NOON + timedelta(hours=1), "specialized", 2, 20, 0, 200, 0, 3.0, 0.5, 0.5, 1, 1),
    ]
    assert [stats.start for stats in registry.run_stats("day")] == [NOON.replace(hour=0)] * 2
    assert [stats.runs for stats in registry.run_stats("minute")] == [1, 1, 1, 1]
    assert registry.run_stats("hour", agent="nobody") == []
    with pytest.raises(ValueError, match="none of minute, hour, day"):
        registry.run_stats("week")  # type: ignore[arg-type]


def test_runs_can_be_forgotten(registry: Registry) -> None:
    for hour in range(4):
        registry.add_run(mode="base", time=NOON + timedelta(hours=hour))
    assert registry.forget_runs(before=NOON + timedelta(hours=1)) == 1
    assert registry.count_runs() == 3
    assert registry.forget_runs() == 3
