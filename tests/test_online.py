"""Methods of many short iterations: what goes on from one to the next, and that a killed run ends as any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from shared_runs import Run, of, runs

from selftrain import records
from selftrain.drawing.accept import shared_out, within
from selftrain.schema import Accept
from selftrain.types import Example, Problem, Sample, Score, Verdict

CONFIG = Path(__file__).parent / "online.yaml"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runs(CONFIG, tmp_path_factory.mktemp("online"))


@pytest.fixture(scope="module")
def run(start: Run) -> Path:
    return start("whole")


def log(run: Path, iteration: int, learner: str) -> list[dict[str, Any]]:
    lines = (run / f"iteration_{iteration:04d}" / learner / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_it_is_evaluated_as_often_as_asked(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 2, 4]
    assert "vs_previous" in rows[2]


def test_a_run_that_was_killed_goes_on_from_the_last_saved_optimizers(run: Path, start: Run) -> None:
    """Iteration 3 is fitted, but its optimizers were in memory only: it is done again."""
    killed = start("killed", "--until", "3/improve-policy")
    assert not (killed / "iteration_0003" / "policy" / "optimizer").exists()
    assert (start("killed") / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert (killed / "redone" / "000" / "iteration_0003" / "improve-policy.done").exists()


def test_trainers_that_stay_and_trainers_that_load_make_the_same(run: Path, start: Run) -> None:
    other = start("loading", "launch.keep=stage", "loop.save_every=1", "loop.keep=null")
    for learner in ("prm", "policy"):
        ours, theirs = (at / "iteration_0004" / learner / "checkpoint" / "model.safetensors" for at in (run, other))
        assert ours.read_bytes() == theirs.read_bytes()
    assert (other / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


def test_older_checkpoints_leave_the_disk_and_the_run_is_still_whole(run: Path, start: Run) -> None:
    there = [(run / f"iteration_{number:04d}" / "policy" / "checkpoint").exists() for number in (1, 3, 4)]
    assert there == [False, True, True]
    assert [(run / f"iteration_{number:04d}" / "logprobs").exists() for number in (1, 3, 4)] == there
    marks = sorted(run.rglob("*.done"))
    times = [mark.stat().st_mtime_ns for mark in marks]
    start("whole")
    assert [mark.stat().st_mtime_ns for mark in marks] == times


def test_problems_are_learnt_from_where_they_are_solved_neither_too_often_nor_too_seldom(run: Path) -> None:
    samples = of(run, Sample, 1, "samples")
    status = {
        sample.id: verdict.status
        for sample, verdict in zip(samples, of(run, Verdict, 1, "verdicts"), strict=True)
    }  # fmt: skip
    taught = of(run, Example, 1, "examples", "policy")
    solved: dict[str, list[bool]] = {}
    for sample in samples:
        solved.setdefault(sample.problem_id, []).append(status[sample.id] == "right")
    fit = {problem for problem, flags in solved.items() if 0.25 <= sum(flags) / len(flags) <= 0.75}
    learnt = {example.problem_id for example in taught}
    assert learnt <= fit and 0 < len(learnt) == min(6, len(fit))
    reasons = json.loads((run / "iteration_0001" / "selection-policy.json").read_text())["sampled"]
    assert reasons["kept"] + reasons["problem not accepted"] == len(samples)
    valid = {score.sample_id for score in of(run, Score, 1, "scores") if score.valid}
    assert valid == {sample.id for sample in samples if sample.problem_id in learnt}


def test_process_rewards_begin_at_zero_and_add_up_to_the_outcome_reward(run: Path) -> None:
    first = [score for score in of(run, Score, 1, "scores") if score.source == "prm" and score.valid]
    assert first and all(set(score.token_rewards) == {0.0} for score in first)
    later = [score for score in of(run, Score, 4, "scores") if score.source == "prm" and score.valid]
    assert later
    for score in later:
        assert sum(score.token_rewards) == pytest.approx(score.reward, abs=1e-6)
        assert sum(score.step_rewards) == pytest.approx(score.reward, abs=1e-6)
        assert score.step_ends[-1] == len(score.token_rewards)
    assert any(abs(score.reward) > 1e-6 for score in later)


def test_a_run_scores_what_plain_log_softmax_says_times_beta(run: Path) -> None:
    """Beta is applied once, to raw log-ratios: the whole way from checkpoints to the scores on disk."""
    import torch
    from transformers import AutoModelForCausalLM

    found = next(score for score in of(run, Score, 4, "scores") if score.source == "prm" and score.valid)
    (sample,) = (sample for sample in of(run, Sample, 4, "samples") if sample.id == found.sample_id)
    assert sample.finish_reason != "stop"
    ids = torch.tensor([[*sample.prompt_ids, *sample.response_ids]])
    sides = []
    for place in ("iteration_0003/prm", "warmup/policy"):
        model = AutoModelForCausalLM.from_pretrained(run / place / "checkpoint", dtype=torch.float32)
        with torch.no_grad():
            every = model(ids).logits[0, :-1].log_softmax(dim=1).gather(1, ids[0, 1:, None])[:, 0]
        sides.append(every[len(sample.prompt_ids) - 1 :])
    assert list(found.token_rewards) == pytest.approx((0.05 * (sides[0] - sides[1])).tolist(), abs=1e-6)


def test_advantages_do_not_depend_on_how_the_batch_is_cut(run: Path, start: Run) -> None:
    """A normaliser of each part would make them do so."""
    cut = start("cut", "run.part_size=4", "--until", "2/improve-policy")
    assert len(records.parts(cut / "iteration_0002" / "scores")) > len(records.parts(run / "iteration_0002" / "scores"))
    ours, theirs = (
        {one.id: one.advantages for one in of(at, Example, 2, "examples", "policy")} for at in (run, cut)
    )  # fmt: skip
    assert ours.keys() == theirs.keys() and len(ours) > 8
    assert all(theirs[name] == pytest.approx(own, abs=1e-4) for name, own in ours.items())


def test_every_sampled_token_has_an_advantage_and_no_other(run: Path) -> None:
    samples = {sample.id: sample for sample in of(run, Sample, 2, "samples")}
    taught = of(run, Example, 2, "examples", "policy")
    assert taught
    for example in taught:
        assert example.response_ids == samples[example.sample_id].response_ids
        assert len(example.advantages) == len(example.response_ids)
    every = [value for example in taught for value in example.advantages]
    assert sum(every) / len(every) == pytest.approx(0, abs=1e-5)


def test_old_log_probabilities_are_the_trainers_and_the_gap_to_the_sampler_is_told(run: Path) -> None:
    (line,) = log(run, 2, "policy")
    assert line["ratio"] == pytest.approx(1, abs=1e-5)
    assert 0 <= line["gap mean"] <= line["gap max"] < 1e-4
    assert line["gap kl"] == pytest.approx(0, abs=1e-8)


def test_an_iteration_whose_fit_lost_its_mark_is_done_again(run: Path, start: Run, tmp_path: Path) -> None:
    copy = run.with_name("unmarked")
    shutil.copytree(run, copy)
    for name in ("improve-policy.done", "evaluate.done"):
        (copy / "iteration_0004" / name).unlink()
    start("unmarked")
    assert (copy / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("n", "expected"), [(4, [1, 2, 3]), (8, [2, 3, 4, 5, 6]), (16, [4, 5, 6, 7, 8, 9, 10, 11, 12])]
)
def test_the_range_of_accuracies_includes_its_ends(n: int, expected: list[int]) -> None:
    assert [right for right in range(n + 1) if within(Accept(), right, n, 0)] == expected


def test_accepted_problems_keep_to_the_shares_of_their_tasks() -> None:
    """Tasks are asked one behind the other: the first ones of all would be of the first task alone."""
    asked = [Problem(f"{task}{i}", task, "train", "?") for task in "ab" for i in range(6)]
    assert shared_out(asked, {"a": 3, "b": 1}) == {"a0", "a1", "a2", "b0"}
    assert shared_out(asked[:7], {"a": 1, "b": 3}) == {"a0", "a1", "a2", "b0"}
    assert shared_out(asked[:2], {"a": 3, "b": 3}) == {"a0", "a1"}


def test_one_sample_alone_is_never_accepted_and_truncated_ones_as_asked() -> None:
    assert not within(Accept((0.0, 1.0)), 1, 1, 0)
    assert within(Accept(), 2, 4, 1)
    assert not within(Accept(truncated="drop"), 2, 4, 1)


GREEDY = "learners.policy.advantage=remax grow.greedy.n=1 grow.greedy.temperature=0"
BAD = [
    ("grow.draft.prompts=null", "grow.draft.accept: fills a batch of grow.draft.prompts"),
    ("grow.draft.accept.accuracy=[0.8,0.2]", "holds no number"),
    ("loop.keep=1", "loop.keep"),
    ("learners.policy.init=base", "learners.policy.optim.state"),
    ("learners.policy.optim.schedule=cosine learners.policy.optim.steps=null", "learners.policy.optim.steps"),
    ("learners.policy.advantage=null", "learners.policy.advantage: ppo_clip reads advantages"),
    ("learners.policy.objective=nll", "learners.policy"),
    ("learners.policy.objective=dpo", "learners.policy.examples.own.kind"),
    ("learners.policy.examples.own.from=gold", "learners.policy.examples.own"),
    ("learners.prm.reference=learner:prn", "did you mean 'prm'?"),
    ("reward.sources.prm.model=base@previous", "reward.sources.prm.model"),
    ("reward.sources.prm.reference=nowhere/at-all", "reward.sources.prm.reference: nowhere/at-all cannot be had"),
    ("grow.draft.n=1", "draw 2 at least"),
    ("grow.draft.top_k=5", "set top_k: 0"),
    ("tasks.arithmetic.sampling.n=1", "tasks.arithmetic.sampling.n: prime_rloo compares the responses to a problem"),
    ("reward.sources.prm.granularity=step", "reward.sources.prm.granularity: prime_rloo reads rewards of tokens"),
    ("learners.policy.advantage=pure reward.total.verdict=1", "pure reads process rewards, and no source that counts"),
    ("learners.policy.objective=reinforce grow.draft.top_k=5", "set top_k: 0"),
    ("learners.policy.lora.dropout=0.1", "learners.policy.lora.dropout: ppo_clip compares the weights with themselves"),
    ("learners.policy.advantage=remax", "no step of grow is called 'greedy'"),
    (f"{GREEDY} grow.greedy.n=2", "grow.greedy.n: learners.policy.advantage compares with one greedy response"),
    (f"{GREEDY} grow.greedy.temperature=1", "grow.greedy.temperature: learners.policy.advantage"),
    (f"{GREEDY} tasks.arithmetic.sampling.temperature=0.5", "tasks.arithmetic.sampling.temperature: learners.policy"),
    (f"{GREEDY} grow.greedy.prompts=6", "grow.draft.accept: asks problems by its own verdicts"),
    (f"{GREEDY} grow.draft.accept=null", "grow.greedy.prompts: must be that of grow.draft"),
]


@pytest.mark.parametrize(("changes", "told"), BAD, ids=[changes for changes, _ in BAD])
def test_what_does_not_go_together_is_told_at_once(
    start: Run, capsys: pytest.CaptureFixture[str], changes: str, told: str
) -> None:
    folder = start("bad", *changes.split(), status=2)
    assert told in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("place", ["learners.prm.reference", "reward.sources.prm.model"])
def test_a_model_of_other_tokens_is_refused(
    start: Run, chat_model: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    folder = start("bad", f"{place}={chat_model}", status=2)
    assert f"{place}: {chat_model} has another tokenizer than the policy" in capsys.readouterr().err
    assert not folder.exists()
