"""Speeds of this machine, with the engines and ranks of the config, by a few responses and a few optimizer steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from selftrain.errors import failing_as_run_error
from selftrain.estimating.speed import Speeds
from selftrain.planning.engine import open_sampler
from selftrain.planning.settings import POLICY
from selftrain.sampling.base import Completion, Request
from selftrain.schema import Component
from selftrain.session import Session
from selftrain.stages.grow import work_list
from selftrain.stages.start import start
from selftrain.types import Example

RESPONSES = 96
"""Drawn for the measurement, after a few that warm the engine up."""
WARM = 8
STEPS = 5
"""Optimizer steps that are timed, after one that is not."""


@dataclass(frozen=True)
class Probed:
    speeds: Speeds
    response: float
    """Mean tokens of the responses drawn."""


def probe(session: Session) -> Probed:
    """Sample the model the run starts from, and fit it to what it said.

    Args:
        session: of a folder that may be thrown away.

    Raises:
        RunError: the sampler or the fit failed.
    """
    if session.config.model.path is None:
        for _ in start(session):
            pass
    name = next((name for name, step in session.config.grow.items() if step.model == POLICY), None)
    if name is None:
        return Probed(Speeds(train=_training_speed(session, _solved(session))), 0.0)
    requests = work_list(session, 1, name)
    step = session.config.grow[name]
    component = step.sampler
    asked = max(1, RESPONSES // max(1, step.n))
    chosen = requests[:: max(1, len(requests) // asked)][:asked]
    answers, seconds = _drawn(session, component, requests[:1], chosen)
    tokens = sum(len(answer.ids) for answer in answers)
    examples = [_example(chosen[answer.request], answer) for answer in answers if answer.ids]
    return Probed(Speeds(tokens / seconds, _training_speed(session, examples)), tokens / len(answers))


def _drawn(
    session: Session, component: Component, warm: list[Request], chosen: list[Request]
) -> tuple[list[Completion], float]:
    def answers(work: list[Request]) -> Iterator[list[Completion]]:
        return failing_as_run_error(engine.sample(work), "the sampler")

    with closing(open_sampler(component, session.start, session.config.launch)) as engine:
        for _ in answers([replace(one, seeds=one.seeds[:WARM]) for one in warm]):
            pass
        began = time.perf_counter()
        found = [answer for several in answers(chosen) for answer in several]
        return found, time.perf_counter() - began


def _example(request: Request, answer: Completion) -> Example:
    name = f"{request.problem.id}/{answer.index}"
    return Example(name, request.problem.id, "probe", request.prompt_ids, answer.ids)


def _solved(session: Session) -> list[Example]:
    """Worked solutions, where nothing is sampled by the policy."""
    prompters = session.prompters["train_prompt"]
    worked = session.problems.gold()[:RESPONSES]
    return [
        Example(one.id, one.id, "probe", prompters[one.task].ids(one), prompters[one.task].solution(one))
        for one in worked
    ]


def _training_speed(session: Session, examples: list[Example]) -> float | None:
    """Tokens per second of a fit by likelihood: forward and backward pass are those of any objective."""
    fitted: Any = session.config.learners.get(POLICY) or session.config.warmup.get(POLICY)
    if fitted is None or not examples:
        return None
    from selftrain.objectives.nll import NLL
    from selftrain.schema import Validation
    from selftrain.training.fit import Fit, fit

    root = session.run.root
    steps = STEPS + 1
    optim = replace(fitted.optim, steps=steps + 1, validation=Validation())
    repeated = -(-optim.batch_size // len(examples))
    whole = [replace(one, id=f"{one.id}/{copy}") for copy in range(repeated) for one in examples]
    launch = session.config.launch
    asked = Fit(session.start, root / "probe", Path(root / "log.jsonl"), NLL(), optim, 0, fitted.lora)
    asked = replace(asked, kernels=launch.kernels, trainer=replace(launch.train, save_every=None))
    # It is left before its last step, so that no checkpoint is written.
    with closing(fit(whole, asked)) as states:  # type: ignore[type-var]
        next(states)
        began = time.perf_counter()
        tokens = sum(state.last.tokens for state in islice(failing_as_run_error(states, "the fit"), STEPS))
        return tokens / (time.perf_counter() - began)
