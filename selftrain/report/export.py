"""The samples and examples of a run as files other programs read: with questions, verdicts and text beside the ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.errors import RunError
from selftrain.planning.phrases import HeldOut
from selftrain.planning.problems import EVALUATED, question_key
from selftrain.report.lineage import without_paths

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = ("id", "problem_id", "iteration", "step", "index", "prompt_ids", "response_ids", "text", "finish_reason")
ORIGIN = ("policy", "origin", "sampler", "seed")
VERDICT = ("status", "value", "answer", "reason", "verifier")
Decode = Callable[[list[list[int]]], list[str]]
"""Texts of sequences of ids."""

EXAMPLE = ("id", "sample_id", "problem_id", "source", "prompt_ids", "response_ids", "loss_mask", "weight", "eos_added")


@dataclass
class Data:
    """What was written, and whether evaluated questions are in it."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Name to iteration and rows."""
    splits: tuple[str, ...] = ()
    """The splits nothing may be learnt from."""
    questions: int = 0
    """In them."""
    leaked: int = 0
    """Rows that hold one of their questions."""

    @property
    def rows(self) -> int:
        return sum(rows for _, rows in self.files.values())


@dataclass(frozen=True)
class Asked:
    """The problems of a run, by id."""

    run: RunDir
    splits: tuple[str, ...]
    """The splits nothing may be learnt from."""

    @cached_property
    def problems(self) -> dict[str, tuple[str, str, str, str | None]]:
        """Id to task, split, question and gold answer."""
        names = ("id", "task", "split", "question", "answer")
        columns = records.columns(self.run.problems, *names)
        return {id_: (task, split, question, gold) for id_, task, split, question, gold in zip(*columns, strict=True)}

    @cached_property
    def held_out(self) -> HeldOut:
        """Questions of the evaluated splits."""
        return HeldOut(question for _, split, question, _ in self.problems.values() if split in self.splits)

    @cached_property
    def prompts(self) -> set[tuple[int, ...]]:
        """Their prompts, as the model read them."""
        folders = [self.run.iteration(number) / "evaluation" for number in self.run.iterations()]
        parts = [part for folder in folders[:1] for part in records.parts(folder)]
        return {tuple(ids) for part in parts for ids in records.column(part, "prompt_ids")}

    def leaks(self, table: pa.Table) -> int:
        """Rows whose problem, question or prompt is evaluated; of rows without a problem, such as replayed ones, those
        whose text holds such a question."""
        names = ("problem_id", "prompt_ids", *(name for name in ("prompt", "response") if name in table.column_names))
        rows = zip(*(table.column(name).to_pylist() for name in names), strict=True)
        return sum(self._evaluated(problem, tuple(ids), texts) for problem, ids, *texts in rows)

    def _evaluated(self, problem: str, ids: tuple[int, ...], texts: Iterable[str]) -> bool:
        if ids in self.prompts:
            return True
        if problem not in self.problems:
            return any(self.held_out.find(text) is not None for text in texts)
        _, split, question, _ = self.problems[problem]
        return split in self.splits or question_key(question) in self.held_out.keys

    def column(self, ids: Sequence[str], place: int) -> pa.Array:
        import pyarrow as pa

        nothing = (None,) * 4
        return pa.array([self.problems.get(id_, nothing)[place] for id_ in ids], pa.string())


def export(
    run: RunDir, learner: str, iterations: Sequence[int], evaluated: Sequence[str], decode: Decode, folder: Path
) -> Data:
    """Write ``examples/`` and ``samples/``, one Parquet file per iteration each.

    Args:
        iterations: those whose samples and examples are written.
        evaluated: splits the run evaluates, beside those nothing is ever learnt from.

    Raises:
        RunError: verdicts and samples of the run do not belong together.
    """
    asked = Asked(run, tuple(sorted({*EVALUATED, *evaluated})))
    present = {split for _, split, _, _ in asked.problems.values()}
    data = Data(splits=tuple(split for split in asked.splits if split in present), questions=len(asked.held_out.keys))
    for number in iterations:
        place = run.iteration(number)
        examples = (_examples(part, asked, decode) for part in records.parts(place / "examples" / learner))
        samples = (_samples(part, place / "verdicts" / part.name, asked) for part in records.parts(place / "samples"))
        for kind, tables in (("examples", examples), ("samples", samples)):
            name = f"{kind}/iteration_{number:04d}.parquet"
            if rows := _write(folder / name, tables, asked, data):
                data.files[name] = (number, rows)
    return data


def _write(path: Path, tables: Iterable[pa.Table], asked: Asked, data: Data) -> int:
    """Number of rows; no file without any."""
    from pyarrow.parquet import ParquetWriter

    writer, rows = None, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        for table in tables:
            writer = writer or ParquetWriter(path, table.schema)
            writer.write_table(table)
            data.leaked += asked.leaks(table)
            rows += len(table)
    finally:
        if writer is not None:
            writer.close()
    return rows


def _samples(part: Path, verdicts: Path, asked: Asked) -> pa.Table:
    import pyarrow as pa

    table, judged = _read(part, (*SAMPLE, *ORIGIN)), _read(verdicts, ("sample_id", *VERDICT))
    if not table.column("id").equals(judged.column("sample_id")):
        raise RunError(f"{verdicts} holds verdicts on other samples than {part}; redo the stage 'verify'")
    ids = table.column("problem_id").to_pylist()
    table = table.set_column(table.schema.get_field_index("policy"), "policy", _clean(table.column("policy")))
    for place, name in ((2, "question"), (3, "gold")):
        table = table.append_column(name, asked.column(ids, place))
    for name in VERDICT:
        column = judged.column(name)
        table = table.append_column(name, _clean(column) if name == "reason" else column)
    assert isinstance(table, pa.Table)
    return table


def _examples(part: Path, asked: Asked, decode: Decode) -> pa.Table:
    import pyarrow as pa

    table = _read(part, EXAMPLE)
    for name in ("prompt", "response"):
        table = table.append_column(name, pa.array(decode(table.column(f"{name}_ids").to_pylist()), pa.string()))
    return table.append_column("question", asked.column(table.column("problem_id").to_pylist(), 2))


def _read(path: Path, columns: Sequence[str]) -> pa.Table:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path) as file:
        return file.read(columns=list(columns)).replace_schema_metadata(None)


def _clean(column: pa.ChunkedArray) -> pa.Array:
    """Texts that may name files of this machine, such as the message of a verifier that failed."""
    import pyarrow as pa

    return pa.array([without_paths(value) for value in column.to_pylist()], pa.string())
