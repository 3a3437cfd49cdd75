"""Converted tokenizers, kept plain: a model's own tokenizer class takes three times as long to load.

`AutoTokenizer.from_pretrained` reads the 33 MB of Gemma's tokenizer.json several times over; handing the
file to `tokenizers` reads it once. The tokens are the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token", "mask_token")


def save_plain_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `AutoTokenizer` reads as well."""
    from transformers import PreTrainedTokenizerFast

    roles = {role: getattr(tokenizer, role) for role in _ROLES if getattr(tokenizer, role, None) is not None}
    plain = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        clean_up_tokenization_spaces=False,
        padding_side=tokenizer.padding_side,
        **roles,
    )
    plain.chat_template = tokenizer.chat_template
    plain.save_pretrained(folder)


def load_plain_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that `save_plain_tokenizer` wrote.

    Raises:
        OSError, ValueError, KeyError: a file is missing or malformed.
    """
    from transformers import PreTrainedTokenizerFast

    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    template = folder / "chat_template.jinja"
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        clean_up_tokenization_spaces=False,
        padding_side=config.get("padding_side", "right"),
        chat_template=template.read_text("utf-8") if template.is_file() else None,
        **{role: config[role] for role in _ROLES if role in config},
    )
