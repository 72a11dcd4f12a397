"""`run.budget`: how much is sampled and when a run stops, over scripted samples and fits of one step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.spending.choice import MARGIN, Choice, Price, choose
from selftrain.spending.seconds import by_stage, seconds
from selftrain.spending.tokens import noted, spent

CONFIG = """
run: {{name: {name}, folder: {folder}, part_size: 16, reuse: false}}
model: {{path: {model}}}
tasks: {{arithmetic: {{sizes: {{demonstrations: 0, train: 12, val: 4, test: 4, transfer: 0}}, lengths: [1, 2]}}}}
grow: {{draft: {{n: 8, max_tokens: 32, sampler: {{kind: scripted, accuracy: 0.6}}}}}}
learners:
  policy:
    examples: {{own: {{from: draft, verdict: right}}}}
    optim: {{steps: 1, batch_size: 4, lr: 1e-4}}
evaluate: {{n: 2}}
loop: {{iterations: 5}}
launch: {{verify_workers: 1}}
track: {{live: plain}}
"""
BUDGET = 4400


def command(model: Path, folder: Path, name: str, *more: str) -> list[str]:
    path = folder / f"{name}.yaml"
    path.write_text(CONFIG.format(name=name, folder=folder, model=model))
    return ["run", str(path), *more]


@pytest.fixture(scope="module")
def run(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("budget")
    assert main(command(tiny, folder, "whole", f"run.budget.tokens={BUDGET}", "run.budget.least=2")) == 0
    return RunDir(folder / "whole")


def limits(run: RunDir) -> list[int]:
    notes = sorted(run.root.glob("iteration_*/budget.json"))
    return [int(json.loads(note.read_text())["samples"]) for note in notes]


def ended(run: RunDir) -> dict[str, Any]:
    return dict(json.loads((run.root / "budget.json").read_text()))


def test_a_budget_of_tokens_is_kept_to_and_nearly_spent(run: RunDir) -> None:
    every = [sum(spent(run, number).values()) for number in run.iterations()]
    assert len(every) == 6 and sum(every) == ended(run)["spent"]
    # What is left would not have bought one more sample per problem in the last iteration.
    per_sample = spent(run, 5)["grow"] / limits(run)[-1]
    assert BUDGET - 2 * per_sample < sum(every) <= BUDGET
    assert all(2 <= limit < 8 for limit in limits(run)) and len(limits(run)) == 5


def test_as_many_samples_lie_on_disk_as_were_chosen(run: RunDir) -> None:
    from selftrain import records

    for number, limit in enumerate(limits(run), 1):
        parts = records.parts(run.iteration(number) / "samples")
        assert sum(map(records.count, parts)) == 12 * limit
        assert json.loads((run.iteration(number) / "grow.done").read_text())["config"]["samples per problem"] == limit


def test_a_run_that_was_killed_ends_the_same(run: RunDir, tiny: Path) -> None:
    given = (f"run.budget.tokens={BUDGET}", "run.budget.least=2")
    folder = run.root.parent
    for until in ("2/grow", "3/improve-policy"):
        assert main([*command(tiny, folder, "killed", *given), "--until", until]) == 0
    killed = RunDir(folder / "killed")
    # A process may die between what is counted and its note.
    (killed.iteration(2) / "spent.json").unlink()
    assert main(command(tiny, folder, "killed", *given)) == 0
    assert killed.metrics.read_bytes() == run.metrics.read_bytes()
    assert limits(killed) == limits(run) and ended(killed)["spent"] == ended(run)["spent"]


def test_a_budget_that_is_too_small_stops_before_an_iteration_and_says_what_it_would_take(
    run: RunDir, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = RunDir(run.root.parent / "small")
    arguments = command(tiny, small.root.parent, "small", "run.budget.least=4")
    assert main([*arguments, "run.budget.tokens=1500"]) == 0
    said = capsys.readouterr().out
    assert small.iterations()[-1] == 1 and limits(small) == [4]
    told = ended(small)["why"]
    assert told.startswith("the budget has no room for another iteration, about ")
    assert f"{ended(small)['spent']:,.0f} tokens of 1,500 tokens are spent" in told
    assert "the best checkpoint is that of iteration" in told
    assert f"finished: {told}" in said and f"stopped: {told}" in said and "budget, in tokens" in said
    # More of it, and the same command goes on.
    assert main([*arguments, "run.budget.tokens=2700"]) == 0
    assert small.iterations()[-1] > 1 and limits(small)[0] == 4 and ended(small)["spent"] <= 2700


def test_hours_of_gpus_are_counted_from_events(run: RunDir, tiny: Path) -> None:
    arguments = command(tiny, run.root.parent, "hours", "run.budget.gpu_hours=1e-9")
    assert main(arguments) == 0
    hours = RunDir(run.root.parent / "hours")
    assert limits(hours) == [] and ended(hours)["unit"] == "GPU-hours"
    assert ended(hours)["spent"] == pytest.approx(sum(seconds(hours).values()) / 3600)


def test_a_budget_says_one_thing(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("{}", "{tokens: 5, gpu_hours: 1}"):
        assert main([*command(tiny, tmp_path, "wrong", f"run.budget={given}"), "--dry-run"]) == 2
        assert "run.budget: set tokens or gpu_hours, one of the two" in capsys.readouterr().err


def test_seconds_of_killed_attempts_count_up_to_their_last_event(tmp_path: Path) -> None:
    events = [
        (0.0, "StageStarted", 1, "grow"),
        (4.0, "Progress", 1, "grow"),
        (100.0, "StageStarted", 1, "grow"),
        (107.0, "StageFinished", 1, "grow"),
        (107.0, "StageStarted", 2, "grow"),
        (108.5, "Progress", 2, "grow"),
    ]
    rows = [json.dumps({"time": at, "event": name, "iteration": i, "stage": stage}) for at, name, i, stage in events]
    (tmp_path / "events.jsonl").write_text("\n".join(rows) + '\n{"time": 109, "ev')
    found = seconds(RunDir(tmp_path))
    assert found == {(1, "grow"): 11.0, (2, "grow"): 1.5} and by_stage(found) == {"grow": 12.5}


def test_tokens_are_counted_anew_where_a_stage_was_done_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    log, mark = run.iteration(1) / "policy" / "log.jsonl", run.iteration(1) / "improve-policy.done"
    log.parent.mkdir(parents=True)
    for tokens in (5, 7):
        log.write_text(f'{{"tokens": {tokens}}}\n' * 2)
        mark.write_text(str(tokens))
        assert noted(run, 1) == {"improve-policy": 2 * tokens}
    log.write_text('{"tokens": 1}\n')  # Its mark stays: the note holds.
    assert noted(run, 1) == {"improve-policy": 14}


@pytest.mark.parametrize(
    ("left", "blocks", "chosen"),
    [
        (10_000, 3, Choice(8, 3)),  # More than enough for all.
        (3 * MARGIN * 140, 3, Choice(4, 3)),  # 100 for evaluation, 10 a sample: 4 in each of three.
        (2.5 * MARGIN * 140, 3, Choice(7, 2)),  # Three with 4 are too many, two get what is there.
        (MARGIN * 139, 3, Choice(0, 0)),
    ],
)
def test_what_is_left_is_divided_equally_among_the_blocks_it_has_room_for(
    left: float, blocks: int, chosen: Choice
) -> None:
    assert choose(left, Price(100, 10), most=8, least=4, blocks=blocks) == chosen


def test_searches_and_fits_of_fixed_length_are_bought_whole() -> None:
    assert choose(250 * MARGIN, Price(100, 0), most=0, least=0, blocks=5) == Choice(0, 2)
