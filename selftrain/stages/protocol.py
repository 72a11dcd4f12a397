"""Comparable numbers: greedy answers asked, decoded and graded as another evaluation harness does.

They stand beside a run's own metrics, in rows that name their protocol, and decide nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.budget import ErrorBudget
from selftrain.config import ConfigError, instantiate
from selftrain.drawing.parts import by_length
from selftrain.drawing.sampled import Advance, Drawing, sample_parts, seeds_of
from selftrain.encoding import plain_ids
from selftrain.intervals import mean, mean_interval
from selftrain.judging import Request as Judgement
from selftrain.judging import VerifierSpec
from selftrain.planning.problems import whole_task
from selftrain.sampling.base import Request
from selftrain.schema import Component
from selftrain.session import Session, verifier_spec
from selftrain.types import UNJUDGED, Problem, Sample, Verdict
from selftrain.verification import VerifierPool

GRADED = "selftrain.protocols.base:Graded"
Splits = Sequence[tuple[str, str]]
"""Task and split of what is evaluated."""


def protocol_splits(session: Session, splits: Splits) -> list[tuple[str, str]]:
    """Those of the evaluated splits whose task has a protocol."""
    return [(task, split) for task, split in splits if task in session.config.evaluate.protocol]


def protocol_count(session: Session, splits: Splits) -> int:
    """Answers asked for under protocols."""
    return sum(len(session.problems.of(task, split)) for task, split in protocol_splits(session, splits))


def sample_protocols(
    session: Session, iteration: int, splits: Splits, sampler: Component, unjudged: Path
) -> Iterator[Advance]:
    """Write ``evaluation/<task>-<split>-<protocol>.parquet``: answers and their scores.

    Args:
        unjudged: folder of the parts that are sampled but not graded yet.
    """
    parts: dict[tuple[str, str], list[Path]] = {}
    for task, split in protocol_splits(session, splits):
        path = scores_file(session, iteration, task, split)
        if path.exists():
            yield Advance(part=path, samples=len(session.problems.of(task, split)))
            continue
        work, found = _work(session, iteration, task, split), parts.setdefault((task, split), [])
        stem = unjudged / path.stem
        writer = session.policy(sampler, iteration)
        for advance in sample_parts(session, Drawing(work, stem, writer, session.stages.evaluate(iteration))):
            found += [advance.part] if advance.part else []
            yield advance
    if not parts:
        return
    with session.judging({task: _spec(session, task) for task, _ in parts}) as pool:
        for (task, split), found in parts.items():
            samples = [sample for part in found for sample in records.rows(part, Sample)]
            grade(session, pool, task, samples, scores_file(session, iteration, task, split))


def grade(session: Session, pool: VerifierPool, task: str, samples: Sequence[Sample], path: Path) -> None:
    """Score the answers in worker processes, with the bounds of verifiers, and write both.

    Raises:
        TooManyErrors: too large a share could not be graded.
    """
    budget, by_id = ErrorBudget(session.config.reward.verify.max_errors), session.problems.by_id
    judgements = (Judgement(task, by_id[sample.problem_id], sample.text) for sample in samples)
    verdicts = list(budget.watch(pool.judge(judgements)))
    budget.check()
    metrics = _protocol(session, task).metrics
    columns = {name: [getattr(verdict, name) for verdict in verdicts] for name in ("status", "verifier")}
    records.write(path, Sample, samples, **columns, scores=[_scores(verdict, metrics) for verdict in verdicts])


def protocol_rows(session: Session, iteration: int, splits: Splits) -> list[dict[str, Any]]:
    """Lines of metrics: each score averaged over problems, with its 95 % interval."""
    rows = []
    for task, split in protocol_splits(session, splits):
        path = scores_file(session, iteration, task, split)
        scores = [json.loads(text) for text in records.column(path, "scores")]
        row = {"iteration": iteration, "task": task, "split": split, "protocol": _name(session, task)}
        for name in _protocol(session, task).metrics:
            estimate = mean_interval([score[name] for score in scores])
            row |= {f"{name}{end}": round(value, 6) for end, value in zip(("", "_low", "_high"), estimate, strict=True)}
        row |= {"n_problems": len(scores), "truncated": _share(path, "finish_reason", "length", "context")}
        rows.append({**row, "errors": _share(path, "status", *UNJUDGED)})
    return rows


def check_protocols(session: Session, splits: Splits, context: int | None) -> None:
    """Raises ConfigError for what is not installed, a problem a protocol cannot ask, or a prompt no answer fits behind.

    Args:
        context: positions the model has.
    """
    for task, split in protocol_splits(session, splits):
        where = f"evaluate.protocol.{task}"
        try:
            protocol = _protocol(session, task)
            if hasattr(protocol, "check"):
                protocol.check()
            prompts = _prompts(session, task, split)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
        for problem, text in prompts:
            ids = plain_ids(session.tokenizer, text)
            if context is not None and len(ids) >= context:
                raise ConfigError(
                    f"{where}: the prompt of {problem.id} has {len(ids)} tokens, the model's context is {context}; "
                    "ask with fewer worked examples"
                )
            if session.tokenizer.unk_token_id in ids:
                raise ConfigError(f"{where}: the prompt of {problem.id} has characters the tokenizer does not know")


def scores_file(session: Session, iteration: int, task: str, split: str) -> Path:
    folder = session.run.iteration(iteration) / "evaluation"
    return folder / f"{task}-{split}-{_name(session, task).replace(':', '-')}.parquet"


def _share(path: Path, column: str, *values: str) -> float:
    found = records.column(path, column)
    return round(mean([value in values for value in found]), 6)


def _name(session: Session, task: str) -> str:
    """The protocol as rows and files call it."""
    return Path(session.config.evaluate.protocol[task].kind).name


def _protocol(session: Session, task: str) -> Any:
    return instantiate("protocol", session.config.evaluate.protocol[task])


def _spec(session: Session, task: str) -> VerifierSpec:
    chosen = session.config.evaluate.protocol[task]
    options = {"protocol": chosen.kind, "options": chosen.options}
    return replace(verifier_spec(Component(GRADED, options), session.config.reward.verify), label=_name(session, task))


def _scores(verdict: Verdict, metrics: Sequence[str]) -> str:
    """The scores as JSON; what could not be graded is not right by any."""
    if verdict.status in UNJUDGED:
        return json.dumps(dict.fromkeys(metrics, 0.0))
    return str(verdict.reason)


def _prompts(session: Session, task: str, split: str) -> list[tuple[Problem, str]]:
    protocol = _protocol(session, task)
    shots = protocol.shots(whole_task(session.config, task), split) if hasattr(protocol, "shots") else {}
    return [(p, protocol.prompt(p, shots.get(p.id, ()))) for p in session.problems.of(task, split)]


def _work(session: Session, iteration: int, task: str, split: str) -> list[Request]:
    settings, seed = _protocol(session, task).sampling(), session.config.run.seed
    step = f"protocol {_name(session, task)}"
    return by_length(
        Request(
            problem,
            plain_ids(session.tokenizer, text),
            seeds_of(problem, 1, seed=seed, iteration=iteration, step=step),
            settings,
            step,
            text=text,
        )
        for problem, text in _prompts(session, task, split)
    )
