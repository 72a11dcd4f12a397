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

from selftrain import records
from selftrain.columnar import arrow_array, arrow_type
from selftrain.types import Verdict

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
