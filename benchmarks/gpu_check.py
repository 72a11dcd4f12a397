"""Everything that runs on a GPU, once, on one: `make gpu-check`. Prints one JSON; docs/gpu.md says what it means.

Each check is a process of its own, ended with all it started when its time is over; one that fails is told and stops no
other. ``--cpu`` runs all of them on a CPU with tiny models.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # Without it no matrix product is deterministic.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

from gpu_checks import CHECKS
from gpu_checks.place import Found, Place

BUDGET = 470.0
"""Seconds of all checks together."""
GOALS = {"utilisation": ("speed Qwen3-8B", 0.35), "tokens per second": ("speed Qwen3-0.6B", 26_000)}


def alone(name: str, place: Place, seconds: float) -> Found:
    """What a check finds, in a process of its own, and how it went."""
    here, there = multiprocessing.Pipe(duplex=False)
    # A fork imports nothing again; but a process that has so much as asked for a GPU cannot use it in its forks.
    context: Any = multiprocessing.get_context("fork" if place.device == "cpu" else "spawn")
    child = context.Process(target=_answer, args=(name, place, there))
    began = time.monotonic()
    child.start()
    there.close()
    try:
        found: Found = here.recv() if here.poll(seconds) else {"status": f"not done in {seconds:.0f} s"}
    except EOFError:
        child.join()
        found = {"status": f"failed: the process ended with {child.exitcode}"}
    finally:
        _end(child)
    return {**found, "wall": round(time.monotonic() - began, 1)}


def _answer(name: str, place: Place, answers: Connection) -> None:
    os.setsid()  # What it starts ends with it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.dup2(2, 1)  # The JSON stands alone on the parent's output.
    try:
        found = CHECKS[name][0](place)
        answers.send({"status": "skipped" if "skipped" in found else "ok", **found})
    except Exception as error:
        traceback.print_exc()
        told = (str(error).strip().splitlines() or [""])[0]
        answers.send({"status": f"failed: {type(error).__name__}: {told[:300]}"})


def _end(child: Any) -> None:
    child.join(5)
    for one in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, one)
        except ProcessLookupError:
            break
        child.join(5)
    child.kill()  # One that had not yet begun.


def run(place: Place, names: list[str]) -> dict[str, Found]:
    """Every check, or those that are named."""
    began, found = time.monotonic(), {}
    for name in names:
        left = BUDGET - (time.monotonic() - began)
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = alone(name, place, min(CHECKS[name][1], left)) if left > 5 else {"status": "no time left"}
        print(f"{name}: {found[name]['status']}", file=sys.stderr, flush=True)
    return found


def goals(found: dict[str, Found]) -> Found:
    """What is aimed at on an H200, and the best that was measured, compiled or not."""
    told = {}
    for figure, (name, goal) in GOALS.items():
        measured = [own["packed"][figure] for key, own in found.items() if key.startswith(name) and "packed" in own]
        told[f"{name}: {figure}"] = {"goal": goal, "measured": max(measured, default=None)}
    return told


def main(arguments: list[str] | None = None) -> int:
    """Status 1 where a check failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="on a CPU, tiny")
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    parser.add_argument("--only", nargs="*", default=[*CHECKS], choices=[*CHECKS], metavar="CHECK")
    chosen = parser.parse_args(arguments)
    if chosen.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Also where there is one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # The check that runs is ended too.
    place = Place("cpu" if chosen.cpu else "cuda", chosen.cpu or chosen.size == "tiny")
    began = time.monotonic()
    found = run(place, chosen.only)
    told = {"check": "gpu", "device": place.device, "tiny": place.tiny, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps({**told, **({} if place.tiny else {"goals": goals(found)}), "checks": found}, indent=1))
    return int(any(own["status"] not in ("ok", "skipped") for own in found.values()))


if __name__ == "__main__":
    sys.exit(main())
