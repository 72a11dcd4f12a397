"""The page on many GPUs: its figures are those that the functions of the estimate compute."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from selftrain.estimating.hardware import PROFILES
from selftrain.estimating.scaling import LONG, SHORT, SIZES, cost
from selftrain.estimating.shapes import known, shape_of

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """The script that writes the tables."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import scaling_page

        yield scaling_page
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_the_tables_on_the_page_are_those_that_are_computed(page: Any) -> None:
    text, found = (ROOT / "docs" / "scaling.md").read_text(), page.made()
    assert re.findall(r"<!-- (.+) -->", text) == list(found)
    assert page.filled(text, found) == text
    assert all(table in text and table.count("\n") > 3 for table in found.values())
    # A figure that differs is seen.
    assert page.filled(text.replace("| 512 |", "| 513 |"), found) == text


def test_work_grows_with_the_gpus_and_time_does_not_until_one_process_is_too_slow() -> None:
    shape, machine = shape_of(known("Qwen/Qwen2.5-7B")), PROFILES["H100"]
    eight, many = (cost(shape, SHORT, gpus, machine, serial=30e-6) for gpus in (SIZES[0], SIZES[-1]))
    assert many.drawn == 64 * eight.drawn and many.record_bytes == pytest.approx(64 * eight.record_bytes)
    assert many.serial == pytest.approx(64 * eight.serial) and many.serial < many.sampling
    assert many.seconds == pytest.approx(eight.seconds, rel=0.01) and many.hours == pytest.approx(64 * eight.hours)
    # At ten times the time a sample one process is slower than 512 GPUs draw.
    slow = cost(shape, SHORT, 512, machine, serial=300e-6)
    assert slow.seconds > many.seconds and slow.serial > slow.sampling
    assert eight.step_bytes < many.step_bytes < eight.step_bytes * 8 / 7


def test_long_responses_are_shared_among_ranks() -> None:
    shape = shape_of(known("Qwen/Qwen2.5-32B"))
    found = cost(shape, LONG, 64, PROFILES["H100"], serial=0)
    assert found.weight_bytes == 2 * shape.parameters * 16 and found.checkpoint_bytes == 4 * shape.parameters
    assert found.read == 64 * 32 * 4 * 12_200 and found.drawn == 64 * 32 * 16 * 12_000


def test_what_two_processes_did_is_told_as_it_was_measured(page: Any) -> None:
    ratio = {"median": 1.912, "least": 1.8, "most": 1.999}
    speeds = {"1": [1000, 900, 1100], "2": [1912, 1800, 1999], "2 apart": [1950, 1960, 1940]}
    own = {"tokens_per_second": speeds, "two_to_one": ratio, "two_to_two_apart": {**ratio, "median": 0.98}}
    told = page.weak({"training": {"zero 2": own, "zero 3": own}, "sampling": own})
    assert told.splitlines()[2] == ("| fit, ZeRO 2 | 1,000 | 1,912 | 1,950 | 1.91 (1.80-2.00) | 0.98 (1.80-2.00) |")
    assert told.splitlines()[4].startswith("| sampling | 1,000 |") and "not run" in page.weak(None)
