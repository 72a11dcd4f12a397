"""Read the rollouts of other tools, and find the problem of this run that each of them answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from selftrain import registry
from selftrain.adoption.matching import Matcher
from selftrain.adoption.respell import Speller, Spelling
from selftrain.checks.check import context_length
from selftrain.config import ConfigError
from selftrain.rollouts.base import Reader, Rollout, Row, Unusable
from selftrain.session import Session
from selftrain.tasks.jsonl import read_records
from selftrain.types import Problem

AUTO, PLAIN = "auto", "jsonl"
SHOWN = 3
"""Rows shown of those that belong to no problem."""
SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Taken:
    """A row that answers a problem."""

    rollout: Rollout
    file: str
    format: str


@dataclass
class Harvest:
    """What files hold for a run."""

    speller: Speller
    problems: dict[str, list[Taken]] = field(default_factory=lambda: defaultdict(list))
    """Rows by problem id, in the order of the files."""
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many were read, by file and format."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows that are no samples, by reason."""
    shown: list[str] = field(default_factory=list)
    """A few of those that belong to no problem."""
    _seen: set[tuple[str, str | tuple[int, ...] | None, str | None]] = field(default_factory=set)

    def add(self, problem: Problem, taken: Taken) -> None:
        rollout = taken.rollout
        text = rollout.response if rollout.response is not None else rollout.response_ids
        key = (problem.id, text, rollout.row_id)
        if key in self._seen:
            self.left_out["there twice"] += 1
        else:
            self._seen.add(key)
            self.problems[problem.id].append(taken)

    def miss(self, reason: str, place: str, rollout: Rollout) -> None:
        """Count a row that belongs to no problem."""
        self.left_out[reason] += 1
        if len(self.shown) < SHOWN:
            asked = " ".join((rollout.prompt or f"id {rollout.problem_id}").encode(errors="replace").decode().split())
            dots = "..." if len(asked) > SHOWN_CHARACTERS else ""
            self.shown.append(f"{place}: {asked[:SHOWN_CHARACTERS]}{dots}")

    def spelt(self, session: Session) -> Iterator[tuple[Problem, Taken, Spelling | str]]:
        """Every row that was taken, by problem id and then as in the files, with its tokens or why it has none."""
        for identifier in sorted(self.problems):
            problem = session.problems.by_id[identifier]
            prompter = session.prompter(problem.task)
            prompt, ids = prompter.text(problem), prompter.ids(problem)
            for taken in self.problems[identifier]:
                yield problem, taken, self.speller.spell(prompt, ids, taken.rollout)

    def reasons(self) -> str:
        return ", ".join(f"{reason}: {count}" for reason, count in self.left_out.most_common())


def reader(name: str, fields: dict[str, str]) -> Reader:
    """Raises ConfigError where there is no such format, or no such role of a field."""
    try:
        built: Reader = registry.build("rollout", name, {"fields": fields} if fields else {})
    except registry.UnknownComponent as error:
        raise ConfigError(f"--format: {error}") from error
    except ValueError as error:
        raise ConfigError(f"--field: {error}") from error
    return built


def gather(session: Session, files: tuple[Path, ...], format: str, fields: dict[str, str]) -> Harvest:
    """Read the files and find the problem of every row; writes nothing.

    Raises:
        ConfigError: a file cannot be read, or no row is a sample of this run.
    """
    held_out, watched = session.problems.held_out, session.problems.watched
    matcher = Matcher(
        (*session.problems.all("train"), *session.problems.evaluated()),
        lambda problem: session.prompter(problem.task).text(problem),
    )
    reasoning = session.config.model.chat.reasoning
    harvest = Harvest(Speller(session.tokenizer, context_length(session.config), reasoning))
    for path in files:
        for place, name, rollout in _rollouts(path, format, fields, harvest):
            found = matcher.find(rollout)
            if isinstance(found, str):
                harvest.miss(found, place, rollout)
            elif found.split in held_out:
                harvest.left_out[f"answer to a problem of '{found.split}', from which nothing may be learnt"] += 1
            elif found.task in watched:
                harvest.left_out[f"answer to a problem of '{found.task}', whose weight is 0: it is evaluated only"] += 1
            else:
                harvest.add(found, Taken(rollout, path.name, name))
    _check_some(session, harvest)
    return harvest


def _rollouts(path: Path, format: str, fields: dict[str, str], harvest: Harvest) -> Iterator[tuple[str, str, Rollout]]:
    """Place, format and content of the rows of a file; those that hold no single response are counted."""
    read = None if format == AUTO else reader(format, fields)
    name = format
    try:
        for place, row in read_records(path):
            if read is None:
                name, read = recognised(row, place)
            harvest.rows[path.name, name] += 1
            try:
                rollout = read.read(row, place)
            except Unusable as error:
                harvest.left_out[f"no single response of a model ({error})"] += 1
                continue
            yield place, name, replace(rollout, prompt=harvest.speller.prompt(rollout))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if read is None or not any(file == path.name for file, _ in harvest.rows):
        raise ConfigError(f"{path} holds no rows")


def recognised(row: Row, place: str) -> tuple[str, Reader]:
    """Name and reader of the format the first row of a file is in.

    Raises:
        ConfigError: it is in none that is known.
    """
    for name in registry.TABLES["rollout"]:
        if (found := reader(name, {})).recognises(row):
            return name, found
    raise ConfigError(
        f"{place}: fields of no known format: {', '.join(map(str, row))}; name it with --format, or its fields with "
        "--field question=NAME --field response=NAME"
    )


def _check_some(session: Session, harvest: Harvest) -> None:
    """Raises ConfigError where nothing is left; spells no more than it must."""
    refused: Counter[str] = Counter()
    for _, _, spelling in harvest.spelt(session):
        if not isinstance(spelling, str):
            return
        refused[spelling] += 1
    harvest.left_out += refused
    rows = harvest.rows.total()
    first = f" (first: {harvest.shown[0]})" if harvest.shown else ""
    raise ConfigError(
        f"none of the {rows} rows is a sample of this run's train problems: {harvest.reasons()}{first}; questions of "
        "your own need a task of kind jsonl (docs/adopt.md)"
    )
