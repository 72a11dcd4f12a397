"""`run.budget`: how many samples per problem the next iterations get, and whether there are next iterations at all.

What is decided follows from what lies on disk of the iterations before, so that a killed run decides the same again; it
is decided from one evaluation to the next, so that no iteration is left without one.
"""

from __future__ import annotations

from collections.abc import Mapping

from selftrain.checks.workload import Assumed, Workload
from selftrain.estimating.launch import placed
from selftrain.files import write_json
from selftrain.planning.settings import most_samples, sampler_of
from selftrain.schema import RunConfig
from selftrain.session import Session
from selftrain.spending import note
from selftrain.spending.choice import Choice, Price, choose
from selftrain.spending.seconds import seconds
from selftrain.spending.tokens import held, noted
from selftrain.stages.evaluate import metrics_of
from selftrain.stages.thinning import best_so_far

Amounts = dict[str, float]
"""Tokens, or GPU-hours, by stage."""
FILE = "budget.json"
"""Of a run that has ended: what was spent, and why it stopped."""


def plan(session: Session, iteration: int) -> str | None:
    """Note how many samples per problem an iteration draws; or why it is not begun."""
    budget, every = session.config.run.budget, session.config.loop.evaluate_every
    if budget is None or not iteration or note.read(session.run, iteration) is not None:
        return None
    first = iteration - (iteration - 1) % every
    if first < iteration:
        note.write(session.run, iteration, {"samples": note.samples_limit(session.run, first)})
        return None
    done, most = spent(session, iteration), most_samples(session.config)
    price = price_of(session, iteration)
    least = min(budget.least, most)
    blocks = -(-(session.config.loop.iterations - iteration + 1) // every)
    chosen = choose(total(session.config) - done, price, most, least, blocks)
    if not chosen.blocks:
        return _why(session, iteration, price.of(least))
    note.write(session.run, iteration, _noted(chosen, done, price))
    return None


def _noted(chosen: Choice, done: float, price: Price) -> dict[str, float]:
    return {"samples": chosen.samples, "spent": done, "planned": price.of(chosen.samples), "blocks": chosen.blocks}


def _why(session: Session, iteration: int, needed: float) -> str:
    every = session.config.loop.evaluate_every
    more = "another iteration" if every == 1 else f"another {every} iterations"
    return f"the budget has no room for {more}, about {amount(session.config, needed)}"


def ended(session: Session, reason: str, iteration: int) -> str:
    """Why a run with a budget stopped, with what it has spent; noted in the run's folder for its table.

    Args:
        iteration: how many iterations, that with number 0 included, are done.
    """
    config = session.config
    if config.run.budget is None:
        return reason
    done, best = spent(session, iteration), best_so_far(session, iteration - 1)
    told = f"{reason}; {amount(config, done)} of {amount(config, total(config))} are spent"
    told += f"; the best checkpoint is that of iteration {best}" if best is not None else ""
    write_json(session.run.root / FILE, {"spent": done, "budget": total(config), "unit": unit(config), "why": told})
    return told


def total(config: RunConfig) -> float:
    budget = config.run.budget
    assert budget is not None
    return float(budget.tokens or budget.gpu_hours or 0)


def unit(config: RunConfig) -> str:
    budget = config.run.budget
    return "tokens" if budget is not None and budget.tokens else "GPU-hours"


def amount(config: RunConfig, value: float) -> str:
    return f"{value:,.0f} tokens" if unit(config) == "tokens" else f"{value:,.3g} GPU-hours"


def spent(session: Session, iteration: int) -> float:
    """Of the budget, before an iteration."""
    if unit(session.config) == "tokens":
        return float(sum(sum(noted(session.run, number).values()) for number in range(iteration)))
    return sum(sum(hours(session, number).values()) for number in range(iteration))


def hours(session: Session, iteration: int) -> Amounts:
    """GPU-hours of an iteration by stage."""
    gpus = placed(session.config, sampler_of(session.config)).gpus
    found = seconds(session.run).items()
    return {stage: own / 3600 * gpus for (number, stage), own in found if number == iteration}


def price_of(session: Session, iteration: int) -> Price:
    """Of a block of iterations: as the last one was; the first as the evaluation of iteration 0 lets expect."""
    every = session.config.loop.evaluate_every
    if iteration == 1:
        return _foreseen(session)
    tokens = unit(session.config) == "tokens"
    before = range(iteration - every, iteration)
    rows: list[Mapping[str, float]] = [noted(session.run, n) if tokens else hours(session, n) for n in before]
    drawn = note.samples_limit(session.run, iteration - 1) or most_samples(session.config)
    price = _price(session, {stage: sum(row.get(stage, 0) for row in rows) for row in rows for stage in row}, drawn)
    return price


def _price(session: Session, amounts: Mapping[str, float], drawn: int) -> Price:
    """Apart by what follows from the number of samples and what does not."""
    grown = [stage for stage in amounts if drawn and _grows(session.config, stage)]
    return Price(
        sum(amounts[stage] for stage in amounts if stage not in grown),
        sum(amounts[stage] for stage in grown) / drawn if drawn else 0.0,
    )


def _grows(config: RunConfig, stage: str) -> bool:
    """Whether a stage takes more where more samples are drawn."""
    if stage in ("grow", "verify", "score"):
        return True
    learner = config.learners.get(stage.removeprefix("improve-"))
    return learner is not None and learner.optim.steps is None


def _foreseen(session: Session) -> Price:
    """The first block, by the lengths and the share of right answers that the evaluation before it found."""
    config, every = session.config, session.config.loop.evaluate_every
    rows, first = metrics_of(session, 0), noted(session.run, 0)
    looked = Workload(session, Assumed()).evaluate(1)
    response = held(session.run.iteration(0) / "evaluation") / max(1.0, looked.samples)
    accuracies = [row[name] for row in rows for name in ("pass@1", f"avg@{config.evaluate.n}") if name in row]
    work = Workload(session, Assumed(response, max(accuracies, default=0.5)))
    fits = {f"improve-{name}": every * work.improve(name).read for name in config.learners}
    tokens = {"grow": every * work.grow().drawn, **fits, "evaluate": float(first.get("evaluate", 0))}
    if unit(config) == "GPU-hours":
        tokens = _timed(session, tokens)
    return _price(session, tokens, most_samples(config))


def _timed(session: Session, tokens: Mapping[str, float]) -> Amounts:
    """GPU-hours of tokens: drawn as fast as the evaluation drew, read as fast as the warm-ups read; where there was
    none, as fast as they are drawn."""
    took, first = hours(session, 0), noted(session.run, 0)
    draw = took.get("evaluate", 0.0) / max(1, first.get("evaluate", 0))
    warm = [stage for stage in first if stage.startswith("warmup-")]
    read = sum(took.get(stage, 0.0) for stage in warm) / sum(first[stage] for stage in warm) if warm else draw
    return {stage: own * (read if stage.startswith("improve-") else draw) for stage, own in tokens.items()}
