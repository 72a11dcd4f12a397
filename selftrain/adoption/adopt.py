"""Adopt: rollouts of other tools as the samples of an iteration, in place of Grow.

What Verify, Score and Improve find afterwards is what Grow would have left. Responses are taught under the run's own
prompts and judged by the run's own verifiers; scores of the other tool are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from selftrain import records, registry
from selftrain.adoption.harvest import AUTO, PLAIN, Harvest, reader
from selftrain.config import ConfigError
from selftrain.digests import file_digest, value_digest
from selftrain.drawing.store import ADOPTED, adopted
from selftrain.files import read_json, replacing, write_json
from selftrain.schema import RunConfig
from selftrain.seeds import sample_id
from selftrain.session import Session
from selftrain.stages.grow import samples_folder
from selftrain.stages.order import iteration_stages, preparation
from selftrain.types import Sample


@dataclass(frozen=True)
class Wanted:
    """What to adopt, and where to."""

    files: tuple[Path, ...]
    iteration: int
    step: str
    format: str
    fields: dict[str, str]


def wanted(
    config: RunConfig, files: Sequence[str], iteration: int, step: str | None, format: str | None, mapped: Sequence[str]
) -> Wanted:
    """What the command line asks for.

    Raises:
        ConfigError: there is no such file, iteration, step, format or role of a field.
    """
    if not files:
        raise ConfigError("adopt: name at least one file of rollouts behind the config")
    if gone := [name for name in files if not Path(name).is_file()]:
        raise ConfigError(f"adopt: no such file: {gone[0]}")
    if not 1 <= iteration <= config.loop.iterations:
        raise ConfigError(f"--iteration {iteration}: loop.iterations is {config.loop.iterations}")
    fields = dict(map(_field, mapped))
    if fields and format not in (None, AUTO, PLAIN):
        raise ConfigError(f"--field: format '{format}' has fields of its own; leave --format out")
    chosen = PLAIN if fields else format or AUTO
    if chosen != AUTO:
        reader(chosen, fields)
    return Wanted(tuple(map(Path, files)), iteration, _step(config, step), chosen, fields)


def _field(entry: str) -> tuple[str, str]:
    role, equals, path = entry.partition("=")
    if not equals or not path:
        raise ConfigError(f"--field {entry}: write role=path, such as response=out or question=prompt.text")
    return role, path


def _step(config: RunConfig, step: str | None) -> str:
    steps = list(config.grow)
    if step is None and len(steps) > 1:
        raise ConfigError(f"--step: grow has several steps ({', '.join(steps)}); name the one these samples are of")
    if step is not None and step not in steps:
        raise ConfigError(f"--step {step}: no such step of grow ({registry.nearest(step, steps)})")
    return step or steps[0]


def check_place(session: Session, iteration: int, *, redo: bool) -> None:
    """Raises ConfigError where an iteration has samples already, or its policy is not made yet."""
    before = [stage for stage, _ in preparation(session)]
    for number in range(1, iteration):
        before += [stage for stage, _ in iteration_stages(session, number)]
    grow = session.stages.grow(iteration)
    for stage in before:
        if stage.label in grow.reads and not stage.mark.exists():
            raise ConfigError(
                f"iteration {iteration} starts from what stage {stage.label} makes, which is not done: first run this "
                f"config with 'selftrain run' and --until {stage.label}"
            )
    folder = samples_folder(session, iteration)
    if not redo and (grow.mark.exists() or (folder.exists() and not adopted(folder))):
        raise ConfigError(
            f"iteration {iteration} has samples already; set them and what was made of them aside with --redo, or "
            "choose another run.name"
        )


def adopt(session: Session, wanted: Wanted, harvest: Harvest) -> list[str]:
    """Write ``samples/`` and the mark of Grow; what was done, in lines to read."""
    stage = session.stages.grow(wanted.iteration)
    folder = samples_folder(session, wanted.iteration)
    policy = value_digest([file_digest(path) for path in wanted.files])
    counts: Counter[str] = Counter()
    samples = _samples(session, wanted, harvest, policy, counts)
    with replacing(folder) as made:
        stage.begin(made)
        write_json(made / "begun.json", {**read_json(made / "begun.json"), ADOPTED: policy})
        for number, part in enumerate(whole_problems(samples, session.config.run.part_size)):
            records.write(made / f"{wanted.step}-{number:05d}.parquet", Sample, part)
    stage.finish([folder])
    return _told(session, wanted, harvest, counts, folder)


def _samples(session: Session, wanted: Wanted, harvest: Harvest, policy: str, counts: Counter[str]) -> Iterator[Sample]:
    """By problem, and by index within one; ``counts`` fills as they are read."""
    indices: Counter[str] = Counter()
    seed, iteration, step = session.config.run.seed, wanted.iteration, wanted.step
    for problem, taken, spelling in harvest.spelt(session):
        if isinstance(spelling, str):
            harvest.left_out[spelling] += 1
            continue
        index = indices[problem.id]
        indices[problem.id] += 1
        counts.update(["samples", spelling.ids_from, spelling.finish_reason, *(["problems"] if index == 0 else [])])
        yield Sample(
            id=sample_id(seed, iteration, step, problem.id, None, index),
            problem_id=problem.id,
            iteration=iteration,
            step=step,
            index=index,
            prompt_ids=session.prompter(problem.task).ids(problem),
            response_ids=spelling.ids,
            text=spelling.text,
            finish_reason=spelling.finish_reason,
            policy=policy,
            sampler=taken.format,
            origin=f"adopted:{taken.file}",
            ids_from=spelling.ids_from,
        )


def whole_problems(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Parts of about ``size`` samples, none of which ends within a problem."""
    part: list[Sample] = []
    for sample in samples:
        if len(part) >= size and sample.problem_id != part[-1].problem_id:
            yield part
            part = []
        part.append(sample)
    if part:
        yield part


def _told(session: Session, wanted: Wanted, harvest: Harvest, counts: Counter[str], folder: Path) -> list[str]:
    lines = [f"read {rows} rows of {file} ({format})" for (file, format), rows in harvest.rows.items()]
    lines.append(
        f"adopted {counts['samples']} samples of {counts['problems']} problems as iteration {wanted.iteration}, step "
        f"{wanted.step}: {counts['engine']} with token ids of their own, {counts['retokenised']} encoded here, "
        f"{counts['length']} truncated"
    )
    if harvest.left_out:
        lines.append(f"left out: {harvest.left_out.total()}")
        lines += [f"{count:8}  {reason}" for reason, count in harvest.left_out.most_common()]
        lines += [f"{'such as':>8}  {row}" for row in harvest.shown]
    if others := [name for name in session.config.grow if name != wanted.step]:
        lines.append(f"steps without samples in this iteration: {', '.join(others)}")
    return [*lines, f"samples in {folder}; 'selftrain run' judges them and goes on from there"]
