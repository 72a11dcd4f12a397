"""String equality of a final answer and the gold answer, after a fixed normalisation.

The final answer is, by option, what follows the last ``marker`` up to the end of the line, or the group of the last
match of ``pattern``, or else the whole response. Both it and the gold answer lose the blanks around them; runs of
blanks, line breaks too, count as one space (``collapse_whitespace``) and case counts unless ``ignore_case``. Nothing
else is changed: ``1.0`` is not ``1``, ``yes.`` is not ``yes``.

Without a marker or match, or with nothing after it, the response is ``unparsed``.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from selftrain.types import Problem, Verdict


@dataclass(frozen=True)
class ExactAnswer:
    """Right where the final answer equals ``problem.answer``, a string or a number, which is compared as written.

    Raises:
        ValueError: both a marker and a pattern are given, or the pattern is no regular expression with one group.
    """

    marker: str | None = None
    """Text before the final answer, such as ``####``."""
    pattern: str | None = None
    """Regular expression with one group, such as ``<answer>(.*?)</answer>``; ``.`` does not match line breaks."""
    ignore_case: bool = False
    collapse_whitespace: bool = True

    def __post_init__(self) -> None:
        if self.marker is not None and self.pattern is not None:
            raise ValueError("give a marker or a pattern, not both")
        if self.marker == "":
            raise ValueError("marker must not be empty; leave it out to compare the whole response")
        if self.pattern is not None:
            try:
                groups = re.compile(self.pattern).groups
            except re.error as error:
                raise ValueError(f"pattern {self.pattern!r} is not a regular expression: {error}") from error
            if groups != 1:
                raise ValueError(f"pattern {self.pattern!r} must have exactly one group (...), not {groups}")

    def __call__(self, problem: Problem, response: str) -> Verdict:
        if isinstance(problem.answer, bool) or not isinstance(problem.answer, (str, int, float)):
            return Verdict("error", reason=f"the gold answer is no string or number: {str(problem.answer)[:80]!r}")
        final = self._final(response)
        if not final:
            return Verdict("unparsed", 0.0, reason="no final answer")
        right = final == self._normal(str(problem.answer))
        return Verdict("right" if right else "wrong", float(right), final)

    def _final(self, response: str) -> str | None:
        if self.marker is not None:
            _, found, rest = response.rpartition(self.marker)
            return self._normal(rest.lstrip(" \t").partition("\n")[0]) if found else None
        if self.pattern is not None:
            matches = deque(re.finditer(self.pattern, response), maxlen=1)
            return self._normal(matches[0][1] or "") if matches else None
        return self._normal(response)

    def _normal(self, text: str) -> str:
        text = " ".join(text.split()) if self.collapse_whitespace else text.strip()
        return text.casefold() if self.ignore_case else text
