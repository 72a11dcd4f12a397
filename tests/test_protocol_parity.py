"""Protocols against lm-evaluation-harness and lighteval themselves: prompts byte by byte, and every score."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from small_data import write_lines

from selftrain import registry
from selftrain.schema import Sampling
from selftrain.tasks.gsm8k import GSM8K
from selftrain.tasks.math500 import MATH500

HERE = Path(__file__).resolve().parent
GOLDEN: dict[str, Any] = json.loads((HERE / "tables" / "protocols.json").read_text())
MATH = GOLDEN["math_500"]
FEWSHOT = {"lm_eval_gsm8k_cot": "num_fewshot", "lighteval_gsm8k": "num_fewshots"}
"""The option of each protocol that says how many worked examples it shows."""
STOPS = {"lm_eval_gsm8k_cot": ("Q:", "</s>", "<|im_end|>"), "lighteval_gsm8k": ("Question:",), "lighteval_math_500": ()}
DATA = os.environ.get("SELFTRAIN_DATA", "")
HARNESSES = os.environ.get("SELFTRAIN_HARNESSES", "")
Rows = list[dict[str, Any]]
Responses = Sequence[tuple[int, str]]


def prompts(folder: Path, name: str, shown: int) -> list[str]:
    """The prompts of the test split, in its order; validation is carved out of train, as in a run."""
    task = GSM8K(data_dir=str(folder), val_size=2)
    splits = {split: task.problems(split) for split in task.splits()}
    protocol = registry.build("protocol", name, {FEWSHOT[name]: shown})
    drawn = protocol.shots(splits, "test") if hasattr(protocol, "shots") else {}
    return [protocol.prompt(problem, drawn.get(problem.id, ())) for problem in splits["test"]]


def math_prompts(folder: Path) -> list[str]:
    protocol = registry.build("protocol", "lighteval_math_500", {})
    return [protocol.prompt(problem) for problem in MATH500(data_dir=str(folder)).problems("test")]


def scores(folder: Path, name: str, responses: Responses) -> list[dict[str, float]]:
    task = MATH500(data_dir=str(folder)) if name.endswith("math_500") else GSM8K(data_dir=str(folder))
    problems, protocol = task.problems("test"), registry.build("protocol", name, {})
    return [protocol.scores(problems[row], text) for row, text in responses]


def cases(table: dict[str, Any]) -> list[tuple[int, str]]:
    return [(case["row"], case["text"]) for case in table["responses"]]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    for name in ("train", "test"):
        write_lines(tmp_path / f"{name}.jsonl", GOLDEN[name])
    write_lines(tmp_path / "math500.jsonl", MATH["test"])
    return tmp_path


@pytest.mark.parametrize("name", FEWSHOT)
def test_prompts_are_byte_by_byte_those_of_the_harness(name: str, golden: Path) -> None:
    for shown, written in GOLDEN["prompts"][name].items():
        assert prompts(golden, name, int(shown))[: len(written)] == written


def test_prompts_of_math_500_are_byte_by_byte_those_of_the_harness(golden: Path) -> None:
    assert math_prompts(golden)[: len(MATH["prompts"])] == MATH["prompts"]


@pytest.mark.parametrize(("name", "table"), [*((name, GOLDEN) for name in FEWSHOT), ("lighteval_math_500", MATH)])
def test_scores_are_those_of_the_harness(name: str, table: dict[str, Any], golden: Path) -> None:
    found = scores(golden, name, cases(table))
    assert found == [case[name] for case in table["responses"]]
    assert {score for values in found for score in values.values()} == {0.0, 1.0}


@pytest.mark.parametrize("name", STOPS)
def test_answers_are_drawn_as_the_harness_draws_them(name: str) -> None:
    bound = 32768 if name == "lighteval_math_500" else 256
    expected = Sampling(temperature=0.0, max_tokens=bound, stop=STOPS[name])
    assert registry.build("protocol", name, {}).sampling() == expected


@pytest.fixture(scope="module")
def asked() -> list[dict[str, Any]]:
    """What the harnesses are asked: the golden table, and real problems with stored responses."""
    shots = {name: [int(shown) for shown in table] for name, table in GOLDEN["prompts"].items()}
    gsm8k = {**{name: GOLDEN[name] for name in ("train", "test")}, "shots": shots, "responses": cases(GOLDEN)}
    math = {"test": MATH["test"], "shots": {"lighteval_math_500": [0]}, "responses": cases(MATH)}
    requests = [{"gsm8k": gsm8k, "math_500": math}]
    if DATA:
        rows = {name: read(Path(DATA) / "gsm8k" / f"{name}.jsonl") for name in ("train", "test")}
        stored = stored_responses(rows["test"], read(Path(DATA) / "gsm8k" / "model_solutions.jsonl")[:50])
        real = {**rows, "shots": {"lm_eval_gsm8k_cot": [8], "lighteval_gsm8k": [0, 5]}, "responses": stored}
        test = read(Path(DATA) / "math" / "math500.jsonl")
        requests.append({"gsm8k": real, "math_500": {**math, "test": test, "responses": math_responses(test)}})
    return requests


@pytest.fixture(scope="module")
def told(asked: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the harnesses themselves say, in an environment of their own; starting them takes long, so they do once."""
    if not HARNESSES:
        pytest.skip("SELFTRAIN_HARNESSES is not set; `make test` installs them and sets it")
    folder = tmp_path_factory.mktemp("harnesses")
    (folder / "request.json").write_text(json.dumps(asked))
    command = [HARNESSES, "-W", "ignore", str(HERE / "harness_driver.py"), "request.json", "reply.json"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env={**os.environ, **offline}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    reply: list[dict[str, Any]] = json.loads((folder / "reply.json").read_text())
    return reply


def test_the_golden_table_is_what_the_harnesses_say(told: list[dict[str, Any]]) -> None:
    reply = told[0]
    assert reply["versions"] == GOLDEN["versions"]
    for name in FEWSHOT:
        assert reply["scores"][name] == [case[name] for case in GOLDEN["responses"]]
        for shown, written in GOLDEN["prompts"][name].items():
            assert reply["prompts"][name][shown][: len(written)] == written
    assert reply["scores"]["lighteval_math_500"] == [case["lighteval_math_500"] for case in MATH["responses"]]
    assert reply["prompts"]["lighteval_math_500"]["0"][: len(MATH["prompts"])] == MATH["prompts"]


@pytest.mark.skipif(not DATA, reason="SELFTRAIN_DATA is not set")
def test_200_stored_responses_score_the_same_and_all_prompts_are_equal(
    asked: list[dict[str, Any]], told: list[dict[str, Any]]
) -> None:
    folder, request, reply = Path(DATA) / "gsm8k", asked[1]["gsm8k"], told[1]
    assert len(request["responses"]) == 200
    for name, numbers in request["shots"].items():
        found = scores(folder, name, request["responses"])
        assert found == reply["scores"][name]
        assert 20 < sum(score[next(reversed(score))] for score in found) < 180
        for shown in numbers:
            assert len(reply["prompts"][name][str(shown)]) == 1319
            assert prompts(folder, name, shown) == reply["prompts"][name][str(shown)]


@pytest.mark.skipif(not DATA, reason="SELFTRAIN_DATA is not set")
def test_stored_responses_to_math_500_score_the_same_and_all_prompts_are_equal(
    asked: list[dict[str, Any]], told: list[dict[str, Any]]
) -> None:
    name, folder, responses = "lighteval_math_500", Path(DATA) / "math", asked[1]["math_500"]["responses"]
    assert len(responses) >= 200
    found = scores(folder, name, responses)
    assert found == told[1]["scores"][name]
    assert 0.2 < sum(score["pass@k:k=1&n=1"] for score in found) / len(found) < 0.8
    assert len(told[1]["prompts"][name]["0"]) == 500
    assert math_prompts(folder) == told[1]["prompts"][name]["0"]


def read(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stored_responses(test: Rows, solutions: Rows) -> list[tuple[int, str]]:
    """Four models' right and wrong solutions; every other one is ended the way lm-evaluation-harness teaches."""
    place = {row["question"]: index for index, row in enumerate(test)}
    models = [name for name, value in solutions[0].items() if isinstance(value, dict)]
    chosen = [(place[row["question"]], row[name]["solution"]) for row in solutions for name in models]
    return [
        (index, text.replace("\nA: ", "\nThe answer is ") + "." if number % 2 else text)
        for number, (index, text) in enumerate(chosen)
    ]


def math_responses(test: Rows) -> list[tuple[int, str]]:
    """Reference solutions, every other one with the answer of the next problem, and every variant and near miss of an
    answer that graders were tested with, where a problem has that answer."""
    place = {row["answer"]: index for index, row in enumerate(test)}
    files = [Path(DATA) / "graders" / f"{name}.jsonl" for name in ("derived", "cases")]
    pairs = [(row["gold"], row["pred"]) for file in files for row in read(file) if len(row["pred"]) < 1000]
    forms = ("So it is\n\nANSWER: ${}$", r"Thus, $\boxed{{{}}}$.", "ANSWER: {}", "The answer is ${}$.", "{}")
    variants = [
        (place[gold], forms[number % len(forms)].format(pred))
        for number, (gold, pred) in enumerate(pairs)
        if gold in place
    ]
    worked = [
        (index, row["solution"] if index % 2 else row["solution"].replace(row["answer"], test[index + 1]["answer"]))
        for index, row in enumerate(test[:100])
    ]
    return [*worked, *variants]
