"""Everything that can be known to be wrong before a run writes its first file, and the plan of what it will do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.judging import VerifierError, resolve_now
from selftrain.prompts import check_prompt, check_tokenizer, make_prompter
from selftrain.registry import nearest
from selftrain.schema import (
    Evaluate,
    Grow,
    Launch,
    Loop,
    Optim,
    Run,
    RunConfig,
    Sampling,
    Selection,
    Stop,
    Validation,
    Verify,
)
from selftrain.stages.evaluate import evaluated_splits, sampling_of
from selftrain.stages.fingerprints import REPLAY
from selftrain.stages.improve import demonstrated, replay_rows
from selftrain.stages.plan import POLICY
from selftrain.stages.session import Session, verifier_spec
from selftrain.stages.start import described_tokenizer

AT_LEAST: dict[type, dict[str, float]] = {
    Run: {"part_size": 1},
    Grow: {"n": 1, "max_tokens": 1, "temperature": 0, "top_k": 0},
    Sampling: {"max_tokens": 1, "temperature": 0, "top_k": 0},
    Optim: {"batch_size": 1, "micro_tokens": 1, "steps": 1, "weight_decay": 0, "clip": 0},
    Validation: {"every": 1, "patience": 1},
    Selection: {"cap": 1},
    Evaluate: {"n": 0},
    Stop: {"patience": 1},
    Loop: {"iterations": 0},
    Launch: {"verify_workers": 1},
    Verify: {"memory_mb": 1},
}
MORE_THAN_0: dict[type, tuple[str, ...]] = {Optim: ("lr", "eps", "epochs"), Verify: ("seconds",)}
SHARES: dict[type, tuple[str, ...]] = {
    Grow: ("top_p",),
    Sampling: ("top_p",),
    Optim: ("warmup", "min_lr"),
    Validation: ("fraction",),
    Verify: ("max_errors",),
}
"""Numbers from 0 to 1."""


def check(session: Session) -> None:
    """Raises ConfigError, cheap checks first; loads a tokenizer and a model config, never weights."""
    config = session.config
    check_numbers(config)
    check_names(config)
    for name, task in config.tasks.items():
        try:
            resolve_now(verifier_spec(task.verifier, config.reward.verify))
        except VerifierError as error:
            raise ConfigError(f"tasks.{name}.verifier: {error}") from error
    check_data(session)
    check_model(session)


def check_numbers(config: RunConfig) -> None:
    """Numbers outside the range in which they mean something."""
    for place, owner, name, value in _numbers(config):
        least = AT_LEAST.get(owner, {}).get(name)
        if least is not None and value < least:
            raise ConfigError(f"{place}: must be at least {least:g}, got {value:g}")
        if name in MORE_THAN_0.get(owner, ()) and value <= 0:
            raise ConfigError(f"{place}: must be more than 0, got {value:g}")
        if name in SHARES.get(owner, ()) and not 0 <= value <= 1:
            raise ConfigError(f"{place}: is a share, from 0 to 1, got {value:g}")


def _numbers(config: Any, place: str = "") -> Iterator[tuple[str, type, str, float]]:
    """Every number of a config with its dotted place, the class it belongs to and its name there."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            yield from _numbers(value, f"{place}.{key}")
    elif dataclasses.is_dataclass(config) and not isinstance(config, type):
        for field in dataclasses.fields(config):
            value, below = getattr(config, field.name), f"{place}.{field.name}".lstrip(".")
            if isinstance(value, (int, float)):
                yield below, type(config), field.name, value
            else:
                yield from _numbers(value, below)


def check_names(config: RunConfig) -> None:
    """References from one section to another."""
    for section in ("tasks", "grow"):
        if not getattr(config, section):
            raise ConfigError(f"{section}: the config names none; see configs/quickstart.yaml")
    if POLICY not in config.learners and config.loop.iterations:
        raise ConfigError(f"learners: none is called '{POLICY}' ({nearest(POLICY, config.learners)})")
    for name in config.warmup:
        if name not in config.learners:
            raise ConfigError(f"warmup.{name}: no such learner ({nearest(name, config.learners)})")
    for name, learner in config.learners.items():
        _check_learner(config, name, learner)
    for k in config.evaluate.k:
        if not 1 <= k <= config.evaluate.n:
            raise ConfigError(
                f"evaluate.k: pass@{k} needs at least {k} samples per problem, evaluate.n is {config.evaluate.n}"
            )
    if not config.evaluate.n and not config.evaluate.greedy:
        raise ConfigError("evaluate: nothing is evaluated; set evaluate.n or evaluate.greedy")
    _check_stop(config)


def _check_learner(config: RunConfig, name: str, learner: Any) -> None:
    if learner.init not in ("base", "previous"):
        raise ConfigError(f"learners.{name}.init: '{learner.init}' ({nearest(learner.init, ('base', 'previous'))})")
    if not learner.examples:
        raise ConfigError(f"learners.{name}.examples: names no selection, so there is nothing to learn")
    for key, selection in learner.examples.items():
        where = f"learners.{name}.examples.{key}.from"
        if selection.source.startswith(REPLAY):
            if not list(replay_rows(Path(selection.source.removeprefix(REPLAY)), where)):
                raise ConfigError(f"{where}: the file is empty")
        elif selection.source != "gold" and selection.source not in config.grow:
            raise ConfigError(
                f"{where}: no step of grow is called '{selection.source}' "
                f"({nearest(selection.source, [*config.grow, 'gold'])})"
            )


def _check_stop(config: RunConfig) -> None:
    rule = config.loop.stop
    if rule is None:
        return
    known = [
        f"avg@{config.evaluate.n}",
        *(f"{m}@{k}" for m in ("pass", "maj") for k in (config.evaluate.n, *config.evaluate.k)),
    ]
    known = known if config.evaluate.n else []
    known += ["pass@1"] if config.evaluate.greedy else []
    if rule.metric not in known:
        raise ConfigError(f"loop.stop.metric: '{rule.metric}' is not evaluated ({nearest(rule.metric, known)})")
    if rule.split == "test":
        raise ConfigError("loop.stop.split: test is only reported, it never decides; use val")
    if rule.split not in config.evaluate.splits:
        raise ConfigError(
            f"loop.stop.split: '{rule.split}' is not among evaluate.splits ({', '.join(config.evaluate.splits)})"
        )


def check_data(session: Session) -> None:
    """What the sections ask of the problems."""
    config, problems = session.config, session.problems
    if config.loop.iterations and not problems.all("train"):
        raise ConfigError("tasks: no task has a train split to grow on")
    if not evaluated_splits(session):
        known = sorted({split for splits in problems.splits.values() for split in splits})
        raise ConfigError(
            f"evaluate.splits: no task has any of {', '.join(config.evaluate.splits)}; there are {', '.join(known)}"
        )
    if config.loop.stop is not None:
        for name in config.tasks:
            if not problems.of(name, config.loop.stop.split):
                raise ConfigError(
                    f"tasks.{name}: has no split '{config.loop.stop.split}', which loop.stop decides by; "
                    "give it one, or remove loop.stop"
                )
    for name, warmup in config.warmup.items():
        if not demonstrated(session, warmup.source):
            raise ConfigError(f"warmup.{name}.from: no problem of '{warmup.source}' has a demonstration")


def check_model(session: Session) -> None:
    """Tokenizer, prompts and context length."""
    config = session.config
    name = config.model.path or "model.architecture"
    session.tokenizer = tokenizer = load_tokenizer(config)
    check_tokenizer(tokenizer, name)
    context = context_length(config)
    for task, splits in session.problems.splits.items():
        prompter = make_prompter(tokenizer, config.tasks[task].prompt, config.model.chat)
        for problems in splits.values():
            for problem in problems:
                check_prompt(prompter.ids(problem), problem, tokenizer, context)


def load_tokenizer(config: RunConfig) -> Any:
    """The tokenizer a run starts from, without its model."""
    if config.model.path is None:
        if not config.model.architecture or not config.model.alphabet:
            raise ConfigError("model: needs a path, or an architecture with model_type and an alphabet")
        return described_tokenizer(config)
    from selftrain.models.checkpoint import load_tokenizer as load

    try:
        return load(config.model.path)
    except (OSError, ValueError) as error:
        raise ConfigError(missing_model(config.model.path, error)) from error


def context_length(config: RunConfig) -> int | None:
    """Positions the model has; None where its config does not say."""
    from transformers import AutoConfig

    if config.model.path is None:
        fields = dict(config.model.architecture or {})
        try:
            found = AutoConfig.for_model(fields.pop("model_type", ""), **fields)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"model.architecture: {' '.join(str(error).split())[:300]}") from error
    else:
        try:
            found = AutoConfig.from_pretrained(config.model.path)
            _check_weights(Path(config.model.path))
        except (OSError, ValueError) as error:
            raise ConfigError(missing_model(config.model.path, error)) from error
    return getattr(found, "max_position_embeddings", None)


def _check_weights(folder: Path) -> None:
    """Raises OSError for a local folder that has none."""
    if folder.is_dir() and not any(path for ending in ("safetensors", "bin") for path in folder.glob(f"*.{ending}")):
        raise OSError("it holds no weights (*.safetensors or *.bin)")


def missing_model(path: str, error: Exception) -> str:
    if not Path(path).exists():
        return f"model.path: no folder '{path}' here, and no model of that name could be loaded from the hub"
    return f"model.path: '{path}' is no checkpoint: {' '.join(str(error).split())[:200]}"


def plan(session: Session) -> Iterator[str]:
    """What the run will do, line by line."""
    config, problems = session.config, session.problems
    for task, splits in problems.splits.items():
        sizes = ", ".join(f"{len(of)} {split}" for split, of in splits.items())
        yield f"task {task}: {sizes}; judged by {config.tasks[task].verifier.kind}"
        if problems.dropped[task]:
            yield f"  {problems.dropped[task]} problems left out: they also occur in an evaluated split"
    for name, warmup in config.warmup.items():
        yield f"warm-up of {name}: {len(demonstrated(session, warmup.source))} demonstrations, {_length(warmup.optim)}"
    train = len(problems.all("train"))
    for name, step in config.grow.items():
        yield (
            f"grow {name}: {train} problems x {step.n} samples = {train * step.n} per iteration, "
            f"at most {train * step.n * step.max_tokens:,} tokens, by {step.sampler.kind}"
        )
    for name, learner in config.learners.items():
        yield f"learner {name}: from {learner.init}, {learner.objective.kind}, {_length(learner.optim)}"
    answers = config.evaluate.n + config.evaluate.greedy
    count = sum(len(problems.of(task, split)) for task, split in evaluated_splits(session))
    temperature = sampling_of(config).temperature
    yield f"evaluate: {count} problems x {answers} answers per iteration, temperature {temperature:g}"
    yield f"{config.loop.iterations} iterations, in {session.run.root}"


def _length(optim: Any) -> str:
    return f"{optim.steps} steps" if optim.steps else f"{optim.epochs:g} epochs"
