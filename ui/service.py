"""One Specializer per process, shared by all browser sessions, and the loading of its models, seen by all."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import streamlit as st

from agent_specializer.specializer import Specializer
from agent_specializer.store import Registry
from ui.show import plain


class Loading:
    """The models are loaded in a thread, once: whoever comes in the meantime sees the same progress."""

    def __init__(self) -> None:
        self.message, self.fraction = "loading the models", 0.0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ui-loading")
        self._future: Future[object] | None = None

    def tell(self, message: str, fraction: float | None = None) -> None:
        """A `Progress`."""
        self.message = message
        self.fraction = self.fraction if fraction is None else min(max(fraction, 0.0), 1.0)

    def start(self, specializer: Specializer) -> Future[object]:
        """The one load that is under way; a new one if the last one failed."""
        with self._lock:
            failed = self._future is not None and self._future.done() and self._future.exception() is not None
            if self._future is None or failed:
                self._future = self._pool.submit(lambda: specializer.engine)
            return self._future


@st.cache_resource(show_spinner=False)
def loading() -> Loading:
    return Loading()


@st.cache_resource(show_spinner=False)
def specializer() -> Specializer:
    """The Specializer of this process."""
    return Specializer(progress=loading().tell)


def registry() -> Registry:
    """The store; opens in milliseconds, without any model."""
    return specializer().registry


def load_models() -> Specializer:
    """The Specializer with its models in memory; shows a bar while they are loaded.

    Raises:
        WeightsError, CheckpointError, ConfigError: as the Specializer's `engine` does.
    """
    service = specializer()
    if service.runtime.loaded:
        return service
    future = loading().start(service)
    place = st.empty()
    while not future.done():
        now = loading()
        place.progress(now.fraction, text=plain(now.message[:1].upper() + now.message[1:] + " …"))
        time.sleep(0.1)
    place.empty()
    future.result()
    return service
