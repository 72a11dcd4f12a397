"""Which problem a row of another tool's dump answers: by its id, or by what it asks.

Only a match that leaves no doubt counts: a response that is judged by another problem's answer would be wrong data.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple

from selftrain.planning.phrases import PIECES, WORDS, Phrases
from selftrain.planning.problems import question_key
from selftrain.rollouts.base import Rollout
from selftrain.types import Problem

NONE = "no problem has this question or id"
SEVERAL = "several problems have this question"
DISAGREE = "id and question are of different problems"
OTHER_ANSWER = "the gold answer is not that of the problem which the question or the id names"
NOT_LAST = "the prompt asks something else behind the question it holds"
NUMBER = "a row number alone, without a question or a gold answer to tell whose it is"

BEFORE = r"(?:^|[\n>\]:|])[^\S\n]*"
"""What a question in a prompt follows: the start, a line's end, or the mark of a role."""
AFTER = r"(?=\s|$|[<\[|])"


class Span(NamedTuple):
    """Where a problem's question stands in a prompt."""

    start: int
    end: int
    problem: Problem


class Found(NamedTuple):
    """What a prompt asks."""

    problems: list[Problem]
    whole: bool = False
    """It asks nothing else."""
    reason: str = NONE
    """Why there is no problem."""


class Matcher:
    """Finds problems.

    Args:
        problems: with those that nothing may be learnt from, so that rows of them are known.
        rendered: the prompt of a problem as the run writes it.
    """

    def __init__(self, problems: Iterable[Problem], rendered: Callable[[Problem], str]) -> None:
        self._by_id = {problem.id: problem for problem in problems}
        tails = Counter(map(_tail, self._by_id))
        self._by_tail = {_tail(name): problem for name, problem in self._by_id.items() if tails[_tail(name)] == 1}
        self._exact: defaultdict[str, dict[str, Problem]] = defaultdict(dict)
        self._seen: dict[str, Found] = {}
        keys = [(question_key(problem.question), problem) for problem in self._by_id.values()]
        for key, problem in keys:
            for text in (key, question_key(rendered(problem))):
                self._exact[text][problem.id] = problem
        self._short = [entry for entry in keys if len(entry[0].split()) < WORDS]
        self._long = Phrases(entry for entry in keys if len(entry[0].split()) >= WORDS)

    def find(self, rollout: Rollout) -> Problem | str:
        """The problem, or why there is none.

        An id with task and split names a problem unless the question is another's. The last part of one may be a mere
        row number: it counts where the row has no question but a gold answer, or to choose among several problems with
        that question. A gold answer that the row has must be the problem's.
        """
        found = self._by_text(rollout.prompt) if rollout.prompt is not None else Found([])
        problem = self._named(rollout, found) or _only(found)
        if isinstance(problem, str):
            return problem
        agrees = may_be_same if found.whole and len(found.problems) == 1 else same_answer
        return problem if agrees(rollout.answer, problem.answer) else OTHER_ANSWER

    def _named(self, rollout: Rollout, found: Found) -> Problem | str | None:
        """By id; a reason where that is not enough, None where the id says nothing."""
        name = str(rollout.problem_id)
        named, short = self._by_id.get(name), self._by_tail.get(name)
        if named is not None:
            return named if not found.problems or named in found.problems else DISAGREE
        if short is None or (rollout.prompt is not None and short not in found.problems):
            return None
        if rollout.prompt is None and name.isdecimal() and not comparable(rollout.answer, short.answer):
            return NUMBER
        return short

    def _by_text(self, prompt: str) -> Found:
        """Samples of one prompt are looked up once."""
        if prompt not in self._seen:
            exact = self._exact.get(question_key(prompt))
            self._seen[prompt] = Found(list(exact.values()), whole=True) if exact else self._inside(prompt)
        return self._seen[prompt]

    def _inside(self, prompt: str) -> Found:
        """Problems whose question stands in a prompt, but not within the question of another; none where the last of
        them is a worked example, behind which something else is asked."""
        key = question_key(prompt)
        there = [problem for question, problem in chain(self._short, self._long.within(key)) if question in key]
        spans = [Span(*place, problem) for problem in there for place in _places(problem.question, prompt)]
        outer = [
            span
            for span in spans
            if not any(s <= span.start and span.end <= e and (s, e) != span[:2] for s, e, _ in spans)
        ]
        if outer and asks_on(prompt, max(outer, key=lambda span: span.start)):
            return Found([], reason=NOT_LAST)
        return Found(list({span.problem.id: span.problem for span in outer}.values()))


def _only(found: Found) -> Problem | str:
    if len(found.problems) == 1:
        return found.problems[0]
    return SEVERAL if found.problems else found.reason


def _places(question: str, prompt: str) -> list[tuple[int, int]]:
    pattern = r"\s+".join(map(re.escape, question.split()))
    return [match.span(1) for match in re.finditer(f"{BEFORE}({pattern}){AFTER}", prompt)]


def asks_on(prompt: str, span: Span) -> bool:
    """Whether a prompt asks something else behind a question, which is then a worked example or one of several.

    An instruction and the beginning of an answer may follow. A question mark may not, nor once more what stands before
    the question (``Q:``, the mark of a role), nor the question's gold answer with text on the lines below it.
    """
    behind, label = prompt[span.end :], _label(prompt[: span.start])
    if "?" in behind or (label and _again(label, behind)):
        return True
    gold = span.problem.answer
    if not isinstance(gold, str | int | float) or not re.search(r"\d|\w{2}", answer := written(gold)):
        return False  # The letter of a choice stands in instructions too.
    text = PIECES.sub("\n", behind).replace(",", "")
    told = re.search(rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)", text, re.IGNORECASE)
    return told is not None and _says_more(text[told.end() :])


def _label(before: str) -> str:
    """What stands before a question on its line or, where there is nothing, on the line before it."""
    lines = (line.strip() for line in reversed(before.splitlines()))
    return re.sub(r"\d+", "0", next(filter(None, lines), ""))


def _again(label: str, behind: str) -> bool:
    """Whether a label comes once more, whatever its number; a mere word counts as a line of its own."""
    text = re.sub(r"\d+", "0", behind)
    return label in [line.strip() for line in text.splitlines()] if label[-1].isalnum() else label in text


def _says_more(text: str) -> bool:
    """Whether more than the beginning of an answer, such as ``Answer:``, stands below the first line of a text."""
    lines = [line.strip() for line in text.split("\n")[1:] if line.strip()]
    return len(lines) > 1 or any(re.fullmatch(r"\w+( \w+){0,2}\W{0,3}", line) is None for line in lines)


def _tail(identifier: str) -> str:
    """The part of a problem's id behind task and split."""
    return identifier.split("/", 2)[-1]


def comparable(told: Any, gold: Any) -> bool:
    return isinstance(told, str | int | float) and isinstance(gold, str | int | float)


def same_answer(told: Any, gold: Any) -> bool:
    """Whether two gold answers may be the same one; those that cannot be compared may."""
    return not comparable(told, gold) or plain(told) == plain(gold)


def may_be_same(told: Any, gold: Any) -> bool:
    """The same of problems that have the same question: only different numbers are surely not one answer, while others
    may be written in two ways."""
    numbers = comparable(told, gold) and isinstance(plain(told), float) and isinstance(plain(gold), float)
    return not numbers or plain(told) == plain(gold)


def plain(answer: str | int | float) -> str | float:
    """A number where it is one."""
    text = written(answer)
    try:
        return float(text)
    except ValueError:
        return text.casefold()


def written(answer: str | int | float) -> str:
    """Without what surrounds it: of a worked solution in the manner of GSM8K, what follows its ####."""
    return " ".join(str(answer).rpartition("####")[2].strip().strip("$.").replace(",", "").split())
