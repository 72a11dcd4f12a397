"""The config of `selftrain train`: one learner, fitted once to rows that are given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from selftrain.compose import read_tree
from selftrain.config import ConfigError, check_fit
from selftrain.schema import (
    Kernels,
    Launch,
    Learner,
    LearnerModel,
    Loop,
    Lora,
    Model,
    Optim,
    Reward,
    Run,
    RunConfig,
    Track,
    Trainer,
)

POLICY = "policy"
FROM_RUN = re.compile(r"iteration_(\d+)/examples/([^/]+)$")
"""Where a run keeps what a learner was fitted to."""


@dataclass(frozen=True)
class TrainRun:
    name: str = "train"
    folder: str = "runs"
    """Where runs lie; this one is ``folder/name``."""
    seed: int = 0


@dataclass(frozen=True)
class Data:
    """What is learnt: rows of a file, or the examples of a run."""

    path: str = MISSING
    """JSON Lines, a JSON list or Parquet; or a folder of examples, ``runs/NAME/iteration_0001/examples/policy``."""
    validation: str | None = None
    """Rows that are not learnt: the loss on them stops the fit as ``learner.optim.validation`` says."""
    fields: dict[str, str] = field(default_factory=dict)
    """Role (messages, prompt, response, label, chosen, rejected, steps, labels) to the name of the field that plays
    it."""


@dataclass(frozen=True)
class TrainLearner:
    """A learner as in a run, but for what only a loop gives it."""

    objective: Any = "nll"
    reference: str = "base"
    """``base``: the model as it is before the fit; or a folder or hub name. For objectives that read one."""
    optim: Optim = field(default_factory=Optim)
    lora: Lora | None = None
    model: LearnerModel = field(default_factory=LearnerModel)


@dataclass(frozen=True)
class TrainLaunch:
    kernels: Kernels = field(default_factory=Kernels)
    train: Trainer = field(default_factory=Trainer)


@dataclass(frozen=True)
class TrainConfig:
    """Everything a fit depends on."""

    run: TrainRun = field(default_factory=TrainRun)
    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    learner: TrainLearner = field(default_factory=TrainLearner)
    launch: TrainLaunch = field(default_factory=TrainLaunch)
    track: Track = field(default_factory=Track)


def load_train(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read, compose and check a config file.

    Raises:
        ConfigError: naming the key, what is wrong with it, and the nearest right name.
    """
    return check_train(read_tree(Path(path), overrides))


def check_train(tree: Mapping[str, Any]) -> TrainConfig:
    """Both passes over a plain tree."""
    data = tree.get("data") or {}
    if isinstance(data, Mapping) and data.get("path") is None:
        raise ConfigError("data.path: must be set: a file of rows, or a folder of examples that a run wrote")
    config: TrainConfig = check_fit(TrainConfig, tree)
    return config


def is_fit(tree: Mapping[str, Any]) -> bool:
    """Whether a plain tree is of this kind, not that of a run."""
    return "data" in tree or "learner" in tree


def fitted_as(config: TrainConfig) -> tuple[int, str]:
    """Iteration and learner whose seed the fit has: those of the run that wrote the examples, so that a fit which is
    repeated is the same one; else the first of the policy."""
    found = FROM_RUN.search(Path(config.data.path).as_posix())
    return (int(found[1]), found[2]) if found else (1, POLICY)


def as_run(config: TrainConfig) -> RunConfig:
    """The run without a loop that the fit is: its model, and one learner called ``policy``."""
    own, chosen = config.run, config.learner
    learner = Learner(**{f.name: getattr(chosen, f.name) for f in fields(TrainLearner)})
    return RunConfig(
        run=Run(own.name, own.folder, own.seed, reuse=False),
        model=config.model,
        # The reference is read in the type the learner computes in.
        reward=Reward(sources={}, dtype=learner.optim.dtype),
        learners={POLICY: learner},
        loop=Loop(0),
        launch=Launch(kernels=config.launch.kernels, train=config.launch.train),
        track=config.track,
    )
