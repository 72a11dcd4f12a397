"""Searches of an evaluation: each problem is answered once, by the response that a strategy chooses without knowing
what is right; how often that is right, and what it costs.

What a search wrote lies in ``evaluation/search/NAME``: ``<task>-<split>.parquet`` with the answers and their verdicts,
and the parts of its trees in ``trees``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.artifacts import RunDir, begun_otherwise
from selftrain.drawing.parts import by_length
from selftrain.drawing.sampled import Advance, request
from selftrain.evaluation import Outcome, by_problem, majorities, named, tested
from selftrain.events import Event
from selftrain.files import remove
from selftrain.planning import fingerprints
from selftrain.planning.references import guiding
from selftrain.planning.settings import sampler_of, sampling_of
from selftrain.session import Session
from selftrain.stages.judged import UNJUDGED, is_judged, judge_split
from selftrain.stages.search import search_parts
from selftrain.stages.tree_costs import counted
from selftrain.stages.trees import Forest, TreePart, stem, told

FOLDER, TREES = "search", "trees"


def answer_by_searches(
    session: Session, iteration: int, splits: Sequence[tuple[str, str]]
) -> Iterator[Advance | Event]:
    """Write the answers of every search; what fits the config stays, anything else is set aside.

    Raises:
        Interrupted: the run was asked to stop; parts that are finished stay.
        RunError: a model failed.
    """
    place, searches = _folder(session.run, iteration), session.config.evaluate.search
    former = sorted(place.iterdir()) if place.exists() else []
    session.run.set_aside([folder for folder in former if folder.name not in searches])
    for name in searches:
        _begin(session, iteration, name)
        for task, split in splits:
            yield from _split(session, iteration, name, task, split)
        remove(place / name / UNJUDGED)


def search_row(session: Session, iteration: int, task: str, split: str, sampled: Sequence[Outcome]) -> dict[str, Any]:
    """What a line of metrics says of each search NAME: ``search_NAME``, the share of problems it answers right, with
    its interval; ``search_NAME_policy_tokens`` and ``search_NAME_value_tokens``, what one problem takes, as budgets
    count it; ``search_NAME_unanswered``, the share of problems it has no answer to, where there are any; and
    ``search_NAME_vs_maj``, a paired test against the majority of the samples, where they have answers.

    Args:
        sampled: the sampled responses of the evaluation.
    """
    row: dict[str, Any] = {}
    problems, groups = session.problems.of(task, split), by_problem(sampled)
    size = session.config.evaluate.n
    votes = majorities(groups, size) if size > 1 else {}
    for name in session.config.evaluate.search:
        path, metric = answers_file(session.run, iteration, name, task, split), f"search_{name}"
        status = dict(zip(*records.columns(path, "problem_id", "status"), strict=True))
        right = {problem.id: float(status.get(problem.id) == "right") for problem in problems}
        row |= named(metric, list(right.values()))
        parts = evaluated_parts(session.run, iteration, name, f"{task}-{split}")
        spent = counted(part.path for part in parts)["spent"]
        row |= {f"{metric}_{kind}": round(spent[kind] / len(right), 6) for kind in ("policy_tokens", "value_tokens")}
        if len(status) < len(right):
            row[f"{metric}_unanswered"] = round(1 - len(status) / len(right), 6)
        if votes:
            row[f"{metric}_vs_maj"] = tested(votes, right)
    return row


def evaluated_parts(run: RunDir, iteration: int, name: str = "*", of: str = "") -> list[TreePart]:
    """The trees of a search of an evaluation, or of all.

    Args:
        of: task and split, as their files are called; all where none is given.
    """
    found = sorted(_folder(run, iteration).glob(f"{name}/{TREES}/*.parquet"))
    return [_part(path.parent.parent, path) for path in found if of in ("", stem(path))]


def _part(folder: Path, path: Path) -> TreePart:
    return TreePart(path, f"evaluate.search.{folder.name}", folder / f"{stem(path)}.parquet", "id")


def answers_file(run: RunDir, iteration: int, name: str, task: str, split: str) -> Path:
    return _folder(run, iteration) / name / f"{task}-{split}.parquet"


def _folder(run: RunDir, iteration: int) -> Path:
    return run.iteration(iteration) / "evaluation" / FOLDER


def _begin(session: Session, iteration: int, name: str) -> None:
    """Note what the trees of a search depend on beside the samples of the evaluation; others are set aside."""
    config, stage = session.config, session.stages.evaluate(iteration)
    folder, search = _folder(session.run, iteration) / name, config.evaluate.search[name]
    models = guiding(config, f"evaluate.search.{name}", search)
    depends = {
        "search": stage.config[fingerprints.SEARCH][name],
        **{f"input '{place}'": stage.inputs[place] for place in models},
        **(fingerprints.judged(config) if fingerprints.judges(search, is_single=True) else {}),
    }
    if begun_otherwise(folder, depends):
        session.run.set_aside([folder])
        begun_otherwise(folder, depends)


def _split(session: Session, iteration: int, name: str, task: str, split: str) -> Iterator[Advance | Event]:
    """Answer one split, in parts until it is judged, and judge it."""
    path, count = answers_file(session.run, iteration, name, task, split), len(session.problems.of(task, split))
    if is_judged(session, path):
        yield Advance(samples=count)
        return
    if path.exists():
        session.run.keep_aside([path])
        judge_split(session, [path], path)
        yield Advance(samples=count)
        return
    forest, parts = _forest(session, iteration, name, task, split), []
    for advance in search_parts(forest):
        parts += [advance.part] if advance.part else []
        yield advance
    judge_split(session, parts, path)
    yield from told(forest, evaluated_parts(session.run, iteration, name, path.stem))


def _forest(session: Session, iteration: int, name: str, task: str, split: str) -> Forest:
    config, purpose = session.config, f"search {name}"
    folder, file = _folder(session.run, iteration) / name, f"{task}-{split}"
    writer = session.policy(sampler_of(config), iteration, config.evaluate.prompt)
    settings = session.settings(sampling_of(config), task)
    work = by_length(
        request(problem, writer, settings, 1, seed=config.run.seed, iteration=iteration, step=purpose)
        for problem in session.problems.of(task, split)
    )
    return Forest(
        session,
        session.stages.evaluate(iteration),
        f"evaluate.search.{name}",
        f"{name} on {task}/{split}",
        purpose,
        config.evaluate.search[name],
        True,
        work,
        writer,
        session.prompters[config.evaluate.prompt],
        folder / UNJUDGED / file,
        folder / TREES / file,
    )
