"""`selftrain config`: a config as the run will read it."""

from __future__ import annotations

import argparse

from selftrain.commands.opening import config_arguments as arguments
from selftrain.config import check_tree, read_tree, to_yaml
from selftrain.train_config import check_train, is_fit

__all__ = ["arguments", "main"]

EXAMPLES = """examples:
  selftrain config configs/quickstart.yaml                every key, with its default
  selftrain config configs/quickstart.yaml grow.draft.n=8
"""


def main(options: argparse.Namespace) -> int:
    tree = read_tree(options.config, options.overrides)
    print(to_yaml(check_train(tree) if is_fit(tree) else check_tree(tree)), end="")
    return 0
