r"""The final answer of a worked solution of MATH: what its last ``\boxed{}`` holds."""

from __future__ import annotations

import re

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
BARE = re.compile(r"-?[0-9]+(?:\.[0-9]+)?|[^$\n{}]+")
r"""What ``\boxed`` without braces is meant to hold: a number, else the rest of its formula."""


def last_boxed(solution: str) -> str | None:
    r"""What stands in the last box of all, also in ``\fbox{}`` and ``\boxed 5``.

    None where there is no box, or none with anything in it that is closed.
    """
    held = [content(solution, box.end()) for box in BOX.finditer(solution)]
    return next((text for text in reversed(held) if text), None)


def content(text: str, start: int) -> str | None:
    """The argument of a command that ends at ``start``: up to the brace that closes it, where one opens."""
    if not text.startswith("{", start):
        bare = BARE.match(text, start)
        return bare.group().strip().removesuffix(".") if bare else None
    depth = 0
    for mark in BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if not depth:
            return text[start + 1 : mark.start()].strip()
    return None
