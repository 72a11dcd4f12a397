"""A sampler without a model: responses of chosen accuracy, fast enough to test everything that comes after sampling.

A response is a few digits and an answer, such as ``3942 #34``. What it says follows from the sample's seed and the
gold answer alone. The tokenizer is the checkpoint's; a folder without one gets one id per character.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

from selftrain.ranges import Count, Share
from selftrain.sampling.base import ALL, AllWanted, Answers, Completion, Request, Unit
from selftrain.sampling.ending import cut, through
from selftrain.sampling.order import longest_first, order
from selftrain.types import FinishReason

CHUNK, FEW = 2048, 64
"""Responses made together, about; few where verdicts decide which come next."""
WORD = 2**64
WITHOUT_DIGITS = str.maketrans("0123456789", "+-*=+-*=+-")


@dataclass(frozen=True)
class Scripted:
    """Options of the scripted sampler."""

    accuracy: Share = 0.5
    """Probability of a right response."""
    unparsed: Share = 0.0
    """Probability of a response without an answer."""
    length: Count = 8
    """Characters before the answer."""

    name = "scripted"

    def __post_init__(self) -> None:
        if not (self.accuracy >= 0 and self.unparsed >= 0 and self.accuracy + self.unparsed <= 1):
            raise ValueError(f"accuracy {self.accuracy} and unparsed {self.unparsed} must be shares of one whole")
        if not self.length >= 1:
            raise ValueError(f"length must be at least 1, got {self.length}")

    def open(self, checkpoint: Path) -> ScriptedSampler:
        return ScriptedSampler(self, codec(checkpoint))

    @property
    def gpus(self) -> int:
        """It needs none."""
        return 0

    def units(self, work: Sequence[Request], by_index: bool) -> Iterable[Unit]:
        """All samples, each for itself, in the order in which they are begun."""
        return ((place,) for place in order(work, AllWanted(by_index=by_index), FEW, longest_first(work)))

    def write(self, answer: Any, seed: int) -> str:
        """The response to a problem with this gold answer."""
        word = mix(seed)
        fate = word / WORD
        digits = [f"{mix(word + 2 + place):020d}"[1:] for place in range(-(-self.length // 19))]
        filler = "".join(digits)[: self.length]
        if fate < self.accuracy:
            return f"{filler} #{answer}"
        if fate < self.accuracy + self.unparsed:
            return filler.translate(WITHOUT_DIGITS)
        return f"{filler} #{wrong(answer, mix(word + 1) % 9)}"


def wrong(answer: Any, choice: int) -> str:
    """One of nine answers that are not the right one."""
    try:
        return str(int(answer) + 1 + choice)
    except (TypeError, ValueError):
        return f"{choice}0"


def mix(seed: int) -> int:
    """A well-mixed 64-bit word for a seed: splitmix64 (Steele et al. 2014), cheap where seeding a generator is not."""
    word = (seed + 1) * 0x9E3779B97F4A7C15 % WORD
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB % WORD
    return word ^ word >> 31


class ScriptedSampler:
    """Ready to write."""

    def __init__(self, options: Scripted, codec: Codec) -> None:
        self._options = options
        self._codec = codec

    def close(self) -> None:
        """Nothing is held."""

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        chunk: list[Completion] = []
        size = FEW if answers.by_index else CHUNK
        for place, rows in groupby(order(work, answers, block=FEW), key=itemgetter(0)):
            chunk.extend(self._answer(place, work[place], [index for _, index in rows]))
            if len(chunk) >= size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _answer(self, place: int, request: Request, indices: Sequence[int]) -> Iterator[Completion]:
        room, stop = request.settings.max_tokens, request.settings.stop
        texts = [self._options.write(request.problem.answer, request.seeds[index]) for index in indices]
        reasons: list[FinishReason] = ["eos"] * len(texts)
        if stop:
            ending = through if request.keep_stop else cut
            uncut, texts = texts, [ending(text, stop) for text in texts]
            reasons = ["eos" if cut(whole, stop) == whole else "stop" for whole in uncut]
        encoded = self._codec.encode(texts)
        for index, text, ids, reason in zip(indices, texts, encoded, reasons, strict=True):
            if reason == "eos":
                ids = (*ids, self._codec.end)
            if len(ids) > room:
                ids, reason = ids[:room], "length"
                text = self._codec.decode(ids)
            yield Completion(place, index, ids, text, reason)


class Codec(Protocol):
    """Text to ids and back."""

    end: int

    def encode(self, texts: list[str]) -> list[tuple[int, ...]]: ...

    def decode(self, ids: tuple[int, ...]) -> str: ...


class Characters:
    """One id per character; the end token is NUL."""

    end = 0

    def encode(self, texts: list[str]) -> list[tuple[int, ...]]:
        return [tuple(map(ord, text)) for text in texts]

    def decode(self, ids: tuple[int, ...]) -> str:
        return "".join(map(chr, ids)).rstrip("\0")


class Tokens:
    """The checkpoint's own tokenizer."""

    def __init__(self, checkpoint: Path) -> None:
        from selftrain.models.checkpoint import load_tokenizer

        self._tokenizer: Any = load_tokenizer(checkpoint)
        self.end = int(self._tokenizer.eos_token_id)

    def encode(self, texts: list[str]) -> list[tuple[int, ...]]:
        return [tuple(ids) for ids in self._tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def decode(self, ids: tuple[int, ...]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def codec(checkpoint: Path) -> Codec:
    """The tokenizer of a checkpoint folder, or one id per character where it has none."""
    has_tokenizer = any((checkpoint / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json"))
    return Tokens(checkpoint) if has_tokenizer else Characters()
