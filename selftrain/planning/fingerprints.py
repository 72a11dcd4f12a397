"""Which part of the config each stage depends on.

What only changes place or speed is left out: launch, track, names of runs, part size, micro-batches, the number of
iterations, what a sampler calls its speed options, and where files lie: their contents count.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from selftrain import machine, registry
from selftrain.config import ConfigError, instantiate, to_tree
from selftrain.digests import contents_digest, value_digest
from selftrain.models.adapters import adapter_base
from selftrain.nested import changed
from selftrain.planning.references import source_models, value_source
from selftrain.planning.settings import counts_texts, objective_needs, sampler_of, sampling_of
from selftrain.schema import Component, RunConfig, Searching, Task
from selftrain.search.choose import way

REPLAY = "replay:"
"""Before the path of a file of examples, where a selection names its source."""

ELSEWHERE = ("verifier", "train_prompt", "sampling", "weight")
"""Fields of a task that not every stage reads which reads its problems."""

BEST_OF, SEARCH = "best_of", "search"
"""Keys of what an evaluation depends on by what chooses among its samples, and by its searches."""

AUTO_GPU = "auto (gpu)"
"""Where ``auto`` means bfloat16."""

FIT_SPEED = ("micro_tokens", "gradient_checkpointing")
SEARCH_SPEED = ("lanes", "cached_tokens")


def model(config: RunConfig) -> dict[str, Any]:
    tree = to_tree(config.model)
    tree["chat"] = by_contents(tree["chat"], {config.model.chat.template} - {"auto", "none"})
    path = config.model.path
    return {"run.seed": config.run.seed, "model": by_contents(tree, [path] if path else [])}


def data(config: RunConfig) -> dict[str, Any]:
    """Problems and prompts, without who judges them."""
    trees = {}
    for name, task in config.tasks.items():
        tree = by_contents(to_tree(task), sources(task)) | component("task", Component(task.kind))
        described = getattr(registry.resolve("task", task.kind), "described", ())
        trees[name] = {key: value for key, value in tree.items() if key not in (*ELSEWHERE, *described)}
    return {"tasks": trees}


def per_task(config: RunConfig, name: str) -> dict[str, Any]:
    """One field of every task that sets it."""
    empty = to_tree(getattr(Task(), name))
    trees = {task: to_tree(getattr(own, name)) for task, own in config.tasks.items()}
    return {f"tasks.{name}": {task: tree for task, tree in trees.items() if tree != empty}}


def sources(task: Task) -> list[str]:
    """The local files and folders a task reads, where it says so."""
    loaded = instantiate("task", Component(task.kind, task.options))
    return [str(path) for path in loaded.sources()] if hasattr(loaded, "sources") else []


def by_contents(tree: Any, paths: Collection[str]) -> Any:
    """The tree with what lies at these paths in place of their names.

    An edited file must not mix with what was made of the old one; a file that only moved changes nothing.
    """
    if isinstance(tree, dict):
        return {key: by_contents(value, paths) for key, value in tree.items()}
    if isinstance(tree, list):
        return [by_contents(value, paths) for value in tree]
    if tree not in paths:
        return tree
    digest = contents(name := str(tree).removeprefix(REPLAY))
    return tree if digest == name else {"contents": digest}


def contents(name: str) -> str:
    """Digest of what lies at a path, an adapter's base with it; of anything else, as a model of the hub, its name."""
    if not Path(name).exists():
        return name
    try:
        base = adapter_base(name)
    except FileNotFoundError as error:
        raise ConfigError(f"model.path: {error}") from error
    found = contents_digest(Path(name))
    return found if base is None else value_digest([found, contents(str(base))])


def judging(config: RunConfig) -> dict[str, Any]:
    bounds = config.reward.verify
    return {
        "tasks": {name: {"verifier": verifier(task.verifier)} for name, task in config.tasks.items()},
        "reward": {"verify": {"seconds": bounds.seconds, "memory_mb": bounds.memory_mb}},
    }


def verifier(chosen: Component) -> dict[str, Any]:
    """A verifier without options that change only place or speed, and with the contents of further files it reads."""
    tree = component("verifier", chosen)
    resolved = registry.resolve("verifier", chosen.kind)
    for option in getattr(resolved, "speed", ()):
        *above, name = option.split(".")
        node = tree = copy.deepcopy(tree)
        for key in above:
            node = node[key]
        node.pop(name, None)
    if hasattr(resolved, "sources"):
        tree["sources"] = [contents(str(path)) for path in instantiate("verifier", chosen).sources()]
    return tree


def judged(config: RunConfig) -> dict[str, Any]:
    """For stages that judge beside what they are there for."""
    return {f"judging.{key}": value for key, value in judging(config).items()}


def warmup(config: RunConfig, learner: str) -> dict[str, Any]:
    learnt = {"warmup": {learner: fit(to_tree(config.warmup[learner]))}, **per_task(config, "train_prompt")}
    # What a task counts for does not matter to its demonstrations, only whether it counts at all.
    return {**learnt, "tasks.weight": {name: 0.0 for name, task in config.tasks.items() if not task.weight}}


def head(config: RunConfig, learner: str) -> dict[str, Any]:
    """What a learner of values is before the first iteration, beside its warm-up."""
    chosen = config.learners[learner]
    tree = by_contents(to_tree(chosen.model), [chosen.model.path] if chosen.model.path else [])
    objective = component("objective", chosen.objective)
    return {"run.seed": config.run.seed, "learners": {learner: {"model": tree, "objective": objective}}}


def grow(config: RunConfig) -> dict[str, Any]:
    steps = {
        name: searched(config, step, by_contents(to_tree(step), [step.model]) | {"sampler": sampler(step.sampler)})
        for name, step in config.grow.items()
    }
    early = [name for name, step in config.grow.items() if step.enough]
    # Where a step ends early, verdicts and what counts of them decide what is drawn.
    ended = {"enough.texts": {name: counts_texts(config, name) for name in early}} if early else {}
    if early or any(step.accept or judges(step, step.keep == "chosen") for step in config.grow.values()):
        ended |= judged(config)
    return {"grow": steps, **per_task(config, "sampling"), **per_task(config, "weight"), **ended}


def searched(config: RunConfig, search: Searching, tree: dict[str, Any]) -> dict[str, Any]:
    """A section with what its trees follow from; which weights ``value`` means is an input."""
    if search.strategy is None:
        return tree
    source = value_source(config, search)
    value = by_contents(search.value, [search.value] if search.value else []) if source is None else reward(source)
    computed = {} if search.value is None else {"value dtype": scored_in(config)}
    whole = {**tree, "strategy": component("search", search.strategy), "value": value, **computed}
    return {key: part for key, part in whole.items() if key not in SEARCH_SPEED}


def judges(search: Searching, is_single: bool) -> bool:
    """Whether verdicts are asked for while it searches, or to choose among what it found by their answers.

    Args:
        is_single: only the response counts that the strategy chooses.
    """
    if search.strategy is None:
        return False
    strategy = instantiate("search", search.strategy)
    return "judge" in strategy.needs or (is_single and way(strategy) != "value")


def score(config: RunConfig) -> dict[str, Any]:
    sources = {name: reward(source) for name, source in config.reward.sources.items()}
    computed = asked_in(config, config.reward.sources.values())
    return {"reward": {"sources": sources, "total": to_tree(config.reward.total), **computed}}


def asked_in(config: RunConfig, sources: Iterable[Component]) -> dict[str, str]:
    """The type that scores are computed in, where these sources ask a model."""
    return {"dtype": scored_in(config)} if any(source_models(source, "") for source in sources) else {}


def scored_in(config: RunConfig) -> str:
    return dtype(config.reward.dtype, "auto")


def reward(source: Component) -> dict[str, Any]:
    """A reward source, with what its models hold in place of where they lie."""
    tree: dict[str, Any] = by_contents(component("reward", source), source_models(source, "").values())
    return tree


def improve(config: RunConfig, learner: str) -> dict[str, Any]:
    chosen = config.learners[learner]
    replayed = [selection.source for selection in chosen.examples.values() if selection.source.startswith(REPLAY)]
    own = [chosen.model.path] if chosen.model.path else []
    tree = by_contents(fit(to_tree(chosen)), [*replayed, chosen.reference, *own])
    tree |= {"objective": component("objective", chosen.objective)}
    if chosen.optim.state == "keep" and (chosen.optim.schedule == "cosine" or chosen.optim.warmup):
        tree["schedule over"] = config.loop.iterations
    if chosen.advantage is not None:
        tree |= {"advantage": component("advantage", chosen.advantage)}
    compared = "reference" in objective_needs(chosen.objective)
    return {
        "run.seed": config.run.seed,
        "learners": {learner: tree},
        **per_task(config, "train_prompt"),
        **({"reward.dtype": scored_in(config)} if compared else {}),
    }


def evaluate(config: RunConfig) -> dict[str, Any]:
    chosen = config.evaluate
    protocols = {task: component("protocol", used) for task, used in chosen.protocol.items()}
    own_kinds = {"sampler": sampler(sampler_of(config)), "protocol": protocols}
    tree = by_contents(to_tree(chosen), [kept.path for kept in chosen.kept.values()]) | own_kinds
    sources = {name: reward(source) for name, source in chosen.best_of.items()}
    computed = asked_in(config, chosen.best_of.values())
    # Apart from the rest: the samples do not depend on who chooses among them, or on what is searched beside them.
    apart = ("best_of", "vote", "search")
    tree, vote = {key: value for key, value in tree.items() if key not in apart}, tree["vote"]
    searches = {name: searched(config, own, to_tree(own)) for name, own in chosen.search.items()}
    return {
        **judged(config),
        **({BEST_OF: {"sources": sources, "vote": vote, **computed}} if sources else {}),
        **({SEARCH: searches} if searches else {}),
        "evaluate": tree,
        "sampling": to_tree(sampling_of(config)),
        **({"kept.dtype": dtype("auto", "auto")} if chosen.kept else {}),
        **per_task(config, "sampling"),
        **(per_task(config, "train_prompt") if config.evaluate.prompt == "train_prompt" else {}),
    }


def component(table: str, chosen: Component) -> dict[str, Any]:
    """A component; one of the user's own by the digest of its file, wherever that lies, also inside the options."""

    def inside(table: str, part: Mapping[str, Any], _: str) -> dict[str, Any]:
        one = Component(part["kind"], {key: part[key] for key in part if key != "kind"})
        return verifier(one) if table == "verifier" else component(table, one)

    options = changed(registry.options_class(table, chosen.kind), to_tree(chosen.options), inside)
    return {**options, "kind": Path(chosen.kind).name, "digest": registry.digest(table, chosen.kind)}


def sampler(chosen: Component) -> dict[str, Any]:
    speed = getattr(registry.resolve("sampler", chosen.kind), "speed", ())
    tree = component("sampler", chosen)
    computed = {"dtype": dtype(tree["dtype"], tree.get("device", "auto"))} if "dtype" in tree else {}
    return {key: value for key, value in (tree | computed).items() if key not in speed}


def fit(tree: dict[str, Any]) -> dict[str, Any]:
    optim = {key: value for key, value in tree["optim"].items() if key not in FIT_SPEED}
    return {**tree, "optim": optim | {"dtype": dtype(optim["dtype"], "auto")}}


def dtype(chosen: str, device: str) -> str:
    """What ``auto`` means on this machine: a run must not change its arithmetic where it moves to another."""
    if chosen != "auto":
        return chosen
    on_gpu = device.startswith("cuda") or (device == "auto" and bool(machine.gpus()))
    return AUTO_GPU if on_gpu else "auto (cpu)"
