"""What a fit leaves so that it can go on after a kill: where it stands, its log so far, and the best weights it had."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from selftrain.files import read_json, replacing, write_json
from selftrain.schema import Optim
from selftrain.training import state
from selftrain.training.engine import Engine
from selftrain.types import Example

STATE, BEST, LOG, PLACE = "state", "best", "log.jsonl", "place.json"
SPEED = ("micro_tokens", "gradient_checkpointing")
"""Of ``optim``: what a fit may go on without."""


@dataclass
class Best:
    """The best loss so far and how long nothing was better."""

    loss: float = float("inf")
    looks: int = 0

    def better(self, loss: float) -> bool:
        self.looks = 0 if loss < self.loss else self.looks + 1
        self.loss = min(loss, self.loss)
        return self.looks == 0


class Unfinished:
    """A fit's folder.

    Args:
        identity: tells that of the fit (`identity`): what another one left is not gone on from. Asked for only where
            something is written or was left: the weights a fit begins with take a while to read.
    """

    def __init__(self, folder: Path, identity: Callable[[], str]) -> None:
        self._folder, self._identity = folder, cache(identity)
        self.best = Best()

    def resume(self, engine: Engine, log: Path) -> int:
        """Go on from where the fit stood, its log put in place; the steps that lie behind, 0 where it begins."""
        place = self._folder / STATE / PLACE
        found = read_json(place) if place.exists() else {}
        if not found or found["identity"] != self._identity():
            log.write_text("")
            return 0
        engine.load_state(self._folder / STATE)
        shutil.copyfile(self._folder / STATE / LOG, log)
        self.best = Best(float(found["best"]["loss"]), int(found["best"]["looks"]))
        return int(found["step"])

    def save(self, engine: Engine, step: int, log: Path) -> None:
        """Write where the fit stands, all or nothing; raises OSError where the disk is full."""
        with replacing(self._folder / STATE) as folder:
            engine.save_state(folder, state.ALL)
            shutil.copyfile(log, folder / LOG)
            write_json(folder / PLACE, {"identity": self._identity(), "step": step, "best": asdict(self.best)})

    def keep_weights(self, engine: Engine) -> None:
        """Those of now are the best."""
        with replacing(self._folder / BEST) as folder:
            engine.save_state(folder, state.WEIGHTS)

    def take_best(self, engine: Engine) -> None:
        """Back to the best weights, where any were kept."""
        if self.best.loss < float("inf"):
            engine.load_state(self._folder / BEST)


def identity(examples: Sequence[Example], optim: Optim, *others: Any) -> str:
    """A digest of what a fit follows from."""
    found = hashlib.sha256()
    chosen = {key: value for key, value in asdict(optim).items() if key not in SPEED}
    found.update(repr((chosen, others)).encode())
    for one in examples:
        told = (one.id, one.pair_id, one.role, one.weight, one.label, one.loss_mask, one.advantages, one.targets)
        found.update(repr(told).encode())
        found.update(np.asarray([len(one.prompt_ids), *one.prompt_ids, *one.response_ids]).tobytes())
    return found.hexdigest()
