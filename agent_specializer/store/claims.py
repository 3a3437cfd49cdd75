"""Claims: of all threads and processes that need an adapter, one generates it and the others wait for it.

A claim is a row, so it works on every database. Its holder raises `beat` every two seconds. Those who wait
compare the beat with what they saw before, on their own clock, so clocks need not agree; a beat that stands
still, or a holder that is dead on this machine, is a claim to take over. Taking over names the beat that was
seen, so of several who wait only one succeeds.
"""

from __future__ import annotations

import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from agent_specializer.errors import StoreError
from agent_specializer.store.adapters import adapter_fingerprint
from agent_specializer.store.database import Database
from agent_specializer.store.tables import Claim

_HOST = platform.node()[:255]


class Claims(Database):
    """The part of the Registry that lets processes generate an adapter once."""

    claim_beat_seconds = 2.0
    claim_expiry_seconds = 15.0
    """A holder on another machine that has been silent for so long is taken for dead."""
    claim_poll_seconds = 0.05

    @contextmanager
    def claim(self, toolset_fp: str, generator_fp: str) -> Iterator[bool]:
        """Waits until no one else is generating this adapter, then keeps others waiting.

        Yields whether it had to wait. In either case look once more, as someone may just have finished:

            with registry.claim(toolset_fp, generator_fp):
                row = registry.get_adapter(toolset_fp, generator_fp) or generate()

        A killed holder blocks no one: for a moment on this machine, for `claim_expiry_seconds` on another.
        Not re-entrant: a thread that claims what it holds waits for itself.
        """
        fingerprint = adapter_fingerprint(toolset_fp, generator_fp)
        holder = uuid.uuid4().hex
        waited = self._acquire(fingerprint, holder)
        stop = threading.Event()
        beating = threading.Thread(target=self._beat, args=(fingerprint, holder, stop), daemon=True)
        beating.start()
        try:
            yield waited
        finally:
            stop.set()
            beating.join()
            mine = delete(Claim).where(Claim.fingerprint == fingerprint, Claim.holder == holder)
            with suppress(StoreError):  # a full disk: the claim expires by itself, and the work is done
                self._writing(lambda session: session.execute(mine))

    def _acquire(self, fingerprint: str, holder: str) -> bool:
        seen: tuple[str, int] | None = None
        since = time.monotonic()
        waited = False
        while True:
            with self._reading() as session:
                claim = session.get(Claim, fingerprint)
            if claim is None:
                if self._writing(lambda session: _take_free(session, fingerprint, holder)):
                    return waited
            else:
                if (claim.holder, claim.beat) != seen:
                    seen, since = (claim.holder, claim.beat), time.monotonic()
                silent = time.monotonic() - since > self.claim_expiry_seconds
                if (silent or _is_dead(claim)) and self._take_over(claim, holder):
                    return True
            waited = True
            time.sleep(self.claim_poll_seconds)

    def _take_over(self, claim: Claim, holder: str) -> bool:
        seen = (
            Claim.fingerprint == claim.fingerprint,
            Claim.holder == claim.holder,
            Claim.beat == claim.beat,
        )
        taken = update(Claim).where(*seen).values(holder=holder, host=_HOST, pid=os.getpid(), beat=0)
        return self._writing(lambda session: session.execute(taken).rowcount == 1)  # type: ignore[attr-defined]

    def _beat(self, fingerprint: str, holder: str, stop: threading.Event) -> None:
        mine = update(Claim).where(Claim.fingerprint == fingerprint, Claim.holder == holder)
        while not stop.wait(self.claim_beat_seconds):
            with suppress(StoreError):  # a busy database: the next beat may get through
                self._writing(lambda session: session.execute(mine.values(beat=Claim.beat + 1)))


def _take_free(session: Session, fingerprint: str, holder: str) -> bool:
    if session.get(Claim, fingerprint) is not None:
        return False
    session.add(Claim(fingerprint=fingerprint, holder=holder, host=_HOST, pid=os.getpid(), beat=0))
    return True


def _is_dead(claim: Claim) -> bool:
    """Whether the holder was a process of this machine that is gone. In doubt no: its beat will tell."""
    if claim.host != _HOST or os.name != "posix":  # elsewhere than on POSIX, signal 0 is not harmless
        return False
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
