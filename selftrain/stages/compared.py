"""What a learner's examples are compared with: the reference's log-probabilities, and the distribution they were drawn
from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from selftrain.config import ConfigError
from selftrain.errors import RunError
from selftrain.planning.settings import objective_needs
from selftrain.schema import Sampling
from selftrain.session import Session
from selftrain.stages.logprobs import Logprobs
from selftrain.types import Example

SELECTIONS = "let its selections keep samples of two problems at least"


def with_reference(
    session: Session,
    iteration: int,
    learner: str,
    examples: list[Example],
    temperature: float,
    alone: str = SELECTIONS,
) -> list[Example]:
    """Examples with what the reference gives their tokens, where the objective reads it; once per iteration.

    With their partners behind them, where it reads a divergence.

    Args:
        alone: what to do where all examples are of one problem.

    Raises:
        RunError: there is nothing to estimate a divergence on.
    """
    chosen = session.config.learners[learner]
    needs = objective_needs(chosen.objective)
    if "reference" not in needs:
        return examples
    if "divergence" in needs:
        from selftrain.training.divergence import with_partners

        try:
            examples = with_partners(examples)
        except ValueError as error:
            where = f"iteration {iteration}, stage 'improve-{learner}'"
            raise RunError(f"{where}: {error}; {alone}") from error
    place = f"learners.{learner}.reference"
    model = session.stages.model(chosen.reference, iteration, f"improve-{learner}", place)
    with Logprobs(session, iteration) as logprobs:
        found = logprobs.of(model, examples, temperature)
    return [replace(one, reference_logprobs=tuple(own.tolist())) for one, own in zip(examples, found, strict=True)]


def sampled_at(session: Session, learner: str) -> float:
    """The temperature of the samples a policy gradient is fitted to; 1 for any other objective."""
    chosen = session.config.learners[learner]
    if "advantages" not in objective_needs(chosen.objective):
        return 1.0
    return next(iter({sampling.temperature for sampling in drawn_with(session, learner)}), 1.0)


def check_drawn(session: Session) -> None:
    """Raises ConfigError where the samples of a policy gradient come from a distribution whose log-probabilities nobody
    can compute."""
    for name, learner in session.config.learners.items():
        if "advantages" not in objective_needs(learner.objective):
            continue
        every = drawn_with(session, name)
        where = f"learners.{name}.objective: {learner.objective.kind} is a gradient of the distribution sampled from"
        if any(sampling.top_k or sampling.top_p < 1.0 for sampling in every):
            raise ConfigError(f"{where}; set top_k: 0 and top_p: 1 where its samples are drawn")
        if len({sampling.temperature for sampling in every}) > 1 or any(not s.temperature for s in every):
            raise ConfigError(f"{where}; its samples must all be drawn at one temperature above 0")


def drawn_with(session: Session, learner: str) -> Sequence[Sampling]:
    """How the samples a learner is fitted to are drawn, by task and step."""
    config = session.config
    steps = {selection.source for selection in config.learners[learner].examples.values()}
    return [
        session.settings(config.grow[step].sampling(), task, config.grow[step].model)
        for step in steps
        if step in config.grow
        for task, own in config.tasks.items()
        if own.weight
    ]
