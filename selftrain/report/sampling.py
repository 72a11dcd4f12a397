"""How a run was sampled: the numbers that held for each task, whoever named them, as the stages find them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from selftrain.artifacts import RunDir
from selftrain.planning.settings import NUMBERS, POLICY, sampler_of, sampling_of
from selftrain.schema import Chat, Component, Evaluate, Grow, Model, RunConfig, Sampling, Task, TaskSampling
from selftrain.session import Session

Section = TypeVar("Section")
EVALUATIONS = EVALUATION, GREEDY = "evaluation", "evaluation, greedy"
MODEL = "model"
"""Who named the numbers, where ``values`` says that the model does."""


@dataclass(frozen=True)
class Asked:
    """How one task is sampled in one place."""

    place: str
    """A step of Grow, or one of `EVALUATIONS`."""
    task: str
    n: int
    numbers: dict[str, float | None]
    """By name; None where the model named them and its generation config cannot be read any more."""
    stop: list[str | int]
    """Strings and ids."""
    sampler: str
    values: str
    """Who named the numbers: ``config`` or ``model``."""


def asked(run: RunDir, config: Mapping[str, Any]) -> list[Asked]:
    """Every step of Grow and the evaluation, task by task.

    Args:
        config: the resolved config of the run as a plain tree.
    """
    session = Session(_read(config), run)
    chosen, evaluate = session.config, session.config.evaluate
    lines = [
        _asked(
            session,
            name,
            task,
            session.samples_per_problem(step.n, task) if step.kind == "sample" else 1,
            step.sampling(),
            step.sampler,
            step.model,
        )
        for name, step in chosen.grow.items()
        for task, own in chosen.tasks.items()
        if own.weight
    ]
    how, sampler = sampling_of(chosen), sampler_of(chosen)
    for task in chosen.tasks:
        sampled = _asked(session, EVALUATION, task, evaluate.n, how, sampler, POLICY)
        greedy = replace(sampled, place=GREEDY, n=1, numbers={**sampled.numbers, "temperature": 0.0}, values="config")
        lines += [*([sampled] if evaluate.n else []), *([greedy] if evaluate.greedy else [])]
    return lines


def _asked(
    session: Session, place: str, task: str, n: int, sampling: Sampling, sampler: Component, model: str
) -> Asked:
    settings = session.settings(sampling, task, model)
    numbers: dict[str, float | None] = {name: getattr(settings, name) for name in NUMBERS}
    if sampling.values == MODEL and not session.model_values(model):  # A run is refused where the model names none.
        own = session.config.tasks[task].sampling
        numbers |= {name: getattr(own, name) for name in ("temperature", "top_k", "top_p")}
    stop: list[str | int] = [*settings.stop, *settings.stop_ids]
    return Asked(place, task, n, numbers, stop, sampler.kind, sampling.values)


def _read(config: Mapping[str, Any]) -> RunConfig:
    """The parts of a config that say how to sample. Nothing is checked: plug-ins of the run may be gone by now."""
    evaluate, chat = config["evaluate"], config["model"]["chat"]
    own = evaluate["sampling"]
    return RunConfig(
        model=Model(path=config["model"]["path"], chat=_section(Chat, {**chat, "reasoning": None})),
        tasks={
            name: Task(kind=task["kind"], sampling=_section(TaskSampling, task["sampling"]), weight=task["weight"])
            for name, task in config["tasks"].items()
        },
        grow={
            name: _section(Grow, {**step, "sampler": _component(step["sampler"])})
            for name, step in config["grow"].items()
        },
        evaluate=Evaluate(
            n=evaluate["n"],
            greedy=evaluate["greedy"],
            sampling=None if own is None else _section(Sampling, own),
            sampler=evaluate["sampler"] and _component(evaluate["sampler"]),
        ),
    )


def _section(schema: type[Section], tree: Mapping[str, Any]) -> Section:
    return schema(**{name: tree[name] for name in [f.name for f in fields(schema)] if name in tree})  # type: ignore


def _component(tree: Mapping[str, Any]) -> Component:
    return Component(tree["kind"], {key: value for key, value in tree.items() if key != "kind"})
