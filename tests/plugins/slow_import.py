"""A verifier that takes longer to import than it may take to judge."""

from __future__ import annotations

import os
import time

from selftrain.types import Problem

time.sleep(1.5)


def judge(problem: Problem, response: str) -> bool:
    """Dies where it is told to, so that it has to be imported again."""
    if response == "die":
        os._exit(1)
    return bool(response == problem.answer)
