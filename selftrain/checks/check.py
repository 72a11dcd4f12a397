"""Everything that can be known to be wrong before a run writes its first file, and the plan of what it will do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from selftrain.checks.best_of import check_best_of
from selftrain.checks.described import check_described, described_config
from selftrain.checks.heads import check_heads, check_language_model, check_separators
from selftrain.checks.here import Lacks, refuse
from selftrain.checks.kernels import check_kernels
from selftrain.checks.launch import check_heads_divide, check_interpreters, check_replicas, laid_out
from selftrain.checks.learning import check_learning
from selftrain.checks.lora import check_lora
from selftrain.checks.models import check_scored_by
from selftrain.checks.monitors import check_monitors
from selftrain.checks.placing import check_place, check_room
from selftrain.checks.prompts import check_prompts
from selftrain.checks.searching import check_searching, check_steps
from selftrain.checks.sections import check_names
from selftrain.checks.sources import said
from selftrain.checks.trainer import check_trainer, overridden
from selftrain.checks.values import check_value_heads
from selftrain.checks.writers import check_evaluated, check_samplers, check_writers, room
from selftrain.config import ConfigError, to_tree
from selftrain.drawing.allocate import problems_of
from selftrain.judging import VerifierError, resolve_now
from selftrain.mirror.store import check_url
from selftrain.models.adapters import adapter_base
from selftrain.models.head_form import HeadForm
from selftrain.nested import in_words
from selftrain.planning.settings import sampler_of, sampling_of
from selftrain.planning.values import form_of, valued
from selftrain.prompts import check_tokenizer
from selftrain.schema import Grow, Learner, RunConfig, Searching, Warmup
from selftrain.session import Session, verifier_spec
from selftrain.stages.compared import check_drawn
from selftrain.stages.evaluate import evaluated_splits
from selftrain.stages.examples import demonstrated
from selftrain.stages.kept import check_kept, kept_rows
from selftrain.stages.protocol import check_protocols
from selftrain.stages.replay import check_replay
from selftrain.stages.start import described_tokenizer
from selftrain.types import Problem


def check(session: Session, lacks: Lacks = refuse) -> None:
    """Raises ConfigError, cheap checks first; loads a tokenizer and a model config, never weights.

    Args:
        lacks: is told what this machine does not have.
    """
    config = session.config
    check_place(session, lacks)
    check_searching(config)
    check_names(config)
    check_best_of(config)
    check_monitors(config)
    if config.track.mirror is not None:
        check_url(config.track.mirror)
    for name, task in config.tasks.items():
        try:
            resolve_now(verifier_spec(task.verifier, config.reward.verify))
        except VerifierError as error:
            raise ConfigError(f"tasks.{name}.verifier: {error}") from error
    check_learning(config)
    check_heads(config)
    check_drawn(session)
    check_data(session)
    check_samplers(config, lacks)
    check_replicas(config, lacks)
    check_room(session, lacks)
    check_interpreters(config, lacks)
    check_model(session)
    check_writers(session)
    check_heads_divide(config, partial(model_config, config))
    check_scored_by(session)
    check_value_heads(session)
    check_lora(config, partial(model_config, config))
    check_kernels(config, lacks)
    check_trainer(config, partial(model_config, config), lacks)


def check_data(session: Session) -> None:
    """What the sections ask of the problems."""
    config, problems = session.config, session.problems
    _check_train(session)
    shared = [name for name, step in config.grow.items() if step.prompts]
    for task in config.tasks:
        if shared and task not in problems.watched and not problems.of(task, "train"):
            raise ConfigError(
                f"tasks.{task}: has no train problems for its share of grow.{shared[0]}.prompts; set its weight to 0"
            )
    if not config.evaluate.splits:
        raise ConfigError("evaluate.splits: names no split; write at least one, such as evaluate.splits=[val]")
    if not evaluated_splits(session):
        known = sorted({split for splits in problems.splits.values() for split in splits})
        raise ConfigError(
            f"evaluate.splits: no task has any of {', '.join(config.evaluate.splits)}; there are {', '.join(known)}"
        )
    if config.loop.stop is not None:
        for name in config.tasks:
            if name not in problems.watched and not problems.of(name, config.loop.stop.split):
                raise ConfigError(
                    f"tasks.{name}: has no split '{config.loop.stop.split}', which loop.stop decides by; "
                    "give it one, or remove loop.stop"
                )
    for name, warmup in config.warmup.items():
        if not demonstrated(session, warmup.source):
            raise ConfigError(f"warmup.{name}.from: no problem of '{warmup.source}' has a demonstration")


def _check_train(session: Session) -> None:
    config, problems = session.config, session.problems
    if not config.loop.iterations or problems.learnt("train"):
        return
    left_out = sum(problems.dropped.values())
    if left_out:
        why = f": all {left_out} problems to learn from also occur in an evaluated split"
    else:
        none = [name for name, task in config.tasks.items() if task.limit.get("train") == 0]
        why = "".join(f"; tasks.{name}.limit.train is 0: write how many it may use, or remove it" for name in none)
    raise ConfigError(f"tasks: no task with a weight has a train split to grow on{why}")


def check_model(session: Session) -> None:
    """Tokenizer, context length, and all text that is read or learnt."""
    config = session.config
    name = config.model.path or "model.architecture"
    check_language_model(config.model.path)
    session.tokenizer = tokenizer = load_tokenizer(config)
    check_tokenizer(tokenizer, name)
    context = context_length(config)
    check_described(session)
    check_prompts(session, learnt := learnt_demonstrations(session), context)
    check_steps(session, learnt)
    check_separators(session)
    check_replay(session, session.prompters["prompt"])
    check_kept(session, context)
    check_evaluated(session, splits := evaluated_splits(session))
    limits = [limit for limit in (context, room(sampler_of(config))) if limit is not None]
    check_protocols(session, splits, min(limits, default=None))


def learnt_demonstrations(session: Session) -> list[Problem]:
    """The problems whose demonstrations a warm-up or a selection teaches, each once."""
    learnt = [problem for warmup in session.config.warmup.values() for problem in demonstrated(session, warmup.source)]
    chosen = (selection for learner in session.config.learners.values() for selection in learner.examples.values())
    if any(selection.source == "gold" for selection in chosen):
        learnt += session.problems.gold()
    return list({problem.id: problem for problem in learnt}.values())


def load_tokenizer(config: RunConfig) -> Any:
    """The tokenizer a run starts from, without its model."""
    if config.model.path is None:
        if not config.model.architecture or not config.model.alphabet:
            raise ConfigError("model: needs a path, or an architecture with model_type and an alphabet")
        return described_tokenizer(config)
    if config.model.architecture is not None:
        raise ConfigError(
            "model: has a path and an architecture, also where an included config gives one; remove the architecture "
            "(model.architecture=null model.alphabet=null), or the path (model.path=null)"
        )
    from selftrain.models.checkpoint import load_tokenizer as load

    try:
        return load(config.model.path)
    except (OSError, ValueError) as error:
        raise ConfigError(missing_model(config.model.path, error)) from error


def context_length(config: RunConfig) -> int | None:
    """Positions the model has; None where its config does not say."""
    from selftrain.models.checkpoint import positions

    return positions(model_config(config))


def model_config(config: RunConfig) -> Any:
    """The transformers config of the model the run starts from; of an adapter, that of its base."""
    from transformers import AutoConfig

    if config.model.path is None:
        return described_config(config)
    try:
        base = adapter_base(config.model.path)
        found = AutoConfig.from_pretrained(str(base or config.model.path))
        _check_weights(Path(config.model.path))
        if base is not None:
            _check_weights(base)
    except (OSError, ValueError) as error:
        raise ConfigError(missing_model(config.model.path, error)) from error
    return found


def _check_weights(folder: Path) -> None:
    """Raises OSError for a local folder that has none, or a file of them that is cut off; only headers are read."""
    from safetensors import SafetensorError, safe_open

    if folder.is_dir() and not any(path for ending in ("safetensors", "bin") for path in folder.glob(f"*.{ending}")):
        raise OSError("it holds no weights (*.safetensors or *.bin)")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "numpy"):
                pass
        except SafetensorError as error:
            raise OSError(f"{file.name} is damaged or cut off ({error}); copy or download it again") from error


def missing_model(path: str, error: Exception) -> str:
    if not Path(path).exists():
        return f"model.path: no folder '{path}' here, and no model of that name could be loaded from the hub"
    return f"model.path: '{path}' is no checkpoint: {' '.join(str(error).split())[:200]}"


def plan(session: Session) -> Iterator[str]:
    """What the run will do, line by line."""
    config, problems = session.config, session.problems
    for task, splits in problems.splits.items():
        sizes = ", ".join(f"{len(of)} {split}" for split, of in splits.items())
        only = "; evaluated only" if task in problems.watched else ""
        yield f"task {task}: {sizes}; judged by {in_words(to_tree(config.tasks[task].verifier))}{only}"
        if problems.dropped[task]:
            yield f"  {problems.dropped[task]} problems left out: they also occur in an evaluated split"
    yield from session.unread_golds
    yield from laid_out(config)
    yield from overridden(config)
    for name, warmup in config.warmup.items():
        yield f"warm-up of {name}: {len(demonstrated(session, warmup.source))} demonstrations, {fit_length(warmup)}"
    for name, step in config.grow.items():
        yield from _step(session, name, step)
    own = valued(config)
    for name, learner in config.learners.items():
        head = on_head(form_of(learner) if name in own else None)
        yield f"learner {name}: from {learner.init}, {learner.objective.kind}{head}, {fit_length(learner)}"
    answers = config.evaluate.n + config.evaluate.greedy
    count = sum(len(problems.of(task, split)) for task, split in evaluated_splits(session))
    found = {session.settings(sampling_of(config), task).temperature for task, _ in evaluated_splits(session)}
    temperatures = " and ".join(f"{temperature:g}" for temperature in sorted(found))
    yield f"evaluate: {count} problems x {answers} answers per iteration, temperature {temperatures}"
    for name, search in config.evaluate.search.items():
        yield _search(f"  and by the search {name}", search, count, sampler_of(config).kind)
    for name, protocol in config.evaluate.protocol.items():
        count = sum(len(problems.of(task, split)) for task, split in evaluated_splits(session) if task == name)
        yield f"  and {count} of {name} once more, as {protocol.kind} asks and grades"
    for name, source in config.evaluate.best_of.items():
        yield f"  and the best of up to {config.evaluate.n} by {name}: {in_words(to_tree(source))}"
    yield from said(session)
    for name, kept in config.evaluate.kept.items():
        yield f"  and the likelihood of {len(kept_rows(kept, name))} responses of {kept.path} ({name})"
    yield f"{config.loop.iterations} iterations, in {session.run.root}"


def _step(session: Session, name: str, step: Grow) -> Iterator[str]:
    asked = Counter(problem.task for problem in problems_of(session, 1, step.prompts))
    if step.kind == "search":
        yield _search(f"grow {name}", step, asked.total(), step.sampler.kind)
        return
    samples = {task: count * session.samples_per_problem(step.n, task) for task, count in asked.items()}
    longest = {task: session.settings(step.sampling(), task, step.model).max_tokens for task in asked}
    tokens = sum(count * longest[task] for task, count in samples.items())
    early = f", fewer where {step.enough} are right" if step.enough else ""
    yield (
        f"grow {name}: {asked.total()} problems, {sum(samples.values())} samples per iteration{early}, "
        f"at most {tokens:,} tokens, by {step.model} through {step.sampler.kind}"
    )
    if len(asked) > 1:
        yield "  " + ", ".join(f"{task}: {count} problems" for task, count in asked.items())


def _search(what: str, search: Searching, trees: int, sampler: str) -> str:
    own = search.budget
    bounds = [f"{bound:,} {what}" for what, bound in (("tokens", own.tokens), ("proposals", own.proposals)) if bound]
    whole = f", {trees * own.tokens:,} tokens per iteration" if own.tokens else ""
    guided = f" by the values of {search.value}" if search.value else ""
    return (
        f"{what}: {trees} trees, {in_words(to_tree(search.strategy))}{guided}, each of at most "
        f"{' and '.join([*bounds, f'{own.depth} steps'])}{whole}, {search.lanes} at a time through {sampler}"
    )


def on_head(form: HeadForm | None) -> str:
    """What the head of a learner of values is."""
    if form is None:
        return ""
    read = "the end of each step" if form.read == "step" else "the last token"
    return f" on a {form.head} head ({form.normaliser}, read at {read})"


def fit_length(fitted: Learner | Warmup) -> str:
    optim, lora = fitted.optim, fitted.lora
    length = f"{optim.steps} steps" if optim.steps else f"{optim.epochs:g} epochs"
    return f"{length}, LoRA of rank {lora.r} on {', '.join(lora.targets)}" if lora else length
