"""Tools that are hard to tell apart: a warning before anyone asks why the wrong one is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from agent_specializer.specs import ToolSpec

ALIKE_NAMES, ALIKE_TEXTS = 0.9, 0.75


class Pair(NamedTuple):
    """Two tools, and what makes them alike: "names" or "descriptions"."""

    first: str
    second: str
    why: str


def alike(tools: Sequence[ToolSpec]) -> list[Pair]:
    """Pairs with nearly one name, or nearly one description by TF-IDF cosine; the most alike first."""
    if len(tools) < 2:
        return []
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = [tool.description or tool.name.replace("_", " ") for tool in tools]
    rows = TfidfVectorizer(token_pattern=r"(?u)\w+").fit_transform([*texts, "word"])[: len(tools)]
    cosine = (rows @ rows.T).toarray()
    pairs: list[tuple[float, Pair]] = []
    for i, a in enumerate(tools):
        for j in range(i):
            b = tools[j]
            if cosine[i, j] >= ALIKE_TEXTS:
                pairs.append((float(cosine[i, j]), Pair(b.name, a.name, "descriptions")))
                continue
            matcher = SequenceMatcher(None, a.name.casefold(), b.name.casefold())
            if matcher.real_quick_ratio() >= ALIKE_NAMES and (ratio := matcher.ratio()) >= ALIKE_NAMES:
                pairs.append((ratio, Pair(b.name, a.name, "names")))
    return [pair for _, pair in sorted(pairs, key=lambda each: -each[0])]
