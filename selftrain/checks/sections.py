"""What is wrong with a config beyond its schema: names that lead nowhere, choices that do not go together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from selftrain.config import ConfigError
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.problems import GOLD, held_out_splits
from selftrain.planning.settings import POLICY, asked_with
from selftrain.planning.writers import remote
from selftrain.registry import nearest
from selftrain.schema import Evaluate, Grow, Learner, RunConfig, Selection, Task
from selftrain.stages.replay import read_rows

SAMPLED_ONLY = ("verdict", "reward_above", "cap", "dedupe", "history")
"""Options of a selection that choose among samples; what nobody sampled is taught whole."""


def check_names(config: RunConfig) -> None:
    """References from one section to another."""
    for section in ("tasks", "grow"):
        if not getattr(config, section):
            raise ConfigError(f"{section}: the config names none; see configs/quickstart.yaml")
    if not config.learners and config.loop.iterations:
        raise ConfigError(f"learners: the config names none; the model that samples is called '{POLICY}'")
    near = nearest(POLICY, config.learners)
    if POLICY not in config.learners and near.startswith("did you"):  # A policy that is no learner stays what it was.
        raise ConfigError(f"learners: none is called '{POLICY}' ({near})")
    for name in config.warmup:
        if name not in {*config.learners, POLICY}:
            raise ConfigError(f"warmup.{name}: no such learner ({nearest(name, config.learners)})")
    _check_writers(config)
    _check_total(config)
    for name, learner in config.learners.items():
        _check_learner(config, name, learner)
    for name, step in config.grow.items():
        _check_step(config, f"grow.{name}", step)
    for name, task in config.tasks.items():
        _check_task(config, f"tasks.{name}", task)
    _check_values(config)
    _check_weights(config)
    _check_evaluate(config)
    _check_held_out(config)
    _check_stop(config)
    _check_budget(config)
    _check_online(config)


def _check_budget(config: RunConfig) -> None:
    budget = config.run.budget
    if budget is not None and (budget.tokens is None) == (budget.gpu_hours is None):
        raise ConfigError("run.budget: set tokens or gpu_hours, one of the two")


def _check_online(config: RunConfig) -> None:
    """Whether what goes on from iteration to iteration can."""
    if config.loop.keep == 1:
        raise ConfigError("loop.keep: the iteration before is read while the next is made; set it to 2 at least")
    for name, step in config.grow.items():
        if step.accept is None:
            continue
        if step.prompts is None:
            raise ConfigError(f"grow.{name}.accept: fills a batch of grow.{name}.prompts, which is not set; set it")
        low, high = step.accept.accuracy
        if low > high:
            raise ConfigError(
                f"grow.{name}.accept.accuracy: [{low:g}, {high:g}] holds no number; write the smaller first"
            )
    for name, learner in config.learners.items():
        optim, where = learner.optim, f"learners.{name}.optim"
        if optim.state == "keep" and learner.init != "previous":
            raise ConfigError(
                f"{where}.state: keep goes on from the last iteration; set learners.{name}.init to previous"
            )
        if optim.state == "keep" and optim.steps is None and (optim.schedule == "cosine" or optim.warmup):
            raise ConfigError(
                f"{where}.steps: a schedule over the run needs the steps of an iteration; set it, or set schedule: "
                "constant and warmup: 0"
            )


def _check_evaluate(config: RunConfig) -> None:
    evaluate = config.evaluate
    for task in evaluate.protocol:
        if task not in config.tasks:
            raise ConfigError(f"evaluate.protocol.{task}: no such task ({nearest(task, config.tasks)})")
    for name in evaluate.kept:
        if name in config.tasks:
            raise ConfigError(f"evaluate.kept.{name}: a task has this name too; choose another, such as {name}_text")
    for k in evaluate.k:
        if not 1 <= k <= evaluate.n:
            raise ConfigError(
                f"evaluate.k: pass@{k} needs at least {k} samples per problem, evaluate.n is {evaluate.n}"
            )
    if not evaluate.n and not evaluate.greedy:
        raise ConfigError("evaluate: nothing is evaluated; set evaluate.n or evaluate.greedy")


def _check_weights(config: RunConfig) -> None:
    weights = {name: task.weight for name, task in config.tasks.items()}
    if not any(weights.values()) and (config.loop.iterations or config.loop.stop):
        raise ConfigError("tasks: every weight is 0, so there is nothing to learn from")
    uneven = [name for name, weight in weights.items() if weight not in (0, 1)]
    whole = [name for name, step in config.grow.items() if step.prompts is None]
    if whole and uneven:
        raise ConfigError(
            f"tasks.{uneven[0]}.weight: divides grow.{whole[0]}.prompts, which is not set; set it, or give no weight "
            "but 0 or 1"
        )


def _check_step(config: RunConfig, where: str, step: Grow) -> None:
    fewest = min((task.sampling.n or step.n for task in config.tasks.values()), default=step.n)
    if step.enough is not None and step.enough > fewest:
        raise ConfigError(f"{where}.enough: {step.enough} right samples cannot be had of n={fewest}")


def _check_values(config: RunConfig) -> None:
    """Settings that are to come from a model which has none to give."""
    for name, step in config.grow.items():
        if step.values == "model" and remote(step.sampler):
            raise ConfigError(
                f"grow.{name}.values: a server does not show the generation config of its model; give the numbers here"
            )
    for where, (sampling, model) in asked_with(config).items():
        if sampling.values == "model" and model == POLICY and config.model.path is None:
            raise ConfigError(f"{where}.values: a model of random weights has no generation config; set it to config")


def _check_task(config: RunConfig, where: str, task: Task) -> None:
    prompts = {"prompt": task.prompt, "train_prompt": task.train_prompt}
    for name, prompt in prompts.items():
        if prompt is not None and prompt.few_shot.n and prompt.few_shot.source in held_out_splits(config):
            raise ConfigError(
                f"{where}.{name}.few_shot.from: '{prompt.few_shot.source}' is evaluated; name a split that is not"
            )


def _check_writers(config: RunConfig) -> None:
    """Samplers that can load the policy where they are to sample it."""
    for name, step in config.grow.items():
        if step.kind == "search" and remote(step.sampler):
            raise ConfigError(
                f"grow.{name}.sampler: {step.sampler.kind} asks a server, and a search goes on from the ids of every "
                "step with this run's own weights; choose transformers or vllm"
            )
        if step.model == POLICY and remote(step.sampler):
            raise ConfigError(
                f"grow.{name}.sampler: a server cannot load this run's checkpoints; set grow.{name}.model to the name "
                "it serves, or choose another sampler"
            )
    if config.evaluate.sampler is not None and remote(config.evaluate.sampler):
        raise ConfigError(
            "evaluate.sampler: a server cannot load this run's checkpoints; choose another, such as transformers"
        )


def _check_learner(config: RunConfig, name: str, learner: Learner) -> None:
    if learner.init not in ("base", "previous"):
        raise ConfigError(f"learners.{name}.init: '{learner.init}' ({nearest(learner.init, ('base', 'previous'))})")
    if not learner.examples:
        raise ConfigError(f"learners.{name}.examples: names no selection, so there is nothing to learn")
    for key, selection in learner.examples.items():
        _check_selection(config, f"learners.{name}.examples.{key}", selection)


def _check_selection(config: RunConfig, where: str, selection: Selection) -> None:
    source = selection.source
    if source == "gold" or source.startswith(REPLAY):
        _check_unsampled(where, selection)
    elif source not in config.grow:
        raise ConfigError(
            f"{where}.from: no step of grow is called '{source}' ({nearest(source, [*config.grow, 'gold'])})"
        )
    elif (enough := config.grow[source].enough) is not None:
        _check_enough(where, selection, enough)
    if source.startswith(REPLAY) and not list(read_rows(Path(source.removeprefix(REPLAY)), f"{where}.from")):
        raise ConfigError(f"{where}.from: the file is empty")


def _check_enough(where: str, selection: Selection, enough: int) -> None:
    """Early stopping must not take away what the selection would have kept of all samples."""
    step = f"grow.{selection.source}.enough"
    if (selection.cap or 0) > enough:
        raise ConfigError(f"{where}.cap: {selection.cap} is above {step}={enough}: so many are never there; lower it")
    if selection.dedupe == "answer" and selection.verdict != "wrong" and enough > 1:
        raise ConfigError(
            f"{where}.dedupe: answer keeps one of all right samples that answer alike, so {step}={enough} of them are "
            "no sign that later ones are not needed; set dedupe to text, or remove enough"
        )


def _check_unsampled(where: str, selection: Selection) -> None:
    for option in dataclasses.fields(Selection):
        if option.name in SAMPLED_ONLY and getattr(selection, option.name) != option.default:
            raise ConfigError(
                f"{where}.{option.name}: has no effect on {selection.source.partition(':')[0]}, which is taught whole; "
                "remove it (weight is what can be set)"
            )


def _check_total(config: RunConfig) -> None:
    """Weights of reward sources that are there."""
    sources, total = config.reward.sources, config.reward.total
    if total is None:
        return
    if not total:
        raise ConfigError(f"reward.total: names no source ({nearest('', sources)}); remove it for a weight of 1 each")
    for name in total:
        if name not in sources:
            raise ConfigError(f"reward.total.{name}: no such reward source ({nearest(name, sources)})")


def _check_held_out(config: RunConfig) -> None:
    """Whether anything learns from a split that is evaluated."""
    learnt = {f"warmup.{name}.from": _warmup_split(warmup.source) for name, warmup in config.warmup.items()}
    for place, split in learnt.items():
        if split in held_out_splits(config):
            raise ConfigError(f"{place}: '{split}' is evaluated; it must not be learnt from; name another split")
    if not config.loop.iterations:
        return
    gold = any(s.source == "gold" for learner in config.learners.values() for s in learner.examples.values())
    for split in GOLD if gold else ("train",):
        if split in config.evaluate.splits:
            raise ConfigError(
                f"evaluate.splits: '{split}' is evaluated; it must not be learnt from, but the learners do; "
                "take it out, or evaluate a checkpoint on it with: selftrain evaluate"
            )


def _warmup_split(source: str) -> str:
    return "train" if source == "gold" else source


def _check_stop(config: RunConfig) -> None:
    rule = config.loop.stop
    if rule is None:
        return
    known = _metrics(config.evaluate)
    if rule.metric.startswith("maj@"):
        raise ConfigError(
            f"loop.stop.metric: '{rule.metric}' cannot decide, because it is there only where the verifier extracts "
            f"answers ({nearest('', known)})"
        )
    if rule.metric not in known:
        raise ConfigError(f"loop.stop.metric: '{rule.metric}' is not evaluated ({nearest(rule.metric, known)})")
    if rule.split == "test":
        raise ConfigError("loop.stop.split: test is only reported, it never decides; use val")
    if rule.split not in config.evaluate.splits:
        raise ConfigError(
            f"loop.stop.split: '{rule.split}' is not among evaluate.splits ({', '.join(config.evaluate.splits)})"
        )


def _metrics(evaluate: Evaluate) -> list[str]:
    """The metrics every evaluated split has, whatever the answers."""
    sampled = [f"avg@{evaluate.n}", *(f"pass@{k}" for k in sorted({evaluate.n, *evaluate.k}) if k > 1)]
    sampled += [f"bon_{name}@{evaluate.n}" for name in evaluate.best_of]
    searched = [f"search_{name}" for name in evaluate.search]
    return (["pass@1"] if evaluate.greedy else []) + (sampled if evaluate.n else []) + searched
