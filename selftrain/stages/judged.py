"""Judging answers of an evaluation: parts of samples become one file that holds their verdicts too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from selftrain import records
from selftrain.budget import ErrorBudget
from selftrain.judging import Request as Judgement
from selftrain.session import Session
from selftrain.types import Sample, Verdict
from selftrain.verification import VerifierPool

UNJUDGED = "unjudged"
"""Folder of parts that are sampled but not judged yet."""
VERDICT_COLUMNS = ("status", "value", "answer", "reason", "verifier", "by")


def judge_split(session: Session, parts: Sequence[Path], path: Path) -> None:
    """Put the samples of parts into one file, with their verdicts.

    Raises:
        TooManyErrors: as `verdicts_of`.
    """
    samples = [sample for part in parts for sample in records.rows(part, Sample)]
    samples.sort(key=lambda sample: (sample.problem_id, sample.step, sample.index))
    by_id, asked = session.problems.by_id, session.prompters[session.config.evaluate.prompt]
    judgements = (session.judgement(by_id[sample.problem_id], sample.text, asked) for sample in samples)
    verdicts = verdicts_of(session.verifiers, judgements, session.config.reward.verify.max_errors)
    extra = {name: [getattr(verdict, name) for verdict in verdicts] for name in VERDICT_COLUMNS}
    records.write(path, Sample, samples, **extra)


def verdicts_of(pool: VerifierPool, judgements: Iterable[Judgement], max_errors: float) -> list[Verdict]:
    """Raises TooManyErrors where the verifier could not judge too large a share of them."""
    budget = ErrorBudget(max_errors)
    verdicts = list(budget.watch(pool.judge(judgements)))
    budget.check()
    return verdicts


def is_judged(session: Session, path: Path) -> bool:
    """Whether a split is sampled and judged, by the verifiers of the config."""
    return path.exists() and session.judges.issuperset(records.column(path, "verifier"))
