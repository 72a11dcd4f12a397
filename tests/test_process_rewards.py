"""Implicit process rewards: a pair of language models small enough to enumerate; the reward source on scripted ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from selftrain.registry import TABLES
from selftrain.rewards.base import Judged
from selftrain.rewards.implicit_prm import ImplicitPRM
from selftrain.rewards.process import Aggregation, aggregate, step_rewards, token_rewards, values
from selftrain.types import Sample, Score, Verdict

BETA = 0.05
AGGREGATIONS: tuple[Aggregation, ...] = ("min", "sum", "last", "mean", "product")
END, LONGEST = 2, 5
Table = dict[tuple[int, ...], NDArray[np.float64]]


def table(seed: int) -> Table:
    """A language model over two tokens and the end: p(next | prefix), the end certain after ``LONGEST`` tokens."""
    rng = np.random.default_rng(seed)
    prefixes = [prefix for length in range(LONGEST) for prefix in product(range(END), repeat=length)]
    certain = {prefix: np.array([0.0, 0.0, 1.0]) for prefix in product(range(END), repeat=LONGEST)}
    return {prefix: rng.dirichlet([0.5, 0.7, 0.4]) for prefix in prefixes} | certain


def complete(prefix: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Every response that begins so and comes to its end."""
    for length in range(LONGEST - len(prefix) + 1):
        for rest in product(range(END), repeat=length):
            yield (*prefix, *rest, END)


def logprobs(model: Table, response: Sequence[int]) -> NDArray[np.float64]:
    return np.array([math.log(model[tuple(response[:t])][token]) for t, token in enumerate(response)])


POLICY, REFERENCE = table(0), table(1)


def ratios(response: Sequence[int]) -> NDArray[np.float64]:
    return logprobs(POLICY, response) - logprobs(REFERENCE, response)


def probability(model: Table, response: Sequence[int], after: int = 0) -> float:
    """Of a response given its first tokens."""
    return math.exp(logprobs(model, response)[after:].sum())


def reward(response: Sequence[int]) -> float:
    return aggregate(token_rewards(ratios(response), BETA), "sum")


def test_rewards_of_complete_responses_are_normalised() -> None:
    every = list(complete())
    assert len(every) == 2 ** (LONGEST + 1) - 1
    assert sum(probability(REFERENCE, y) for y in every) == pytest.approx(1, abs=1e-12)
    mean = sum(probability(REFERENCE, y) * math.exp(reward(y) / BETA) for y in every)
    assert mean == pytest.approx(1, abs=1e-12)
    assert sum(probability(REFERENCE, y) * reward(y) for y in every) < -0.01
    assert sum(probability(POLICY, y) * reward(y) for y in every) > 0.01


def test_without_the_end_token_they_are_not() -> None:
    """What verl's recipe leaves out: its process rewards then no longer add up to the response's."""
    mean = sum(probability(REFERENCE, y) * math.exp(ratios(y)[:-1].sum()) for y in complete())
    assert abs(mean - 1) > 0.05


def test_a_value_is_the_soft_maximum_of_what_may_follow() -> None:
    """Proposition 3.1: q_t = beta log E_ref[exp(r / beta)] over the completions of every prefix."""
    for length in range(1, LONGEST + 1):
        for prefix in product(range(END), repeat=length):
            q = values(token_rewards(ratios(prefix), BETA))[-1]
            follow = [(probability(REFERENCE, y, length), reward(y)) for y in complete(prefix)]
            soft = BETA * math.log(sum(p * math.exp(r / BETA) for p, r in follow))
            assert q == pytest.approx(soft, abs=1e-12)
            mean, best = sum(p * r for p, r in follow), max(r for _, r in follow)
            assert mean - 1e-12 <= q <= best + 1e-12  # Proposition 3.2.


@pytest.mark.parametrize("beta, expected", [(1e4, 0.25), (100, 0.2509), (1, 0.3574), (0.05, 0.9307), (0.001, 0.9986)])
def test_beta_moves_a_value_from_the_mean_to_the_maximum(beta: float, expected: float) -> None:
    """Proposition 3.2 with rewards 1 and 0 behind a prefix, the first with probability 1/4 under the reference.

    The policy that has these rewards takes the prefix exp(q / beta) times as often, and the right end from there
    exp((1 - q) / beta) times.
    """
    log_mean = float(np.logaddexp(math.log(0.25) + 1 / beta, math.log(0.75)))
    right, wrong = (token_rewards(np.array([log_mean, r / beta - log_mean]), beta) for r in (1, 0))
    assert [right.sum(), wrong.sum()] == pytest.approx([1, 0], abs=1e-9)
    assert values(right)[0] == values(wrong)[0] == pytest.approx(expected, abs=6e-5)


def test_rewards_of_any_cut_add_up_to_the_response() -> None:
    rng = np.random.default_rng(0)
    tokens = token_rewards(rng.normal(size=40).astype(np.float32), BETA)
    for ends in ([40], list(range(1, 41)), [1, 2, 39, 40], [13, 40]):
        steps = step_rewards(tokens, ends)
        assert len(steps) == len(ends)
        assert steps.sum() == pytest.approx(tokens.sum(), abs=1e-12)
        assert values(steps)[-1] == pytest.approx(tokens.sum(), abs=1e-12)
        expected = [tokens[a:b].sum() for a, b in zip([0, *ends], ends, strict=False)]
        assert steps.tolist() == pytest.approx(expected, abs=1e-12)
    assert step_rewards(np.zeros(0), ()).tolist() == []


def test_aggregations() -> None:
    steps = np.array([0.5, -1.0, 2.0])
    found = {how: aggregate(steps, how) for how in AGGREGATIONS}
    sigmoid = [1 / (1 + math.exp(-step)) for step in steps]
    assert found == pytest.approx({"min": -1, "sum": 1.5, "last": 2, "mean": 0.5, "product": math.prod(sigmoid)})
    assert aggregate(np.array([-800.0, 3.0]), "product") == 0.0
    assert [aggregate(np.zeros(0), how) for how in AGGREGATIONS] == [0.0] * 5


def ranking(responses: Sequence[NDArray[np.float64]], how: Aggregation) -> list[int]:
    scores = [aggregate(steps, how) for steps in responses]
    return sorted(range(len(scores)), key=lambda i: scores[i])


def test_which_response_is_best_does_not_depend_on_the_scale_but_on_the_zero() -> None:
    """A factor reorders none but products, which are of probabilities. A shift of every step (a reference that finds
    all text less likely) reorders sums and products of responses with different numbers of steps, and nothing else."""
    rng = np.random.default_rng(3)
    responses = [rng.normal(size=rng.integers(1, 7)) for _ in range(30)]
    for how in AGGREGATIONS:
        plain = ranking(responses, how)
        assert (ranking([0.001 * steps for steps in responses], how) == plain) == (how != "product")
        assert (ranking([steps + 0.7 for steps in responses], how) == plain) == (how not in ("sum", "product"))


class Scripted:
    """Models whose log-ratios are written down by sample; each token is a character."""

    def __init__(self, found: dict[str, list[float]], texts: dict[int, str]) -> None:
        self._found, self._texts = found, texts

    def log_ratios(self, model: str, reference: str, samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
        assert (model, reference) == ("learner:prm", "base")
        return [np.array(self._found[sample.id], np.float32) for sample in samples]

    def logprobs(self, model: str, samples: Sequence[Sample]) -> list[NDArray[np.float32]]:
        raise AssertionError("log-ratios are all an implicit reward is made of")

    def step_values(self, *_: Any) -> list[NDArray[np.float32]]:
        raise AssertionError("log-ratios are all an implicit reward is made of")

    def texts(self, ids: Sequence[int]) -> list[str]:
        return [self._texts[token] for token in ids]

    def name(self, model: str) -> str:
        return f"digest of {model}"


TEXTS = {1: "", 5: "a", 6: "\n", 7: "b"}
RATIOS = {"long": [1.0, -3.0, 0.5, 4.0], "stopped": [2.0, -1.0, 0.25], "empty": [], "cut": [1.0, 1.0, -8.0]}
RESPONSES = {"long": (5, 6, 7, 1), "stopped": (5, 7), "empty": (), "cut": (5, 6, 7)}


def scored(source: ImplicitPRM, found: dict[str, list[float]] = RATIOS) -> dict[str, Score]:
    ends: dict[str, Any] = {"stopped": "stop", "cut": "length"}
    samples = [
        Sample(name, "p", 1, "draft", 0, (9,), ids, "", ends.get(name, "eos"), "policy", "scripted")
        for name, ids in RESPONSES.items()
    ]
    judged = [Judged(sample.id, Verdict("right", 1.0), sample) for sample in samples]
    scores = list(source.scores(judged, "prm", Scripted(found, TEXTS)))
    assert [score.sample_id for score in scores] == list(RESPONSES)
    assert {(score.source, score.model) for score in scores} == {("prm", "digest of learner:prm")}
    return {score.sample_id: score for score in scores}


@pytest.mark.parametrize("granularity", ["token", "step", "whole"])
def test_the_reward_of_a_response_is_the_same_at_every_granularity(granularity: Any) -> None:
    found = scored(ImplicitPRM(granularity=granularity))
    for name in ("long", "stopped", "cut"):
        expected = BETA * sum(RATIOS[name])
        assert found[name].reward == pytest.approx(expected)
        assert sum(found[name].step_rewards or ()) == pytest.approx(expected)
        assert (found[name].step_ends or ())[-1:] == (len(RATIOS[name]),)
        if granularity == "token":
            assert found[name].token_rewards == pytest.approx([BETA * ratio for ratio in RATIOS[name]])
        else:
            assert found[name].token_rewards is None


def test_beta_is_applied_once() -> None:
    """Models that give beta d, as verl's recipe does, would be scored beta times too low: their numbers are raw."""
    raw, scaled = scored(ImplicitPRM()), {name: [BETA * ratio for ratio in own] for name, own in RATIOS.items()}
    assert raw["long"].reward == pytest.approx(BETA * 2.5)
    assert scored(ImplicitPRM(), scaled)["long"].reward == pytest.approx(BETA**2 * 2.5)
    assert scored(ImplicitPRM(beta=1.0))["long"].reward == pytest.approx(2.5)


def test_steps_of_a_response_with_its_end() -> None:
    found = scored(ImplicitPRM(aggregation="min"))
    assert found["long"].step_ends == (2, 4)
    assert found["long"].step_rewards == pytest.approx((-2 * BETA, 4.5 * BETA))
    assert found["long"].reward == pytest.approx(-2 * BETA)
    assert scored(ImplicitPRM(aggregation="last"))["long"].reward == pytest.approx(4.5 * BETA)
    assert scored(ImplicitPRM(aggregation="last", accumulate=True))["long"].reward == pytest.approx(2.5 * BETA)
    assert scored(ImplicitPRM(aggregation="min", granularity="whole"))["long"].reward == pytest.approx(2.5 * BETA)


def test_the_end_token_behind_a_stop_string_belongs_to_the_last_step() -> None:
    """Two tokens were sampled, three are scored."""
    found = scored(ImplicitPRM())["stopped"]
    assert found.step_ends == (3,)
    assert found.token_rewards == pytest.approx([2 * BETA, -BETA, 0.25 * BETA])
    assert found.reward == pytest.approx(1.25 * BETA)


def test_a_response_without_a_token_has_no_reward() -> None:
    found = scored(ImplicitPRM())["empty"]
    assert (found.valid, found.reward, found.step_ends, found.step_rewards) == (False, None, (), ())


def test_steps_that_are_given_are_taken() -> None:
    sample = Sample("long", "p", 1, "draft", 0, (9,), RESPONSES["long"], "", "eos", "policy", "scripted")
    judged = [Judged("long", Verdict("right", 1.0), sample, (1, 4))]
    (found,) = ImplicitPRM(beta=1.0).scores(judged, "prm", Scripted(RATIOS, TEXTS))
    assert found.step_ends == (1, 4) and found.step_rewards == pytest.approx((1.0, 1.5))


def test_the_source_is_found_by_its_name() -> None:
    assert TABLES["reward"]["implicit_prm"].endswith(":ImplicitPRM")
