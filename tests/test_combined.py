"""Verifiers made of verifiers: the algebra of statuses, the config, and what their verdicts depend on."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import ConfigError, apply_overrides, check_tree, to_tree
from selftrain.judging import Request, VerifierError, VerifierSpec, judge_of, load
from selftrain.nested import in_words
from selftrain.planning import fingerprints
from selftrain.schema import Component, Verify
from selftrain.session import verifier_spec
from selftrain.types import Problem, Verdict
from selftrain.verification import VerifierPool
from selftrain.verifiers.combined import AllOf, AnyOf, Weighted
from selftrain.verifiers.shaping import FormatGate, LengthPenalty

PROBLEM = Problem("t/train/0", "t", "train", "2 + 2?", "4")
SAID: dict[str, Any] = {
    "right": Verdict("right", answer="4"),
    "most": Verdict("right", 0.75),
    "wrong": Verdict("wrong", answer="5"),
    "half": Verdict("wrong", 0.5, "6"),
    "unparsed": Verdict("unparsed", reason="no number"),
    "timeout": Verdict("timeout", reason="too slow"),
    "error": Verdict("error", reason="no server"),
    "mine": NotImplemented,
}
FAILED = ("timeout", "error")


def saying(*words: str) -> dict[str, Any]:
    return {f"{place}": lambda problem, response, word=word: SAID[word] for place, word in enumerate(words)}


def judged(verifier: Any) -> tuple[Any, ...]:
    """Status, value, answer."""
    return whole(verifier)[:3]


def whole(verifier: Any) -> tuple[Any, ...]:
    """The reason too."""
    return judge_of(verifier).single(PROBLEM, "4")


@pytest.mark.parametrize(
    ("words", "all_", "any_"),
    [
        (["right", "right"], ("right", 1.0, "4"), ("right", 1.0, "4")),
        (["right", "most"], ("right", 0.75, "4"), ("right", 1.0, "4")),
        (["wrong", "right"], ("wrong", 0.0, "5"), ("right", 1.0, "4")),
        (["half", "right"], ("wrong", 0.5, "6"), ("right", 1.0, "4")),
        (["unparsed", "right"], ("unparsed", 0.0, None), ("right", 1.0, "4")),
        (["unparsed", "unparsed"], ("unparsed", 0.0, None), ("unparsed", 0.0, None)),
        (["half", "unparsed"], ("unparsed", 0.0, "6"), ("wrong", 0.5, "6")),
        (["right", "error"], ("error", None, "4"), ("right", 1.0, "4")),
        (["error", "right"], ("error", None, "4"), ("right", 1.0, "4")),
        (["error", "wrong"], ("wrong", 0.0, "5"), ("error", None, "5")),
        (["half", "error"], ("error", None, "6"), ("error", None, "6")),
        (["timeout", "unparsed"], ("unparsed", 0.0, None), ("timeout", None, None)),
        (["timeout", "error"], ("error", None, None), ("error", None, None)),
        (["timeout"], ("timeout", None, None), ("timeout", None, None)),
        (["mine", "wrong"], ("wrong", 0.0, "5"), ("wrong", 0.0, "5")),
        (["mine", "right"], ("right", 1.0, "4"), ("right", 1.0, "4")),
        (["mine", "mine"], ("error", None, None), ("error", None, None)),
    ],
)
def test_all_and_any(words: list[str], all_: object, any_: object) -> None:
    assert judged(AllOf(saying(*words))) == all_
    assert judged(AnyOf(saying(*words))) == any_


def test_what_a_failed_member_would_have_said_never_matters_to_a_verdict() -> None:
    """Put anything in its place: a verdict that was given stays, and a member that failed is nothing like wrong."""
    for words, combine in product(product(SAID, repeat=3), (AllOf, AnyOf, Weighted)):
        status, value, _ = judged(combine(saying(*words)))
        failed = [place for place, word in enumerate(words) if word in FAILED]
        if status in FAILED or not failed:
            assert (status in FAILED) == bool(failed) or set(words) == {"mine"}, words
            continue
        for word in ("right", "wrong", "half", "unparsed"):
            changed = [word if place in failed else own for place, own in enumerate(words)]
            other = judged(combine(saying(*changed)))
            assert other[0] == status or {other[0], status} == {"wrong", "unparsed"}, (words, word)
            assert other[1] == value or (combine is AnyOf and status == "right"), (words, word)


def test_members_after_the_one_that_decides_are_not_asked() -> None:
    asked: list[str] = []

    def member(name: str) -> Any:
        def say(problem: Problem, response: str) -> Any:
            asked.append(name)
            return SAID[name]

        return say

    for combine, words in ((AnyOf, ["wrong", "right", "error"]), (AllOf, ["right", "wrong", "error"])):
        asked.clear()
        judged(combine({word: member(word) for word in words}))
        assert asked == words[:2]


def test_weighted_mean() -> None:
    def mean(*words: str, right_at: float = 1.0, **weights: float) -> Any:
        return judged(Weighted(saying(*words), {name.strip("_"): value for name, value in weights.items()}, right_at))

    assert mean("right", "half") == ("wrong", 0.75, "4")
    assert mean("right", "half", right_at=0.75) == ("right", 0.75, "4")
    assert mean("right", "wrong", _0=0.9, _1=0.1) == ("wrong", pytest.approx(0.9), "4")
    assert mean("right", "right", "right", _0=0.7, _1=0.2, _2=0.1) == ("right", 1.0, "4")
    assert mean("right", "right", "wrong", _0=0.7, _1=0.2, _2=0.1, right_at=0.9)[0] == "right"
    assert mean("right", "error", _1=0.0) == ("right", 1.0, "4")
    assert mean("right", "error", _1=0.01) == ("error", None, "4")
    assert mean("mine", "half", _0=3.0) == ("wrong", 0.5, "6")
    assert mean("unparsed", "unparsed") == ("unparsed", 0.0, None)


def test_the_reason_says_what_each_member_said() -> None:
    reason = whole(Weighted(saying("right", "half", "error")))[3]
    assert reason == "0 right; 1 wrong 0.5; 2 error (no server)"


def test_a_member_that_raises_is_an_error_of_its_own() -> None:
    def broken(problem: Problem, response: str) -> bool:
        raise OSError("no server")

    assert whole(AnyOf({"broken": broken, "fine": saying("right")["0"]}))[0] == "right"
    assert whole(AnyOf({"broken": broken, "fine": saying("wrong")["0"]}))[3].startswith("broken error (OSError: no")


def test_format_gate() -> None:
    thought = r"(?s)\A<think>.+</think>"
    gate = load(VerifierSpec("format_gate", {"pattern": thought, "verifier": "numeric_answer"}))
    assert gate.single(PROBLEM, "<think>2\n+ 2</think>4")[:3] == ("right", 1.0, "4")
    assert gate.single(PROBLEM, "<think>2\n+ 2</think>5")[:3] == ("wrong", 0.0, "5")
    status, value, answer, reason, _ = gate.single(PROBLEM, "4")
    assert (status, value, answer) == ("wrong", 0.0, None) and "format does not hold" in str(reason)
    alone = load(VerifierSpec("format_gate", {"pattern": thought}))
    assert alone.single(PROBLEM, "<think>x</think>")[:2] == ("right", 1.0)
    for word in ("error", "timeout", "unparsed"):
        assert judged(FormatGate("x?", saying(word)["0"]))[0] == word


@pytest.mark.parametrize(
    ("length", "value"), [(10, 1.0), (100, 1.0), (150, 0.75), (175, 0.625), (200, 0.5), (1000, 0.5)]
)
def test_length_penalty(length: int, value: float) -> None:
    judge = load(VerifierSpec("length_penalty", {"verifier": "numeric_answer", "start": 100, "end": 200, "most": 0.5}))
    assert judge.single(PROBLEM, " " * (length - 1) + "4")[:3] == ("right", value, "4")


def test_length_penalty_leaves_the_rest_as_it_is() -> None:
    for word in ("wrong", "unparsed", "timeout", "error", "mine"):
        verifier = saying(word)["0"]
        assert whole(LengthPenalty(verifier, 0, 1)) == whole(verifier)
    assert judged(LengthPenalty(saying("half")["0"], 0, 1)) == ("wrong", 0.0, "6")


def config(verifier: Any, *overrides: str) -> Any:
    return check_tree(apply_overrides({"tasks": {"arithmetic": {"verifier": verifier}}}, overrides))


def test_components_inside_options_are_checked_and_complete() -> None:
    checked = config(
        {
            "kind": "any",
            "verifiers": {"number": "numeric_answer", "text": {"kind": "exact_answer"}, "gone": "countdown"},
        },
        "tasks.arithmetic.verifier.verifiers.gone=null",
        "tasks.arithmetic.verifier.verifiers.number.tolerance=0.1",
        "tasks.arithmetic.verifier.verifiers.text.marker=####",
    )
    options = checked.tasks["arithmetic"].verifier.options["verifiers"]
    assert list(options) == ["number", "text"]
    assert options["number"] == {"kind": "numeric_answer", "tolerance": 0.1, "fallback_last_number": True}
    assert options["text"]["marker"] == "####"
    assert check_tree(to_tree(checked)) == checked


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ({"kind": "all"}, "tasks.arithmetic.verifier: verifiers: name at least one"),
        ({"kind": "all", "verifiers": ["numeric_answer"]}, "verifier.verifiers: expected a mapping of names"),
        ({"kind": "all", "verifiers": {"a": "numeric"}}, "verifier.verifiers.a: unknown verifier 'numeric'"),
        ({"kind": "all", "verifiers": {"a": {"kind": "exact_answer", "maker": "#"}}}, "verifiers.a.maker: unknown key"),
        ({"kind": "all", "verifiers": {"a": {}}}, "verifiers.a: needs a kind"),
        ({"kind": "weighted", "verifiers": {"a": "countdown"}, "weights": {"b": 1}}, "weights: no verifier 'b'"),
        ({"kind": "weighted", "verifiers": {"a": "countdown"}, "weights": {"a": 0}}, "they are all 0"),
        ({"kind": "weighted", "verifiers": {"a": "countdown"}, "weights": {"a": -1}}, "weights.a: must be at least 0"),
        ({"kind": "format_gate", "pattern": "(", "verifier": "countdown"}, "is not a regular expression"),
        ({"kind": "format_gate", "pattern": "a", "verifier": {"kind": "all"}}, "verifier.verifier: verifiers: name"),
        ({"kind": "length_penalty"}, "verifier: say who judges"),
        ({"kind": "length_penalty", "verifier": "countdown", "end": 100}, "end must be above start"),
    ],
)
def test_mistakes_inside_options_are_named(verifier: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(verifier)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_member_that_does_not_load_says_where(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("def judge(response): return True\n")
    spec = VerifierSpec("all", {"verifiers": {"mine": f"{tmp_path}/one.py:judge"}})
    with pytest.raises(VerifierError, match=r"verifiers\.mine: .* must take \(problem, response\)"):
        load(spec)


def test_what_stands_inside_counts_for_label_and_fingerprint(tmp_path: Path) -> None:
    def stands_for(folder: str, code: str, option: float = 0.5) -> tuple[object, str]:
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
        inner = {"kind": "all", "verifiers": {"mine": {"kind": f"{path}:judge", "right_at": option}}}
        chosen: Component = (
            config({"kind": "format_gate", "pattern": "a", "verifier": inner}).tasks["arithmetic"].verifier
        )
        return fingerprints.component("verifier", chosen), verifier_spec(chosen, Verify()).label

    code = "def judge(problem, response): return 0.5\n"
    first = stands_for("a", code)
    assert stands_for("b", code) == first
    assert stands_for("c", code + "# another\n") != first
    assert stands_for("a", code, 0.75) != first


def test_a_plan_names_those_inside() -> None:
    inner = {"kind": "any", "verifiers": {"number": "numeric_answer", "text": "exact_answer"}}
    checked = config({"kind": "format_gate", "pattern": "a", "verifier": inner}).tasks["arithmetic"].verifier
    assert in_words(to_tree(checked)) == "format_gate (any (numeric_answer, exact_answer))"
    assert in_words({"kind": "exact_answer", "marker": "#"}) == "exact_answer"


def test_nested_verifiers_judge_in_workers() -> None:
    inner = {"kind": "any", "verifiers": {"number": "numeric_answer", "text": {"kind": "exact_answer"}}}
    spec = VerifierSpec("format_gate", {"pattern": "####", "verifier": inner})
    with VerifierPool({"t": spec}, workers=1) as pool:
        verdicts = list(pool.judge(Request("t", PROBLEM, text) for text in ("#### 4", "4", "#### 5")))
    assert [verdict.status for verdict in verdicts] == ["right", "wrong", "wrong"]
    assert verdicts[2].reason == "number wrong; text wrong"
