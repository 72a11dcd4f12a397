"""Hand audits from the draw to the report: sheets, what a run keeps, and what it says."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.auditing.design import Judged, allocate, odd, strata
from selftrain.auditing.sheets import records_of
from selftrain.cli import main
from selftrain.files import read_json, write_json, write_text
from selftrain.report.audits import audit_lines
from selftrain.types import Problem, Sample, Verdict

PROBLEMS = 600
WRONG_SPLIT = "iteration 1 has no judged responses of split 'val' (evaluated: test; train)"


def verdict(index: int, truth: bool) -> Verdict:
    """Planted: of the right a tenth is called wrong, of the wrong a twentieth right; a few are a judge's."""
    if index % 40 == 7:
        return Verdict("unparsed", 0.0, None, "no final number", verifier="v@1")
    if index % 30 == 3:
        return Verdict("right" if truth else "wrong", float(truth), "x", "judge m: yes", verifier="v@1", by="judge")
    says = (index % 10 != 1) if truth else (index % 20 == 2)
    return Verdict("right" if says else "wrong", float(says), "5", None, verifier="v@1")


def truth_of(key: str) -> bool:
    return random.Random(key).random() < 0.4


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of one evaluated iteration, written by hand."""
    run = RunDir(tmp_path / "run")
    problems = [Problem(f"t/test/{i}", "t", "test", f"{i} + 5?", str(1000 + i)) for i in range(PROBLEMS)]
    records.write(run.problems, Problem, problems)
    samples, verdicts = [], []
    for i, problem in enumerate(problems):
        truth = truth_of(problem.id)
        text = f"#### {problem.answer if truth else 7}"
        samples.append(Sample(f"s{i}", problem.id, 1, "greedy", 0, (), (1,), text, "eos", "p", "scripted"))
        verdicts.append(verdict(i, truth))
    columns = ("status", "value", "answer", "reason", "verifier", "by")
    extra = {name: [getattr(one, name) for one in verdicts] for name in columns}
    records.write(run.iteration(1) / "evaluation/t-test.parquet", Sample, samples, **extra)
    write_json(run.iteration(1) / "evaluate.done", {"outputs": {}})
    write_text(run.config, "{}")
    return run


def rows(sheet: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sheet.read_text().splitlines()]


def fill(sheet: Path, human: Callable[[dict[str, Any]], Any]) -> None:
    sheet.write_text("".join(json.dumps({**row, "human": human(row)}) + "\n" for row in rows(sheet)))


def by_hand(row: dict[str, Any]) -> bool:
    return bool(row["response"].endswith(row["gold"]))


def draw(run: RunDir, k: int, sheet: Path, *more: str) -> int:
    """As the page about audits writes it."""
    return main(["audit", str(run.root), "--draw", str(k), str(sheet), *more])


def test_from_the_draw_to_the_report(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.jsonl"
    assert draw(run, 120, sheet) == 0
    assert "selftrain audit" in capsys.readouterr().out
    drawn = rows(sheet)
    assert len(drawn) == len({row["id"] for row in drawn}) == 120
    assert set(drawn[0]) == {"audit", "id", "task", "question", "gold", "response", "human", "note"}  # No verdict.
    assert all(row["human"] is None for row in drawn)
    fill(sheet, by_hand)
    assert main(["audit", str(run.root), str(sheet)]) == 0
    told = capsys.readouterr().out
    assert "120 of 120 drawn responses judged by hand" in told
    line = next(line for line in told.splitlines() if line.strip().startswith("t  "))
    corrected = float(line.split()[4])
    truths = [truth_of(f"t/test/{i}") for i in range(PROBLEMS)]
    says = [verdict(i, truth).status == "right" for i, truth in enumerate(truths)]
    share = 100 * sum(truths) / PROBLEMS
    assert float(line.split()[3]) == pytest.approx(100 * sum(says) / PROBLEMS, abs=0.05)
    low, high = (float(word.strip("[],")) for word in line.split()[5:7])
    assert low < share < high and abs(corrected - share) < 6
    assert told == "\n".join(audit_lines(run)).rstrip("\n") + "\n"  # It is kept.


def test_every_kind_is_drawn_and_the_record_holds_the_design(run: RunDir, tmp_path: Path) -> None:
    assert draw(run, 60, tmp_path / "a.jsonl", "--verdicts") == 0
    (path,) = records_of(run)
    record = read_json(path)
    assert sum(record["strata"].values()) == PROBLEMS
    assert {name.partition(": ")[2] for name in record["strata"]} >= {
        "right",
        "wrong",
        "unparsed",
        "right by the judge",
    }
    counts = Counter(record["drawn"].values())
    assert all(counts[name] >= min(4, size) for name, size in record["strata"].items())
    for row in rows(tmp_path / "a.jsonl"):
        assert list(row)[-1] == "verdict" and row["verdict"]["status"] in ("right", "wrong", "unparsed")
        assert row["probability"] == pytest.approx(counts[row["stratum"]] / record["strata"][row["stratum"]], abs=1e-6)


def test_drawing_again_adds_others(run: RunDir, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert draw(run, 50, tmp_path / f"{name}.jsonl") == 0
    first, second = ({row["id"] for row in rows(tmp_path / f"{name}.jsonl")} for name in ("a", "b"))
    assert len(first) == len(second) == 50 and not first & second
    (path,) = records_of(run)
    counts, record = Counter(read_json(path)["drawn"].values()), read_json(path)
    assert counts == allocate(record["strata"], 100)
    for name in ("a", "b"):
        fill(tmp_path / f"{name}.jsonl", by_hand)
    assert main(["audit", str(run.root), str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]) == 0
    assert len(read_json(path)["human"]) == 100


def test_the_sheet_may_stand_anywhere(run: RunDir, tmp_path: Path) -> None:
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    assert main(["audit", str(run.root), str(first), "--draw", "30", "--split", "test"]) == 0
    assert main(["audit", "--draw", "30", str(run.root), "--split", "test", str(second)]) == 0
    assert len(rows(first)) == len(rows(second)) == 30
    with pytest.raises(SystemExit) as raised:
        main(["audit", str(run.root), "--draw", "30", str(second), "--nonsense"])
    assert raised.value.code == 2


def test_when_all_are_drawn_no_empty_sheet_is_written(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert draw(run, 10 * PROBLEMS, tmp_path / "all.jsonl") == 0
    assert len(rows(tmp_path / "all.jsonl")) == PROBLEMS
    assert draw(run, 5, tmp_path / "more.jsonl") == 2
    assert "all 600 responses of iteration 1, test, are on sheets already" in capsys.readouterr().err
    assert not (tmp_path / "more.jsonl").exists()


def test_a_sheet_half_done(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.jsonl"
    draw(run, 60, sheet)
    few = {row["id"] for row in rows(sheet)[:2]}
    fill(sheet, lambda row: by_hand(row) if row["id"] in few else None)
    assert main(["audit", str(run.root), str(sheet)]) == 0
    told = capsys.readouterr().out
    assert "2 of 60 drawn" in told and "no judgement yet of: " in told and "corrected" not in told


BAD = [
    ({"human": "maybe"}, "line 1: human is 'maybe'; write true or false"),
    ({"human": 1.5}, "line 1: human is 1.5"),
    ({"id": "x"}, "line 1: 'x' was not drawn"),
    ({"audit": "iteration_0009/audits/test-0.json"}, "it was drawn from another run"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_a_bad_row_is_named_and_changes_nothing(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    sheet = tmp_path / "sheet.jsonl"
    draw(run, 50, sheet)
    first, *others = rows(sheet)
    sheet.write_text("".join(json.dumps(row) + "\n" for row in ({**first, **change}, *others)))
    (path,) = records_of(run)
    before = path.read_bytes()
    assert main(["audit", str(run.root), str(sheet)]) == 2
    assert message in capsys.readouterr().err
    assert path.read_bytes() == before


def test_what_cannot_be_drawn_is_said(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.jsonl"
    assert draw(run, 5, sheet) == 2
    assert "--draw 5: 5 are too few for" in capsys.readouterr().err
    assert draw(run, 50, sheet, "--split", "val") == 1
    assert WRONG_SPLIT in capsys.readouterr().err
    assert draw(run, 50, sheet, "--iteration", "2") == 1
    assert "iteration 2 has no finished stage 'evaluate'" in capsys.readouterr().err
    assert not sheet.exists()
    sheet.write_text("judged")
    assert draw(run, 50, sheet) == 2
    assert "exists, and may hold judgements" in capsys.readouterr().err


def test_new_verdicts_leave_the_old_audit_as_what_it_is(run: RunDir, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.jsonl"
    draw(run, 80, sheet)
    fill(sheet, by_hand)
    main(["audit", str(run.root), str(sheet)])
    assert not any("former" in line for line in audit_lines(run))
    write_json(run.iteration(1) / "evaluate.done", {"outputs": {"again": 1}})
    assert any("of former verdicts" in line for line in audit_lines(run))
    assert draw(run, 50, tmp_path / "next.jsonl") == 0
    assert len(records_of(run)) == 2


def judged(status: Any, text: str, **more: Any) -> Judged:
    fields = {"answer": "5", "reason": None, "finish_reason": "eos", **more}
    return Judged(id=str(random.random()), problem_id="p", task="t", status=status, text=text, gold="5", **fields)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (judged("right", "so it is 5"), False),
        (judged("right", "so it is 15"), True),
        (judged("right", "so it is 5", finish_reason="length"), True),
        (judged("right", "so it is 5", agreed=False), True),
        (judged("wrong", "so it is 7"), False),
        (judged("wrong", "so it is 5."), True),
        (judged("wrong", "so it is 7", agreed=True), True),
        (judged("wrong", "3 or 4", reason="not a single number"), True),
        (judged("unparsed", "?", answer=None, reason="no final number"), False),
    ],
)
def test_what_looks_odd(one: Judged, expected: bool) -> None:
    assert odd(one) is expected


def test_few_odd_ones_are_no_stratum_of_their_own() -> None:
    plain, rare = [judged("right", "5")] * 30, [judged("right", "7") for _ in range(11)]
    assert {name: len(group) for name, group in strata([*plain, *rare]).items()} == {"t: right": 41}
    found = strata([*plain, *rare, judged("right", "8"), judged("timeout", "")])
    assert {name: len(group) for name, group in found.items()} == {
        "t: not judged": 1,
        "t: right": 30,
        "t: right, odd": 12,
    }


def test_allocation() -> None:
    sizes = {"t: right": 1000, "t: wrong": 1000, "t: wrong, odd": 100, "t: unparsed": 3}
    drawn = allocate(sizes, 100)
    assert sum(drawn.values()) == 100 and drawn["t: unparsed"] == 3
    # N sigma: 1000 sqrt(.04 .96) = 196, 1000 sqrt(.06 .94) = 237, 100 sqrt(.3 .7) = 46 of 479.
    assert (drawn["t: right"], drawn["t: wrong"], drawn["t: wrong, odd"]) == (40, 48, 9)
    assert allocate(sizes, 10_000) == sizes
    with pytest.raises(ValueError, match="draw 15 at least"):
        allocate(sizes, 14)
