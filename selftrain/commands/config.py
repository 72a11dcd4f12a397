"""`selftrain config`: a config as the run will read it."""

from __future__ import annotations

import argparse

from selftrain.commands.opening import config_arguments as arguments
from selftrain.config import load_config, to_yaml

__all__ = ["arguments", "main"]


def main(options: argparse.Namespace) -> int:
    print(to_yaml(load_config(options.config, options.overrides)), end="")
    return 0
