"""Columns of records: those that pyarrow itself would make of the values, without waiting for pandas."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from selftrain import records
from selftrain.columnar import arrow_array, arrow_type
from selftrain.types import Verdict

RIGHT = Verdict("right", 1.0, "34")
DRAW: dict[str, Callable[[random.Random], Any]] = {
    "string": lambda draw: "".join(draw.choice("aé∞😀\0") for _ in range(draw.randint(0, 9))),
    "int32": lambda draw: draw.randint(-(2**31), 2**31 - 1),
    "int64": lambda draw: draw.randint(-(2**63), 2**63 - 1),
    "float32": lambda draw: draw.choice([draw.gauss(0, 1), float("inf")]),
    "float64": lambda draw: draw.gauss(0, 1),
    "bool": lambda draw: draw.random() < 0.5,
}


@pytest.mark.parametrize("type_", [*DRAW, "list<int32>", "list<float32>", "list<bool>"])
@pytest.mark.parametrize("missing", [0.0, 0.3, 1.0])
def test_a_column_is_the_one_pyarrow_makes(type_: str, missing: float) -> None:
    draw, kind = random.Random(0), arrow_type(type_)
    one = DRAW.get(type_) or (lambda draw: tuple(DRAW[type_[5:-1]](draw) for _ in range(draw.randint(0, 5))))
    for count in (0, 1, 7, 8, 9, 100):
        values = [None if draw.random() < missing else one(draw) for _ in range(count)]
        column = arrow_array(values, kind)
        column.validate(full=True)
        assert column.equals(pa.array(values, kind))


def test_a_lone_surrogate_is_replaced_and_a_number_that_does_not_fit_is_refused() -> None:
    assert arrow_array(["a\ud800b", None], pa.string()).to_pylist() == ["a?b", None]
    with pytest.raises(pa.ArrowInvalid, match="too large"):
        arrow_array([2**31], pa.int32())


def test_writing_does_not_import_pandas(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    program = (
        "import sys; from pathlib import Path; from selftrain import records; from selftrain.types import Verdict\n"
        f"records.write(Path({str(path)!r}), Verdict, [Verdict('right', 1.0, '34')], sample_id=['a'])\n"
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert records.read(path, Verdict) == [Verdict("right", 1.0, "34")]


def test_a_part_that_was_just_written_is_read_from_memory_unless_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "part.parquet"
    records.write(path, Verdict, [RIGHT], sample_id=["a"])
    path.parent.rename(tmp_path / "moved")
    path = tmp_path / "moved" / "part.parquet"
    with monkeypatch.context() as unreadable:
        unreadable.setattr("pyarrow.parquet.ParquetFile", None)
        assert records.read(path, Verdict) == [RIGHT]
        assert records.columns(path, "sample_id", "answer") == [["a"], ["34"]]
    kept = records.WRITTEN.of(path)
    assert kept is not None
    write_table(kept.set_column(0, "sample_id", pa.array(["b"])), path)
    assert records.column(path, "sample_id") == ["b"]
    path.unlink()
    with pytest.raises(FileNotFoundError):
        records.read(path, Verdict)


def test_what_was_kept_longest_is_forgotten_first(tmp_path: Path) -> None:
    table = pa.table({"id": ["a" * 100]})
    kept = records.Written(room=int(2.5 * table.nbytes))
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
        kept.keep(path, table)
    assert [kept.of(path) is None for path in paths] == [True, False, False]
    kept.keep(paths[0], pa.table({"id": ["a" * 1000]}))
    assert [kept.of(path) is None for path in paths] == [True, False, False]
