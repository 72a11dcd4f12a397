"""What the protocols of lighteval share."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from selftrain.types import Problem

REQUIRED = "latex2sympy2_extended==1.0.6"
"""The parser of LaTeX, in the release that lighteval uses."""
THINKING = ("<think>", "</think>")


def check_installed() -> None:
    """Raises ValueError where the parser of LaTeX is not there."""
    name, _, wanted = REQUIRED.partition("==")
    try:
        found = version(name) == wanted
    except PackageNotFoundError:
        found = False
    if not found:
        raise ValueError(f"needs {REQUIRED}: pip install '{REQUIRED}', or selftrain with its extra 'protocols'")


def solution(problem: Problem) -> str:
    """The worked solution that is graded against; raises ValueError where the problem has none."""
    if "solution" not in problem.metadata:
        raise ValueError(f"problem {problem.id} has no metadata 'solution', the worked solution that is graded against")
    return str(problem.metadata["solution"])


def without_thinking(text: str) -> str:
    """The text without what stands between a pair of tags; an open end leaves it as it is."""
    begin, end = THINKING
    while (start := text.find(begin)) >= 0 and (stop := text.find(end, start)) >= 0:
        text = text[:start] + text[stop + len(end) :]
    return text
