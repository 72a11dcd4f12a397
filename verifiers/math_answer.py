r"""Whether the final answer of a response is the gold answer, as mathematics: ``\frac12`` is ``0.5``.

Where the final answer stands, the first that applies:

1. the last closed ``\boxed{...}`` with those that ``and``, ``or`` or commas join to it
2. ``<answer>...</answer>``; what follows ``####`` on the line
3. what follows the last ``answer is``, ``answer:`` or a line ``Answer``, up to the end of the sentence
4. all of the response, where it is nothing but an answer
5. the last piece of mathematics or the last number

Several answers, hedging and denial are wrong, whatever they are: ``3 or 4``, ``not \boxed{5}``, a larger set. What
stands before ``</think>`` is no answer; a response that never closes ``<think>`` has none.

Equal as it is written is right. Otherwise both answers are read by a closed grammar (nothing is ever evaluated by
Python's or SymPy's parser), and numbers are compared exactly, expressions by their values at points, within bounds
that are checked before anything is computed. ``docs/math_answer.md`` shows what stands for what.

An answer that differs and that the grammar does not cover is ``unparsed``, with the answer found: another judge may
decide it. A gold answer that is not read can only be met as it is written; ``check_gold`` names it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, NamedTuple

from selftrain.mathematics.compare import equal
from selftrain.mathematics.exact import TooLarge, Undefined, exact
from selftrain.mathematics.forms import Form, Sequence, Text, Union, Unread, Value
from selftrain.mathematics.nodes import num
from selftrain.mathematics.policy import Policy
from selftrain.mathematics.reader import read
from selftrain.mathematics.same import Undecided
from selftrain.mathematics.text import words_of
from selftrain.mathematics.tokens import MAX_CHARACTERS, canonical, tokens_of
from selftrain.types import Problem, Verdict
from selftrain.verifiers import final_answer
from selftrain.verifiers.chosen_option import chosen, is_option, letter_of
from selftrain.verifiers.number_forms import spelled
from selftrain.verifiers.numeric_answer import NumericAnswer
from selftrain.verifiers.reasoning import after_thinking

_BARE_CHARACTERS = 400
_SHORT_CHARACTERS = 60
_LAST_CHARACTERS = 8000
_NUMBER = re.compile(r"\s*(-?[0-9]{1,30}(?:\.[0-9]{1,30})?)\s*\Z")
_COMMA = re.compile(r"(?<=[0-9])(?:,|\{,\})(?=[0-9])")
_HENCE = re.compile(r"\A(?:so|hence|thus|therefore)\b[,:]?\s+(?=\S{1,20}\s*=|[$\\])", re.IGNORECASE)
_PROSE = re.compile(
    r"\A\s*so\b|(?<![\\A-Za-z{])(?:is|are|was|the|we|find|that|therefore|thus|hence|it|this|get|have|since|because|then|not|which"
    r"|there|must|can|will|of|with|when|where|if|for|its?|know|answer)(?![A-Za-z])",
    re.IGNORECASE,
)
"""Words that make a response a sentence, unless the gold answer is one."""

_CORRECTED = re.compile(r"\b(?:not|n['’]t)\b[^.\n]{0,60}?\b(?:it['’]?s|it is|which is|but)\b", re.IGNORECASE)
"""``not 10, it's 12`` gives the second number."""
_CHANGED = re.compile(
    r"\b(?:at (?:least|most)|(?:more|less|fewer|greater|larger|smaller|lower|higher) than|half of|half|twice|up to"
    r"|between|from|negative|minus|(?:root|logarithm|log|reciprocal|inverse|opposite|factorial) of|base)"
    r"\s+[\\$(]{0,3}[0-9]|[0-9] (?:more|less|fewer|greater) than\b"
    r"|[0-9][\\$)]{0,3} (?:(?:or (?:more|less|fewer|greater)|squared|cubed|remainder|factorial|choose)\b"
    r"|and (?:a|one)[ -](?:half|third|quarter)\b|(?:plus|minus|times|divided by) (?:[0-9$\\]|(?!a\b)[a-z]\b))",
    re.IGNORECASE,
)
"""Words beside a number that make it another."""
_BRACKETS = re.compile(r"(?:\bis|\bare|\bat|[=:])\s+([(\[][^()\[\]\n$]{1,80}[)\]])[.\s]*\Z")
"""A point or an interval that ends a sentence."""
_COMMAND = re.compile(r"\\(?!text|mbox|math|boxed|fbox)[A-Za-z]")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_CODE = re.compile(
    r"__\w|\b(?:print|eval|exec|open|system|getattr|compile)\s*\(|\bimport \w+|\)\.[A-Za-z_]|\blambda\b[\w, ]*:"
    r"|[\[({][^\n\])}]{0,60} for \w+ in |\\(?:input|write|include|csname|def|immediate)(?![A-Za-z])"
)
"""A response that is code gives no answer, whatever it would print."""
_TEMPLATE = re.compile(r"\s*(?:\$\{(?!.*\$)|\{\{|#(?![#\s])|%)")


class Answer(NamedTuple):
    """An answer as it is written and as it is read."""

    spelling: str
    form: Form
    words: str = ""


@dataclass(frozen=True)
class MathAnswer(Policy):
    """Right where the final answer of a response equals ``problem.answer``: a string, a number, or a worked solution
    with the answer in a box or after ``####``. Any other gold answer gives ``error``."""

    def check_gold(self, answer: Any) -> str | None:
        """Why a gold answer can only be met word for word, or not at all; None where it is read."""
        gold = self._gold(answer)
        if gold is None:
            return "no answer"
        return f"not read: {gold.form.reason}" if isinstance(gold.form, Unread) else None

    def __call__(self, problem: Problem, response: str) -> Verdict:
        gold = self._gold(problem.answer)
        if gold is None:
            return Verdict("error", reason=f"the gold answer is no text or number: {str(problem.answer)[:80]!r}")
        text = _HENCE.sub("", final_answer.tail(after_thinking(response)).strip())
        letter = letter_of(str(problem.answer))
        if letter and "\\boxed" not in text and (choice := chosen(letter, text)):
            return choice
        final = self._final(gold, text)
        if final is not None and final.marked and not final.reason and _CODE.search(final.text[:_BARE_CHARACTERS]):
            final = final._replace(reason="code")
        if final is not None and final.reason:
            return Verdict("wrong", 0.0, final.text[:200], final.reason)
        if final is None:
            return Verdict("unparsed", 0.0, reason="no final answer")
        if letter and is_option(final.text) and (choice := chosen(letter, final.text)):
            return choice
        return self._judged(gold, final.text)

    def _gold(self, answer: Any) -> Answer | None:
        if isinstance(answer, bool) or not isinstance(answer, (str, int, float)) or not str(answer).strip():
            return None
        return _gold_answer(str(answer), self.decimal_comma)

    def _judged(self, gold: Answer, text: str) -> Verdict:
        answer = answer_of(text, self.decimal_comma)
        shown = _shown(answer)
        if answer.spelling == gold.spelling or (gold.words and gold.words == answer.words):
            return Verdict("right", 1.0, shown)
        try:
            right = equal(gold.form, answer.form, self)
        except (Undecided, TooLarge) as error:
            return Verdict("unparsed", 0.0, shown, f"cannot be decided: {error}")
        except (Undefined, RecursionError) as error:
            return Verdict("wrong", 0.0, shown, str(error))
        return Verdict("right" if right else "wrong", float(right), shown)

    def _final(self, gold: Answer, text: str) -> final_answer.Final | None:
        if not text:
            return None
        if "\\boxed" in text or "\\fbox" in text or "\\framebox" in text:
            box = final_answer.boxed(text)
            if box is not None:
                return box
        if (tag := final_answer.tagged(text)) is not None:
            return final_answer.Final(tag, True)
        if (line := final_answer.hashed(text)) is not None and (found := self._zone(gold, line)) is not None:
            return final_answer.Final(found, True)
        if _TEMPLATE.match(text[-_BARE_CHARACTERS:]) or _CODE.search(text[-_BARE_CHARACTERS:]):
            return None
        if len(text) <= 3 * len(gold.spelling) + _BARE_CHARACTERS and canonical(tokens_of(text)) == gold.spelling:
            return final_answer.Final(text, False)
        if (zone := final_answer.stated(text)) and (found := self._zone(gold, zone)) is not None:
            return final_answer.Final(found, True)
        if self._bare(gold, text):
            return final_answer.Final(text, False)
        return self._last(gold, text)

    def _bare(self, gold: Answer, text: str) -> bool:
        """Whether a response is nothing but an answer."""
        if "\n" in text and "\\begin" not in text:
            return False
        if len(text) > _BARE_CHARACTERS:
            return len(text) <= final_answer.MAX_CHARACTERS and " " not in text
        return self._reads(gold, text)

    def _reads(self, gold: Answer, text: str) -> bool:
        wordy = _wordy(gold.form) or bool(gold.words)
        if not wordy and _PROSE.search(text):
            return False
        form = answer_of(text, self.decimal_comma).form
        return not isinstance(form, Unread) and (wordy or not _wordy(form))

    def _zone(self, gold: Answer, zone: str) -> str | None:
        """The answer in a sentence that states one."""
        if self._reads(gold, zone) or canonical(tokens_of(zone)) == gold.spelling:
            return zone
        if (first := final_answer.opening(zone)) is not None:
            return first
        last = self._last(gold, zone)
        return last.text if last and not last.reason else None

    def _last(self, gold: Answer, text: str) -> final_answer.Final | None:
        """The last piece of mathematics, or the last number where that stands later; none in a few signs."""
        found = final_answer.formulas(text[-_LAST_CHARACTERS:])
        offset = max(0, len(text) - _LAST_CHARACTERS)
        backwards = re.search("[0-9]", text[::-1])
        digit = len(text) - backwards.start() if backwards else 0
        if isinstance(gold.form, Sequence | Union) and (match := _BRACKETS.search(text[-_BARE_CHARACTERS:])):
            return final_answer.Final(match[1], False)
        if (
            found
            and found[-1][1] + offset >= digit
            and (found[-1][0].strip()[1:] or found[-1][0].strip().isdigit() or not digit)
        ):
            return final_answer.Final(found[-1][0], False)
        if not found and _COMMAND.search(text[-_LAST_CHARACTERS:]) and not _PROSE.search(text):
            return None  # A formula that is not read; its last number is not what it says.
        if len(text) < _SHORT_CHARACTERS and _CHANGED.search(text):
            return None
        if len(text) < _SHORT_CHARACTERS and text.isascii() and len(_WORD.findall(text)) < 2:
            return None
        value = NumericAnswer()(Problem("", "", "", "", "0"), _CORRECTED.split(text)[-1])
        if value.status == "unparsed" or value.answer is None:
            return None
        return final_answer.Final(value.answer, False, value.reason)


@lru_cache(maxsize=8192)
def _gold_answer(text: str, decimal_comma: bool) -> Answer:
    box = final_answer.boxed(text) if "\\boxed" in text or "\\fbox" in text else None
    line = final_answer.hashed(text) if "####" in text else None
    return answer_of(box.text if box else line or text, decimal_comma)


def answer_of(text: str, decimal_comma: bool = False) -> Answer:
    """Read an answer; raises nothing, whatever the text."""
    text = text.strip("$*` \t\n")
    if decimal_comma:
        text = _COMMA.sub(".", text)
    if len(text) > MAX_CHARACTERS:
        return Answer("".join(text.split()), Unread("too long"))
    if number := _NUMBER.match(text):
        whole, _, digits = number[1].partition(".")
        ulp = Fraction(1, 10 ** len(digits)) if digits else None
        value = Value(num(Fraction(number[1])), "", ulp, len((whole + digits).lstrip("-0")) if digits else 0)
        return Answer(number[1], value)
    tokens = tokens_of(text)
    return Answer(canonical(tokens), read(tokens), words_of(tokens))


def _wordy(form: Form) -> bool:
    return isinstance(form, Text) or (isinstance(form, Sequence) and any(map(_wordy, form.items)))


def _shown(answer: Answer) -> str:
    """One spelling per value where it is rational, so that answers can be counted."""
    if isinstance(answer.form, Value) and answer.form.node.op != "matrix" and not answer.form.base:
        try:
            value = exact(answer.form.node)
        except ArithmeticError:
            value = None
        if value is not None and max(value.numerator.bit_length(), value.denominator.bit_length()) < 300:
            return spelled(value)
    return answer.spelling.replace("\0", " ")[:200]
