r"""A final answer as tokens: Unicode, fonts, styles, delimiters and spacing are levelled, so that
``\dfrac{1}{2}``, ``\left(\tfrac 12\right)`` and ``½`` begin alike.

Linear in the length of the text; nothing is interpreted here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_CHARACTERS = 4000
"""Of an answer that is read; a longer one is compared as it is written."""

_SUPERSCRIPT = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPT = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋ₙₖᵢ", "0123456789+-nki", strict=True))
_SUPER_RUN = re.compile(f"[{''.join(_SUPERSCRIPT)}]+")
_SUB_RUN = re.compile(f"[{''.join(_SUBSCRIPT)}]+")
_VULGAR = "½12 ⅓13 ⅔23 ¼14 ¾34 ⅕15 ⅖25 ⅗35 ⅘45 ⅙16 ⅚56 ⅛18 ⅜38 ⅝58 ⅞78 ⅐17 ⅑19"
_SIGNS = {
    **{chr(0xFF01 + offset): chr(0x21 + offset) for offset in range(94)},
    **{vulgar[0]: rf"\frac{{{vulgar[1]}}}{{{vulgar[2]}}}" for vulgar in _VULGAR.split()},
    **dict.fromkeys("−–—‐‑‒﹣", "-"),
    **dict.fromkeys("“”‘’", '"'),
    **dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000\t\r\n\f", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u2061\u2062", ""),
    **{
        "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∞": r"\infty ", "π": r"\pi ", "×": "*", "·": "*", "⋅": "*", "∗": "*",
        "•": "*", "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ",
        "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "∅": r"\emptyset ", "°": r"\degree ", "ℝ": r"\reals ", "ℤ": r"\integers ", "ℕ": r"\naturals ", "′": "'",
        "→": r"\to ", "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
        "⌉": r"\rceil ", "∣": "|", "∖": r"\setminus ", "≡": r"\equiv ", "△": r"\triangle ", "∠": r"\angle ",
        "，": ",", "。": ".", "：": ":", "；": ";", "、": ",", "％": "%", "∶": ":", "ℓ": "l",
        "∑": r"\sum ", "∫": r"\int ", "…": r"\dots ", "⋯": r"\dots ",
    },
    **{
        "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "ζ": r"\zeta ",
        "η": r"\eta ", "θ": r"\theta ", "λ": r"\lambda ", "μ": r"\mu ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ",
        "φ": r"\varphi ", "χ": r"\chi ", "ψ": r"\psi ", "ω": r"\omega ", "Δ": r"\Delta ", "Γ": r"\Gamma ",
        "Θ": r"\Theta ", "Λ": r"\Lambda ", "Σ": r"\Sigma ", "Φ": r"\Phi ", "Ω": r"\Omega ",
    },
}  # fmt: skip
_SIGN_TABLE = str.maketrans(_SIGNS)
_ROOT_SIGN = re.compile(r"([√∛])\s?([0-9]+(?:\.[0-9]+)?)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]")
_PLAIN = re.compile(r"[ -~]*\Z")

_FONT = re.compile(
    r"\\(text(?:bf|it|rm|sf|tt|up|md|normal|sc)?|math(?:bf|it|rm|sf|tt|normal|cal|frak|bb|scr)|[mhf]box|bm|boldsymbol"
    r"|emph|underline|operatorname\*?|boxed|rm|bf|mathop|ensuremath|pmb)\s*\{([^{}]*)\}"
)
_DOLLAR = re.compile(r"(?<!\\)\$")
_NESTED_FONTS = 6
_BLACKBOARD = re.compile(r"\\mathbb\s*(?:\{\s*([A-Z])\s*\}|([A-Z]))|\\([RZNQC])(?![A-Za-z])")
_SETS = {"R": r"\reals ", "Z": r"\integers ", "N": r"\naturals ", "Q": r"\rationals ", "C": r"\complexes "}
_THIN = re.compile(
    r"(?<=[0-9])(?:,\s*(?:\\!|\{\\!\})\s*|\s?\{,\s?\}\s?|\\[;: ]|\{\\[,;:]\})(?=[0-9]{3}(?![0-9]))"
    r"|(?<=[0-9])\\[,!](?=[0-9])"
)
_DOUBLED = re.compile(r"\\\\(?=[A-Za-z]{2})")
_COLOUR = re.compile(r"\\(?:text)?color\s*\{[A-Za-z]*\}")
_LINE = re.compile(r"(?<!\\)\\(?:(?:noindent|(?:display|text|script)style|limits|nolimits)(?![A-Za-z])|[,!;: />])")
_REPEATING = re.compile(r"([0-9]*\.[0-9]*)\\(?:overline|bar|dot)\s*(?:\{\s*([0-9]{1,20})\s*\}|([0-9]))")
_DOTS = re.compile(r"(?<=[,+*])\s{0,3}\.\.\.\s{0,3}(?=[,+*])")
_CUP = re.compile(r"(?<=[)\]}])\s*U\s*(?=[(\[{\\])")
_PRIMES = re.compile(r"\^\s*(?:\{((?:\s*\\prime)+)\s*\}|(\\prime))")
_TEXT, _TEXT_END = "\x02", "\x03"

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<num>(?:[0-9]{1,3}(?:,[0-9]{3})+(?!,?[0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+(?![A-Za-z0-9]|\.[0-9]))?
        |\.[0-9]+(?:[eE][-+]?[0-9]+(?![A-Za-z0-9]|\.[0-9]))?)
    | (?P<cmd>\\(?:[A-Za-z]+\*?|.))
    | (?P<id>[A-Za-z]+)
    | (?P<op>\*\*|<=|>=|!=|==|=<|=>|\S)
    )""",
    re.VERBOSE | re.DOTALL,
)
_SKIPPED = {
    r"\left", r"\right", r"\middle", r"\big", r"\Big", r"\bigg", r"\Bigg", r"\bigl", r"\bigr", r"\Bigl", r"\Bigr",
    r"\biggl", r"\biggr", r"\Biggl", r"\Biggr", r"\(", r"\)", r"\[", r"\]", r"\nonumber", r"\hline", r"\mathrm",
    r"\mathbf", r"\text", r"\rm", r"\bf", r"\it", r"\hfill", r"\phantom", r"\mathstrut", r"\strut", r"\displaylines",
    r"\large", r"\Large", r"\boldsymbol", r"\bm", r"\mathit", r"\normalsize", r"\small", r"\medspace", r"\thinspace",
    r"\textbf", r"\textit", r"\textrm", r"\mathsf", r"\mbox", r"\hbox", r"\emph", r"\ensuremath", r"\pmb", r"\boxed",
    r"\fbox", r"\framebox",
}  # fmt: skip
_ALIAS = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leq": r"\le", r"\leqslant": r"\le",
    r"\geq": r"\ge", r"\geqslant": r"\ge", r"\neq": r"\ne", r"\not=": r"\ne", r"\lt": "<", r"\gt": ">", "<=": r"\le",
    "=<": r"\le", ">=": r"\ge", "!=": r"\ne", "==": "=", r"\cdot": "*", r"\times": "*", r"\ast": "*", r"\div": "/",
    "**": "^", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lvert": "|", r"\rvert": "|", r"\vert": "|", r"\mid": "|",
    r"\lbrack": "[", r"\rbrack": "]", r"\colon": ":", r"\dbinom": r"\binom", r"\tbinom": r"\binom", r"\%": "%",
    r"\degree": r"\circ", r"\land": r"\wedge", r"\varnothing": r"\emptyset", r"\backslash": r"\setminus",
    r"\lor": r"\vee", r"\Vert": r"\|", r"\lVert": r"\|", r"\rVert": r"\|", r"\simeq": r"\approx", r"\&": "&",
    r"\rightarrow": r"\to", r"\prime": "'", r"\_": "_", r"\#": "#", r"\lang": r"\langle", r"\rang": r"\rangle",
    r"\bigcup": r"\cup", r"\bigcap": r"\cap", r"\arcsec": r"\asec", r"\mathbb": "", r"\ldots": r"\dots",
    r"\cdots": r"\dots", r"\bullet": "*", r"\varepsilon": r"\epsilon", r"\vartheta": r"\theta", r"\phi": r"\varphi",
    r"\cr": r"\\", r"\implies": r"\Rightarrow", r"\thickapprox": r"\approx",
}  # fmt: skip


class Token(NamedTuple):
    """One token: ``num`` (without thousands separators), ``id`` (letters), ``text`` (a word in a text font), ``cmd``
    (a LaTeX command) or ``op`` (one sign)."""

    kind: str
    text: str
    spaced: bool = False
    """Whether white space stands before it."""


def tokens_of(text: str) -> list[Token]:
    """The tokens of an answer; raises nothing, whatever the text."""
    text = levelled(text)
    found: list[Token] = []
    depth, in_text = 0, False
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup or "op", match[match.lastgroup or 0]
        spaced = match.start(kind) > match.start()
        if token in (_TEXT, _TEXT_END):
            in_text = token == _TEXT
            continue
        token = _ALIAS.get(token, token)
        if token in _SKIPPED or token in ("", "$", "~", "`"):
            continue
        depth += (token in _OPENING) - (token in _CLOSING)
        if kind == "num":
            found += _number(token, depth, spaced)
        else:
            found.append(Token("text" if kind == "id" and in_text else kind, token, spaced))
    return _ended(found)


_OPENING = {"(", "[", r"\{", r"\langle"}
_CLOSING = {")", "]", r"\}", r"\rangle"}


def _number(token: str, depth: int, spaced: bool) -> list[Token]:
    """``1,234`` is a number; inside brackets it is two, as in the point ``(4,112)``."""
    if "," not in token:
        return [Token("num", token, spaced)]
    if not depth or token.count(",") == token.count(",0") > 1:
        return [Token("num", token.replace(",", ""), spaced)]
    pieces = [piece for part in token.split(",") for piece in (Token("op", ","), Token("num", part))]
    return [Token("num", pieces[1].text, spaced), *pieces[2:]]


def _ended(found: list[Token]) -> list[Token]:
    while found and found[-1].text in (".", ",", ";", ":", "\\\\", "\\", '"', "!!"):
        found.pop()
    while found and found[0].text in (":", ".", ",", '"'):
        found.pop(0)
    return found


def levelled(text: str) -> str:
    """The text in plain ASCII where possible, its fonts taken off; words of a text font stand between two marks."""
    if not _PLAIN.match(text):
        text = _SUB_RUN.sub(lambda run: "_{" + "".join(map(_SUBSCRIPT.__getitem__, run[0])) + "}", text)
        text = _SUPER_RUN.sub(lambda run: "^{" + "".join(map(_SUPERSCRIPT.__getitem__, run[0])) + "}", text)
        text = _ROOT_SIGN.sub(r"\1{\2}", text)  # It reaches over all digits, other than LaTeX's.
        text = _CONTROL.sub("", text.replace("\x0crac", "\\frac").translate(_SIGN_TABLE))
    if " U " in text or ")U(" in text:
        text = _CUP.sub(r"\\cup ", text)
    if "..." in text:
        text = _DOTS.sub(r"\\dots ", text)
    if "\\" not in text and "{" not in text:
        return text
    if "\\begin" not in text:
        text = _DOUBLED.sub(r"\\", text)
    text = text.replace("\\qquad", " ").replace("\\quad", " ").replace("\\text{,}", ",").replace("{,}\\!", "{,}")
    text = _BLACKBOARD.sub(lambda match: _SETS.get(match[1] or match[2] or match[3], " "), text)
    text = _LINE.sub(" ", _THIN.sub("", text))
    if "prime" in text:
        text = _PRIMES.sub(lambda match: "'" * match[0].count("prime"), text)
    if "color" in text:
        text = _COLOUR.sub(" ", text)
    text = _REPEATING.sub(lambda match: _repeated(match[1], match[2] or match[3]), text)
    for _ in range(_NESTED_FONTS):
        text, count = _FONT.subn(_unfonted, text)
        if not count:
            break
    return text


def _repeated(head: str, period: str) -> str:
    r"""``0.\overline{3}`` as a fraction."""
    whole, _, digits = head.partition(".")
    over = int(f"{whole or 0}{digits}{period}") - int(f"{whole or 0}{digits}")
    return rf"\frac{{{over}}}{{{int('9' * len(period)) * 10 ** len(digits)}}}" if len(head) < 20 else head


def _unfonted(match: re.Match[str]) -> str:
    font, inside = match[1], _DOLLAR.sub("", match[2]).replace("~", " ")
    if font.startswith("operatorname"):
        return rf"\{inside.strip()} " if inside.strip().isalpha() else f"{{{inside}}}"
    if font in ("boxed", "fbox", "bm", "boldsymbol", "ensuremath", "pmb") or "\\" in inside:
        return f"{{{inside}}}"
    letters = inside.strip()
    if font.startswith("math") and len(letters) == 1 and inside == letters:
        return f" {letters} " if letters.isalpha() else f"{{{letters}}}"
    if not any(character.isalpha() for character in inside):
        return inside or " "
    if letters in FUNCTIONS and (font.startswith("math") or letters not in ("min", "max", "sign")):
        return rf"\{letters} "
    return f"{_TEXT}{inside}{_TEXT_END}"


FUNCTIONS = {
    "sin", "cos", "tan", "sec", "csc", "cot", "sinh", "cosh", "tanh", "coth", "sech", "csch", "arcsin", "arccos",
    "arctan", "arccot", "arccsc", "arcsec", "asin", "acos", "atan", "ln", "log", "lg", "exp", "max", "min", "gcd",
    "lcm", "det", "abs", "sqrt", "cosec", "ctg", "tg", "floor", "ceil", "Re", "Im", "sgn", "sign", "arg", "arcsinh",
    "arccosh", "arctanh", "asinh", "acosh", "atanh", "cis",
}  # fmt: skip
"""Names that stand for a known function also where no backslash marks them."""


def canonical(tokens: list[Token]) -> str:
    r"""One spelling of the tokens; equal spellings are equal answers, whatever they mean. Braces are left out where no
    reading depends on them: ``x^{2}``, but not ``\frac{12}{x}``, for ``\frac12x`` is another."""
    parts: list[str] = []
    for index, token in enumerate(tokens):
        if token.text == "{" and _encloses_one(tokens, index):
            continue
        if token.text == "}" and index >= 2 and _encloses_one(tokens, index - 2):
            continue
        parts.append(token.text)
    return "\0".join(parts)


def _encloses_one(tokens: list[Token], index: int) -> bool:
    """Whether the brace at ``index`` and the one after the next token enclose one letter, digit or command."""
    if index + 2 >= len(tokens) or tokens[index].text != "{" or tokens[index + 2].text != "}":
        return False
    inside = tokens[index + 1]
    return len(inside.text) == 1 and inside.text not in "{}" if inside.kind != "cmd" else True
