r"""Numbers as they are written: which pieces of text are one, and their exact value.

``1234``, ``1,234``, ``-5``, ``−5``, ``.5``, ``12.50``, ``$18``, ``-$5``, ``\$18``, ``3/4``, ``\frac{3}{4}``, ``1 3/4``,
``1e3``, ``1.2 \times 10^{-4}``, ``1{,}234``. No numbers: decimal commas (``3,5``), dates and times, powers, indices,
digits inside words, more than 100 characters or an exponent beyond 100.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact
from fractions import Fraction

MAX_CHARACTERS = 100
MAX_EXPONENT = 100

Number = int | Fraction

_PLAIN = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3}){1,33}+(?![0-9])|[0-9]++)(?:\.[0-9]++)?+|\.[0-9]++)"
_FRACTION = (
    r"\\[cdt]?frac\s*+(?:\{{\s*(?P<{0}>-?[0-9]+)\s*\}}\s*\{{\s*(?P<{1}>[0-9]+)\s*\}}|(?P<{2}>[0-9])\s*(?P<{3}>[0-9]))"
)
NUMBER = re.compile(
    rf"""
    (?=[-+−$€£¥₹.0-9]|\\[cdtf$€£¥₹])
    (?<![A-Za-z0-9^]) (?<![0-9][.:/]) (?<![\^_]\{{) (?<!\^-) (?<!\^\{{-) (?<![A-Za-z0-9)}}]_)
    (?P<sign>[-+−])?+ (?:\\?[$€£¥₹]\s?)?+ (?P<inner>[-−])?+
    (?:
        (?P<number>{_PLAIN})
        (?:
            [eE](?P<exponent>[-+]?[0-9]++)(?![A-Za-z0-9])
          | \s*(?:\\times|\\cdot|×|\*|x)\s*10\s*\^\s*(?:\{{\s*(?P<power>[-+−]?[0-9]++)\s*\}}|(?P<bare>[-+−]?[0-9]++))
          | \s*/\s*(?P<under>[0-9]++)
          | \s+(?P<over_whole>[0-9]++)/(?P<under_whole>[0-9]++)
          | \s*{_FRACTION.format("n1", "d1", "n2", "d2")}
        )?+
      | {_FRACTION.format("n3", "d3", "n4", "d4")}
    )
    (?![0-9]) (?![.:/][0-9]) (?!\s*\^\s*\{{?\s*[-−0-9A-Za-z])
    """,
    re.VERBOSE,
)
_SIMPLE = re.compile(r"-?[0-9]{1,100}\Z")
_FONT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|up|md|normal)?|math(?:bf|it|rm|sf|tt|normal)|mbox|bm|boldsymbol|emph|underline)"
    r"\s?\{([^{}]*)\}"
)
_STYLE = re.compile(
    r"\\(?:(?:display|text)style|left|right|bf(?:series)?|rm|it|[lL]arge|LARGE|[hH]uge|(?:text)?color\s?\{[A-Za-z]*\})"
    r"(?![A-Za-z])\s?"
)
_THIN = re.compile(r"\\[,!;: ]")
_WIDE = re.compile(r"\\q?quad(?![A-Za-z])|~")
_DEGREE = re.compile(r"\\degree(?![A-Za-z])")
_NESTED_FONTS = 4


def plain(text: str) -> str:
    r"""Without LaTeX's fonts, styles, spaces and thousands separators: ``\textbf{3\,000 or 4}`` is ``3000 or 4``."""
    if "\\" not in text and "{" not in text:
        return text
    text = _THIN.sub("", text.replace("\\text{,}", ",").replace("{,}", ",").replace(",\\!", ","))
    text = _DEGREE.sub("°", _STYLE.sub("", _WIDE.sub(" ", text)))
    for _ in range(_NESTED_FONTS):
        text, count = _FONT.subn(_unwrapped, text)
        if not count:
            break
    return text


def _unwrapped(match: re.Match[str]) -> str:
    # Words are set apart, as in 3\text{or}4; digits and signs are not, as in 1\text{,}234.
    return f" {match[1]} " if any(character.isalpha() for character in match[1]) else match[1]


def value_of(match: re.Match[str]) -> Number | None:
    """The exact value of a match of ``NUMBER``; None where it is too long or divides by zero."""
    if _SIMPLE.match(match[0]):
        return int(match[0])
    if len(match[0]) > MAX_CHARACTERS:
        return None
    group = match.groupdict()
    over = group["over_whole"] or group["n1"] or group["n2"] or group["n3"] or group["n4"]
    under = group["under"] or group["under_whole"] or group["d1"] or group["d2"] or group["d3"] or group["d4"]
    exponent = int((group["exponent"] or group["power"] or group["bare"] or "0").replace("−", "-"))
    if abs(exponent) > MAX_EXPONENT or (under and int(under) == 0):
        return None
    value = Fraction(f"{(group['number'] or '0').replace(',', '')}e{exponent}")
    if over and under:
        value += Fraction(int(over), int(under))
    elif under:
        value /= int(under)
    negative = (group["sign"] or "+") != "+" or group["inner"]
    return -value if negative else value


def spelled(value: Number) -> str:
    """One spelling per value, so that answers can be counted: ``18``, ``0.75``, ``1/3``."""
    if isinstance(value, int) or value.denominator == 1:
        return str(int(value))
    context = Context(prec=4 * MAX_CHARACTERS)
    quotient = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return str(value) if context.flags[Inexact] else format(quotient, "f")
