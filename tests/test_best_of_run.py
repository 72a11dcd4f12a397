"""Best of n in a whole run: a process reward model is learnt and chooses; kills, changes and mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from kill_driver import Driver, Ended, Trap

from selftrain import records
from selftrain.cli import main
from selftrain.config import check_tree
from selftrain.rewards.regularised import Regularised
from selftrain.types import Example, Sample, Score

TINY = Path(__file__).with_name("tiny.yaml")
PAGE = TINY.parent.parent / "docs" / "best_of.md"
PRM = {"kind": "implicit_prm", "model": "learner:prm", "reference": "base"}
CONFIG: dict[str, Any] = {
    "include": str(TINY),
    "learners": {
        "prm": {
            "objective": "implicit_ce",
            "examples": {"all": {"from": "draft", "truncated": "in"}},
            "optim": {"lr": 5e-3, "steps": 6, "batch_size": 8},
        }
    },
    "evaluate": {
        "n": 4,
        "best_of": {"prm": PRM, "near": {"kind": "regularised", "reward": PRM, "beta": 0.05}},
    },
    "loop": {"iterations": 1},
}
TEST = "iteration_0001/evaluation/arithmetic-test"


class Runs:
    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.folder, self.config = driver, folder, folder / "bon.yaml"
        self.config.write_text(yaml.safe_dump(CONFIG))

    def run(self, name: str, *more: str, trap: Trap | None = None) -> Ended:
        return self.driver.run(["run", str(self.config), f"run.folder={self.folder}", f"run.name={name}", *more], trap)

    def copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.folder / "whole", self.folder / name))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Runs:
    """With the undisturbed run ``whole``."""
    made = Runs(driver, tmp_path_factory.mktemp("best-of"))
    ended = made.run("whole")
    assert ended.status == 0, ended.err
    return made


@pytest.fixture(scope="module")
def rows(runs: Runs) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs.folder / "whole" / "metrics.jsonl").read_text().splitlines()]


def scores(run: Path, source: str) -> list[Score]:
    return records.read(run / f"{TEST}-{source}.parquet", Score)


def test_every_row_has_the_curves_with_intervals_and_tests(rows: list[dict[str, Any]]) -> None:
    assert [(row["iteration"], row["split"]) for row in rows] == [(i, s) for i in range(2) for s in ("val", "test")]
    for row in rows:
        for name in [f"{how}_{source}@{n}" for how in ("bon", "wbon") for source in CONFIG["evaluate"]["best_of"]
                     for n in (2, 4)]:  # fmt: skip
            assert 0 <= row[f"{name}_low"] <= row[name] <= row[f"{name}_high"] <= 1
            assert row[name] <= row[f"pass@{name[-1]}"]
        test = row["bon_prm_vs_maj"]
        assert test["difference"] == pytest.approx(row["bon_prm@4"] - row["maj@4"], abs=2e-6)
        assert "bon_prm_unscored" not in row


def test_before_any_training_all_rewards_are_equal_and_choosing_is_chance(rows: list[dict[str, Any]]) -> None:
    for row in rows[:2]:
        assert row["bon_prm@2"] == row["bon_prm@4"] == row["avg@4"]
        assert row["wbon_prm@4"] == row["maj@4"] and row["wbon_prm@2"] == row["maj@2"]
    assert any(row["bon_prm@4"] != row["avg@4"] for row in rows[2:])


def test_the_sampled_responses_are_scored_by_the_learner_of_the_iteration(runs: Runs) -> None:
    from scored import log_ratios

    from selftrain.selection import as_scored
    from selftrain.training.scoring import Scorer

    run = runs.folder / "whole"
    samples = [s for s in records.rows(run / f"{TEST}.parquet", Sample) if s.step == "sampled"]
    found = scores(run, "prm")
    assert [score.sample_id for score in found] == [sample.id for sample in samples] and len(samples) == 12 * 4
    prm, base = run / "iteration_0001/prm/checkpoint", run / "warmup/policy/checkpoint"
    examples: list[Example] = [as_scored(sample, 1) for sample in samples]
    ratios = log_ratios(prm, base, examples)
    expected = [0.05 * float(own.sum()) for own in ratios]
    assert [score.reward for score in found] == pytest.approx(expected, abs=1e-5)
    assert len({round(reward, 6) for reward in expected}) > 12
    with Scorer(run / "iteration_0001/policy/checkpoint") as policy:
        likely = [float(own.sum()) for own in policy.logprobs(examples)]
    assert [score.reward for score in scores(run, "near")] == pytest.approx(
        [reward + 0.05 * logprob for reward, logprob in zip(expected, likely, strict=True)], abs=1e-4
    )


KILLS = {
    "mid-scores": Trap("write", f"{TEST}-prm".replace("arithmetic", ".arithmetic"), 1),
    "scored-without-metrics": Trap("replaced", f"{TEST}-near.parquet", 1),
    "metrics-without-mark": Trap("replaced", "iteration_0001/metrics.json", 1),
}


@pytest.mark.parametrize("name", KILLS)
def test_killed_and_rerun_ends_as_if_undisturbed(runs: Runs, name: str) -> None:
    assert runs.run(name, trap=KILLS[name]).status == -9
    done = list((runs.folder / name).glob("iteration_0001/evaluation/*.parquet"))
    before = {path: path.stat().st_ino for path in done}
    assert runs.run(name).status == 0
    assert len(before) >= 4 and {path: path.stat().st_ino for path in before} == before  # Nothing is done twice.
    assert (runs.folder / name / "metrics.jsonl").read_bytes() == (runs.folder / "whole/metrics.jsonl").read_bytes()


def test_without_its_mark_an_evaluation_is_summed_up_anew_from_what_is_there(runs: Runs) -> None:
    run = runs.copy("unmarked")
    (run / "iteration_0001/evaluate.done").unlink()
    before = {path: path.stat().st_mtime_ns for path in (run / "iteration_0001/evaluation").iterdir()}
    assert runs.run("unmarked").status == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (run / "metrics.jsonl").read_bytes() == (runs.folder / "whole/metrics.jsonl").read_bytes()


def test_another_source_keeps_the_answers_and_scores_them_again(runs: Runs) -> None:
    run, other = runs.copy("other"), "evaluate.best_of.prm.beta=0.1"
    answers = (run / f"{TEST}.parquet").read_bytes()
    near, former = (run / f"{TEST}-near.parquet").stat().st_mtime_ns, scores(run, "prm")
    refused = runs.run("other", other)
    assert refused.status == 2
    assert "best_of.sources.prm.beta" in refused.err
    assert "(answers stay and are scored again) with --redo 0/evaluate --redo 1/evaluate" in refused.err
    ended = runs.run("other", other, "--redo", "0/evaluate", "--redo", "1/evaluate")
    assert ended.status == 0, ended.err
    assert (run / f"{TEST}.parquet").read_bytes() == answers
    assert (run / f"{TEST}-near.parquet").stat().st_mtime_ns == near
    doubled = [2 * (score.reward or 0.0) for score in former]
    assert [score.reward for score in scores(run, "prm")] == pytest.approx(doubled, rel=1e-5)
    assert list(run.glob(f"redone/*/{TEST}-prm.parquet"))


def test_a_learner_that_is_fitted_again_chooses_again_among_the_same_answers(runs: Runs) -> None:
    run = runs.copy("refitted")
    answers, former = (run / f"{TEST}.parquet").read_bytes(), scores(run, "prm")
    more = ("learners.prm.optim.steps=12", "--redo", "1/improve-prm")
    assert runs.run("refitted", *more).status == 0
    assert (run / f"{TEST}.parquet").read_bytes() == answers
    assert [score.reward for score in scores(run, "prm")] != [score.reward for score in former]


def test_reports_show_curves_and_tests(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs.folder / "whole")]) == 0
    said = capsys.readouterr().out
    assert "arithmetic / test, best of n at iteration 1, 12 problems" in said
    assert "best of 4 by prm %" in said and "wbon near - maj, of 4: " in said
    assert main(["compare", str(runs.folder / "whole"), str(runs.folder / "whole")]) == 0
    compared = capsys.readouterr().out
    assert "wbon_prm@4 %" in compared and "bon_prm@2 %" not in compared
    page = (runs.folder / "whole/report.html").read_text()
    assert 'aria-label="best of n by prm on arithmetic/test"' in page and "<title>wbon, n 4: " in page


def test_a_checkpoint_is_evaluated_with_the_sources_of_its_run(runs: Runs, rows: list[dict[str, Any]]) -> None:
    run = runs.folder / "whole"
    checkpoint, folder = run / "iteration_0001/policy/checkpoint", runs.folder / "alone"
    command = ["evaluate", str(checkpoint), "--task", "arithmetic", "--output", str(folder)]
    mine = (
        f"{{kind: implicit_prm, model: {run}/iteration_0001/prm/checkpoint, reference: {run}/warmup/policy/checkpoint}}"
    )
    ended = runs.driver.run([*command, "evaluate.best_of.near=null", f"evaluate.best_of.mine={mine}"])
    assert ended.status == 0, ended.err
    (row,) = json.loads((folder / "iteration_0000/metrics.json").read_text())
    found = records.read(folder / "iteration_0000/evaluation/arithmetic-test-mine.parquet", Score)
    same = records.read(folder / "iteration_0000/evaluation/arithmetic-test-prm.parquet", Score)
    assert [score.reward for score in found] == [score.reward for score in same]
    assert row["bon_mine@4"] == row["bon_prm@4"] and "bon_near@4" not in row
    assert "best of n at iteration 0" in ended.out


def PRM_BY_PATH(run: Path) -> str:
    return (
        f"{{kind: implicit_prm, model: {run}/iteration_0001/prm/checkpoint, reference: {run}/warmup/policy/checkpoint}}"
    )


OWN = """
from dataclasses import dataclass
from selftrain.types import Score

@dataclass(frozen=True)
class Length:
    bad: float = 0.0
    def scores(self, judged, source, models):
        for at, one in enumerate(judged):
            if at % 4 == 0 and not self.bad:
                yield Score(one.sample_id, source, valid=False)
            else:
                yield Score(one.sample_id, source, valid=True, reward=self.bad or -len(one.sample.text))
"""


def test_a_source_of_ones_own_may_have_no_reward_to_give_and_must_say_so(runs: Runs) -> None:
    (runs.folder / "own.py").write_text(OWN)
    run, source = runs.copy("own"), f"{runs.folder}/own.py:Length"
    redo = ("--redo", "0/evaluate", "--redo", "1/evaluate", f"evaluate.best_of.short={source}")
    assert runs.run("own", *redo).status == 0
    row = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert row["bon_short_unscored"] == 0.25 and row["bon_prm@4"] >= 0
    ended = runs.run("own", *redo[:4], f"evaluate.best_of.short={{kind: '{source}', bad: .nan}}")
    assert ended.status == 1
    assert "evaluate.best_of.short gave sample" in ended.err and "the reward nan" in ended.err


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "one sample": (("evaluate.n=1",), "evaluate.best_of: chooses among a problem's samples, and evaluate.n is 1"),
    "the verdict": (("evaluate.best_of.v=outcome",), "evaluate.best_of.v: outcome is the verdict itself"),
    "the verdict inside": (
        ("evaluate.best_of.v={kind: regularised, reward: outcome}",),
        "evaluate.best_of.v: regularised is the verdict itself",
    ),
    "no learner": (
        ("evaluate.best_of.prm.model=learner:pm",),
        "evaluate.best_of.prm.model: 'learner:pm' names no learner (did you mean 'prm'?)",
    ),
    "no learner inside": (
        ("evaluate.best_of.near.reward.model=learner:pm",),
        "evaluate.best_of.near.reward.model: 'learner:pm' names no learner",
    ),
    "no model": (("evaluate.best_of.prm.model=none/such",), "evaluate.best_of.prm.model: none/such cannot be had"),
    "a path for a name": (("evaluate.best_of={a/b: implicit_prm}",), "evaluate.best_of.a/b: names a file and a metric"),
    "nothing inside": (("evaluate.best_of.v=regularised",), "evaluate.best_of.v: reward: names no source"),
    "unknown option": (("evaluate.best_of.prm.betta=1",), "evaluate.best_of.prm.betta: unknown key (did you mean"),
    "unknown vote": (("evaluate.vote=mean",), "evaluate.vote"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(runs: Runs, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    overrides, message = MISTAKES[name]
    assert main(["run", str(runs.config), f"run.folder={runs.folder}/none", "--dry-run", *overrides]) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.strip().splitlines()) == 1


def test_the_plan_tells_who_chooses_and_the_loop_may_stop_by_it(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    stop = "loop.stop={metric: bon_prm@4, patience: 1}"
    assert main(["run", str(runs.config), f"run.folder={runs.folder}/none", "--dry-run", stop]) == 0
    said = capsys.readouterr().out
    assert "and the best of up to 4 by prm: implicit_prm" in said
    assert "and the best of up to 4 by near: regularised (implicit_prm)" in said


def test_a_regularised_reward_adds_the_log_likelihood_and_keeps_what_has_no_reward() -> None:
    class Models:
        log_ratios: Callable[..., Any] = staticmethod(lambda model, reference, samples: [np.ones(2), np.zeros(0)])
        logprobs: Callable[..., Any] = staticmethod(lambda model, samples: [np.array([-1.0, -3.0]), np.zeros(0)])
        step_values: Callable[..., Any] = staticmethod(lambda model, samples, ends: [])
        texts: Callable[..., Any] = staticmethod(lambda ids: [str(token) for token in ids])
        name: Callable[..., Any] = staticmethod(lambda model: "digest")

    from selftrain.rewards.base import Judged
    from selftrain.types import Verdict

    samples = [
        Sample(f"s{n}", "p", 1, "sampled", n, (1,), ids, "", "eos", "", "") for n, ids in enumerate([(3, 4), ()])
    ]
    judged = [Judged(sample.id, Verdict("right"), sample) for sample in samples]
    source = Regularised(reward={**PRM, "beta": 0.5, "granularity": "whole"}, beta=0.1)
    first, second = source.scores(judged, "near", Models())
    assert first.valid and first.source == "near" and first.reward == pytest.approx(0.5 * 2 + 0.1 * -4)
    assert (second.valid, second.reward) == (False, None)


def test_the_config_on_the_page_is_one() -> None:
    (body,) = (text for text in PAGE.read_text().split("```yaml\n")[1:] if "learners" in text)
    tree = yaml.safe_load(body.partition("```")[0])
    config = check_tree({"tasks": {"arithmetic": {}}, **tree})
    assert config.evaluate.n >= 2 and config.evaluate.best_of.keys() >= {"verifier", "near"}
