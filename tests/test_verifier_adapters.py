"""Reward functions of TRL and servers as verifiers: what they are asked, and that no failure is taken for wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fake_judge import FakeJudge

from selftrain.config import ConfigError, check_tree
from selftrain.judging import Request, VerifierError, VerifierSpec, load
from selftrain.types import Problem, Verdict
from selftrain.verification import VerifierPool

PROBLEM = Problem("t/train/0", "t", "train", "2 + 2?", "4", metadata={"level": 3})
OTHER = Problem("t/train/1", "t", "train", "2 + 3?", "5", metadata={"kind": "sum"})
REWARDS = """
def accuracy(completions, solution, **kwargs):
    return [None if text == "skip" else float(text == gold) for text, gold in zip(completions, solution)]

def seen(prompts, completions, **columns):
    raise ValueError(f"{prompts} {completions} {columns}")

def named(completions, level):
    return [1.0 if one == 3 else 0.0 for one in level]

async def later(completions, solution, **kwargs):
    return accuracy(completions, solution)

def scaled(completions, **kwargs):
    said = {"low": -1, "high": 1.0, "middle": 0, "over": 3, "nan": float("nan"), "text": "1"}
    return [said[one] for one in completions]

def tokens(completion_ids, **kwargs):
    return [0.0] * len(completion_ids)

def maker(length):
    return lambda completions: [1.0] * len(completions)

made = maker(3)

def short(completions, **kwargs):
    return [1.0] * (len(completions) - ("short" in completions))
"""


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("rewards") / "rewards.py"
    path.write_text(REWARDS)
    return str(path)


def judged(spec: VerifierSpec, *responses: str, seconds: float = 10, problem: Problem = PROBLEM) -> list[Verdict]:
    with VerifierPool({"t": spec}, workers=1, seconds=seconds) as pool:
        return list(pool.judge(Request("t", problem, response) for response in responses))


@pytest.mark.parametrize("name", ["accuracy", "later"])
def test_rewards_of_trl(rewards: str, name: str) -> None:
    verdicts = judged(VerifierSpec("trl_reward", {"function": f"{rewards}:{name}"}), "4", "skip", "5")
    assert [(verdict.status, verdict.value) for verdict in verdicts] == [
        ("right", 1.0), ("error", None), ("wrong", 0.0),
    ]  # fmt: skip
    assert str(verdicts[1].reason).startswith("not mine")


def test_a_sample_that_is_not_mine_is_left_to_others(rewards: str) -> None:
    members = {"trl": {"kind": "trl_reward", "function": f"{rewards}:accuracy"}, "text": "exact_answer"}
    for kind in ("any", "all", "weighted"):
        (skipped,) = judged(VerifierSpec(kind, {"verifiers": members}), "skip")
        assert (skipped.status, skipped.value, skipped.reason) == ("wrong", 0.0, "text wrong")


def test_columns_and_messages(rewards: str) -> None:
    problems, texts = [PROBLEM, OTHER], ["a", "b"]
    for conversational in (False, True):
        options = {"function": f"{rewards}:seen", "gold": "truth", "conversational": conversational}
        with pytest.raises(ValueError) as raised:
            load(VerifierSpec("trl_reward", options)).verifier(problems, texts)
        prompts: Any = ["2 + 2?", "2 + 3?"]
        completions: Any = texts
        if conversational:
            prompts = [[{"role": "user", "content": text}] for text in prompts]
            completions = [[{"role": "assistant", "content": text}] for text in texts]
        columns = {"level": [3, None], "kind": [None, "sum"], "truth": ["4", "5"]}
        assert str(raised.value) == f"{prompts} {completions} {columns}"
    assert load(VerifierSpec("trl_reward", {"function": f"{rewards}:named"})).single(PROBLEM, "")[:2] == ("right", 1.0)


def test_rewards_of_another_range(rewards: str) -> None:
    options = {"function": f"{rewards}:scaled", "low": -1, "high": 1, "right_at": 0.5}
    verdicts = judged(VerifierSpec("trl_reward", options), "low", "middle", "high", "over", "nan", "text", "unknown")
    assert [verdict.value for verdict in verdicts] == [0.0, 0.5, 1.0, None, None, None, None]
    assert [verdict.status for verdict in verdicts] == ["wrong", "right", "right", "error", "error", "error", "error"]
    for verdict, told in zip(verdicts[3:], ["3 is not from -1 to 1", "nan", "returned a str", "KeyError"], strict=True):
        assert told in str(verdict.reason)


def test_rewards_of_another_length(rewards: str) -> None:
    spec = VerifierSpec("trl_reward", {"function": f"{rewards}:short"})
    assert [verdict.status for verdict in judged(spec, "a", "short", "b")] == ["right", "error", "right"]


def test_a_reward_function_in_a_config_is_checked(rewards: str) -> None:
    def config(**options: Any) -> Any:
        return check_tree({"tasks": {"arithmetic": {"verifier": {"kind": "trl_reward", **options}}}})

    checked = config(function=f"{rewards}:accuracy")
    assert checked.tasks["arithmetic"].verifier.options["function"] == {"kind": f"{rewards}:accuracy"}
    for options, message in (
        ({}, "function: name one"),
        ({"function": f"{rewards}:acuracy"}, r"verifier\.function: .*did you mean 'accuracy'"),
        ({"function": f"{rewards}:accuracy", "low": 2}, "high must be above low"),
    ):
        with pytest.raises(ConfigError, match=message):
            config(**options)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("tokens", "tokens asks for completion_ids, which there is in a trainer alone"),
        ("maker", "maker takes no completions; where it makes a reward function, call it in a file of yours"),
    ],
)
def test_a_function_that_is_no_reward_function_here_is_refused(rewards: str, name: str, told: str) -> None:
    with pytest.raises(VerifierError, match=told):
        load(VerifierSpec("trl_reward", {"function": f"{rewards}:{name}"}))
    assert load(VerifierSpec("trl_reward", {"function": f"{rewards}:made"})).single(PROBLEM, "4")[0] == "right"


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with FakeJudge() as fake:
        yield fake


def endpoint(server: FakeJudge, **options: Any) -> VerifierSpec:
    return VerifierSpec("http", {"url": server.url, **options})


def test_a_server_is_asked_and_says(server: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    texts = ["4", "5", "say true", "say 0.5", "say 0.9", "say null", "say [1]", 'say {"value": "x"}', "say 2"]
    texts += ['say {"status": "unparsed", "reason": "no number"}', 'say {"verdict": 1}', "\ud800\x00"]
    verdicts = judged(endpoint(server, right_at=0.75, key_env="JUDGE_KEY"), *texts)
    assert [verdict.status for verdict in verdicts] == [
        *("right", "wrong", "right", "wrong", "right", "error", "error", "error", "error"),
        *("unparsed", "error", "wrong"),
    ]
    assert [verdict.value for verdict in verdicts[:5]] == [1.0, 0.25, 1.0, 0.5, 0.9]
    assert (verdicts[1].answer, verdicts[11].answer) == ("5", "\ud800\x00")
    assert verdicts[9].reason == "no number"
    assert "'[1]'; expected a number, or an object with value or status" in str(verdicts[6].reason)
    told = {"id": "t/train/0", "task": "t", "question": "2 + 2?", "answer": "4", "metadata": {"level": 3}}
    assert {**told, "response": "5"} in server.bodies
    assert server.keys == {"Bearer secret"}


@pytest.mark.parametrize("failure", ["busy 2", "torn 1", "drop 2"])
def test_what_may_pass_is_asked_again(server: FakeJudge, failure: str) -> None:
    start = time.monotonic()
    (verdict,) = judged(endpoint(server), failure)
    assert verdict.status == "right"
    assert server.asked(failure) == int(failure[-1]) + 1
    assert time.monotonic() - start > 0.25


def test_a_server_is_left_alone_for_as_long_as_it_asks(server: FakeJudge) -> None:
    assert judged(endpoint(server), "limit 1")[0].status == "right"
    assert server.times[1] - server.times[0] >= 1


def test_no_failure_is_wrong(server: FakeJudge) -> None:
    texts = ["slow", "refuse", "busy 99", "torn 99", "drop 99", "4"]
    verdicts = judged(endpoint(server, retries=1, deadline=2), *texts)
    assert [verdict.status for verdict in verdicts] == ["timeout", "error", "error", "error", "error", "right"]
    reasons = [str(verdict.reason) for verdict in verdicts]
    for reason, told in zip(reasons, ["within 2 s", "422: 'no such", "503: 'later', 2 times", "no JSON"], strict=False):
        assert told in reason and server.url in reason
    assert [server.asked(text) for text in texts[1:]] == [1, 2, 2, 2, 1]


def test_the_deadline_of_a_run_holds_too(server: FakeJudge) -> None:
    slow, fast = judged(endpoint(server, deadline=60), "slow", "4", seconds=1)
    assert (slow.status, fast.status) == ("timeout", "right")


def test_a_server_that_is_not_there_is_an_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
        (verdict,) = judged(VerifierSpec("http", {"url": url, "retries": 1}), "4")
    assert verdict.status == "error" and "ConnectError" in str(verdict.reason)


def test_many_are_asked_at_once_and_not_too_many(server: FakeJudge) -> None:
    verdicts = judged(endpoint(server, concurrency=5), *["4"] * 60)
    assert {verdict.status for verdict in verdicts} == {"right"}
    assert server.most == 5


def test_an_endpoint_inside_another_verifier(server: FakeJudge) -> None:
    members = {"text": "exact_answer", "server": {"kind": "http", "url": server.url, "retries": 0}}
    verdicts = judged(VerifierSpec("any", {"verifiers": members}), "4", "say true", "busy 9", "say 0")
    assert [verdict.status for verdict in verdicts] == ["right", "right", "error", "wrong"]
    assert server.asked("4") == 0
