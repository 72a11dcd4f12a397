"""Fits that are killed and go on, in one process and in several, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from kill_driver import Driver, Trap
from safetensors.torch import load_file

ROWS = [{"prompt": f"{a}+{b}=", "response": f"#{a + b}" * (1 + a)} for a in range(5) for b in range(5)]
OPTIM = {"lr": 1.0e-3, "steps": 12, "batch_size": 8, "schedule": "constant", "warmup": 0.0, "micro_tokens": 64}
DIVIDED = ("launch.train.engine=deepspeed", "launch.train.processes=2", "launch.train.zero=3")
SAVED = ("launch.train.save_every=4",)
AT_8 = Trap("replaced", "unfinished/state", n=2)
"""As soon as the state after eight steps has its name."""


class Fits:
    def __init__(self, driver: Driver, model: Path, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        (folder / "ds.json").write_text('{"zero_optimization": {"stage3_param_persistence_threshold": 0, "stage": 2}}')
        tree = {
            "run": {"folder": str(folder)},
            "model": {"path": str(model)},
            "data": {"path": str(folder / "rows.jsonl")},
            "learner": {"optim": OPTIM},
            "track": {"live": "plain"},
        }
        (folder / "fit.yaml").write_text(yaml.safe_dump(tree))

    def run(self, name: str, *more: str, trap: Trap | None = None) -> Any:
        return self.driver.run(["train", str(self.folder / "fit.yaml"), f"run.name={name}", *more], trap)

    def weights(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "checkpoint" / "model.safetensors")

    def log(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def fits(driver: Driver, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Fits:
    made = Fits(driver, tiny, tmp_path_factory.mktemp("fits"))
    ended = made.run("whole")
    assert ended.status == 0, ended.err
    return made


def killed(fits: Fits, name: str, *more: str) -> None:
    """Kill a fit after eight steps, go on, and see that it did not begin anew."""
    ended = fits.run(name, *more, *SAVED, trap=AT_8)
    assert ended.status == -9, ended.err
    folder = fits.folder / name
    state = folder / "unfinished" / "state"
    assert json.loads((state / "place.json").read_text())["step"] == 8
    assert not (folder / "checkpoint").exists()
    lines = (state / "log.jsonl").read_text().splitlines()
    assert len(lines) == 8
    (state / "log.jsonl").write_text("\n".join([json.dumps({**json.loads(lines[0]), "seen": 1}), *lines[1:], ""]))
    ended = fits.run(name, *more, *SAVED)
    assert ended.status == 0, ended.err
    assert not (folder / "unfinished").exists()
    assert fits.log(name)[0]["seen"] == 1 and [line["step"] for line in fits.log(name)] == [*range(1, 13)]


def test_a_killed_fit_ends_as_if_nothing_had_been(fits: Fits) -> None:
    killed(fits, "killed")
    assert all(tensor.equal(fits.weights("whole")[name]) for name, tensor in fits.weights("killed").items())
    assert fits.log("killed")[1:] == fits.log("whole")[1:]


def test_a_killed_fit_in_two_processes_ends_as_one_in_one(fits: Fits, tiny: Path) -> None:
    killed(fits, "divided", *DIVIDED, f"launch.train.config={fits.folder / 'ds.json'}")
    before = load_file(tiny / "model.safetensors")
    whole, divided = fits.weights("whole"), fits.weights("divided")
    assert whole.keys() == divided.keys()
    apart = torch.cat([(divided[name] - whole[name]).flatten() for name in whole])
    moved = torch.cat([(whole[name] - before[name]).flatten() for name in whole])
    assert apart.norm() < 1e-3 * moved.norm() and apart.abs().max() < 1e-5
    again = fits.run("divided")
    assert again.status == 0 and "done" in again.out + again.err, "what fitted it does not count"


def test_what_the_config_holds_against_is_told_and_errors_are_a_line(fits: Fits) -> None:
    told = fits.run("told", *DIVIDED, f"launch.train.config={fits.folder / 'ds.json'}", "--dry-run")
    assert told.status == 0 and "this config holds instead for zero_optimization.stage" in told.out
    (fits.folder / "wrong.json").write_text('{"zero_optimization": {"stage3_bucket": 1}}')
    wrong = fits.run("wrong", *DIVIDED, f"launch.train.config={fits.folder / 'wrong.json'}")
    assert wrong.status == 2 and wrong.err.count("\n") == 1 and "stage3_bucket" in wrong.err
