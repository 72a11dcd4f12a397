"""`selftrain doctor`: what this machine can run."""

from __future__ import annotations

import argparse

from selftrain.machine import environment
from selftrain.sandbox.levels import LEVELS, strongest, trial


def arguments(command: argparse.ArgumentParser) -> None:
    """It has none."""


def main(options: argparse.Namespace) -> int:
    for name, value in environment().items():
        print(f"{name:14} {value}")
    print(f"{'sandbox':14} {strongest() or 'none'}")
    for level in reversed(LEVELS):
        print(f"  {level:12} {trial(level) or 'works'}")
    return 0
