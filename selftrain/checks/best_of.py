"""What can be known to be wrong with ``evaluate.best_of``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.nested import parts
from selftrain.registry import options_class, resolve
from selftrain.rewards.base import verdict_only
from selftrain.schema import RunConfig

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_best_of(config: RunConfig) -> None:
    """Raises ConfigError for sources that cannot choose, or have nothing to choose among."""
    evaluate = config.evaluate
    if evaluate.best_of and evaluate.n < 2:
        raise ConfigError(
            f"evaluate.best_of: chooses among a problem's samples, and evaluate.n is {evaluate.n}; set it to 2 at "
            "least, or evaluate.best_of to null"
        )
    protocols = {Path(chosen.kind).name.replace(":", "-") for chosen in evaluate.protocol.values()}
    for name, source in evaluate.best_of.items():
        where = f"evaluate.best_of.{name}"
        if not NAME.fullmatch(name):
            raise ConfigError(f"{where}: names a file and a metric; use letters, digits, '_', '-' and '.'")
        if name in protocols:
            raise ConfigError(f"{where}: a protocol has this name too; choose another")
        if knows_verdict({"kind": source.kind, **source.options}):
            raise ConfigError(
                f"{where}: {source.kind} is the verdict itself, and the best of n by it is pass@n, which is reported "
                "anyway; name a source that does not know it, such as implicit_prm"
            )


def knows_verdict(source: Mapping[str, Any]) -> bool:
    """Whether a reward source, as a tree, is made of nothing but the verdict, or one inside it is."""
    own = verdict_only(resolve("reward", source["kind"]))
    return own or any(map(knows_verdict, parts("reward", options_class("reward", source["kind"]), source)))
