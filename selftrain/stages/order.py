"""The stages of a run and what does their work, in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence, Set
from functools import partial
from pathlib import Path

from selftrain.artifacts import Stage
from selftrain.events import Event
from selftrain.planning.references import trained_before, training_order
from selftrain.planning.settings import POLICY, evaluated
from selftrain.session import Session
from selftrain.spending.note import NOTE as BUDGET
from selftrain.stages.checkpoints import UNFINISHED
from selftrain.stages.evaluate import answers_fit, evaluate
from selftrain.stages.grow import grow
from selftrain.stages.improve import improve, warmup
from selftrain.stages.monitor import FILE
from selftrain.stages.regrade import GROW, SPLITS
from selftrain.stages.score import score
from selftrain.stages.start import start
from selftrain.stages.values import put_head
from selftrain.stages.verify import verify

Work = Callable[[], Iterator[Event]]


def preparation(session: Session) -> Iterator[tuple[Stage, Work]]:
    """What comes before the first iteration: the model to start from, the warm-ups, and fresh value heads."""
    stages = session.stages
    if session.config.model.path is None:
        yield stages.start(), partial(start, session)
    # Others may begin with what the policy is after its own.
    for learner in sorted(session.config.warmup, key=lambda name: name != POLICY):
        yield stages.warmup(learner), partial(warmup, session, learner)
    for learner in stages.heads():
        yield stages.head(learner), partial(put_head, session, learner)


def iteration_stages(session: Session, iteration: int) -> Iterator[tuple[Stage, Work]]:
    """Grow, Verify, learners that train before Score, Score, the others, Evaluate.

    Iteration 0 only evaluates the model the run starts from.
    """
    stages = session.stages
    if iteration > 0:
        yield stages.grow(iteration), partial(grow, session, iteration)
        yield stages.verify(iteration), partial(verify, session, iteration)
        early = trained_before(session.config, "score")
        order = training_order(session.config)
        yield from _improvements(session, iteration, [name for name in order if name in early])
        yield stages.score(iteration), partial(score, session, iteration)
        yield from _improvements(session, iteration, [name for name in order if name not in early])
    if evaluated(session.config, iteration):
        yield stages.evaluate(iteration), partial(evaluate, session, iteration)


def _improvements(session: Session, iteration: int, learners: Sequence[str]) -> Iterator[tuple[Stage, Work]]:
    """One by one: what a stage depends on is known when those before it are done."""
    for learner in learners:
        yield session.stages.improve(iteration, learner), partial(improve, session, iteration, learner)


def outputs(stage: Stage, redone: Collection[str] = ()) -> list[Path]:
    """Files and folders a stage writes, its mark last.

    Args:
        redone: labels of the stages redone with it; answers that then only need to be judged or scored again are left
            out.
    """
    name, _, learner = stage.name.partition("-")
    regraded = sorted(path.name for path in stage.folder.glob(SPLITS))
    if name == "evaluate" and _answers_stay(stage, set(redone)):
        return [*(stage.folder / path for path in ("metrics.json", *regraded)), stage.mark]
    made = {
        "start": ["."],
        "warmup": ["checkpoint", "log.jsonl", UNFINISHED],
        "head": ["checkpoint"],
        "grow": ["samples", "trees", "verdicts", GROW, "verify.done", BUDGET],
        "verify": ["verdicts", GROW],
        "score": ["scores", FILE],
        "improve": [f"examples/{learner}", f"selection-{learner}.json", learner],
        "evaluate": ["evaluation", "metrics.json", *regraded],
    }[name]
    return [*(stage.folder / path for path in made), stage.mark]


def _answers_stay(stage: Stage, redone: Set[str]) -> bool:
    """Whether an evaluation that is redone may keep its answers: the policy is the same, and what differs is who judges
    them, or who chooses among them."""
    policy = {f"{stage.iteration}/improve-{POLICY}", f"0/warmup-{POLICY}", "0/start"}
    read = redone & set(stage.reads)
    chosen_anew = bool(read) and not (stage.mark.exists() and stage.differing())
    return not read & policy and (chosen_anew or answers_fit(stage))
