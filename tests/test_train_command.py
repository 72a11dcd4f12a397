"""`selftrain train`: one fit without a loop, the same as a run's own, killed or not."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from kill_driver import Driver, Trap

from selftrain.cli import main
from selftrain.models.adapters import WEIGHTS, adapter_base
from selftrain.train_config import check_train, is_fit

RUN = Path(__file__).with_name("tiny.yaml")
SUMS = [(a, b) for a in range(5) for b in range(5)]
PLAIN = [{"prompt": f"{a}+{b}=", "response": f"#{a + b}"} for a, b in SUMS]
PAIRS = [{"prompt": f"{a}+{b}=", "chosen": f"#{a + b}", "rejected": f"#{a + b + 1}"} for a, b in SUMS]
LABELS = [number / 24 for number in range(25)]
OPTIM = {"lr": 5.0e-3, "steps": 24, "batch_size": 8, "schedule": "constant", "warmup": 0.0}
Train = Callable[..., int]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(folder: Path, model: Path, rows: Sequence[dict[str, Any]], objective: Any = "nll", **learner: Any) -> Path:
    """A config of a fit to these rows, beside them."""
    tree = {
        "run": {"name": "fit", "folder": str(folder / "runs")},
        "model": {"path": str(model)},
        "data": {"path": str(write(folder / "rows.jsonl", rows))},
        "learner": {"objective": objective, "optim": OPTIM, **learner},
        "track": {"live": "plain"},
    }
    path = folder / "fit.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def log(root: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (root / "log.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Path:
    """A run of one iteration, whose policy is fitted to its samples and to demonstrations."""
    folder = tmp_path_factory.mktemp("train")
    ended = driver.run(["run", str(RUN), f"run.folder={folder}", "loop.iterations=1", "run.seed=5"])
    assert ended.status == 0, ended.err
    return folder / "tiny"


def test_the_examples_of_a_run_give_its_own_checkpoint(run: Path, tmp_path: Path, driver: Driver) -> None:
    theirs = run / "iteration_0001" / "policy"
    optim = yaml.safe_load(RUN.read_text())["learners"]["policy"]["optim"]
    path = config(tmp_path, run / "warmup" / "policy" / "checkpoint", PLAIN, optim=optim)
    words = ["train", str(path), f"data.path={run / 'iteration_0001' / 'examples' / 'policy'}", "run.seed=5"]
    ended = driver.run(words)
    assert ended.status == 0, ended.err
    ours = tmp_path / "runs" / "fit"
    assert (ours / "log.jsonl").read_bytes() == (theirs / "log.jsonl").read_bytes()
    assert files(ours / "checkpoint") == files(theirs / "checkpoint")
    assert "model.safetensors" in files(ours / "checkpoint")
    ended = driver.run([*words, "run.name=other", "learner.optim.lr=1e-4"])
    assert ended.status == 0, ended.err
    other = files(tmp_path / "runs" / "other" / "checkpoint")
    assert other["model.safetensors"] != files(ours / "checkpoint")["model.safetensors"]


def test_what_a_fit_leaves_and_says(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config(tmp_path, tiny, PLAIN)
    assert main(["train", str(path), "learner.objective.normalise=sequences"]) == 0
    root = tmp_path / "runs" / "fit"
    said = capsys.readouterr().out
    assert "train done in" in said and "25 responses, 24 steps, loss " in said and "iteration" not in said
    assert f"checkpoint  {root}/checkpoint" in said and f"selftrain evaluate {root}/checkpoint --task" in said
    assert {entry.name for entry in root.iterdir()} >= {
        *("config.yaml", "environment.json", "events.jsonl", "log.jsonl", "checkpoint", "train.done")
    }
    losses = [line["loss"] for line in log(root)]
    assert len(losses) == 24 and losses[-1] < 0.5 * losses[0]
    saved = yaml.safe_load((root / "config.yaml").read_text())
    assert is_fit(saved) and check_train(saved).learner.objective.options == {"normalise": "sequences"}

    before = files(root)
    assert main(["train", str(root / "config.yaml")]) == 0
    assert "fit is done already" in capsys.readouterr().out
    assert main(["train", str(path), "learner.optim.lr=1e-4"]) == 2
    told = capsys.readouterr().err
    assert "holds another fit, with other settings: learner.objective.normalise, learner.optim.lr" in told
    assert "another run.name" in told
    write(tmp_path / "rows.jsonl", PLAIN[:-1])
    assert main(["train", str(root / "config.yaml")]) == 2 and "data.path" in capsys.readouterr().err
    assert files(root) == before


def test_a_folder_holds_a_fit_or_a_run(
    run: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config(tmp_path, tiny, PLAIN)
    before = files(run)
    assert main(["train", str(path), f"run.folder={run.parent}", "run.name=tiny"]) == 2
    assert "holds a run (selftrain run); choose another run.name" in capsys.readouterr().err
    assert files(run) == before
    assert main(["train", str(path), "learner.optim.steps=2"]) == 0
    root = tmp_path / "runs" / "fit"
    assert main(["run", str(RUN), f"run.folder={root.parent}", "run.name=fit"]) == 2
    assert "holds a fit (selftrain train)" in capsys.readouterr().err
    assert main(["report", str(root)]) == 2 and "evaluate" in capsys.readouterr().err
    assert main(["config", str(path), "learner.optim.lr=0.5"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["learner"]["optim"]["lr"] == 0.5
    assert main(["export", str(root), str(tmp_path / "alone")]) == 0
    evaluated = ["evaluate", str(root / "checkpoint"), "--task", "arithmetic", "--output", str(tmp_path / "out")]
    sizes = "tasks.arithmetic.sizes={demonstrations: 4, train: 4, val: 4, test: 4, transfer: 0}"
    assert main([*evaluated, sizes, "tasks.arithmetic.lengths=[1, 2]", "evaluate.n=0", "grow.draft.max_tokens=8"]) == 0


def test_a_dry_run_shows_an_example_and_writes_nothing(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ties = [{"prompt": "1+1=", "chosen": "#2", "rejected": "#2"}] * 2
    path = config(tmp_path, tiny, [*PAIRS, *ties], "dpo", lora={"r": 4})
    validation = write(tmp_path / "held.jsonl", PAIRS[:3])
    asked = ["train", str(path), "learner.lora.base=nf4", f"data.validation={validation}"]
    assert main([*asked, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "examples: 22 pairs" in said and "validation: 3 pairs" in said
    assert "data.path: 2 pair(s) left out, whose two sides are the same" in said
    assert "data.path: 6 example(s) left out, whose prompts data.validation has" in said
    assert "learner: dpo, against base, 24 steps, LoRA of rank 4 on all-linear" in said
    assert "  | chosen: ⟦0+3=⟧#3<end>" in said and "  | rejected: ⟦0+3=⟧#4<end>" in said
    assert "where a run is refused:\n  learner.lora.base: nf4 cannot be had: there is no NVIDIA GPU here; " in said
    assert main(asked) == 2 and "learner.lora.base: nf4 cannot be had" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_dpo_raises_the_margin(tiny: Path, tmp_path: Path) -> None:
    path = config(tmp_path, tiny, PAIRS, {"kind": "dpo", "beta": 0.5})
    assert main(["train", str(path)]) == 0
    lines = log(tmp_path / "runs" / "fit")
    assert lines[0]["margin"] == pytest.approx(0.0, abs=1e-5) and lines[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    assert "measures" not in lines[0]  # They stand in the line itself.
    assert lines[-1]["margin"] > 1.0 and lines[-1]["reward accuracy"] > 0.9
    assert len(list((tmp_path / "runs" / "fit" / "logprobs").iterdir())) == 1


def test_another_reference_is_read_once(tiny: Path, tmp_path: Path, run: Path) -> None:
    """The first step then has the log-ratios of the two checkpoints, not 0."""
    other = run / "iteration_0001" / "policy" / "checkpoint"
    path = config(tmp_path, run / "warmup" / "policy" / "checkpoint", PAIRS, "dpo", reference=str(other))
    assert main(["train", str(path)]) == 0
    assert abs(log(tmp_path / "runs" / "fit")[0]["margin"]) > 1e-3


def test_labels_may_be_soft(tiny: Path, tmp_path: Path) -> None:
    """With one prompt and response per label the loss can only fall to the entropy of the labels."""
    rows = [{**row, "label": label} for row, label in zip(PLAIN, LABELS, strict=True)]
    path = config(tmp_path, tiny, rows, {"kind": "implicit_ce", "beta": 0.5})
    assert main(["train", str(path), "learner.optim.steps=60"]) == 0
    lines = log(tmp_path / "runs" / "fit")
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in LABELS if 0 < p < 1) / len(LABELS)
    assert lines[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    last = [line["loss"] for line in lines[-6:]]
    assert entropy - 0.1 < sum(last) / 6 < 0.64


def test_kto_takes_bools_and_the_fields_of_trl(tiny: Path, tmp_path: Path) -> None:
    rows = [
        {"prompt": row["prompt"], "completion": row["response"], "label": n % 2 == 0} for n, row in enumerate(PLAIN)
    ]
    path = config(tmp_path, tiny, rows, "kto")
    assert main(["train", str(path)]) == 0
    lines = log(tmp_path / "runs" / "fit")
    assert lines[-1]["right reward"] > lines[-1]["wrong reward"] + 0.1


def test_a_divergence_needs_rows_of_two_prompts(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": "1+1=", "response": f"#{n}", "label": n == 2} for n in range(4)]
    assert main(["train", str(config(tmp_path, tiny, rows, "kto"))]) == 1
    assert "all examples are of one; let data.path hold rows of two prompts at least" in capsys.readouterr().err


def test_an_adapter_is_fitted(tiny: Path, tmp_path: Path) -> None:
    path = config(tmp_path, tiny, PAIRS, "simpo", lora={"r": 4})
    assert main(["train", str(path)]) == 0
    checkpoint = tmp_path / "runs" / "fit" / "checkpoint"
    assert adapter_base(checkpoint) == tiny and (checkpoint / WEIGHTS).exists()
    lines = log(tmp_path / "runs" / "fit")
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.5
    assert not (tmp_path / "runs" / "fit" / "logprobs").exists()


def test_a_validation_file_stops_the_fit(tiny: Path, tmp_path: Path) -> None:
    held = write(tmp_path / "held.jsonl", [{"prompt": "5+5=", "response": "*"}, {"prompt": "5+6=", "response": "**"}])
    path = config(tmp_path, tiny, PLAIN)
    override = "learner.optim.validation={every: 2, patience: 3}"
    assert main(["train", str(path), f"data.validation={held}", override]) == 0
    looks = [line["validation"] for line in log(tmp_path / "runs" / "fit")]
    found = [value for value in looks if value is not None]
    assert looks[0] is None and len(found) >= 3 and len(looks) < 24
    assert min(found) not in found[-3:]


KILLS = {
    "mid reference": Trap("replace", "logprobs", 1),
    "mid fit": Trap("step", "", 9),
    "mid checkpoint": Trap("weights", "fit", 1),
    "checkpoint without mark": Trap("replaced", "fit/checkpoint", 1),
}


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> dict[str, bytes]:
    """The files of an undisturbed fit."""
    folder = tmp_path_factory.mktemp("whole")
    assert driver.run(["train", str(config(folder, tiny, PAIRS, "dpo"))]).status == 0
    return files(folder / "runs" / "fit")


@pytest.mark.parametrize("name", KILLS)
def test_a_killed_fit_begins_anew_and_ends_the_same(
    name: str, tiny: Path, tmp_path: Path, driver: Driver, whole: dict[str, bytes]
) -> None:
    path = config(tmp_path, tiny, PAIRS, "dpo")
    assert driver.run(["train", str(path)], KILLS[name]).status == -signal.SIGKILL
    root = tmp_path / "runs" / "fit"
    assert not (root / "train.done").exists()
    ended = driver.run(["train", str(path)])
    assert ended.status == 0 and "done already" not in ended.out, ended.err
    mine = files(root)
    assert mine.keys() == whole.keys()
    # These two hold the place of the run, and times.
    assert {name for name in mine if mine[name] != whole[name]} == {"config.yaml", "events.jsonl"}


def test_a_fit_that_is_asked_to_stop_says_what_is_next(tiny: Path, tmp_path: Path, driver: Driver) -> None:
    path = config(tmp_path, tiny, PLAIN)
    running = driver.start(["train", str(path), "learner.optim.steps=100000"])
    stop = tmp_path / "runs" / "fit" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (stop.exists() and "Progress" in stop.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGTERM)
    ended = running.wait()
    assert ended.status == 143 and "the same command goes on with the fit" in ended.err
