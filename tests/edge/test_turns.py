"""The queue's promises: first come, first served; reentrant; a wait that can end."""

from __future__ import annotations

import threading
import time

import pytest

from agent_specializer.edge.turns import Deadline, FairLock
from agent_specializer.errors import DecodeError


def test_threads_are_served_in_the_order_in_which_they_came() -> None:
    lock, order = FairLock(), []
    lock.acquire()
    threads = []
    for number in range(8):

        def wait(number: int = number) -> None:
            with lock:
                order.append(number)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        while len(lock._waiting) <= number:  # it is in the queue before the next one comes
            time.sleep(0.001)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_busy_thread_cannot_pass_those_who_wait() -> None:
    lock, order = FairLock(), []
    lock.acquire()

    def wait() -> None:
        with lock:
            order.append("other")

    thread = threading.Thread(target=wait)
    thread.start()
    while not lock._waiting:
        time.sleep(0.001)
    lock.release()
    with lock:
        order.append("busy")
    thread.join()
    assert order == ["other", "busy"]


def test_it_is_reentrant_and_belongs_to_its_thread() -> None:
    lock = FairLock()
    with lock, lock:
        seen: list[BaseException] = []

        def steal() -> None:
            try:
                lock.release()
            except RuntimeError as error:
                seen.append(error)

        thread = threading.Thread(target=steal)
        thread.start()
        thread.join()
        assert seen
    got = threading.Event()
    thread = threading.Thread(target=lambda: (lock.acquire(), got.set(), lock.release()))
    thread.start()
    thread.join()
    assert got.is_set()


def test_a_wait_ends_at_its_timeout_and_leaves_the_queue() -> None:
    lock = FairLock()
    lock.acquire()
    seen: list[DecodeError] = []

    def wait() -> None:
        try:
            lock.acquire(0.05)
        except DecodeError as error:
            seen.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    assert "busy" in str(seen[0])
    lock.release()
    lock.acquire(0.05)  # nobody is left in front


def test_a_deadline() -> None:
    Deadline(None).check()
    late = Deadline(0.001)
    time.sleep(0.01)
    assert late.left == 0.0
    with pytest.raises(DecodeError, match="not complete after"):
        late.check()
    cancelled = Deadline(None)
    cancelled.cancel()
    with pytest.raises(DecodeError, match="cancelled"):
        cancelled.check()
