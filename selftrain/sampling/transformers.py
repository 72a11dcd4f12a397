"""Sampling with a Hugging Face model in this process: the default where no engine is installed.

Prompts are sorted by length and cut into batches over the whole work list; each prompt is read once whatever the
number of its samples; rows that have ended leave the batch. Every row draws from its own counter-based stream of
uniforms by the inverse of the distribution function, so a response depends on its seed and not on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from selftrain.ranges import Count
from selftrain.sampling.base import ALL, Answers, Completion, Request, Unit
from selftrain.sampling.ending import completion, stops
from selftrain.sampling.order import longest_first
from selftrain.schema import Sampling
from selftrain.types import FinishReason

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Transformers:
    """Options of the embedded sampler."""

    batch_size: Count = 512
    """Responses that grow together."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on a GPU, float32 elsewhere."""
    device: str = "auto"
    logprobs: bool = False
    """Record the log-probability of every sampled token under the distribution it was drawn from."""

    name = "transformers"
    speed = ("batch_size", "device")

    def check(self) -> None:
        """Raises ValueError where this machine has no such device."""
        if self.device != "auto":
            from selftrain.models.checkpoint import pick_device

            pick_device(self.device)

    def open(self, checkpoint: Path) -> TransformersSampler:
        return TransformersSampler(self, checkpoint)

    @property
    def gpus(self) -> int:
        """Those that one model takes, where it may choose."""
        return int(self.device == "auto")

    def units(self, work: Sequence[Request], by_index: bool) -> Iterable[Unit]:
        """Batches of the whole list, in the order in which they are begun."""
        from selftrain.sampling.batching import batches

        turn = {request: number for number, request in enumerate(longest_first(work))}
        cut = [tuple(places) for places in batches(work, self.batch_size)]
        return sorted(cut, key=lambda places: min(turn[request] for request, _ in places))


@dataclass
class Row:
    """A response while it grows."""

    request: int
    index: int
    room: int
    """Tokens it may have at most."""
    finish_reason: FinishReason
    """What ended it, or will if nothing else does."""
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False


class TransformersSampler:
    """One checkpoint, ready to sample."""

    def __init__(self, options: Transformers, checkpoint: Path) -> None:
        from selftrain.models.checkpoint import end_tokens, load_model, load_tokenizer

        self._options = options
        self._tokenizer: Any = load_tokenizer(checkpoint)
        self._model: Any = load_model(checkpoint, dtype=options.dtype, device=options.device).eval()
        self._ends = end_tokens(self._model, self._tokenizer)
        self._context = int(getattr(self._model.config, "max_position_embeddings", 1 << 30))

    def close(self) -> None:
        del self._model

    def reload(self, checkpoint: Path) -> bool:
        """Go on with the weights of another checkpoint of the same model; whether it could be done."""
        from selftrain.models.checkpoint import reload_weights

        return reload_weights(self._model, checkpoint)

    def sample(self, work: Sequence[Request], answers: Answers = ALL) -> Iterator[list[Completion]]:
        import torch

        from selftrain.sampling.batching import batches

        for places in batches(work, self._options.batch_size):
            # A batch is drawn whole or not at all: its make-up decides the last bits of its distributions.
            if not any(answers.wanted(*place) for place in places):
                continue
            with torch.inference_mode():
                rows = self._grow(work, places, work[places[0][0]].settings)
            yield self._completions(work, rows)

    def _grow(self, work: Sequence[Request], places: list[tuple[int, int]], settings: Sampling) -> list[Row]:
        import torch

        from selftrain.sampling.batching import streams
        from selftrain.sampling.draw import draw

        rows = [self._row(work[request], request, index) for request, index in places]
        seeds = [work[row.request].seeds[row.index] for row in rows]
        longest = max(row.room for row in rows)
        uniforms = torch.from_numpy(streams(seeds, max(longest, 1))).to(self._model.device)
        batch = Batch(self._model, self._tokenizer.pad_token_id or 0, self._context)
        logits = batch.read([work[row.request].prompt_ids for row in rows])
        alive = rows
        for step in range(longest):
            tokens, scores = draw(logits, uniforms[:, step], settings)
            # Together: a GPU is waited for once a step.
            drawn = torch.stack([tokens.double(), scores.double()]).tolist()
            for row, token, score in zip(alive, map(int, drawn[0]), drawn[1], strict=True):
                if not row.ended:
                    self._extend(row, token, score, settings)
            living = [place for place, row in enumerate(alive) if not row.ended]
            if not living:
                break
            # Leaving copies the cache, so ended rows stay until half of the batch has ended.
            if len(living) <= 0.5 * len(alive):
                index = torch.tensor(living, device=logits.device)
                alive, tokens, uniforms = [alive[place] for place in living], tokens[index], uniforms[index]
                batch.keep(index)
            logits = batch.step(tokens)
        return rows

    def _row(self, request: Request, place: int, index: int) -> Row:
        space = self._context - len(request.prompt_ids)
        longest = request.settings.max_tokens
        room = max(0, min(longest, space))
        return Row(place, index, room, "length" if longest <= space else "context", ended=not room)

    def _extend(self, row: Row, token: int, score: float, settings: Sampling) -> None:
        row.ids.append(token)
        row.logprobs.append(score)
        if token in self._ends:
            row.finish_reason = "eos"
        elif token in settings.stop_ids or (settings.stop and stops(self._tokenizer, row.ids, settings.stop)):
            row.finish_reason = "stop"
        row.ended = row.finish_reason in ("eos", "stop") or len(row.ids) == row.room

    def _completions(self, work: Sequence[Request], rows: list[Row]) -> list[Completion]:
        texts = self._tokenizer.batch_decode([row.ids for row in rows], skip_special_tokens=True)
        return [
            completion(
                self._tokenizer,
                (row.request, row.index),
                row.ids,
                row.finish_reason,
                work[row.request].settings,
                row.logprobs if self._options.logprobs else None,
                text,
                work[row.request].keep_stop,
            )
            for row, text in zip(rows, texts, strict=True)
        ]


class Batch:
    """Model state of rows that grow together: cache, left padding, positions."""

    def __init__(self, model: Any, pad: int, context: int) -> None:
        from selftrain.sampling.cache import growing_cache

        self._model = model
        self._pad = pad
        self._last = context - 1
        self._cache: Any = growing_cache(model.config)

    def read(self, prompts: Sequence[tuple[int, ...]]) -> Tensor:
        """Read each distinct prompt once and spread it over its rows; logits after it, ``[R, V]``."""
        import torch

        distinct = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
        width, device = max(map(len, distinct)), self._model.device
        ids = torch.tensor([[self._pad] * (width - len(p)) + list(p) for p in distinct], device=device)
        self._padding = torch.tensor([width - len(p) for p in distinct], device=device)
        self._padded = any(len(p) < width for p in distinct)
        self._length = 0
        logits = self._forward(ids)
        index = torch.tensor([distinct[prompt] for prompt in prompts], device=device)
        if len(prompts) != len(distinct):
            self.keep(index)
            logits = logits[index]
        return logits

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token ``[R]`` to each row; logits after it, ``[R, V]``."""
        return self._forward(tokens[:, None])

    def keep(self, index: Tensor) -> None:
        """Keep the rows of ``index``, in its order."""
        self._cache.reorder_cache(index)
        self._padding = self._padding[index]
        self._padded = bool(self._padding.any())

    def _forward(self, ids: Tensor) -> Tensor:
        import torch

        start, self._length = self._length, self._length + ids.shape[1]
        places = torch.arange(self._length, device=ids.device)[None]
        # Rows of one length need no mask, and attention without a mask is faster.
        mask = (places >= self._padding[:, None]).long() if self._padded else None
        # Rows that have ended may be fed on beyond the context, where learnt positions have no vector.
        positions = (places[:, start:] - self._padding[:, None]).clamp(min=0, max=self._last)
        out = self._model(
            ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = out.logits[:, -1]
        return logits
