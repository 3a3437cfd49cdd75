"""A blocking iterator, read from asyncio without blocking the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from typing import Any, TypeVar

T = TypeVar("T")


async def iterate_in_thread(make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """The items of `make()`, which runs in one thread from start to end. Leaving the loop early closes it."""
    loop = asyncio.get_running_loop()
    items: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    left = threading.Event()

    def put(kind: str, item: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(items.put_nowait, (kind, item))

    def run() -> None:
        try:
            iterator: Any = make()
            with closing(iterator):
                for item in iterator:
                    if left.is_set():
                        return
                    put("item", item)
            put("end", None)
        except BaseException as error:  # raised again where the items are read
            put("error", error)

    reader = asyncio.create_task(asyncio.to_thread(run))
    try:
        while True:
            kind, item = await items.get()
            if kind == "end":
                break
            if kind == "error":
                raise item
            yield item
    finally:
        left.set()
        await asyncio.shield(reader)
