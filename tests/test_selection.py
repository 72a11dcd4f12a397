"""Which samples become examples, and why the rest do not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from selftrain.schema import Selection
from selftrain.selection import Candidate, Chooser, as_example
from selftrain.stages.examples import by_reward
from selftrain.types import Example, FinishReason, Sample, Status

END = 99


def candidate(
    problem: str = "p",
    index: int = 0,
    *,
    text: str = "a",
    status: Status = "right",
    finish: FinishReason = "eos",
    answer: str | None = "1",
    reward: float | None = 1.0,
) -> Candidate:
    identifier = f"{problem}/{index}"
    sample = Sample(identifier, problem, 1, "draft", index, (1, 2), (3, END), text, finish, "policy", "scripted")
    return Candidate(
        sample, status, None if status in ("timeout", "error") else float(status == "right"), answer, reward
    )


def choose(selection: Selection, candidates: list[Candidate]) -> tuple[list[Example], dict[str, int]]:
    chooser = Chooser(selection)
    taught = [as_example("own", selection, kept, END) for kept in chooser.choose(candidates)]
    return taught, dict(chooser.reasons)


def test_every_sample_is_counted_once_with_its_reason() -> None:
    rule = Selection("draft", verdict="right", cap=1, dedupe="text")
    examples, reasons = choose(
        rule,
        [
            candidate(index=0, text="a"),
            candidate(index=1, text="a"),
            candidate(index=2, text="b"),
            candidate(index=3, status="wrong"),
            candidate(index=4, status="unparsed"),
            candidate(index=5, status="timeout"),
            candidate(index=6, status="error"),
            candidate(index=7, finish="length"),
            candidate(index=8, finish="context"),
        ],
    )
    assert [example.sample_id for example in examples] == ["p/0"]
    assert reasons == {
        "kept": 1,
        "duplicate": 1,
        "over the cap": 1,
        "wrong": 1,
        "unparsed": 1,
        "not judged (timeout)": 1,
        "not judged (error)": 1,
        "truncated (length)": 1,
        "truncated (context)": 1,
    }


def test_the_cap_counts_different_solutions_and_each_problem_alone() -> None:
    rule = Selection("draft", verdict="right", cap=2, dedupe="text")
    given = [candidate("p", 0, text="a"), candidate("p", 1, text="a"), candidate("p", 2, text="b"), candidate("q", 0)]
    examples, _ = choose(rule, given)
    assert [example.sample_id for example in examples] == ["p/0", "p/2", "q/0"]


def test_answers_can_be_what_makes_a_duplicate() -> None:
    given = [candidate(index=0, text="a", answer="1"), candidate(index=1, text="b", answer="1")]
    assert len(choose(Selection("draft", dedupe="answer"), given)[0]) == 1
    assert len(choose(Selection("draft", dedupe="text"), given)[0]) == 2


def test_one_that_was_cut_short_is_labelled_wrong_whatever_it_says() -> None:
    rule = Selection("draft", truncated="in")
    examples, _ = choose(rule, [candidate(index=0), candidate(index=1, finish="length")])
    assert [example.label for example in examples] == [1.0, 0.0]
    examples, _ = choose(replace(rule, label="reward"), [candidate(finish="length", reward=0.3)])
    assert [example.label for example in examples] == [0.3]


def test_examples_weigh_by_their_reward_and_one_on_the_mean() -> None:
    given = [candidate(index=i, reward=reward) for i, reward in enumerate([-700.0, 2.0, 2.0 + math.log(3.0), None])]
    for weigh, expected in (("exp", [0.0, 0.75, 2.25]), ("none", [1.0, 1.0, 1.0])):
        rule = Selection("draft", weigh=weigh, weight=0.5)  # type: ignore[arg-type]
        chooser = Chooser(rule)
        counts = [factor for _, factor in by_reward(chooser.choose(given), rule)][:3]
        assert counts == pytest.approx(expected)
        assert chooser.reasons.get("no valid reward", 0) == (weigh == "exp")
    rule = Selection("draft", weigh="sigmoid")
    odds = [factor for _, factor in by_reward([candidate(reward=0.0), candidate(reward=math.log(3.0))], rule)]
    assert odds == pytest.approx([0.8, 1.2])
    assert as_example("own", Selection("draft", weight=0.5), given[0], END, 3.0).weight == 1.5


def test_a_reward_at_the_threshold_is_not_above_it() -> None:
    given = [candidate(index=0, reward=0.7), candidate(index=1, reward=0.71), candidate(index=2, reward=None)]
    examples, reasons = choose(Selection("draft", reward_above=0.7), given)
    assert [example.sample_id for example in examples] == ["p/1"]
    assert reasons == {"kept": 1, "reward too low": 2}


def test_a_sample_that_could_not_be_judged_is_not_taught_even_where_all_verdicts_are() -> None:
    assert choose(Selection("draft"), [candidate(status="error")])[0] == []


def test_what_was_sampled_is_what_is_taught() -> None:
    (example,), _ = choose(Selection("draft", weight=0.5), [candidate()])
    assert (example.prompt_ids, example.response_ids, example.eos_added) == ((1, 2), (3, END), False)
    assert example.weight == 0.5


def test_a_response_cut_at_a_stop_string_is_taught_to_end_there() -> None:
    cut = candidate(finish="stop")
    cut = cut._replace(sample=replace(cut.sample, response_ids=(3, 4), loss_mask=(True, False)))
    (example,), _ = choose(Selection("draft"), [cut])
    assert example.response_ids == (3, 4, END)
    assert example.loss_mask == (True, False, True)
    assert example.eos_added


@pytest.mark.parametrize(("rule", "kept"), [("right", ["right"]), ("wrong", ["wrong"]), ("any", ["right", "wrong"])])
def test_the_verdict_that_is_asked_for(rule: str, kept: list[str]) -> None:
    given = [candidate(index=0, text="right"), candidate(index=1, text="wrong", status="wrong")]
    selection = Selection("draft", verdict=rule)  # type: ignore[arg-type]
    examples, _ = choose(selection, given)
    assert [given[int(str(e.sample_id)[-1])].sample.text for e in examples] == kept
