"""What was used most recently."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

REMEMBERED = 512
"""Toolsets of which it is kept what is measured once: priors, trees of names, counts of tokens."""


class Recent(Generic[Value]):
    """The most recently used values, at most `size`. Used by whoever holds the engine's lock."""

    def __init__(self, size: int) -> None:
        self._size, self._values = size, OrderedDict[Hashable, Value]()

    def get(self, key: Hashable) -> Value | None:
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)

    def put(self, key: Hashable, value: Value) -> Value:
        self._values[key] = value
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return value
