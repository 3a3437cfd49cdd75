"""Runs in the Registry: one row for each request that was answered, and their sums for charts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from sqlalchemy import ColumnElement, Integer, case, cast, delete, extract, func, select
from sqlalchemy.orm import Session

from agent_specializer.messages import Call, Usage
from agent_specializer.store.database import Database
from agent_specializer.store.queries import paged
from agent_specializer.store.rows import RunRow, RunStats
from agent_specializer.store.tables import Run, utc_now

Bucket = Literal["minute", "hour", "day"]

_BUCKET_SECONDS: dict[Bucket, int] = {"minute": 60, "hour": 3600, "day": 86400}
_REASON_LENGTH = 500


class Runs(Database):
    """The part of the Registry that keeps runs."""

    keep_texts: bool = True

    def add_run(
        self,
        *,
        mode: str,
        agent: str | None = None,
        adapter: str | None = None,
        request: str | None = None,
        calls: Sequence[Call] = (),
        usage: Usage = Usage(),  # noqa: B008  # frozen
        confidence: float = 0.0,
        decision: str = "",
        reason: str = "",
        cache: Literal["hit", "miss"] | None = None,
        time: datetime | None = None,
    ) -> int:
        """Keeps one run and returns its id.

        Without `keep_texts` the request is not written, nor are the arguments of calls, which quote it.

        Args:
            adapter: fingerprint of the adapter; None in modes without one.
            decision: what was done in the end; left out, that is `mode`. `reason` says why it differs.
            time: when it began, timezone-aware; left out, now.
        """
        if not self.keep_texts:
            request, calls = None, [Call(name=call.name) for call in calls]
        run = Run(
            time=time or utc_now(),
            agent=agent,
            adapter=adapter,
            mode=mode,
            # A request may hold what no database keeps; here losing a letter is better than losing the run.
            request=None
            if request is None
            else request.replace("\0", "�").encode("utf-8", "replace").decode(),
            calls=[call.model_dump(mode="json") for call in calls],
            prompt_tokens=usage.prompt_tokens,
            tool_prompt_tokens=usage.tool_prompt_tokens,
            saved_prompt_tokens=usage.saved_prompt_tokens,
            completion_tokens=usage.completion_tokens,
            seconds=usage.seconds,
            first_token_seconds=usage.first_token_seconds,
            confidence=confidence,
            decision=decision or mode,
            reason=reason[:_REASON_LENGTH],
            cache=cache,
        )

        def work(session: Session) -> int:
            session.add(run)
            session.flush()
            return run.id

        return self._writing(work)

    def runs(
        self,
        limit: int | None = 50,
        offset: int = 0,
        *,
        agent: str | None = None,
        mode: str | None = None,
        since: datetime | None = None,
    ) -> list[RunRow]:
        """Runs, the newest first."""
        statement = select(Run).where(*_filters(agent, mode, since)).order_by(Run.time.desc(), Run.id.desc())
        with self._reading() as session:
            return [_value(run) for run in session.scalars(paged(statement, limit, offset))]

    def count_runs(
        self, *, agent: str | None = None, mode: str | None = None, since: datetime | None = None
    ) -> int:
        with self._reading() as session:
            return session.scalar(select(func.count(Run.id)).where(*_filters(agent, mode, since))) or 0

    def run_stats(
        self, bucket: Bucket = "day", *, agent: str | None = None, since: datetime | None = None
    ) -> list[RunStats]:
        """Runs summed by mode over every minute, hour or day (of UTC) that has any, the oldest first.

        Raises:
            ValueError: another bucket.
        """
        if bucket not in _BUCKET_SECONDS:
            raise ValueError(f"bucket {bucket!r} is none of {', '.join(_BUCKET_SECONDS)}")
        epoch = extract("epoch", Run.time)
        start = (epoch - epoch % _BUCKET_SECONDS[bucket]).label("start")
        columns = (
            func.count(Run.id),
            func.sum(Run.prompt_tokens),
            func.sum(Run.tool_prompt_tokens),
            func.sum(Run.saved_prompt_tokens),
            func.sum(Run.completion_tokens),
            func.avg(Run.seconds),
            func.avg(Run.first_token_seconds),
            func.avg(Run.confidence),
            cast(func.sum(case((Run.cache == "hit", 1), else_=0)), Integer),
            cast(func.sum(case((Run.decision == "fallback", 1), else_=0)), Integer),
        )
        statement = select(start, Run.mode, *columns).where(*_filters(agent, None, since))
        with self._reading() as session:
            rows = session.execute(statement.group_by(start, Run.mode).order_by(start, Run.mode))
            return [
                RunStats(datetime.fromtimestamp(float(second), UTC), mode, *sums)  # type: ignore[arg-type]
                for second, mode, *sums in rows
            ]

    def forget_runs(self, *, before: datetime | None = None) -> int:
        """Deletes the runs before a time, or all; returns how many they were."""
        statement = delete(Run)
        if before is not None:
            statement = statement.where(Run.time < before)
        return self._writing(lambda session: session.execute(statement).rowcount)  # type: ignore[attr-defined]


def _filters(agent: str | None, mode: str | None, since: datetime | None) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if agent is not None:
        filters.append(Run.agent == agent)
    if mode is not None:
        filters.append(Run.mode == mode)
    if since is not None:
        filters.append(Run.time >= since)
    return filters


def _value(run: Run) -> RunRow:
    return RunRow(
        id=run.id,
        time=run.time,
        agent=run.agent,
        adapter=run.adapter,
        mode=run.mode,
        request=run.request,
        calls=tuple(Call.model_validate(call) for call in run.calls),
        prompt_tokens=run.prompt_tokens,
        tool_prompt_tokens=run.tool_prompt_tokens,
        saved_prompt_tokens=run.saved_prompt_tokens,
        completion_tokens=run.completion_tokens,
        seconds=run.seconds,
        first_token_seconds=run.first_token_seconds,
        confidence=run.confidence,
        decision=run.decision,
        reason=run.reason,
        cache=run.cache,  # type: ignore[arg-type]
    )
