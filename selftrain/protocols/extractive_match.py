"""lighteval's way to find answers in gold solution and response, and to compare them.

The answer is looked for with patterns of falling priority; within one priority the match that ends last counts. What is
found is read with sympy, LaTeX with the very release of latex2sympy2_extended that lighteval pins. The patterns and the
order of comparisons are those of lighteval 0.13.0 (Copyright 2024 The HuggingFace Team, MIT licence), for English.

Left out are its five-second alarms: who grades here is stopped from outside.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, product
from typing import Any

from selftrain.protocols.sympy_equal import attempt, sympy_equal

Found = tuple[Any, str]
"""What a match says, None where it cannot be read, and how it is written."""
Reader = Callable[[re.Match[str]], Found]
Pattern = tuple[int, re.Pattern[str], Reader]
"""Priority (lower is looked for first), pattern, and who reads its matches."""

NUMBER = (
    r"(?:(?P<integer1>-?\d{1,3}(?:[ ,]\d{3})+)(?P<decimal1>\.\d+)?|(?P<integer2>-?\d+)(?P<decimal2>[.,]\d+)|"
    r"(?P<decimal3>\.\d+)|(?P<integer3>-?\d+))(?P<percent>\s*(?:%|[Pp]ercent|\s*[Pp]ercentage|\s*[Pp]ct))?"
)
OPERATORS = r"\+\-\*\×\/\^\(\)\÷"
EXPRESSION = rf"(?P<expr>-?\(?-?\d[\d\.\s{OPERATORS}]*[{OPERATORS}][\d\.\s{OPERATORS}]+\)?)"
CURRENCY = re.escape("$€£¥₹₽₪₩₫฿₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₴₵₶₷₸₹₺₻₼₽₾₿")
BEFORE, AFTER = r"(?:^|\s|\=)(?:\*\*)?", r"(?:\*\*)?(?:\.|,|\s?:|\s|\)|\$|$)"
EXPRESSION_ALONE = rf"(?:{BEFORE}{EXPRESSION}{AFTER})"
NUMBER_ALONE = rf"(?:{BEFORE}[{CURRENCY}]?{NUMBER})"
EITHER = rf"(?:{EXPRESSION_ALONE}|{NUMBER_ALONE})"
EXPRESSION_PATTERNS = (
    (0, rf"(?i:final answer is)\:?\s*{EITHER}\.?\s?I hope"),
    (50, rf"(?i:final answer.{{0,100}}?)\s+is\:?{EITHER}"),
    (100, rf"(?i:answer)\s?:(?:.{{0,100}}=\s*|.{{0,50}}?){EITHER}(?!\s*=)"),
    (200, rf"(?i:answer)(?:.{{0,100}}=\s*|.{{0,50}}?){EITHER}(?!\s*=)"),
    (300, EXPRESSION_ALONE),
    (300, NUMBER_ALONE),
)
COMPLEX = re.compile(
    r"\\mathbb\{C\}|\\i\b|\bi\b|\\text\{i\}|\\mathrm\{i\}|\\imath\b|\\det|\\operatorname\{tr\}|\\operatorname\{rank\}|"
    r"\\text\{rank\}|\\arg\{|\\Re\{|\\Im\{|\\operatorname\{Re\}|\\operatorname\{Im\}|\\text\{Re\}|\\text\{Im\}"
)
"""LaTeX whose symbols are not taken to be real."""


@dataclass(frozen=True)
class ExtractiveMatch:
    """A metric of lighteval: what it looks for, and how closely it compares."""

    latex_gold: bool
    """Read the gold answer out of LaTeX too, not only out of plain numbers and expressions."""
    boxed: int
    """Priority of ``\\boxed{}`` in what is read out of LaTeX."""
    precision: int
    """Decimals that count where one side is a float."""

    def __call__(self, gold: str, response: str) -> float:
        """1 where an answer read out of the response equals one read out of the gold solution, else 0."""
        every = (*latex_patterns(self.boxed), *expression_patterns())
        golds = extracted(gold, every if self.latex_gold else expression_patterns()) or [gold]
        answers = extracted(response, every)
        return float(any(same(one, other, self.precision) for one, other in product(golds, answers)))


def same(gold: Any, answer: Any, precision: int) -> bool:
    """Text equals text, what was read equals what was read; never one the other."""
    from sympy import Basic, MatrixBase

    if isinstance(gold, str) and isinstance(answer, str):
        return gold.strip() != "" and gold.strip() == answer.strip()
    if not all(isinstance(side, (Basic, MatrixBase)) for side in (gold, answer)):
        return False
    return attempt(sympy_equal, gold, answer, precision) is True


def extracted(text: str, patterns: Sequence[Pattern]) -> list[Any]:
    """The first match that can be read, and how the very first one is written; empty where there is none."""
    written: list[str] = []
    for matches in by_priority(text, patterns):
        for match, read in matches:
            value, said = read(match)
            written += [said] if said else []
            if value is not None:
                return [value, *written[:1]]
    return list(written[:1])


def by_priority(text: str, patterns: Sequence[Pattern]) -> Iterator[list[tuple[re.Match[str], Reader]]]:
    """Matches of each priority: those that end last come first, and of these the longest."""
    for _, group in groupby(sorted(patterns, key=lambda pattern: pattern[0]), key=lambda pattern: pattern[0]):
        found = [(match, read) for _, pattern, read in group for match in pattern.finditer(text)]
        yield sorted(found, key=lambda one: (one[0].end(), -one[0].start()), reverse=True)


@cache
def expression_patterns() -> tuple[Pattern, ...]:
    return tuple((priority, re.compile(pattern), read_expression) for priority, pattern in EXPRESSION_PATTERNS)


@cache
def latex_patterns(boxed_priority: int) -> tuple[Pattern, ...]:
    latex, boxed = several(boxed=False), several(boxed=True)
    patterns = (
        (0, rf"(?i:final answer is)\:?\s*{latex}\.?\s?I hope"),
        (50, rf"(?i:final answer.{{0,100}}?)\s+is\:?\s*{latex}"),
        (100, rf"(?i:answer)\s?:.{{0,50}}?{latex}"),
        (200, rf"(?i:answer).{{0,50}}?{latex}"),
        (300, latex),
        (boxed_priority, boxed),
        (boxed_priority, r"(?P<first_latexBoxed>\\boxed{.+})"),
    )
    return tuple((priority, re.compile(pattern, re.DOTALL), read_latex) for priority, pattern in patterns)


def several(boxed: bool) -> str:
    """Up to six formulas joined by "and", "or" or a comma."""
    others = "".join(rf"(?:\s*(?:and|or|,)\s*{formula(f'next{i}_', boxed)})?" for i in range(1, 6))
    first = formula("first_", boxed)
    return f"{first}{others}" if boxed else f"(?:{first}{others})"


def formula(prefix: str, boxed: bool) -> str:
    """One formula between its delimiters; ``boxed``: only such as hold a box."""

    def inside(unit: str) -> str:
        return rf"{unit}*?\\boxed{{{unit}+?}}{unit}*?" if boxed else rf"{unit}+?"

    kinds = [
        (r"(?<!\\)\$\$", "DisplayDollar", r"(?:[^$]|\$(?!\$))", r"(?<!\\)\$\$"),
        (r"(?<!\\)\\\[", "DisplayBracket", r"(?:[^\\]|\\(?!\]))", r"(?<!\\)\\\]"),
        (r"(?<!\\|\d)\$", "InlineDollar", r"(?:\\[$]|[^\n$])", r"(?<!\\)\$"),
        (r"(?<!\\|\d)\\\(", "InlineParenthesis", r"(?:[^\\\n]|\\(?!\)))", r"(?<!\\)\\\)"),
        (r"\s\[", "InlineBracket", r"[^\n\]\[]", r"\]\s"),
    ]
    patterns = [rf"{begin}(?P<{prefix}latex{name}>{inside(unit)}){end}" for begin, name, unit, end in kinds]
    if not boxed:
        number = r"-?\d+(?:[.,]\d+)?"
        patterns.append(rf"(?P<{prefix}latexFraction>-?\\frac{{{number}}}{{{number}}})")
    return rf"(?:(?:{'|'.join(patterns)})\s*(?P<{prefix}percent>(?:\\?%|[Pp]ercent|[Pp]ercentage|[Pp]ct))?)"


def read_expression(match: re.Match[str]) -> Found:
    """A number, its thousands separators dropped, or an arithmetic expression left unevaluated."""
    import sympy
    from sympy.parsing import parse_expr

    groups = match.groupdict()
    integer = next((text for name, text in groups.items() if name.startswith("integer") and text), "")
    decimal = next((text for name, text in groups.items() if name.startswith("decimal") and text), "")
    if integer or decimal:
        written = (integer.translate(str.maketrans("", "", ", ")).lstrip("0") or "0") + decimal.replace(",", ".")
        number = attempt(sympy.Number, written)
        return (percent(number) if number is not None and groups.get("percent") else number), written
    expression = groups["expr"]
    return attempt(parse_expr, expression.replace("\n", " ").replace("^", "**"), evaluate=False), expression


def read_latex(match: re.Match[str]) -> Found:
    """A formula, or a set where several were joined and each can be read."""
    import sympy
    from latex2sympy2_extended.latex2sympy2 import FiniteSet

    groups = match.groupdict()
    formulas = [(name, text) for name, text in groups.items() if "_latex" in name and text]
    read = [read_formula(name, text, bool(groups.get(f"{name.split('_')[0]}_percent"))) for name, text in formulas]
    values = [value for value, _ in read]
    if len(read) > 1 and all(value is not None for value in values):
        elements = [e for value in values for e in (value.args if isinstance(value, sympy.FiniteSet) else [value])]
        return FiniteSet(*elements), " and ".join(written for _, written in read)
    return read[0] if read else (None, "")


def read_formula(name: str, latex: str, is_percent: bool) -> Found:
    from latex2sympy2_extended.latex2sympy2 import NormalizationConfig, latex2sympy, normalize_latex

    box = "last" if name.endswith("_latexBoxed") else "all"
    config = NormalizationConfig(
        basic_latex=True, units=True, malformed_operators=True, nits=True, boxed=box, equations=True
    )
    written = normalize_latex(latex, config=config)
    is_real = not COMPLEX.search(written)
    value = attempt(latex2sympy, written, is_real=is_real, convert_degrees=False, normalization_config=None)
    return (attempt(percent, value) if is_percent and value is not None else value), written


def percent(value: Any) -> Any:
    import sympy

    return sympy.Mul(value, sympy.Rational(1, 100), evaluate=False)
