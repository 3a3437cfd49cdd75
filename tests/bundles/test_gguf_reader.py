"""The quick GGUF reader reads what the library's reader reads."""

from __future__ import annotations

import gguf
import numpy as np

from agent_specializer.bundles.gguf_reader import gguf_shortcuts


def test_quick_reader_gives_the_same_fields_and_tensors(tiny_gguf):
    usual = gguf.GGUFReader(tiny_gguf)
    with gguf_shortcuts():
        quick = gguf.GGUFReader(tiny_gguf)
    assert type(quick) is not type(usual)
    assert list(quick.fields) == list(usual.fields)
    assert "tokenizer.ggml.scores" in usual.fields
    for name, field in usual.fields.items():
        assert quick.fields[name].types == field.types, name
        assert quick.fields[name].data == field.data, name
        assert quick.fields[name].contents() == field.contents(), name
        assert [bytes(part) for part in quick.fields[name].parts] == [bytes(part) for part in field.parts], (
            name
        )
    assert [tensor.name for tensor in quick.tensors] == [tensor.name for tensor in usual.tensors]
    assert all(np.array_equal(a.data, b.data) for a, b in zip(quick.tensors, usual.tensors, strict=True))


def test_shortcuts_share_one_reader_and_end_with_their_block(tiny_gguf):
    usual = gguf.GGUFReader
    with gguf_shortcuts():
        assert gguf.GGUFReader(tiny_gguf) is gguf.GGUFReader(str(tiny_gguf))
    assert gguf.GGUFReader is usual
