"""Methods beside PRIME, each a run of two short iterations from one warmed-up model."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_runs import Run, of, runs

from selftrain.types import Example, Sample, Score

CONFIG = Path(__file__).parent / "online.yaml"
SHORT = ("loop.iterations=2", "loop.evaluate_every=2", "evaluate.n=1")


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs that go on from a warm-up they share."""
    folder = tmp_path_factory.mktemp("methods")
    start = runs(CONFIG, folder, *SHORT)
    begun = start("begun", "--until", "0/evaluate")

    def go_on(name: str, *arguments: str) -> Path:
        shutil.copytree(begun, folder / name)
        return start(name, *arguments)

    return go_on


def taught(run: Path, iteration: int) -> dict[str, Example]:
    return {str(one.sample_id): one for one in of(run, Example, iteration, "examples", "policy")}


def log(run: Path, iteration: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"iteration_{iteration:04d}/policy/log.jsonl").read_text())
    return found


def test_rewards_of_a_model_that_learns_before_they_are_read(begin: Run) -> None:
    """Without a first iteration of zeros; and the worst step decides what a solution is worth."""
    run = begin("pure", "learners.prm.when=before_score", "learners.policy.advantage=pure")
    scores = {one.sample_id: one for one in of(run, Score, 1, "scores") if one.source == "prm" and one.valid}
    assert any(any(one.token_rewards) for one in scores.values())
    examples = taught(run, 1)
    assert examples.keys() <= scores.keys() and len(examples) > 3
    assert any(len(set(np.diff(one.advantages or ()).round(9))) > 1 for one in examples.values())


def test_a_baseline_of_the_greedy_response_and_a_divergence_from_the_reference(begin: Run) -> None:
    run = begin(
        "remax",
        "learners.policy.advantage=remax",
        "grow.draft.accept=null",
        "grow.greedy={n: 1, temperature: 0, prompts: 6, max_tokens: 18}",
        "learners.policy.objective={kind: ppo_clip, kl: 0.1}",
        "learners.policy.reference=policy",
    )
    problem = {sample.id: (sample.step, sample.problem_id) for sample in of(run, Sample, 2, "samples")}
    total = {one.sample_id: one.reward for one in of(run, Score, 2, "scores") if one.source == "total" and one.valid}
    greedy = {problem[name][1]: reward for name, reward in total.items() if problem[name][0] == "greedy"}
    assert len(greedy) == 6
    examples = taught(run, 2)
    assert {problem[name][0] for name in examples} == {"draft"}
    for name, one in examples.items():
        expected = total[name] - greedy[one.problem_id]
        assert one.advantages == pytest.approx([expected] * len(one.response_ids), abs=1e-6)
    assert any(any(one.advantages or ()) for one in examples.values())
    assert log(run, 2)["kl to reference"] == pytest.approx(0, abs=1e-6)  # It is the policy as it was.


def test_groups_and_a_reward_against_the_policy_as_it_is(begin: Run) -> None:
    run = begin("grpo", "learners.policy.advantage=grpo", "reward.sources.prm.reference=policy")
    groups = defaultdict(list)
    for one in taught(run, 2).values():
        assert len(set(one.advantages or ())) == 1
        groups[one.problem_id].append((one.advantages or (0.0,))[0])
    assert groups and all(abs(sum(own)) < 1e-5 for own in groups.values())
    assert any(abs(own[0]) > 0.1 for own in groups.values())
    later = [one for one in of(run, Score, 2, "scores") if one.source == "prm" and one.valid]
    assert any(abs(one.reward) > 1e-6 for one in later)
