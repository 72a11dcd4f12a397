"""What a dry run shows beside the plan: a prompt of each task as each writer reads it and a training example of each
that is learnt, decoded, and whether another run has sampled the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

from selftrain.drawing.store import FOLDER, shared_samples
from selftrain.planning.plan import NOT_DONE
from selftrain.planning.settings import NUMBERS, stop_ids
from selftrain.planning.writers import remote
from selftrain.prompts import Prompter
from selftrain.rewards.steps import pieces
from selftrain.schema import Grow
from selftrain.session import Session
from selftrain.stages.grow import samples_folder, work_list
from selftrain.stages.replay import encoder_of, read_rows, replayed_files
from selftrain.types import Example, Problem

WIDTH = 2000
"""Characters shown of a text; the middle of a longer one is left out."""


def preview(session: Session) -> Iterator[str]:
    """Lines for a dry run."""
    for task in session.config.tasks:
        problems = session.problems.of(task, "train") or next(iter(session.problems.splits[task].values()))
        problem = next((p for p in problems if p.demonstration is not None), problems[0])
        yield from _prompt(session, task, problem)
        if task not in session.problems.watched:
            yield from _example(session, task, problem)
    for place, path in replayed_files(session.config).items():
        yield from _replayed(session, place, path)


def reuse(session: Session) -> Iterator[str]:
    """Whether the next Grow is in the store; nothing where it is not."""
    config, stages = session.config, session.stages
    ahead = (i for i in range(1, config.loop.iterations + 1) if not stages.grow(i).mark.exists())
    iteration = next(ahead, None)
    place = Path(config.run.folder) / FOLDER
    if iteration is None or not config.run.reuse or not place.exists():
        return
    stage = stages.grow(iteration)
    if NOT_DONE in stage.inputs.values():
        yield (
            f"grow of iteration {iteration}: taken from {place} where another run did the same, which shows after "
            f"{', '.join(stage.reads)}"
        )
        return
    shared = shared_samples(
        session,
        iteration,
        {step: work_list(session, iteration, step) for step in config.grow},
    )
    if maker := shared.foreseen(samples_folder(session, iteration)):
        yield f"grow of iteration {iteration}: taken from {shared.path}, run {maker} did the same"


def _prompt(session: Session, task: str, problem: Problem) -> Iterator[str]:
    ids = session.prompter(task).ids(problem)
    yield f"prompt of {problem.id}, {len(ids)} tokens:"
    yield from indented(session.tokenizer.decode(ids))
    for name, step in session.config.grow.items():
        asked = session.asked(name)[task]
        if asked is not session.prompter(task):
            theirs = asked.ids(problem)
            yield f"  grow.{name}: {step.model} reads it in tokens of its own, {len(theirs)}:"
            yield from indented(asked.tokenizer.decode(theirs))
        yield f"  grow.{name}: {_sampled(session, task, step, asked)}"


def _sampled(session: Session, task: str, step: Grow, asked: Prompter) -> str:
    settings, own = session.settings(step.sampling(), task, step.model), vars(session.config.tasks[task].sampling)
    stops = [repr(stop) for stop in settings.stop] + [str(token) for token in settings.stop_ids]
    end = ["its own end token"] if remote(step.sampler) else [repr(asked.tokenizer.eos_token)]
    others = [str(token) for token in stop_ids(session.config, task) if token not in settings.stop_ids]
    left = f"; not by {', '.join(others)}, which only the policy is known to read so" if others else ""
    changed = [name for name in NUMBERS if own[name] is not None]
    told = f" ({', '.join(changed)} by tasks.{task}.sampling)" if changed else ""
    whose = ", as its generation_config says," if step.values == "model" else ","
    return (
        f"sampled at temperature {settings.temperature:g}, top-k {settings.top_k}, top-p {settings.top_p:g}{whose} at "
        f"most {settings.max_tokens} tokens{told}, ended by {', '.join([*stops, *end])}{left}"
    )


def _example(session: Session, task: str, problem: Problem) -> Iterator[str]:
    """Nothing is sampled yet, so a worked solution stands for a response; without one its place is shown."""
    tokenizer, prompter = session.tokenizer, session.prompters["train_prompt"][task]
    masked = marked(tokenizer, prompter.ids(problem))
    if problem.demonstration is None:
        taught = f"<a right response>{tokenizer.eos_token}"
    else:
        taught = tokenizer.decode(prompter.solution(problem))
    yield "training example, with what carries no loss in ⟦ ⟧:"
    yield from indented(masked + taught)


def _replayed(session: Session, place: str, path: Path) -> Iterator[str]:
    row = next(read_rows(path, f"{place}.from"))
    prompt, response = row.ids(encoder_of(session))
    yield f"replayed by {place}, the first row of {path}, with what carries no loss in ⟦ ⟧:"
    yield from indented(marked(session.tokenizer, prompt) + session.tokenizer.decode(response))


def marked(tokenizer: Any, ids: Sequence[int]) -> str:
    return f"⟦{tokenizer.decode(ids)}⟧"


def with_values(tokenizer: Any, example: Example) -> str:
    """A response as text, and behind each token that has a target that target."""
    texts = pieces(tokenizer, example.response_ids)
    targets = example.targets or [nan] * len(texts)
    return "".join(text if isnan(value) else f"{text}⟨{value:g}⟩" for text, value in zip(texts, targets, strict=True))


def indented(text: str) -> Iterator[str]:
    if len(text) > WIDTH:
        text = f"{text[: WIDTH // 2]} ... {text[-WIDTH // 2 :]}"
    for line in text.split("\n"):
        yield f"  | {line}"
