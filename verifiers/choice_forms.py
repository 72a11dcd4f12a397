"""How an option is named in a text, for one set of letters, and whether another one is named beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from selftrain.verifiers.number_forms import plain

_DECORATION = str.maketrans("", "", '*`"“”$')
_BLANKS = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_LINES = re.compile(r"\n{2,}")
_SENTENCE_END = re.compile(r"[.!?](?=\s|\Z)|\n")
_REASON = re.compile(
    r"\b(?:because|since|as|so|not|rather|instead|while|whereas|unlike|than|given|if|regardless|whether|neither|nor)\b"
)
_OPTION_TEXT = re.compile(r"[)\]]?[.:)] ?(?=[^\s])|[)\]] (?=[0-9A-Z])")
_MAYBE = r"(?i:and/or|or|maybe|possibly|perhaps|alternatively)"
_FILLER = (
    r"(?:(?:maybe|possibly|perhaps|probably|even|also|else|either|it|is|could|might|may|be|just|the|option|choice"
    r"|answer|letter)\b,? ?){0,6}"
)


def cleaned(text: str) -> str:
    r"""Without bold face, quotes and LaTeX's fonts and delimiters, and with single blanks and line breaks."""
    if "\\" in text:
        text = plain(text.replace("\\ ", " "))
        for delimiter in ("\\(", "\\)", "\\[", "\\]"):
            text = text.replace(delimiter, "")
    text = _BLANKS.sub(" ", text.translate(_DECORATION)).replace(" \n", "\n").replace("\n ", "\n")
    return _LINES.sub("\n", text).strip()


class Forms(NamedTuple):
    """Patterns of a named option, for one set of letters."""

    boxed: re.Pattern[str]
    """At the start of a box or tag, where lower case counts."""
    stated: re.Pattern[str]
    """After ``answer``."""
    the_answer: re.Pattern[str]
    """``B is the right answer``, from the letter on."""
    correct: re.Pattern[str]
    """``B is correct``, from the letter on."""
    before: re.Pattern[str]
    """``A or`` at the end of what stands before such a letter."""
    line: re.Pattern[str]
    """At the start of a line."""
    bare_line: re.Pattern[str]
    """A line of letters and of what joins them alone."""
    joined: re.Pattern[str]
    """Right after a named option: another one."""
    later: re.Pattern[str]
    """Anywhere in the rest of the sentence: another one, as an alternative."""
    later_option: re.Pattern[str]
    """The same where the first option is followed by its text, which may hold letters of its own."""

    def letters(self, first: re.Pattern[str], text: str) -> Iterator[str]:
        """The letter that ``first`` finds at the start of the text, and all it is joined with in the sentence."""
        match = first.match(text)
        end = 0
        for _ in range(26):
            if match is None:
                break
            yield from letters_of(match)
            end = match.end()
            match = self.joined.match(text, end)
        if not end:
            return
        option = _OPTION_TEXT.match(text, end)
        tail = _SENTENCE_END.split(text[option.end() if option else end :], maxsplit=1)[0]
        tail = _REASON.split(tail, maxsplit=1)[0]
        for other in (self.later_option if option else self.later).finditer(tail):
            yield from letters_of(other)

    def judged(self, claim: re.Pattern[str], text: str) -> Iterator[str]:
        """The letters that ``claim`` says something good of: ``B is correct``, ``A or B is correct``."""
        for match in claim.finditer(text):
            before = text[max(0, match.start() - 8) : match.start()].rstrip("([{<'‘")
            if not before.endswith("nor "):
                yield from letters_of(match)
                yield from (letter for other in self.before.finditer(before) for letter in letters_of(other))


def letters_of(match: re.Match[str]) -> list[str]:
    return [letter.upper() for letter in match.groups() if letter]


@lru_cache(maxsize=16)
def forms_of(letters: str) -> Forms:
    one, either = f"[{letters}]", f"[{letters}{letters.lower()}]"
    enclosed = rf"[(\[] ?({either}) ?[)\]]|[{{<'‘] ?({one}) ?[}}>'’]"
    bare = rf"({one})(?![A-Za-z0-9]|['’][A-Za-z])"
    # "A" before a lower-case word is an article, unless the word goes on about the option.
    article = (
        r"(?!(?<=A) (?!(?:or|and|because|since|as|with|but|not|rather|instead|which|maybe|possibly|perhaps|if|when)\b)"
        r"[a-z])"
    )
    named = rf"(?:{enclosed}|{bare}{article})"
    option = r"(?:(?:[Oo]ption|[Cc]hoice|[Ll]etter) )?"
    end = (
        rf"(?=[\s_}}]*(?:\Z|[,;:)/&!?]|\.(?![a-z])|(?:or|and|maybe|possibly|perhaps)\b|{one}\b)|\n"
        rf"| \((?:or|maybe|possibly|perhaps|[0-9]))"
    )
    verb = r"(?: ?(?:is|was|(?:would|will|must|should|has to) be)\b)"
    surely = r"(?: ?(?:therefore|thus|hence|clearly|indeed|definitely|then|probably|likely|either|now)\b,?)?"
    subject = rf"(?:{enclosed}|\b{bare})"
    judged = rf"(?:(?<![\w'’])({one})|(?<=[(\[])({one.lower()})(?=[)\]]))[)\]}}>'’]?"
    the = r"(?:the|my|our) (?:(?:only|best|right|correct|final) )*(?:answer|option|choice)\b"
    joint = rf"[\s_}}]*(?:,|;|/|&|\bor\b|\band\b)\s*{option}(?:{enclosed}|{bare}{end})"
    alternative = rf"\b{_MAYBE}\b,? ?{_FILLER}{named}"
    possible = (
        rf"(?:could|might|may) (?:also )?be {named}|{subject} (?:is|could be|might be|may be) (?:also|possible)\b"
    )
    return Forms(
        boxed=re.compile(rf"\s*{option}(?:{enclosed}|({either})(?![A-Za-z0-9]))"),
        stated=re.compile(
            rf"(?: (?:option|choice|letter)\b)?"
            rf"(?:(?: ?[:=–-]{verb}?|{verb}){surely}[\s:_]*(?:the )?{option}_?{named}"
            rf"|[\s_]*{option}_?(?:{enclosed}|{bare}){end})"
        ),
        the_answer=re.compile(rf"{judged} is {the}"),
        correct=re.compile(rf"{judged} is (?:the )?(?:correct|right|answer)\b"),
        before=re.compile(rf"({one})[)\]}}>'’]? (?:or|and) \Z"),
        line=re.compile(rf"[\s_]*{option}(?:{enclosed}|{bare}{end})"),
        bare_line=re.compile(
            rf"(?:[\W_]|\b(?:{one}|or|and|maybe|possibly|perhaps|even|either|[Oo]ption|[Cc]hoice)\b)+\Z"
        ),
        joined=re.compile(rf"[\s_}}.,;:?!(–—-]*{alternative}|{joint}| {bare}{end}"),
        later=re.compile(rf"{alternative}|{possible}"),
        later_option=re.compile(rf"\b{_MAYBE}\b,? ?{_FILLER}(?:{enclosed}|{bare}(?=[).:]|\s*\Z))"),
    )
