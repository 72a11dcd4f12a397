"""Monitors: what every Score measures of its samples, and what becomes of a value beyond its threshold."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.errors import RunError
from selftrain.events import Event, Notice
from selftrain.files import read_json, write_json
from selftrain.monitors.known import KNOWN
from selftrain.monitors.responses import Distance, Response, Values, divergence, repeated, responses, right
from selftrain.monitors.scores import Scored, scores
from selftrain.monitors.thresholds import Row, crossings, first_values, with_drift
from selftrain.registry import resolve
from selftrain.rewards.base import verdict_only
from selftrain.selection import ENDED
from selftrain.session import Session
from selftrain.stages.distance import OWN, distances
from selftrain.stages.logprobs import Logprobs

FILE = "monitors.json"
DIGITS = 6
"""Significant ones that are written."""


def monitored(session: Session) -> bool:
    """Whether anything is measured: not of a run that asks for nothing and has verdicts alone, which reads no sample
    again for their sake."""
    asked = session.config.monitor
    return bool(asked.kl or asked.thresholds or watched_sources(session))


def measure(session: Session, iteration: int, logprobs: Logprobs) -> dict[str, Any]:
    """The monitors of an iteration whose samples are scored, written to ``monitors.json``.

    They are about the responses of the policy, or about all where it wrote none.
    """
    folder = session.run.iteration(iteration)
    judged: dict[bool, list[Response]] = {True: [], False: []}
    scored: dict[bool, dict[str, list[Scored]]] = {True: defaultdict(list), False: defaultdict(list)}
    far: list[Distance] = []
    for part in records.parts(folder / "samples"):
        own = [origin == OWN for origin in records.column(part, "origin")]
        for flag, one in zip(own, _responses(session, part), strict=True):
            judged[flag].append(one)
        for place, source, found in _scored(session, part):
            scored[own[place]][source].append(found)
        far += distances(session, iteration, part, logprobs) if session.config.monitor.kl else []
        session.check_stop()
    whose = bool(judged[True])
    row = _row(session, iteration, responses(judged[whose]) | divergence(far), scored[whose])
    row |= {"samples": len(judged[whose]), "repetition_n": session.config.monitor.repetition}
    write_json(folder / FILE, row, later=True)
    return row


def _responses(session: Session, part: Path) -> Iterator[Response]:
    n = session.config.monitor.repetition
    statuses = records.column(_beside(part, "verdicts"), "status")
    rows = zip(*records.columns(part, "response_ids", "finish_reason"), statuses, strict=True)
    for ids, ended, status in rows:
        yield Response(len(ids), ended not in ENDED, repeated(ids, n), right(status))


def _scored(session: Session, part: Path) -> Iterator[tuple[int, str, Scored]]:
    """By place in a part: what sources say that have more to say than the verdict, as far as it is a number."""
    sources = watched_sources(session)
    if not sources:
        return
    statuses = records.column(_beside(part, "verdicts"), "status")
    ids, problems = records.columns(part, "id", "problem_id")
    places = {id: place for place, id in enumerate(ids)}
    columns = ("sample_id", "source", "valid", "reward", "step_ends", "step_rewards")
    for id, source, valid, reward, ends, steps in zip(*records.columns(_beside(part, "scores"), *columns), strict=True):
        if source in sources and valid and reward is not None and all(map(math.isfinite, (reward, *(steps or ())))):
            told = Scored(problems[places[id]], right(statuses[places[id]]), reward)
            if steps:
                told = told._replace(steps=tuple(steps), tokens=ends[-1] if ends else 0)
            yield places[id], source, told


def watched_sources(session: Session) -> list[str]:
    """Names of the reward sources that have numbers of their own, beside the verdict."""
    sources = session.config.reward.sources.items()
    return [name for name, one in sources if not verdict_only(resolve("reward", one.kind))]


def _beside(part: Path, folder: str) -> Path:
    return part.parent.parent / folder / part.name


def _row(session: Session, iteration: int, own: Values, scored: Mapping[str, Sequence[Scored]]) -> dict[str, Any]:
    """Values with their drift since the first iteration that has them."""

    def drifting(values: Values, source: str = "") -> Values:
        earlier = (read(session.run, number) for number in range(1, iteration))
        rows = (row.get("sources", {}).get(source, {}) if source else row for row in earlier)
        return _short(with_drift(values, first_values(rows, values)))

    sources = {name: drifting(scores(scored.get(name, [])), name) for name in watched_sources(session)}
    return {"iteration": iteration, **drifting(own), "sources": sources}


def _short(values: Values) -> Values:
    """Counts stay whole."""
    return {name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value for name, value in values.items()}


def read(run: RunDir, iteration: int) -> dict[str, Any]:
    """Empty where nothing was measured."""
    path = run.iteration(iteration) / FILE
    return dict(read_json(path)) if path.exists() else {}


def line(row: Row) -> str:
    """What a person is told when an iteration is scored."""
    shown = [_shown(row, ("right", "tokens", "tokens_drift", "truncated", "repetition", "kl"))]
    for source, own in row["sources"].items():
        told = _shown(own, ("pair_accuracy", "auc", "best_right", "last_least", "steps", "steps_drift"))
        shown.append(f"{source}: {told or 'nothing scored'}")
    return f"iteration {row['iteration']} monitors: {'; '.join(shown)}"


def _shown(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {values[name]:.3g}" for name in names if name in KNOWN and values.get(name) is not None)


def watch(session: Session, iteration: int, fresh: bool) -> Iterator[Event]:
    """What is beyond its threshold once an iteration is scored.

    Args:
        fresh: it was scored just now; what was warned of before is not told again.

    Raises:
        RunError: a value is beyond one that stops, also where the iteration was done before.
    """
    thresholds = session.config.monitor.thresholds
    if not thresholds:
        return
    longest = max(one.after for one in thresholds.values())
    rows = [read(session.run, number) for number in range(max(1, iteration - longest + 1), iteration + 1)]
    found = crossings(rows, thresholds)
    yield from (Notice(one.text, "warning") for one in found if fresh and not one.stops)
    for one in found:
        if one.stops:
            raise RunError(
                f"{one.text}; to go on all the same, move monitor.thresholds.{one.monitor}.{one.bound} or set it to "
                "null and run the same command again; to mend it, change the settings: the command then says what to "
                "redo"
            )
