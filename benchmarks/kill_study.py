"""Does a run that is killed and rerun end with the very metrics of an undisturbed one?

The smoke config is killed at 20 chosen events and at 10 random moments, with parts of 64 and of 4096 samples; each
result is compared byte by byte with an undisturbed run of the same part size, and the two of these with each other.
``--quickstart`` adds the quickstart, killed at three random moments and run again each time. Runs are forked from a
process that has imported torch, so that kills fall into work and not into imports.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from common import save  # noqa: E402
from kill_driver import Driver, Trap, driving  # noqa: E402

AIMED = {
    "mid part of samples": Trap("write", "iteration_0001/samples/.draft", 1),
    "mid part of samples, later": Trap("write", "iteration_0002/samples/.draft", 3),
    "mid part of verdicts": Trap("write", "iteration_0001/verdicts/.draft", 2),
    "mid part of scores": Trap("write", "iteration_0002/scores/.draft", 2),
    "mid part of an evaluation": Trap("write", "iteration_0001/evaluation/unjudged/.arithmetic-test", 2),
    "mid file of a judged evaluation": Trap("write", "iteration_0000/evaluation/.arithmetic-val", 1),
    "samples written, not renamed": Trap("replace", "iteration_0001/samples/draft", 2),
    "verdicts written, not renamed": Trap("replace", "iteration_0002/verdicts/draft", 1),
    "checkpoint written, not renamed": Trap("replace", "iteration_0001/policy/checkpoint", 1),
    "metrics written, not renamed": Trap("replace", "metrics.jsonl", 2),
    "samples before they are synced": Trap("fsync", "iteration_0001/samples/.draft", 3),
    "last part of samples, before the mark": Trap("replace", "iteration_0001/grow.done", 1),
    "mark of grow, before that of verify": Trap("replaced", "iteration_0002/grow.done", 1),
    "examples renamed, before the fit": Trap("replaced", "iteration_0001/examples/policy", 1),
    "checkpoint renamed, before the mark": Trap("replaced", "iteration_0002/policy/checkpoint", 1),
    "warm-up renamed, before the mark": Trap("replaced", "warmup/policy/checkpoint", 1),
    "mid checkpoint of the warm-up": Trap("weights", "warmup/policy", 1),
    "mid checkpoint": Trap("weights", "iteration_0002/policy", 1),
    "mid metrics": Trap("text", "metrics.jsonl", 2),
    "mid fit": Trap("step", "", 75),
}
RANDOM = 10


class Study:
    """Kills of one config with one part size."""

    def __init__(self, driver: Driver, folder: Path, config: str, overrides: list[str], keep: Path) -> None:
        self.driver, self.folder, self.keep = driver, folder, keep
        self.command = ["run", str(ROOT / "configs" / f"{config}.yaml"), "track.live=none", "run.reuse=false"]
        self.command += overrides
        self.folder.mkdir(parents=True)
        driver.run(["doctor"])  # It answers once everything is imported.
        began = time.monotonic()
        ended = driver.run([*self.command, f"run.folder={self.folder}", "run.name=whole"])
        self.seconds = time.monotonic() - began
        assert ended.status == 0, ended.err
        self.whole = self.metrics("whole")

    def metrics(self, name: str) -> bytes:
        return (self.folder / name / "metrics.jsonl").read_bytes()

    def kill(self, where: str, trap: Trap | None, after: float | None = None) -> dict[str, Any]:
        """Kill at an event, or some seconds after the start; run again; compare."""
        name = where.replace(" ", "-").replace(",", "")
        command = [*self.command, f"run.folder={self.folder}", f"run.name={name}"]
        running = self.driver.start(command, replace(trap) if trap else None)
        timer = threading.Timer(after, os.kill, (running.pid, signal.SIGKILL)) if after is not None else None
        if timer:
            timer.start()
        killed = running.wait()
        if timer:
            timer.cancel()
        parts = self.inodes(name)
        began = time.monotonic()
        again = self.driver.run(command)
        found = {
            "where": where,
            "killed": killed.status == -signal.SIGKILL,
            "parts_kept": len(parts),
            "rerun_seconds": round(time.monotonic() - began, 1),
            "rerun_status": again.status,
            "finished_parts_untouched": parts.items() <= self.inodes(name).items(),
            "metrics_equal": again.status == 0 and self.metrics(name) == self.whole,
        }
        print(found, flush=True)
        if not found["metrics_equal"]:
            for run in ("whole", name):
                shutil.copytree(self.folder / run, self.keep / self.folder.name / run, dirs_exist_ok=True)
        shutil.rmtree(self.folder / name)
        return found

    def kill_often(self, moments: list[float]) -> dict[str, Any]:
        """Kill one run again and again, some seconds after each start, and let it end; compare."""
        command = [*self.command, f"run.folder={self.folder}", "run.name=often"]
        killed = []
        for after in moments:
            running = self.driver.start(command, None)
            timer = threading.Timer(after, os.kill, (running.pid, signal.SIGKILL))
            timer.start()
            killed.append(running.wait().status == -signal.SIGKILL)
            timer.cancel()
            print(f"killed after {after:.0f} s: {killed[-1]}", flush=True)
        parts = self.inodes("often")
        again = self.driver.run(command)
        return {
            "where": f"after {', '.join(f'{after:.0f}' for after in moments)} s of each start",
            "killed": all(killed),
            "parts_kept": len(parts),
            "rerun_status": again.status,
            "finished_parts_untouched": parts.items() <= self.inodes("often").items(),
            "metrics_equal": again.status == 0 and self.metrics("often") == self.whole,
        }

    def inodes(self, name: str) -> dict[Path, int]:
        return {path: path.stat().st_ino for path in (self.folder / name).glob("iteration_*/samples/*.parquet")}


def fitting(trap: Trap, part_size: int) -> Trap:
    """With parts larger than the work there is one of each."""
    return replace(trap, n=1) if part_size >= 1600 and trap.event in ("write", "replace", "fsync") else trap


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quickstart", action="store_true", help="three random kills of the quickstart too")
    arguments.add_argument("--part-sizes", type=int, nargs="*", default=[64, 4096])
    arguments.add_argument("--result", default="kill_study", help="name of the result file")
    arguments.add_argument("--random", type=int, default=RANDOM)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--keep", type=Path, default=Path("runs/unequal"), help="where runs that end otherwise go")
    options = arguments.parse_args()
    chance = random.Random(options.seed)
    studies = []
    with tempfile.TemporaryDirectory() as name, driving(Path(name) / "output") as driver:
        wholes = set()
        for size in options.part_sizes:
            study = Study(driver, Path(name) / str(size), "smoke", [f"run.part_size={size}"], options.keep)
            wholes.add(study.whole)
            kills = [study.kill(where, fitting(trap, size)) for where, trap in AIMED.items()]
            for number in range(options.random):
                kills.append(at_random(study, number, chance.uniform(0, 0.9 * study.seconds)))
            studies.append(summary("smoke", size, study, kills))
        if options.quickstart:
            study = Study(driver, Path(name) / "quickstart", "quickstart", [], options.keep)
            # Each start goes on where the last ended, so together they stay inside the run.
            moments = [chance.uniform(0.05, 0.3) * study.seconds for _ in range(3)]
            studies.append(summary("quickstart", 1024, study, [study.kill_often(moments)]))
    good = all(study["all_equal"] for study in studies) and len(wholes) <= 1
    save(options.result, {"passed": good, "part_sizes_equal": len(wholes) <= 1, "studies": studies})
    sys.exit(0 if good else 1)


def at_random(study: Study, number: int, after: float) -> dict[str, Any]:
    """A kill after so many seconds, or sooner where the run is over by then: the machine is not always as busy as it
    was in the undisturbed run."""
    kill = study.kill(f"random {number}: after {after:.1f} s", None, after)
    return kill if kill["killed"] else at_random(study, number, after / 2)


def summary(config: str, size: int, study: Study, kills: list[dict[str, Any]]) -> dict[str, Any]:
    equal = all(kill["killed"] and kill["metrics_equal"] and kill["finished_parts_untouched"] for kill in kills)
    return {
        "config": config,
        "part_size": size,
        "undisturbed_seconds": round(study.seconds, 1),
        "all_equal": equal,
        "kills": kills,
    }


if __name__ == "__main__":
    main()
