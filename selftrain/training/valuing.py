"""Values of given responses under a value model, step by step.

Responses are laid out by the model's own format: token by token as they were sampled for a value model trained here,
written out anew for a published one (`selftrain.models.published`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from selftrain.models import checkpoint
from selftrain.models.head_form import has_value_head, read_form
from selftrain.models.heads import ValueModel, load_value_model, saved_head
from selftrain.models.published import Laid, Words, load_published, read_published
from selftrain.training.data import cut
from selftrain.training.scoring import BATCH_TOKENS, Scores
from selftrain.types import Example


class StepPath(NamedTuple):
    """A problem and the steps taken so far."""

    prompt_ids: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    """What each adds to the response."""
    question: str = ""
    """The problem in words, for published models, which write a prompt of their own."""


Layout = Callable[[StepPath], Laid]


class Valuer:
    """One value model in this process, ready to be asked; a context manager that frees its memory.

    Args:
        checkpoint_path: folder of a value model, trained here or published.
        writer: tokenizer of who wrote the responses; published models are shown their text.
        dtype: of the backbone: float32, bfloat16 or auto (bfloat16 on a GPU). Values are fp32.

    Raises:
        OSError, ValueError, RuntimeError: it does not load, or is no value model.
    """

    def __init__(
        self, checkpoint_path: Path | str, *, writer: Any = None, dtype: str = "auto", device: str = "auto"
    ) -> None:
        self.model: Any
        self.model, self.layout = opened(checkpoint_path, writer, dtype, device)
        self.limit = checkpoint.positions(self.model.config)
        """Tokens the model can read."""

    def __enter__(self) -> Valuer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reload(self, checkpoint_path: Path | str) -> bool:
        """Go on with the weights of another checkpoint of the same model; whether it could be done."""
        return reload_value_model(self.model, checkpoint_path)

    def close(self) -> None:
        self.model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def values(
        self, examples: Sequence[Example], ends: Sequence[Sequence[int]], questions: Sequence[str] | None = None
    ) -> list[Scores]:
        """The value after every step of each response, ``[steps]`` each.

        Args:
            ends: exclusive ends of the steps, as indices into the response ids.
            questions: the problems in words, for published models.

        Raises:
            ValueError: a value is not a number.
        """
        told = [""] * len(examples) if questions is None else questions
        rows = zip(examples, ends, told, strict=True)
        return self.along([StepPath(one.prompt_ids, _steps(one, own), question) for one, own, question in rows])

    def along(self, paths: Sequence[StepPath]) -> list[Scores]:
        """The value after every step of each path, in [0, 1]; NaN where the step ends beyond what the model can read.

        Raises:
            ValueError: a value is not a number.
        """
        found = self.laid(laid := [self.layout(path) for path in paths])
        read = (values[: len(_within(one, self.limit).places)] for one, values in zip(laid, found, strict=True))
        if not all(np.isfinite(values).all() for values in read):
            raise ValueError(
                "the value model gives a step a value that is not a number; compute in float32, or look for weights "
                "that are none"
            )
        return found

    def laid(self, laid: Sequence[Laid]) -> list[Scores]:
        """As `along`, of paths that are laid out; what is no number stays so."""
        found = [np.full(len(one.places), np.nan, np.float32) for one in laid]
        read = [_within(one, self.limit) for one in laid]
        asked = [place for place, one in enumerate(read) if one.places]
        rows = [Example(str(place), "", "", read[place].ids, ()) for place in asked]
        for group in cut(rows, batching="bucketed", max_tokens=BATCH_TOKENS):
            own = [asked[i] for i in group]
            for place, values in zip(own, self._read([read[i] for i in own]), strict=True):
                found[place][: len(values)] = values
        return found

    def _read(self, rows: Sequence[Laid]) -> list[Scores]:
        width = max(len(row.ids) for row in rows)
        ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows], device=self.model.device)
        flat = [at * width + place for at, row in enumerate(rows) for place in row.places]
        with torch.inference_mode():
            raw = self.model.raw(ids, None, torch.tensor(flat, device=ids.device))
            values = self.model.normalised(raw).cpu()
        return [own.numpy() for own in values.split([len(row.places) for row in rows])]


def opened(path: Path | str, writer: Any, dtype: str, device: str) -> tuple[ValueModel, Layout]:
    """A value model, ready to compute, and how it reads a path.

    Raises:
        OSError, ValueError, RuntimeError: as `Valuer`.
    """
    published = read_published(path)
    if published is None:
        return load_value_model(path, dtype=dtype, device=device).eval(), verbatim
    if writer is None:
        raise ValueError(f"{path} is a published value model, which reads text: it needs the tokenizer of the writer")
    words = Words(published, checkpoint.load_tokenizer(path))

    def written(path: StepPath) -> Laid:
        return words(path.question, [writer.decode(step, skip_special_tokens=True).strip() for step in path.steps])

    return load_published(path, published, dtype=dtype, device=device).eval(), written


def verbatim(path: StepPath) -> Laid:
    """Tokens as they are; the value after a step is read at its last one.

    Raises:
        ValueError: the prompt is empty.
    """
    before = len(path.prompt_ids)
    if not before:
        raise ValueError("a prompt without a token has no value; give it one")
    ends = accumulate((len(step) for step in path.steps), initial=before)
    ids = (*path.prompt_ids, *(token for step in path.steps for token in step))
    return Laid(ids, before, tuple(end - 1 for end in ends)[1:])


def reload_value_model(model: ValueModel, path: Path | str) -> bool:
    """Put the weights of a checkpoint into a value model of the same form; whether it could be done."""
    if not has_value_head(path) or read_form(path) != model.form:
        return False
    head = saved_head(Path(path), model.form, next(model.head.parameters()).shape[1])
    if not checkpoint.reload_weights(model.backbone, path):
        return False
    model.head.load_state_dict(head.state_dict())
    return True


def _steps(example: Example, ends: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    return tuple(example.response_ids[begin:end] for begin, end in pairwise((0, *ends)))


def _within(laid: Laid, limit: int | None) -> Laid:
    """What of it a model can read."""
    if limit is None or len(laid.ids) <= limit:
        return laid
    return Laid(laid.ids[:limit], laid.prompt, tuple(place for place in laid.places if place < limit))
