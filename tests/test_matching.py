"""Which problem a row of a dump answers, and that a doubt leaves it out."""

from __future__ import annotations

from typing import Any

import pytest

from selftrain.adoption.matching import DISAGREE, NONE, NOT_LAST, NUMBER, OTHER_ANSWER, SEVERAL, Matcher
from selftrain.rollouts.base import Rollout
from selftrain.types import Problem


def problem(name: str, question: str, answer: Any, split: str = "train") -> Problem:
    return Problem(f"t/{split}/{name}", "t", split, question, answer)


APPLES = problem("1", "How many apples are there?", "4")
JOHN = problem("2", "John has 3 apples and gets one. How many apples are there?", "4")
HASHED = problem("a7f3", "Which number follows six?", "7")
TWICE = [problem("3", "Who?", "a"), problem("4", "Who ?", "b"), problem("5", "Who?", "c")]


@pytest.mark.parametrize(
    ("rollout", "expected"),
    [
        (Rollout("", " How many  apples are there?\n"), APPLES.id),
        (Rollout("", JOHN.question), JOHN.id),
        (Rollout("", "<s>[INST]John has 3 apples and gets one. How many apples are there?[/INST]"), JOHN.id),
        (Rollout("", "Jane has 9. How many apples are there?"), NONE),
        (Rollout("", f"user\n{JOHN.question} Think first.", answer="#### 4.0"), JOHN.id),
        (Rollout("", f"user\n{JOHN.question} In short.", answer="7"), OTHER_ANSWER),
        (Rollout("", f"Q: {APPLES.question}\nA: 4\nQ: {JOHN.question}"), SEVERAL),
        (Rollout("", "Who?"), SEVERAL),
        (Rollout("", "Who?", problem_id="5"), "t/train/5"),
        (Rollout("", "Who?", problem_id="t/train/3"), "t/train/3"),
        (Rollout("", JOHN.question, answer="four"), JOHN.id),
        (Rollout("", JOHN.question, answer="7"), OTHER_ANSWER),
        (Rollout("", "Who?", problem_id="5", answer="c"), "t/train/5"),
        (Rollout("", "Who?", problem_id="5", answer="a"), OTHER_ANSWER),
        (Rollout("", None, problem_id="4"), NUMBER),
        (Rollout("", None, problem_id="4", answer="B"), "t/train/4"),
        (Rollout("", None, problem_id="4", answer="c"), OTHER_ANSWER),
        (Rollout("", None, problem_id="a7f3"), "t/train/a7f3"),
        (Rollout("", None, problem_id="a7f3", answer="8"), OTHER_ANSWER),
        (Rollout("", JOHN.question, problem_id="1"), JOHN.id),
        (Rollout("", JOHN.question, problem_id="t/train/1"), DISAGREE),
        (Rollout("", "Another question?", problem_id="1"), NONE),
        (Rollout("", "In a prompt of its own", problem_id="t/train/1"), APPLES.id),
        (Rollout("", "In a prompt of its own", problem_id="t/train/1", answer="4.0"), APPLES.id),
        (Rollout("", "Another question?", problem_id="t/train/1", answer="5"), OTHER_ANSWER),
        (Rollout("", None), NONE),
    ],
)
def test_a_row_belongs_to_a_problem_only_where_nothing_else_is_possible(rollout: Rollout, expected: str) -> None:
    found = Matcher([APPLES, JOHN, HASHED, *TWICE], lambda problem: f"Q: {problem.question}").find(rollout)
    assert (found if isinstance(found, str) else found.id) == expected


SUM = problem("6", "2+7=", "9")
PENS = problem("7", "Ann has 5 pens and buys 1,200 more. Count them.", "#### 1205")
LETTER = problem("8", "Which is even: A) 3 B) 4?", "B")
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}"
LLAMA = "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n{}"


@pytest.mark.parametrize("gold", [None, "9", "1205"])
@pytest.mark.parametrize(
    "prompt",
    [
        f"Question: {SUM.question}\nAnswer: 9\n\nQuestion: 8+1=\nAnswer:",
        f"Q: {SUM.question} A: 9 Q: 8+1= A:",
        f"Problem 1. {SUM.question}\nnine\nProblem 2. 8+1=\n",
        f"Problem 1: {SUM.question}\nnine\nProblem 2: 8+1=\n",
        f"user\n{SUM.question}\nassistant\nnine\nuser\n8+1=\nassistant\n",
        f"{CHAT.format(SUM.question, 'nine')}<|im_end|>\n{CHAT.format('8+1=', '')}",
        f"{LLAMA.format(SUM.question, 'nine')}<|eot_id|>{LLAMA.format('8+1=', '')}",
        f"<s>[INST] {SUM.question} [/INST] nine </s><s>[INST] 8+1= [/INST]",
        f"{SUM.question} 9\n\n8+1=",
        f"{SUM.question}\n9\n8+1=\nAnswer:",
        f"{PENS.question}\nShe has 1,205.\n\nTom has 1,205 hats. Count them, please.\n\nAnswer:",
        f"{SUM.question}\nHow much is eight and one?",
    ],
)
def test_a_worked_example_is_not_what_a_prompt_asks(prompt: str, gold: str | None) -> None:
    """The question behind it is not known to the run, and its gold answer may be the same by chance."""
    found = Matcher([SUM, PENS], lambda problem: problem.question).find(Rollout("", prompt, answer=gold))
    assert found in (NOT_LAST, NONE)


@pytest.mark.parametrize(
    "prompt",
    [
        "{}",
        "system\nAdd.\nuser\n{}\nassistant\n",
        "Question: {}\nAnswer:",
        'user\n{} Let\'s think step by step and output the final answer after "####".\nassistant\n',
        "{}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}.\n\nAnswer:",
        "{} Answer with a number from 0 to 9.\nassistant\n",
        "{}\nAnswer with A, B, C, D or E.\nAnswer:",
        f"<|im_start|>system\nYou help.<|im_end|>\n{CHAT}",
        f"<|begin_of_text|>{LLAMA}",
        "<s>[INST] {} [/INST]",
    ],
)
def test_what_may_follow_a_question(prompt: str) -> None:
    matcher = Matcher([SUM, PENS, LETTER], lambda problem: problem.question)
    for asked in (SUM, PENS, LETTER):
        assert matcher.find(Rollout("", prompt.format(asked.question, ""))) == asked


def test_the_last_of_several_known_questions_is_not_taken_either() -> None:
    prompt = f"Q: {SUM.question}\nA: 9\nQ: {PENS.question}\nA:"
    assert Matcher([SUM, PENS], lambda problem: "").find(Rollout("", prompt)) == SEVERAL
