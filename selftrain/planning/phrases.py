"""Which of many texts stand within others: looked up by two words from their midst, never tried one by one."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Generic, TypeVar

from selftrain.planning.problems import question_key

T = TypeVar("T")

WORDS = 4
"""Words a text needs at least to be looked up: what surrounds it may touch the first and the last, never those
between."""
TELLING = 3
"""Of them, words of letters that a question needs to be looked for within sentences: sums stand in many texts."""
PIECES = re.compile(r"\n|<[^<>\n]*>|\[/?[A-Z]+\]")
"""What parts a text into lines: their ends, and marks of chat templates such as <|im_end|> and [INST]."""
LABEL = re.compile(r"\s*\w[\w ]{0,19}[:：]")
"""In front of a line, such as ``Question:``."""


class Phrases(Generic[T]):
    """Finds texts of at least four words, each with a value.

    Args:
        entries: texts as ``question_key`` gives them.
    """

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._by_pair: defaultdict[tuple[str, str], list[tuple[str, T]]] = defaultdict(list)
        midst = [(text, value, list(pairwise(text.split()[1:-1]))) for text, value in entries]
        # Questions of one template share most of their words: the rarest pair tells them apart.
        counts = Counter(pair for _, _, pairs in midst for pair in pairs)
        for text, value, pairs in midst:
            self._by_pair[min(pairs, key=counts.__getitem__)].append((text, value))

    def within(self, key: str) -> Iterator[tuple[str, T]]:
        """Texts that stand in another, wherever they begin and end there."""
        for pair in set(pairwise(key.split())) & self._by_pair.keys():
            yield from ((text, value) for text, value in self._by_pair[pair] if text in key)


class HeldOut:
    """Questions that nothing may be learnt from, to be found in texts.

    A question of a few words, as sums are, counts where it is the whole of a line, with or without a label before it; a
    longer one wherever it begins and ends with a word.
    """

    def __init__(self, questions: Iterable[str]) -> None:
        self.keys = frozenset(map(question_key, questions))
        self._long = Phrases((key, key) for key in self.keys if _telling(key))

    def find(self, text: str) -> str | None:
        """A question the text holds; None where it holds none."""
        key = question_key(text)
        if key in self.keys:
            return key
        found = next((question for question, _ in self._long.within(key) if _by_words(question, key)), None)
        return found or next((line for line in _lines(text) if line in self.keys), None)


def _telling(key: str) -> bool:
    words = key.split()
    return len(words) >= WORDS and sum(re.search(r"[^\W\d_]{2}", word) is not None for word in words) >= TELLING


def _by_words(question: str, key: str) -> bool:
    """Whether a question stands in a text and cuts no word or number there."""
    before = r"(?<!\w)(?<!\d[.,])" if question[0].isalnum() else ""
    after = r"(?!\w|[.,]\d)" if question[-1].isalnum() else ""
    return re.search(f"{before}{re.escape(question)}{after}", key) is not None


def _lines(text: str) -> Iterator[str]:
    for piece in PIECES.split(text):
        yield question_key(piece)
        if label := LABEL.match(piece):
            yield question_key(piece[label.end() :])
