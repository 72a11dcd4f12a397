"""What a learner is fitted to: chosen samples, demonstrations and replayed rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.best_of import weights
from selftrain.drawing.accept import accepted
from selftrain.files import replacing, write_json
from selftrain.intervals import mean
from selftrain.pairing import as_pair, balanced, paired
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.values import valued
from selftrain.schema import Selection
from selftrain.selection import NO_REWARD, Candidate, Chooser, as_example
from selftrain.session import Session
from selftrain.stages.advantages import token_advantages, with_advantages
from selftrain.stages.replay import replayed
from selftrain.stages.score import candidates, of_problems
from selftrain.stages.tree_examples import tree_examples, worthy
from selftrain.stages.values import with_outcome, with_step_labels
from selftrain.types import Example, Problem

EXAMPLES_PER_PART = 8192
Form = Callable[[Session, Iterator[Candidate], str, Selection], Iterator[Example]]


def selection_file(session: Session, iteration: int, learner: str) -> Path:
    return session.run.iteration(iteration) / f"selection-{learner}.json"


def select(session: Session, iteration: int, learner: str) -> Counter[str]:
    """Write the examples of a learner; how many samples of Grow were kept, or left out for which reason."""
    folder = session.run.iteration(iteration)
    sampled: Counter[str] = Counter()
    counts: dict[str, dict[str, int]] = {}
    with replacing(folder / "examples" / learner, later=True) as target:
        target.mkdir(parents=True)
        advantages = token_advantages(session, iteration, learner)
        for name in session.config.learners[learner].examples:
            examples, reasons = chosen_examples(session, iteration, learner, name)
            if advantages is not None and reasons is not None:
                examples = used(with_advantages(examples, advantages), reasons, NO_REWARD)
            else:  # What was recorded at sampling has no one to read it, and may lack an end token that was added.
                examples = (replace(example, old_logprobs=None) for example in examples)
            kept = records.write_parts(target, name, Example, examples, EXAMPLES_PER_PART)
            counts[name] = {"kept": kept} if reasons is None else dict(reasons)
            sampled.update(reasons or {})
    told: dict[str, Any] = {"sampled": dict(sampled), "selections": counts}
    if advantages is not None:
        told["advantages"] = {"flat_groups": advantages.flat_groups, "empty": advantages.empty}
    write_json(selection_file(session, iteration, learner), told, later=True)
    return sampled


def chosen_examples(
    session: Session, iteration: int, learner: str, name: str
) -> tuple[Iterator[Example], Counter[str] | None]:
    """Examples of one selection; the reasons fill as they are read, None for what is not sampled."""
    chosen = session.config.learners[learner]
    selection = chosen.examples[name]
    if selection.source == "gold":
        return iter(demonstration_examples(session, session.problems.gold(), name, selection.weight)), None
    if selection.source.startswith(REPLAY):
        return replayed(session, Path(selection.source.removeprefix(REPLAY)), name, selection.weight), None
    chooser = Chooser(selection)
    iterations = range(iteration, 0 if selection.history == "all" else iteration - 1, -1)
    if selection.kind in ("tree_values", "step_pairs"):
        return tree_examples(session, iterations, learner, name, chooser.reasons), chooser.reasons

    def stream() -> Iterator[Candidate]:
        for number in iterations:
            learnt = accepted(session, number, selection.source)
            if others := left_out(session, number, selection.source, learnt):
                chooser.reasons["problem not accepted"] += others
            yield from candidates(session, number, selection.source, chosen.when == "after_score", learnt)

    found = stream()
    if selection.value_above is not None:
        found = worthy(session, iterations, selection, found, chooser.reasons)
    kept = chooser.choose(found)
    form, lacking = FORMS[selection.kind]
    made = used(form(session, kept, name, selection), chooser.reasons, lacking)
    if learner in valued(session.config):
        return made, chooser.reasons
    return (as_taught(session, example) for example in made), chooser.reasons


def left_out(session: Session, iteration: int, step: str, learnt: set[str] | None) -> int:
    """Samples of problems that are not learnt from."""
    parts = records.parts(session.run.iteration(iteration) / "samples", f"{step}-")
    return sum((of_problems(part, learnt) or []).count(False) for part in parts)


def used(examples: Iterator[Example], reasons: Counter[str], lacking: str) -> Iterator[Example]:
    """The examples; at their end, samples that were chosen and are in none of them are counted by what they lack."""
    there: set[str | None] = set()
    for example in examples:
        there.add(example.sample_id)
        yield example
    if alone := reasons["kept"] - len(there):
        reasons.update({"kept": -alone, lacking: alone})


def _singles(session: Session, kept: Iterator[Candidate], name: str, selection: Selection) -> Iterator[Example]:
    end = session.tokenizer.eos_token_id
    weighed = by_reward(kept, selection)
    examples = (as_example(name, selection, candidate, end, factor) for candidate, factor in weighed)
    return examples if selection.balance == "none" else iter(balanced(list(examples), selection.balance == "problem"))


def by_reward(kept: Iterable[Candidate], selection: Selection) -> Iterator[tuple[Candidate, float]]:
    """Each with what it counts for by its reward, 1 on the mean of them all."""
    if selection.weigh == "none":
        yield from zip(kept, repeat(1.0), strict=False)
        return
    chosen = list(kept)
    counts = weights([one.reward or 0.0 for one in chosen], selection.weigh)
    average = mean(counts) if any(counts) else 1.0
    yield from zip(chosen, (count / average for count in counts), strict=True)


def _pairs(session: Session, kept: Iterator[Candidate], name: str, selection: Selection) -> Iterator[Example]:
    end = session.tokenizer.eos_token_id
    for sides in paired(kept, selection):
        yield from as_pair(*(as_example(name, selection, candidate, end) for candidate in sides))


def _outcomes(session: Session, kept: Iterator[Candidate], name: str, selection: Selection) -> Iterator[Example]:
    return with_outcome(_singles(session, kept, name, selection))


def _step_labelled(session: Session, kept: Iterator[Candidate], name: str, selection: Selection) -> Iterator[Example]:
    assert selection.labels is not None
    end = session.tokenizer.eos_token_id
    made = ((candidate.sample, as_example(name, selection, candidate, end)) for candidate in kept)
    return with_step_labels(session, made, selection.labels)


ALONE = "no other kind to set against"
FORMS: dict[str, tuple[Form, str]] = {
    "samples": (_singles, ALONE),
    "pairs": (_pairs, ALONE),
    "leaves": (_singles, ALONE),
    "outcome": (_outcomes, ALONE),
    "step_labels": (_step_labelled, "no step rewards"),
}
"""By kind of selection: how chosen samples become examples, and what those lack that are in none."""


def as_taught(session: Session, example: Example) -> Example:
    """With the prompt its task is taught under, where that is another than it was sampled with. Not for learners of
    values: what a response is worth is asked behind the prompt it was sampled with."""
    problem = session.problems.by_id[example.problem_id]
    if session.config.tasks[problem.task].train_prompt is None:
        return example
    return replace(example, prompt_ids=session.prompters["train_prompt"][problem.task].ids(problem))


def demonstrated(session: Session, source: str) -> list[Problem]:
    return session.problems.demonstrations("train" if source == "gold" else source)


def demonstration_examples(
    session: Session, problems: list[Problem], name: str, weight: float, prompt: str = "train_prompt"
) -> list[Example]:
    """Worked solutions as examples, encoded here: nobody sampled them.

    Args:
        prompt: which one of their task they stand behind.
    """
    prompters = session.prompters[prompt]
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
