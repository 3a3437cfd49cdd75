"""Read a GGUF file's metadata in half a second instead of ten, once instead of three times.

transformers opens a GGUF of Gemma's kind anew for the config, the weights and the tokenizer, each time with
`gguf.GGUFReader`, which makes several memory-map views for each of the vocabulary's 262,144 entries. Under
`gguf_shortcuts` one reader is made, which walks arrays directly and leaves tensors as they are.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

_SUBSTITUTION = threading.Lock()


def _reader_class() -> type:
    import gguf
    import numpy as np

    class QuickReader(gguf.GGUFReader):
        """`gguf.GGUFReader` with a direct walk over arrays of strings and numbers; it reads the same."""

        def _get_field_parts(
            self, orig_offs: int, raw_type: int
        ) -> tuple[int, list[Any], list[int], list[gguf.GGUFValueType]]:
            array = gguf.GGUFValueType.ARRAY
            if raw_type != array or self.byte_order != "I":
                return super()._get_field_parts(orig_offs, raw_type)
            buffer = self.data.data  # a memoryview
            item, count = struct.unpack_from("<IQ", buffer, orig_offs)
            head = [self._get(orig_offs, np.uint32), self._get(orig_offs + 4, np.uint64)]
            start = orig_offs + 12
            if count and item in self.gguf_scalar_to_np:
                values = np.asarray(self._get(start, self.gguf_scalar_to_np[item], count))
                parts = [*head, *(values[i : i + 1] for i in range(count))]
                return 12 + values.nbytes, parts, list(range(2, 2 + count)), [array, gguf.GGUFValueType(item)]
            if count and item == gguf.GGUFValueType.STRING:
                parts, at = list(head), start
                for _ in range(count):
                    (length,) = struct.unpack_from("<Q", buffer, at)
                    parts.append(np.frombuffer(buffer, np.uint64, 1, at))
                    parts.append(np.frombuffer(buffer, np.uint8, length, at + 8))
                    at += 8 + length
                # Strings are pairs of (length, letters): the data are the letters.
                return (
                    at - orig_offs,
                    parts,
                    list(range(3, len(parts), 2)),
                    [array, gguf.GGUFValueType.STRING],
                )
            return super()._get_field_parts(orig_offs, raw_type)

    return QuickReader


@contextmanager
def gguf_shortcuts(on_fraction: Callable[[float], None] = lambda fraction: None) -> Iterator[None]:
    """While it lasts, `gguf.GGUFReader(path)` is quick and one object per path, in every thread.

    Args:
        on_fraction: told how much of the tensors transformers has converted, 0..1, in place of its own bar.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as transformers_gguf

    quick, readers = _reader_class(), {}

    def once(path: str | Path, mode: str = "r") -> Any:
        if mode != "r":
            return quick(path, mode)
        key = str(path)
        if key not in readers:
            readers[key] = quick(path)
        return readers[key]

    def report(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        for i, tensor in enumerate(tensors):
            on_fraction(i / len(tensors))
            yield tensor

    # transformers asks for the same map of tensor names once per module of the model.
    name_map = cache(gguf.get_tensor_name_map)
    with (
        _SUBSTITUTION,
        patch.object(gguf, "GGUFReader", once),
        patch.object(gguf, "get_tensor_name_map", name_map),
        patch.object(transformers_gguf, "tqdm", report),
    ):
        yield
