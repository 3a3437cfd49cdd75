"""Who may use the model next: a reentrant lock that serves threads in the order in which they came."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType

from agent_specializer.errors import DecodeError


class FairLock:
    """Like `threading.RLock`, but first come, first served: a busy thread cannot take it again past those who wait."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: deque[tuple[int, threading.Event]] = deque()
        self._owner: int | None = None
        self._depth = 0

    def acquire(self, timeout: float | None = None) -> None:
        """Wait for one's turn; DecodeError after `timeout` seconds."""
        me = threading.get_ident()
        with self._guard:
            if self._owner == me or (self._owner is None and not self._waiting):
                self._owner, self._depth = me, self._depth + 1
                return
            turn = (me, threading.Event())
            self._waiting.append(turn)
        if turn[1].wait(timeout):
            return
        with self._guard:
            if turn[1].is_set():  # it came between the time-out and here
                return
            self._waiting.remove(turn)
        raise DecodeError(
            f"the model was busy with other requests for {timeout:g} s",
            hint="raise the timeout, or send fewer requests at once",
        )

    def release(self) -> None:
        with self._guard:
            if self._owner != threading.get_ident():
                raise RuntimeError("this thread does not hold the model's lock")
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            if self._waiting:
                self._owner, event = self._waiting.popleft()
                self._depth = 1
                event.set()

    def __enter__(self) -> FairLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Deadline:
    """A point in time by which a reply has to be there; None: no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float | None:
        """Seconds left, at least 0."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def cancel(self) -> None:
        """End it now: nobody waits for the reply any more."""
        self._end = time.monotonic()

    def check(self) -> None:
        """DecodeError when the time is over."""
        if self.left == 0.0:
            if self.seconds is None:
                raise DecodeError("the reply was cancelled", hint="ask again")
            raise DecodeError(
                f"the reply was not complete after {self.seconds:g} s",
                hint="raise the timeout, or ask for fewer tokens",
            )
