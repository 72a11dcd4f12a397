"""Fits through the command line that are asked to stop, or killed before their mark: nothing of them is done again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from kill_driver import Driver, Ended, Trap

ROWS = [{"prompt": f"{a}+{b}=", "response": f"#{a + b}"} for a in range(5) for b in range(5)]


class Fits:
    def __init__(self, driver: Driver, model: Path, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        tree = {
            "run": {"folder": str(folder), "name": "fit"},
            "model": {"path": str(model)},
            "data": {"path": str(folder / "rows.jsonl")},
            "learner": {"optim": {"lr": 1.0e-3, "steps": 150, "batch_size": 4, "schedule": "constant"}},
            "launch": {"train": {"save_every": 149}},
            "track": {"live": "plain"},
        }
        (folder / "fit.yaml").write_text(yaml.safe_dump(tree))
        self.unfinished = folder / "fit" / "unfinished"

    def command(self) -> list[str]:
        return ["train", str(self.folder / "fit.yaml")]

    def run(self, trap: Trap | None = None) -> Ended:
        return self.driver.run(self.command(), trap)

    def state(self) -> dict[str, Any]:
        return dict(json.loads((self.unfinished / "state" / "place.json").read_text()))

    def mark_log(self) -> None:
        """See of the first line whether it is written anew."""
        log = self.unfinished / "state" / "log.jsonl"
        first, *rest = log.read_text().splitlines()
        log.write_text("\n".join([json.dumps({**json.loads(first), "seen": 1}), *rest, ""]))

    def assert_went_on(self) -> None:
        lines = [json.loads(line) for line in (self.folder / "fit" / "log.jsonl").read_text().splitlines()]
        assert lines[0]["seen"] == 1 and [line["step"] for line in lines] == [*range(1, 151)]
        assert not self.unfinished.exists() and (self.folder / "fit" / "train.done").exists()


@pytest.fixture
def fits(driver: Driver, tiny: Path, tmp_path: Path) -> Fits:
    return Fits(driver, tiny, tmp_path)


def asked_to_stop(fits: Fits, *settings: str, trap: Trap | None = None) -> Ended:
    """The fit, sent SIGTERM after its first step."""
    running = fits.driver.start([*fits.command(), *settings], trap)
    log = fits.folder / "fit" / "events.jsonl"
    deadline = time.monotonic() + 60
    while not (log.exists() and "Progress" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGTERM)
    return running.wait()


def test_a_fit_that_is_asked_to_stop_goes_on_from_there(fits: Fits) -> None:
    ended = asked_to_stop(fits, "launch.train.save_every=null")
    assert ended.status == 143 and "the same command goes on with the fit" in ended.err
    assert 0 < fits.state()["step"] < 149
    fits.mark_log()
    again = fits.run()
    assert again.status == 0, again.err
    fits.assert_went_on()


def test_a_fit_that_has_no_room_for_where_it_stands_says_that_it_begins_anew(fits: Fits) -> None:
    full = Trap("replace", "fit/unfinished/state", n=1, fail=True)
    ended = asked_to_stop(fits, "launch.train.save_every=null", trap=full)
    told = "the same command begins the fit anew: where it stands could not be written (No space left on device)"
    assert ended.status == 143 and told in ended.err
    assert not (fits.unfinished / "state").exists()


def test_where_a_fit_stands_is_there_until_its_mark_is(fits: Fits) -> None:
    killed = fits.run(Trap("replace", "train.done"))
    assert killed.status == -signal.SIGKILL and (fits.folder / "fit" / "checkpoint").exists()
    assert fits.state()["step"] == 149
    fits.mark_log()
    again = fits.run()
    assert again.status == 0, again.err
    fits.assert_went_on()


def test_a_disk_that_is_full_leaves_the_last_state(fits: Fits) -> None:
    trap = Trap("replace", "fit/unfinished/state", n=2, fail=True)
    full = fits.driver.run([*fits.command(), "launch.train.save_every=50"], trap)
    assert full.status == 1 and full.err.count("\n") == 1 and "the disk or a quota is full" in full.err
    assert fits.state()["step"] == 50
    fits.mark_log()
    again = fits.run()
    assert again.status == 0, again.err
    fits.assert_went_on()
