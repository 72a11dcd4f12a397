"""What a learner is fitted to: chosen samples, demonstrations and replayed rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from selftrain import records
from selftrain.files import replacing, write_json
from selftrain.planning.fingerprints import REPLAY
from selftrain.schema import Selection
from selftrain.selection import Candidate, Chooser
from selftrain.session import Session
from selftrain.stages.replay import replayed
from selftrain.stages.score import candidates
from selftrain.types import Example, Problem

EXAMPLES_PER_PART = 8192


def selection_file(session: Session, iteration: int, learner: str) -> Path:
    return session.run.iteration(iteration) / f"selection-{learner}.json"


def select(session: Session, iteration: int, learner: str) -> Counter[str]:
    """Write the examples of a learner; how many samples of Grow were kept, or left out for which reason."""
    folder = session.run.iteration(iteration)
    sampled: Counter[str] = Counter()
    counts: dict[str, dict[str, int]] = {}
    with replacing(folder / "examples" / learner) as target:
        target.mkdir(parents=True)
        for name, selection in session.config.learners[learner].examples.items():
            examples, reasons = chosen_examples(session, iteration, name, selection)
            kept = records.write_parts(target, name, Example, examples, EXAMPLES_PER_PART)
            counts[name] = {"kept": kept} if reasons is None else dict(reasons)
            sampled.update(reasons or {})
    write_json(selection_file(session, iteration, learner), {"sampled": dict(sampled), "selections": counts})
    return sampled


def chosen_examples(
    session: Session, iteration: int, name: str, selection: Selection
) -> tuple[Iterator[Example], Counter[str] | None]:
    """Examples of one selection; the reasons fill as they are read, None for what is not sampled."""
    if selection.source == "gold":
        return iter(demonstration_examples(session, session.problems.gold(), name, selection.weight)), None
    if selection.source.startswith(REPLAY):
        return replayed(session, Path(selection.source.removeprefix(REPLAY)), name, selection.weight), None
    chooser = Chooser(name, selection, session.tokenizer.eos_token_id)
    oldest = iteration if selection.history == "this" else 1

    def stream() -> Iterator[Candidate]:
        for number in range(iteration, oldest - 1, -1):
            yield from candidates(session, number, selection.source)

    return (as_taught(session, example) for example in chooser.choose(stream())), chooser.reasons


def as_taught(session: Session, example: Example) -> Example:
    """With the prompt its task is taught under, where that is another than it was sampled with."""
    problem = session.problems.by_id[example.problem_id]
    if session.config.tasks[problem.task].train_prompt is None:
        return example
    return replace(example, prompt_ids=session.prompters["train_prompt"][problem.task].ids(problem))


def demonstrated(session: Session, source: str) -> list[Problem]:
    return session.problems.demonstrations("train" if source == "gold" else source)


def demonstration_examples(session: Session, problems: list[Problem], name: str, weight: float) -> list[Example]:
    """Worked solutions as examples, encoded here: nobody sampled them."""
    prompters = session.prompters["train_prompt"]
    return [
        Example(
            id=f"{name}/{problem.id}",
            problem_id=problem.id,
            source=name,
            prompt_ids=prompters[problem.task].ids(problem),
            response_ids=prompters[problem.task].solution(problem),
            weight=weight,
        )
        for problem in problems
        if problem.demonstration is not None
    ]
