"""Values of paths that grow, as a search asks for them: each token is read once.

What the model has read is kept as a tree of steps, each with the keys and values of its own tokens. A new step is read
behind those of the steps before it, gathered into one batch with other paths', whatever their lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from selftrain.models.published import Laid
from selftrain.training.keys import Row, check_growing, read_rows
from selftrain.training.scoring import BATCH_TOKENS
from selftrain.training.valuing import StepPath, Valuer, reload_value_model, verbatim

GATHERED = 8
"""Positions of a forward pass, with those that are only looked back at, per token of `BATCH_TOKENS`."""
UNKNOWN = 0.5
"""Of a path without a step, where the model is read at steps alone."""


class Read:
    """A step as it was read: what stands behind one path, and before others."""

    __slots__ = ("before", "below", "block", "ids", "parent", "seen", "used", "value")

    def __init__(self, parent: Read | None, ids: tuple[int, ...]) -> None:
        self.parent, self.ids = parent, ids
        self.before: int = 0 if parent is None else parent.before + len(parent.ids)
        self.below: dict[tuple[int, ...], Read] = {}
        self.value: float | None = None
        self.block: Tensor | None = None
        """Keys and values ``[2 * layers, heads, tokens, dim]``; there only where those of all before it are."""
        self.seen = False
        self.used = 0

    def chain(self) -> list[Read]:
        """From the first step, the prompt, to this one."""
        found: list[Read] = []
        node = self
        while node.parent is not None:
            found.append(node)
            node = node.parent
        return found[::-1]


class PathValues:
    """A value model that reads only what is new of a path.

    Args:
        checkpoint_path: folder of a value model, trained here or published.
        writer: tokenizer of who writes the paths; published models are shown their text.
        max_cached_tokens: whose keys and values are kept; those least recently asked for go first, and are read again
            where they are needed. A longer path is read all the same, and then forgotten.
        dtype: of the backbone: float32, bfloat16 or auto (bfloat16 on a GPU). Values are fp32.

    Attributes:
        tokens_read: by the model, padding not counted.
        tokens_read_again: of those, the ones it had read before and had no room to keep.
        whole: why paths are read from their beginning each time; None where they are not.

    Raises:
        OSError, ValueError, RuntimeError: it does not load, or is no value model.
    """

    def __init__(
        self,
        checkpoint_path: Path | str,
        *,
        writer: Any = None,
        max_cached_tokens: int = 2**17,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self._valuer = Valuer(checkpoint_path, writer=writer, dtype=dtype, device=device)
        self.whole: str | None = check_growing(self._valuer.model.backbone)
        self.tokens_read = self.tokens_read_again = 0
        self._room, self._held, self._clock = max_cached_tokens, 0, 0
        self._tops: dict[tuple[int, ...], Read] = {}
        self._kept: dict[Read, None] = {}

    def __enter__(self) -> PathValues:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._forget_all()
        self._valuer.close()

    def reload(self, checkpoint_path: Path | str) -> bool:
        """Go on with the weights of another checkpoint of the same model; whether it could be done."""
        done = reload_value_model(self._valuer.model, checkpoint_path)
        if done:
            self._forget_all()
        return done

    @property
    def cached_tokens(self) -> int:
        """Whose keys and values are kept now."""
        return self._held

    def values(self, paths: Sequence[StepPath]) -> list[float]:
        """The value at the end of each path, in [0, 1]; NaN for one that is longer than the model can read, or where
        the model gives none."""
        ends = [self._place(StepPath(*path)) for path in paths]
        for group in self._groups([end for end in ends if end is not None]):
            self._clock += 1
            for node in (node for end in group for node in end.chain()):
                node.used = self._clock
            missing = [end for end in dict.fromkeys(group) if end.value is None]
            self._read_whole(missing) if self.whole else self._read_new(missing)
        self._evict(0)
        return [math.nan if end is None or end.value is None else end.value for end in ends]

    def forget(self, prompt_ids: tuple[int, ...]) -> None:
        """Free what is kept of all paths behind a prompt."""
        pending = [top] if (top := self._tops.pop(tuple(prompt_ids), None)) is not None else []
        while pending:
            node = pending.pop()
            pending += node.below.values()
            self._drop(node)

    def _forget_all(self) -> None:
        for prompt in list(self._tops):
            self.forget(prompt)

    def _place(self, path: StepPath) -> Read | None:
        """Where a path ends in the tree of its prompt; None where it is too long."""
        laid = self._valuer.layout(path)
        if self._valuer.limit is not None and len(laid.ids) > self._valuer.limit:
            return None
        node = self._tops.setdefault(tuple(path.prompt_ids), Read(None, ()))
        begin = 0
        for end in (laid.prompt, *(place + 1 for place in laid.places)):
            if ids := laid.ids[begin:end]:
                if ids not in node.below:
                    node.below[ids] = Read(node, ids)
                node, begin = node.below[ids], end
        if not path.steps and self._valuer.layout is not verbatim:
            node.value = UNKNOWN
        return node

    def _groups(self, ends: Sequence[Read]) -> Iterator[list[Read]]:
        """Paths that there is room for at the same time."""
        group: list[Read] = []
        held: dict[Read, None] = {}
        for end in ends:
            both = held | dict.fromkeys(end.chain())
            if group and sum(len(node.ids) for node in both) > self._room:
                yield group
                group, both = [], dict.fromkeys(end.chain())
            group.append(end)
            held = both
        if group:
            yield group

    def _read_whole(self, ends: Sequence[Read]) -> None:
        ids = [tuple(token for node in end.chain() for token in node.ids) for end in ends]
        found = self._valuer.laid([Laid(own, len(own), (len(own) - 1,)) for own in ids])
        for end, own, values in zip(ends, ids, found, strict=True):
            end.value = float(values[0])
            self.tokens_read += len(own)

    def _read_new(self, ends: Sequence[Read]) -> None:
        below: dict[Read, dict[Read, None]] = {}
        ready: dict[Read, None] = {}
        for end in ends:
            node = end
            while node.block is None and node.parent is not None:
                below.setdefault(node.parent, {})[node] = None
                if node.parent.parent is None or node.parent.block is not None:
                    ready[node] = None
                node = node.parent
        waiting = list(ready)
        while waiting:
            rows = [Row(node.chain()[:-1], _run(node, below)) for node in waiting]
            for batch in _batches(rows):
                self._read_batch(batch)
            waiting = [node for row in rows for node in below.get(row.new[-1], ())]

    def _read_batch(self, rows: Sequence[Row]) -> None:
        values = read_rows(self._valuer.model, rows)
        for row, own in zip(rows, values, strict=True):
            for node, value in zip(row.new, own, strict=True):
                node.value = value if node.value is None else node.value
                self.tokens_read += len(node.ids)
                self.tokens_read_again += len(node.ids) if node.seen else 0
                self._held += len(node.ids)
                node.seen, self._kept[node] = True, None
        self._evict(self._clock)

    def _evict(self, in_use: int) -> None:
        """Make room; of what was asked for at the same time the last steps go first: none stands without those before.

        Args:
            in_use: when what must stay was asked for.
        """
        if self._held <= self._room:
            return
        for node in sorted(self._kept, key=lambda node: (node.used, -node.before)):
            if self._held <= self._room or node.used == in_use:
                return
            self._drop(node)

    def _drop(self, node: Read) -> None:
        if node.block is not None:
            self._held -= len(node.ids)
            node.block = None
            del self._kept[node]


def _run(node: Read, below: dict[Read, dict[Read, None]]) -> list[Read]:
    """Steps that follow one another alone, read as one."""
    found = [node]
    while len(after := below.get(found[-1], {})) == 1:
        found += after
    return found


def _batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of one forward pass each, those that read like numbers of tokens side by side."""
    batch: list[Row] = []
    back = 0
    for row in sorted(rows, key=lambda row: (row.tokens, row.back)):
        back = max(back, row.back)
        count = len(batch) + 1
        if batch and max(count * row.tokens, count * (back + row.tokens) // GATHERED) > BATCH_TOKENS:
            yield batch
            batch, back = [], row.back
        batch.append(row)
    if batch:
        yield batch
