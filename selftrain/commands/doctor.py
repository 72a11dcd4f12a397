"""`selftrain doctor`: what this machine can run."""

from __future__ import annotations

import argparse

from selftrain.machine import environment
from selftrain.models.options import OPTIONS, lacking
from selftrain.sandbox.levels import LEVELS, strongest, trial

EXAMPLES = """examples:
  selftrain doctor                                        versions, GPUs, samplers, sandbox, and what is missing
"""


def arguments(command: argparse.ArgumentParser) -> None:
    """It has none."""


def main(options: argparse.Namespace) -> int:
    for name, value in environment().items():
        print(f"{name:14} {value}")
    print("kernels")
    for name, option in OPTIONS.items():
        print(f"  {name:18} {lacking(name) or 'can be had'} ({option.key})")
    print(f"{'sandbox':14} {strongest() or 'none'}")
    for level in reversed(LEVELS):
        print(f"  {level:12} {trial(level) or 'works'}")
    return 0
