"""Which part of the config each stage depends on.

What only changes place or speed is left out: launch, track, names of runs, part size, micro-batches, the number of
iterations, and what a sampler calls its speed options.
"""

from __future__ import annotations

from typing import Any

from selftrain import registry
from selftrain.config import Component, RunConfig, to_tree

FIT_SPEED = ("micro_tokens", "gradient_checkpointing")


def model(config: RunConfig) -> dict[str, Any]:
    return {"run.seed": config.run.seed, "model": to_tree(config.model)}


def data(config: RunConfig) -> dict[str, Any]:
    """Problems and prompts, without who judges them."""
    trees = {name: to_tree(task) for name, task in config.tasks.items()}
    for tree in trees.values():
        del tree["verifier"]
    return {"tasks": trees}


def judging(config: RunConfig) -> dict[str, Any]:
    bounds = config.reward.verify
    return {
        "tasks": {name: {"verifier": component("verifier", task.verifier)} for name, task in config.tasks.items()},
        "reward": {"verify": {"seconds": bounds.seconds, "memory_mb": bounds.memory_mb}},
    }


def warmup(config: RunConfig, learner: str) -> dict[str, Any]:
    return {**model(config), **data(config), "warmup": {learner: fit(to_tree(config.warmup[learner]))}}


def grow(config: RunConfig) -> dict[str, Any]:
    steps = {name: to_tree(step) | {"sampler": sampler(step.sampler)} for name, step in config.grow.items()}
    return {**model(config), **data(config), "grow": steps}


def score(config: RunConfig) -> dict[str, Any]:
    tree = to_tree(config.reward)
    return {"reward": {"sources": tree["sources"], "total": tree["total"]}}


def improve(config: RunConfig, learner: str) -> dict[str, Any]:
    return {"run.seed": config.run.seed, "learners": {learner: fit(to_tree(config.learners[learner]))}}


def evaluate(config: RunConfig) -> dict[str, Any]:
    first = next(iter(config.grow.values()), None)
    settings = config.evaluate.sampling or (first.sampling() if first else None)
    return {
        **model(config),
        **data(config),
        **{f"judging.{key}": value for key, value in judging(config).items()},
        "evaluate": to_tree(config.evaluate),
        "sampling": to_tree(settings),
        "sampler": sampler(first.sampler) if first else None,
    }


def component(table: str, chosen: Component) -> dict[str, Any]:
    """A component and, where it is the user's own, the digest of its file."""
    return {**to_tree(chosen), "digest": registry.digest(table, chosen.kind)}


def sampler(chosen: Component) -> dict[str, Any]:
    speed = getattr(registry.resolve("sampler", chosen.kind), "speed", ())
    return {key: value for key, value in component("sampler", chosen).items() if key not in speed}


def fit(tree: dict[str, Any]) -> dict[str, Any]:
    return {**tree, "optim": {key: value for key, value in tree["optim"].items() if key not in FIT_SPEED}}
