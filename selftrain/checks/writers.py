"""What is wrong with who answers: samplers, teachers, and prompts that they have no room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.checks.here import Lacks, refuse
from selftrain.config import ConfigError, instantiate
from selftrain.errors import NotHere
from selftrain.models.adapters import adapter_base
from selftrain.planning.settings import NUMBERS, POLICY, asked_with, sampler_of
from selftrain.planning.writers import remote
from selftrain.prompts import Prompter, check_prompt
from selftrain.schema import Component, RunConfig
from selftrain.session import Session
from selftrain.types import Problem


def samplers(config: RunConfig) -> dict[str, Component]:
    """By their place in the config."""
    chosen = {f"grow.{name}.sampler": step.sampler for name, step in config.grow.items()}
    own = {} if config.evaluate.sampler is None else {"evaluate.sampler": config.evaluate.sampler}
    return chosen | own


def check_samplers(config: RunConfig, lacks: Lacks = refuse) -> None:
    """What a sampler says of this machine, where it says anything."""
    for where, component in samplers(config).items():
        sampler = instantiate("sampler", component)
        try:
            if hasattr(sampler, "check"):
                sampler.check()
        except NotHere as error:
            lacks(f"{where}.{error}")
        except ValueError as error:
            raise ConfigError(f"{where}.{error}") from error


def check_writers(session: Session) -> None:
    """Teachers that can be read and asked, and settings that models were said to have."""
    for name, step in session.config.grow.items():
        try:
            session.writer(name, 0)
            context = None if step.model == POLICY or remote(step.sampler) else _context(step.model)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"grow.{name}.model: '{step.model}' cannot be read as a teacher: {reason}") from error
        check_asked(session, name, context)
    for where, (sampling, model) in asked_with(session.config).items():
        if sampling.values == "model" and not session.model_values(model).keys() & set(NUMBERS):
            raise ConfigError(
                f"{where}.values: the generation config of {session.model_name(model)} names no temperature, top_k or "
                "top_p; give them here and leave values at config"
            )


def _context(name: str) -> int | None:
    """Positions a teacher has, by its folder or name on the hub; None where its config does not say.

    Raises:
        OSError, ValueError: there is no model.
    """
    from selftrain.models.checkpoint import positions

    return positions(teacher_config(name))


def teacher_config(name: str) -> Any:
    """The transformers config of a teacher; of an adapter, that of its base. Raises OSError, ValueError."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(adapter_base(name) or name))


def check_asked(session: Session, step: str, context: int | None) -> None:
    """Write every prompt a step asks with as who writes reads it, who may have a chat template of its own.

    Args:
        context: positions of who writes; None where it does not say.
    """
    chosen, problems = session.config.grow[step], session.problems.learnt("train")
    _check_read(session.asked(step), problems, f"grow.{step}.model", context)
    _check_room(session.asked(step), problems, f"grow.{step}", chosen.sampler)


def check_evaluated(session: Session, splits: Sequence[tuple[str, str]]) -> None:
    """Whether the prompts of these tasks and splits fit into the engine that evaluates."""
    config, asked = session.config, session.prompters[session.config.evaluate.prompt]
    own = [f"grow.{name}" for name, step in config.grow.items() if step.model == POLICY]
    where = "evaluate" if config.evaluate.sampler is not None or not own else own[0]
    problems = [problem for split in splits for problem in session.problems.of(*split)]
    _check_room(asked, problems, where, sampler_of(config))


def room(sampler: Component) -> int | None:
    """Tokens of prompt and response an engine was told to hold; None where it takes what the model does."""
    length = sampler.options.get("max_model_len")
    return None if length is None else int(length)


def _check_room(asked: Mapping[str, Prompter], problems: Sequence[Problem], where: str, sampler: Component) -> None:
    """Engines end what has no room at once, so all responses to such a prompt would be empty."""
    if (limit := room(sampler)) is None:
        return
    for problem in problems:
        if (count := len(asked[problem.task].ids(problem))) >= limit:
            raise ConfigError(
                f"{where}.sampler.max_model_len: the prompt of {problem.id} has {count} tokens, and {limit} leave no "
                "room for a response; raise it, shorten the prompt, or drop the problem"
            )


def _check_read(asked: Mapping[str, Prompter], problems: Sequence[Problem], where: str, context: int | None) -> None:
    for problem in problems:
        prompter = asked[problem.task]
        try:
            check_prompt(prompter.ids(problem), problem, prompter.tokenizer, context)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from error
