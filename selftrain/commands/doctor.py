"""`selftrain doctor`: what this machine can run."""

from __future__ import annotations

import argparse

from selftrain.machine import environment


def arguments(command: argparse.ArgumentParser) -> None:
    """It has none."""


def main(options: argparse.Namespace) -> int:
    for name, value in environment().items():
        print(f"{name:14} {value}")
    return 0
