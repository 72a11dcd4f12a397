"""What is wrong with prompts before anything is sampled: every one is written out once."""

from __future__ import annotations

from collections.abc import Mapping

from selftrain.config import ConfigError
from selftrain.planning.settings import POLICY
from selftrain.planning.values import valued
from selftrain.prompts import Prompter, check_marks, check_prompt, check_solution
from selftrain.schema import RunConfig
from selftrain.session import Session
from selftrain.types import Problem


def check_prompts(session: Session, learnt: list[Problem], context: int | None) -> None:
    """Raises ConfigError for what cannot be read or learnt, and for settings without effect.

    Args:
        learnt: the problems whose demonstrations are taught.
        context: positions of the model; None where it does not say.
    """
    check_marks(session.tokenizer, marks(session.config))
    for (kind, task), prompter in different(session.prompters).items():
        _check_chat(session, f"tasks.{task}.{kind}", prompter)
    for (_, task), prompter in different(session.prompters).items():
        for problem in session.problems.by_id.values():
            if problem.task == task:
                check_prompt(prompter.ids(problem), problem, session.tokenizer, context)
    # Learners of values are warmed up behind the prompt they are asked with.
    kinds = ("train_prompt", *(["prompt"] if valued(session.config) & session.config.warmup.keys() else []))
    for prompters in (session.prompters[kind] for kind in kinds):
        for problem in learnt:
            prompter = prompters[problem.task]
            ids = prompter.solution(problem)
            check_solution(ids, len(prompter.ids(problem)), problem, session.tokenizer, context)


def different(prompters: Mapping[str, Mapping[str, Prompter]]) -> dict[tuple[str, str], Prompter]:
    """By kind and task; a train_prompt only where it is another than the prompt."""
    return {
        (kind, task): prompter
        for kind, tasks in prompters.items()
        for task, prompter in tasks.items()
        if kind == "prompt" or prompter is not prompters["prompt"][task]
    }


def marks(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Strings that are looked for in what the policy writes, by their place in the config."""
    chat = config.model.chat
    found = {"model.chat.stop": chat.stop}
    if chat.reasoning is not None:
        found |= {f"model.chat.reasoning.{name}": (mark,) for name, mark in vars(chat.reasoning).items()}
    found |= {f"grow.{name}.stop": step.stop for name, step in config.grow.items() if step.model == POLICY}
    found |= {f"tasks.{name}.sampling.stop": task.sampling.stop for name, task in config.tasks.items()}
    return found | ({"evaluate.sampling.stop": config.evaluate.sampling.stop} if config.evaluate.sampling else {})


def _check_chat(session: Session, where: str, prompter: Prompter) -> None:
    """What only a chat has."""
    if prompter.template is not None:
        return
    chat = session.config.model.chat
    given = {f"{where}.system": prompter.prompt.system, "model.chat.system": chat.system}
    given |= {f"model.chat.arguments.{name}": name for name in chat.arguments}
    for place, value in given.items():
        if value:
            raise ConfigError(
                f"{place}: has no effect, as prompts are plain text here (no chat template); put what it says into "
                "prompt.template, or name a template file (model.chat.template)"
            )
