"""What is copied: which tokens go on with words or numbers of the conversation.

A small model says "5 am" where "five am" stands and ends an identifier with zeros of its own. What it would write is weighed against what
stands there: tokens that go on with a copy count `COPY` nats more, at the end of a word the closing quote does, too, and words that are
another parameter's (`edge.sharing`) as many less. So do digits of a number that stands there, and what ends it; a minus sign counts `FITS` less
where numbers stand there and none has one. Where the schema allows but
some strings (a pattern, a format, a few values to pick from), words of the conversation that it allows count `FITS` more; an array has each
once, and ends when it has all.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import TypeAlias

from llguidance import LLMatcher
from numpy import isin, ndarray
from transformers import PreTrainedTokenizerBase

from agent_specializer.edge.grammar import Vocabulary
from agent_specializer.edge.written import Written

Span: TypeAlias = tuple[int, int]
"""Where something begins in a text, and where it ends."""
Favoured: TypeAlias = list[tuple[Sequence[int] | ndarray, float]]
"""Ids of tokens, and by how many nats each is likelier than the model says."""

COPY = 4.0
"""Nats. Chosen on requests of held-out families (docs/LOG.md): from 2.5 to 9 hardly anything changes."""
FITS = 8.0
"""Nats. Chosen on the shipped catalogues' requests (docs/LOG.md): from 4 to 12 hardly anything changes."""
AHEAD = 32
"""Characters of the conversation that are looked at for the next token."""
MARKS = re.compile(r"^(User|Call|Result|Answer):", re.MULTILINE)
"""What marks a conversation's turns (`edge.transcript`): nobody's words."""
NUMBERS = re.compile(
    r"(?<![\w.,:/+-])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w*[:/-]\w|\.?\d)",
)
"""Numbers, and no parts of dates, times or identifiers; a unit may stand right behind one."""
BELOW_ZERO = re.compile(r"\b(?:minus|negative|below zero)\b", re.IGNORECASE)
"""Says that a number may have a sign though none is written."""
ENDS = re.compile(r"(?:'s\b)?[^\w\s]*(?:\s|$)")
"""What follows a word that ends: not the hyphen in "new-onboarding"."""
CLOSES = re.compile(r"[.,;:!?]+(\s|$)")
"""Ends a sentence, or a part of one."""
RECENT = 2048
"""Tokens of the conversation, from its end, that are copied from."""
CHUNKS, LONGEST = 120, 4
"""Pieces between white space, from the conversation's end, among which what the schema allows is looked for; and of how many at most."""
AROUND = "'\".,;:!?()[]{}<>"
"""Is left off around them."""
ANYTHING = "Qx 7, zu?"
"""A string that the schema allows where it allows nearly all."""
NEXT_LETTER = {
    ord(letter): alphabet[(place + 1) % 26]
    for alphabet in (ascii_lowercase, ascii_uppercase)
    for place, letter in enumerate(alphabet)
}
"""Makes another word of the same shape."""
TAKEN = "\0"
"""Stands for each letter that is another parameter's."""


class Source:
    """A conversation from which values are copied; `conversation`: its token ids.

    Attributes:
        text: the conversation, without what marks its turns. request: where the newest message of the user stands in it.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, conversation: Sequence[int], vocabulary: Vocabulary
    ) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary
        text = str(tokenizer.decode(list(conversation[-RECENT:]), skip_special_tokens=True))
        self.text = MARKS.sub(lambda mark: " " * len(mark[0]), text)
        self.request = _request(text)
        self._folded = _folded(self.text)
        self._starts = [match.start() for match in re.finditer(r"\w+", self.text)]
        self._numbers = [(_plain(match[0]), match.span()) for match in NUMBERS.finditer(self.text)]
        self._forms = self._find_forms()
        self._left: tuple[Span, ...] = ()
        self._tokens: dict[str, list[int]] = {}
        self._free = self.text
        self._known: dict[bytes, list[int]] = {}

    def without(self, taken: Iterable[Span]) -> Source:
        """The same, but what stands at `taken` is no longer gone on with."""
        other = copy.copy(self)
        for start, end in taken:
            other._free = other._free[:start] + TAKEN * (end - start) + other._free[end:]
        other._known = {}
        return other

    def leaving(self, spans: Sequence[Span]) -> Source:
        """The same, but what stands at `spans` is not gone on with, and is no number or string that fits where others are."""
        other = self.without(spans)
        other._left = tuple(spans)
        return other

    def find(self, texts: Iterable[str]) -> list[Span]:
        """Where parts of the request stand, one behind the other; those that do not are left out."""
        found: list[Span] = []
        at = self.request[0]
        for text in texts:
            bare = MARKS.sub("", text).strip()
            start = self.text.find(bare, at)
            if bare and start >= 0:
                at = start + len(bare)
                found.append((start, at))
        return found

    def fitting(
        self, matcher: LLMatcher, begun: str = "", *, loosely: bool = False
    ) -> dict[str, Span] | None:
        """What stands in the conversation and completes a string, and where; None where it may be nearly anything.

        A word is one of those that are listed, in any capitals; or has a shape that words do not have, a date or an order's number.
        `loosely`, any word that is allowed in some capitals.

        Args:
            matcher: within the string, of which `begun` is there.
        """
        if self._completes(matcher, ANYTHING):
            return None
        found: list[tuple[str, Span]] = []
        for span, forms in self._forms.items():
            for form in forms:
                rest = form[len(begun) :]
                if form.startswith(begun) and self._completes(matcher, rest):
                    is_shaped = form == forms[0] and _is_shaped(form)
                    if loosely or is_shaped or not self._completes(matcher, _other_word(rest)):
                        found.append((form, span))
                        break  # as it stands there, if that is allowed
        return self._free_ones(found)

    def numbers(self, matcher: LLMatcher, behind: str = "") -> dict[str, Span]:
        """The numbers of the conversation that are allowed where `matcher` is, `behind` a space or nothing, and where they stand."""
        return self._free_ones(
            [
                (number, span)
                for number, span in self._numbers
                if matcher.validate_tokens(tokens := self._vocabulary.tokens.tokenize_str(behind + number))
                == len(tokens)
            ]
        )

    def towards(self, written: str, wanted: Iterable[str]) -> set[int]:
        """Ids of the tokens that go on with one of `wanted`, of which `written` is there."""
        return self._first({text[len(written) :] for text in wanted if text.startswith(written)})

    def continuing(self, written: bytes) -> list[int]:
        """Ids of the tokens that go on with a copy of which `written` is there: a string from a word's beginning on."""
        if written not in self._known:
            self._known[written] = self._continuing(written)
        return self._known[written]

    def _continuing(self, written: bytes) -> list[int]:
        text = _decoded(written)
        if text is None:
            return []
        folded = _folded(text)
        behind = [
            at + len(text)
            for at in self._starts
            if self._folded.startswith(folded, at) and self._free[at] != TAKEN
        ]
        going_on = (at for at in behind if not self._closes(text, at))
        found = self._first({self._free[at : at + AHEAD].split(TAKEN)[0].rstrip() for at in going_on})
        if text and any(ENDS.match(self._free, at) for at in behind):
            found |= set(self._vocabulary.ends_string.tolist())
        return sorted(found)

    def _closes(self, text: str, at: int) -> bool:
        """Whether at `at`, behind a copy of `text`, stands what closes its sentence: it is no part of a single word ("mail it to
        anna@fjord.example."), nor of what a message ends with."""
        closed = CLOSES.match(self._free, at)
        return closed is not None and (closed[1] in ("", "\n") or not any(map(str.isspace, text)))

    def _free_ones(self, found: Sequence[tuple[str, Span]]) -> dict[str, Span]:
        """Those of `found` that stand at no place that is left; all where there are no others."""
        free = [
            (text, span)
            for text, span in found
            if not any(start <= span[0] < end for start, end in self._left)
        ]
        return dict(free or found)

    def _first(self, texts: set[str]) -> set[int]:
        """The first token of each of `texts` that is not empty."""
        some = sorted(texts - {""})
        runs = self._tokenizer(some, add_special_tokens=False).input_ids if some else []
        return {run[0] for run in runs if run}

    def _find_forms(self) -> dict[Span, tuple[str, ...]]:
        pieces = [match.span() for match in re.finditer(r"\S+", self.text)][-CHUNKS:]
        found: dict[Span, tuple[str, ...]] = {}
        for first, (start, _) in enumerate(pieces):
            for _, end in pieces[first : first + LONGEST]:
                text = self.text[start:end].strip(AROUND)
                begins = self.text.find(text, start)
                if text:
                    forms = dict.fromkeys((text, text.lower(), text.title(), text.upper()))
                    found[begins, begins + len(text)] = tuple(forms)
        return found

    def _completes(self, matcher: LLMatcher, text: str) -> bool:
        tokens = self._tokens.get(text)
        if tokens is None:
            quoted = json.dumps(text, ensure_ascii=False)[1:]
            tokens = self._tokens[text] = self._vocabulary.tokens.tokenize_str(quoted)
        return int(matcher.validate_tokens(tokens)) == len(tokens)


class Copies:
    """Which tokens are favoured while the arguments of a call are written, and by how much; `others` as of `sharing.Shares`."""

    def __init__(self, source: Source, vocabulary: Vocabulary, others: Mapping[str, frozenset[int]]) -> None:
        self._source, self._vocabulary, self._others = source, vocabulary, others
        self._string = 0
        self._fitting: dict[str, Span] | None = None
        self._numbers: tuple[str, ...] = ()

    def favoured(self, written: Written, matcher: LLMatcher) -> Favoured:
        """What is favoured next; `matcher` stands where `written` does."""
        if written.text is not None:
            return self._in_string(written.text, written, matcher)
        if written.ends_item:
            left = self._left(written)
            if left is None:
                return []
            return [(self._vocabulary.next_item if left else self._vocabulary.ends_array, FITS)]
        return self._in_number(written, matcher)

    def _in_string(self, begun: bytes, written: Written, matcher: LLMatcher) -> Favoured:
        text = _decoded(begun)
        if text is None:
            return []
        if written.opened != self._string:
            self._string = written.opened
            # An array would have every word that is allowed.
            self._fitting = self._source.fitting(matcher, text, loosely=not written.in_array)
        left = self._left(written)
        if left is not None:
            towards = self._source.towards(text, left)
            if text in left:
                more = any(form.lower() != text.lower() for form in left)
                towards |= set(self._ends(written, more).tolist())
            if towards:
                return [(sorted(towards), FITS)]
        copied: Favoured = [(self._source.continuing(begun), COPY)]
        if not text and written.outermost:
            copied.append((sorted(self._others.get(written.parameter, ())), -COPY))
        return copied

    def _left(self, written: Written) -> list[str] | None:
        """What fits and is not in the array yet; None where nothing fits or nearly everything does."""
        if not self._fitting:
            return None
        if not written.in_array:
            return list(self._fitting)
        return [form for form in self._fitting if form.lower() not in written.items]

    def _ends(self, written: Written, more: bool) -> ndarray:
        """Ids of the tokens that end a string: in an array, so that it goes on while there is `more`."""
        ends = self._vocabulary.ends_string
        if not written.in_array:
            return ends
        bar = self._vocabulary.ends_array if more else self._vocabulary.next_item
        return ends[~isin(ends, bar)]

    def _in_number(self, written: Written, matcher: LLMatcher) -> Favoured:
        number = written.number.decode()
        favoured: Favoured = []
        if not number:
            found = self._source.numbers(matcher)
            self._numbers = tuple(n for n in found if n not in written.numbers) or tuple(found)
            # A sign may have the space before it in one token, so that it comes before any number is allowed.
            coming = found or self._source.numbers(matcher, " ")
            if (
                coming
                and not any(n.startswith("-") for n in coming)
                and not BELOW_ZERO.search(self._source.text)
            ):
                favoured.append((self._vocabulary.minus, -FITS))
        towards = self._source.towards(number, self._numbers)
        ends = self._vocabulary.ends_number if number in self._numbers else ()
        return [*favoured, (sorted(towards), COPY), (ends, COPY)]


def _folded(text: str) -> str:
    """`text` without capitals, letter by letter, so that places are the same in both."""
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def _is_shaped(text: str) -> bool:
    """Whether `text` looks like no word or name."""
    return text.isupper() or not all(letter.isalpha() or letter.isspace() for letter in text)


def _other_word(text: str) -> str:
    """A word of the same shape, allowed where shape is all that counts."""
    return text.translate(NEXT_LETTER)


def _request(text: str) -> Span:
    """Where the user's newest message stands in a conversation; all of it where none begins there."""
    marks = [*MARKS.finditer(text)]
    newest = max((place for place, mark in enumerate(marks) if mark[1] == "User"), default=None)
    if newest is None:
        return 0, len(text)
    ends = marks[newest + 1].start() if newest + 1 < len(marks) else len(text)
    return marks[newest].end(), ends


def _plain(number: str) -> str:
    """A number as JSON has it: no commas, no plus sign."""
    return number.replace(",", "").lstrip("+")


def _decoded(text: bytes) -> str | None:
    """None within a letter."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return None
