"""Where a checkpoint of a run comes from: what was sampled, by whom, what was kept, and what it then scored.

Read from the run directory alone, so that it says what happened and not what a config would do today. Nothing in it
names a place on this machine: of local paths the last part is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from selftrain import __version__, records
from selftrain.artifacts import RunDir
from selftrain.compose import read_tree
from selftrain.digests import file_digest
from selftrain.errors import RunError
from selftrain.files import read_json
from selftrain.models.adapters import adapter_base, settings_of
from selftrain.planning.settings import POLICY
from selftrain.report.choose import Checkpoint, finished, metrics_of
from selftrain.report.licences import Licence, base_licence, task_licence
from selftrain.report.sampling import Asked, asked

ADOPTED = "adopted:"
"""Before the name of a file of another tool, as the origin of a sample."""
DIGITS = 16
"""Of a digest, as samples and marks shorten it."""

INSIDE = re.compile(r"(?<![\w:/.}])(?:~|\.\.?)?/(?:[\w.@+-]+/)+(?=[\w.@+-])")
"""The folders of a path somewhere in a text; what follows them is kept. Addresses (http://...) are no paths."""
WHOLE = re.compile(r"(replay:|file://)?((?:~|\.\.?)?/[^\n{}]*)")
"""A text that is nothing but a path, white space included."""


@dataclass(frozen=True)
class Iteration:
    """Grow and Improve of one iteration."""

    number: int
    sampled_by: dict[str, int]
    """Digest of the checkpoint to the number of its samples."""
    written: dict[str, dict[str, int]]
    """By step of Grow, the number of its samples by who wrote them: ``policy``, ``teacher, NAME``, or ``adopted:FILE,
    DIGEST`` for answers from outside the run."""
    verdicts: dict[str, int]
    selections: dict[str, dict[str, int]]
    """By selection of the learner: examples kept, and samples left out by reason."""
    examples: int
    made: str
    """Digest of the checkpoint that was fitted, as the samples it draws record it."""

    @property
    def writers(self) -> list[str]:
        """Who wrote answers, the policy of the run left out."""
        return list(dict.fromkeys(w for writers in self.written.values() for w in writers if w != POLICY))

    @property
    def adopted(self) -> list[str]:
        """Names of the files that answers were adopted from."""
        return [w.removeprefix(ADOPTED).partition(", ")[0] for w in self.writers if w.startswith(ADOPTED)]


@dataclass(frozen=True)
class Adapter:
    """The low-rank additions a checkpoint holds, and how they are published."""

    base: str | None
    """Name on the hub of the model they are published for; None: they are published merged into their base, which
    nobody else has."""
    r: int
    alpha: float
    dropout: float
    targets: list[str]
    """Layers, by the last parts of their names."""
    difference: float | None = None
    """The most that merging and rounding changed a logit by, as a share of the largest logit."""


@dataclass(frozen=True)
class Lineage:
    """Everything a card tells; plain values throughout."""

    selftrain: str
    run: str
    learner: str
    iteration: int
    chosen: str
    base: dict[str, Any]
    """``kind``: hub, local or random; ``name``; ``licence``."""
    tasks: dict[str, dict[str, Any]]
    """``kind``, ``licence`` and the number of problems by split."""
    iterations: list[Iteration]
    metrics: list[dict[str, Any]]
    """Lines of metrics up to this iteration."""
    config: dict[str, Any]
    environment: dict[str, Any]
    adapter: Adapter | None = None
    """None where the checkpoint holds all weights."""
    sampling: list[Asked] = field(default_factory=list)


def lineage(run: RunDir, checkpoint: Checkpoint, *, online: bool) -> Lineage:
    """Read it all.

    Args:
        online: the hub may be asked for the licence of the base model; else only what is on this machine counts.
    """
    config = read_tree(run.config)
    numbers = [number for number in finished(run) if number <= checkpoint.iteration]
    iterations = [_iteration(run, number, checkpoint.learner) for number in numbers if number > 0]
    problems = Counter(zip(*records.columns(run.problems, "task", "split"), strict=True))
    return Lineage(
        selftrain=read_json(run.root / "environment.json").get("selftrain", __version__),
        run=config["run"]["name"],
        learner=checkpoint.learner,
        iteration=checkpoint.iteration,
        chosen=checkpoint.why,
        base=_base(run, config, checkpoint, online),
        tasks={
            name: {
                "kind": without_paths(task["kind"]),
                "licence": vars(task_licence(task)),
                "problems": {split: n for (of, split), n in problems.items() if of == name},
            }
            for name, task in config["tasks"].items()
        },
        iterations=iterations,
        metrics=metrics_of(run, numbers),
        config=without_paths({**config, "track": {**config.get("track", {}), "mirror": None}}),
        environment=read_json(run.root / "environment.json"),
        adapter=adapter_of(checkpoint.folder),
        sampling=[replace(line, sampler=without_paths(line.sampler)) for line in asked(run, config)],
    )


def adapter_of(folder: Path) -> Adapter | None:
    """The adapter in the folder of a checkpoint, by its own settings.

    Raises:
        RunError: the base it belongs to is a folder that is gone.
    """
    settings = settings_of(folder)
    if settings is None:
        return None
    try:
        base = adapter_base(folder)
    except FileNotFoundError as error:
        raise RunError(str(error)) from error
    targets = settings.get("target_modules") or []
    return Adapter(
        base=None if base is None or base.exists() else base.as_posix(),
        r=settings["r"],
        alpha=settings["lora_alpha"],
        dropout=settings["lora_dropout"],
        targets=sorted({name.rpartition(".")[2] for name in ([targets] if isinstance(targets, str) else targets)}),
    )


def without_paths(value: Any) -> Any:
    """A plain tree in which local paths are cut to their last part."""
    if isinstance(value, dict):
        return {key: without_paths(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [without_paths(entry) for entry in value]
    if not isinstance(value, str):
        return value
    whole = WHOLE.fullmatch(value)
    if whole and (whole[2].count("/") > 1 or Path(whole[2]).expanduser().exists()):
        return f"{whole[1] or ''}{Path(whole[2]).name}"
    return INSIDE.sub("", value)


def _iteration(run: RunDir, number: int, learner: str) -> Iteration:
    folder = run.iteration(number)
    sampled_by: Counter[str] = Counter()
    written: dict[str, Counter[str]] = {}
    for part in records.parts(folder / "samples"):
        for step, policy, origin in zip(*records.columns(part, "step", "policy", "origin"), strict=True):
            sampled_by[without_paths(policy)] += 1
            who = origin if origin == POLICY else f"{_named(origin)}, {without_paths(policy)}"
            written.setdefault(step, Counter())[who] += 1
    verdicts = Counter(s for part in records.parts(folder / "verdicts") for s in records.column(part, "status"))
    examples = sum(len(records.column(part, "id")) for part in records.parts(folder / "examples" / learner))
    return Iteration(
        number=number,
        sampled_by=dict(sampled_by),
        written={step: dict(counts) for step, counts in written.items()},
        verdicts=dict(verdicts),
        selections=read_json(folder / f"selection-{learner}.json")["selections"],
        examples=examples,
        made=file_digest(folder / f"improve-{learner}.done")[:DIGITS],
    )


def _named(origin: str) -> str:
    """Where samples come from, without folders."""
    file = origin.removeprefix(ADOPTED)
    return f"{ADOPTED}{Path(file).name}" if file != origin else without_paths(origin)


def _base(run: RunDir, config: dict[str, Any], checkpoint: Checkpoint, online: bool) -> dict[str, Any]:
    """What the run started from. Its marks tell a folder (known by contents) from a name on the hub."""
    path = config["model"]["path"]
    if path is None:
        return {"kind": "random", "name": None, "licence": vars(Licence("none needed", "there is no base model"))}
    mark = read_json(run.iteration(checkpoint.iteration) / "evaluate.done")
    kind = "hub" if mark["config"]["model"]["path"] == path else "local"
    return {"kind": kind, "name": without_paths(path), "licence": vars(base_licence(path, kind, online))}
