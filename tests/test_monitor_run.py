"""Monitors of a run with a learnt reward: what is written and shown, what stops it and how it goes on."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from scored import log_ratios
from shared_runs import Run, of, runs

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.config import load_config
from selftrain.selection import as_scored
from selftrain.session import Session
from selftrain.stages.distance import distances
from selftrain.stages.logprobs import Logprobs
from selftrain.types import Sample, Score, Verdict

CONFIG = Path(__file__).parent / "online.yaml"
SHORT = ("loop.iterations=2", "loop.save_every=1", "track.live=plain")
WARN = "monitor.thresholds.tokens.warn_above=1"
STOP = "monitor.thresholds.tokens_drift={stop_above: 0.01, after: 2}"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runs(CONFIG, tmp_path_factory.mktemp("monitors"), *SHORT)


@pytest.fixture(scope="module")
def watched(start: Run) -> Path:
    """An undisturbed run that measures everything."""
    return start("watched", "monitor.kl=true", WARN)


def monitors(run: Path, iteration: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / f"iteration_{iteration:04d}" / "monitors.json").read_text())
    return found


def test_a_warning_is_shown_and_a_stop_ends_the_run_until_its_threshold_is_lifted(
    watched: Path, start: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start("stopped", WARN, STOP, status=1)
    first = capsys.readouterr()
    assert "\niteration 1 monitors: right 0." in first.out
    assert "\nwarning: iteration 1: tokens is " in first.out and "above warn_above 1: length itself" in first.out
    assert (
        "iteration 2: tokens_drift is " in first.err and "above stop_above 0.01 in 2 iterations in a row" in first.err
    )
    assert "set it to null and run the same command again" in first.err
    assert not (run / "iteration_0002" / "improve-prm.done").exists()
    done = {mark: mark.stat().st_mtime_ns for mark in run.rglob("*.done")}

    start("stopped", WARN, STOP, status=1)
    second = capsys.readouterr()
    assert "iteration 2: tokens_drift is " in second.err and "warning" not in second.out
    start("stopped", WARN)
    out = capsys.readouterr().out
    assert "warning" not in out.partition("monitors\n")[0] and "iteration 2 improve-policy done" in out
    assert {mark: mark.stat().st_mtime_ns for mark in done} == done  # Nothing that was done is done again.

    # What is learnt depends neither on the stop nor on what else is measured.
    assert (run / "metrics.jsonl").read_bytes() == (watched / "metrics.jsonl").read_bytes()
    assert {**monitors(run, 2), **kl_of(watched)} == monitors(watched, 2)
    assert "monitors.json" not in (run / "iteration_0002" / "score.done").read_text()

    start("stopped", "monitor.thresholds.tokens.stop_below=1e9", status=1)
    assert "iteration 1: tokens is " in capsys.readouterr().err  # A finished iteration counts as any other.


def kl_of(run: Path) -> dict[str, Any]:
    return {name: value for name, value in monitors(run, 2).items() if name.startswith("kl")}


def test_what_is_measured_is_what_the_files_say(watched: Path) -> None:
    row, samples = monitors(watched, 2), of(watched, Sample, 2, "samples")
    status = {
        sample.id: verdict.status
        for sample, verdict in zip(samples, of(watched, Verdict, 2, "verdicts"), strict=True)
    }  # fmt: skip
    assert row["samples"] == len(samples)
    assert row["tokens"] == pytest.approx(sum(len(one.response_ids) for one in samples) / len(samples), rel=1e-5)
    assert row["tokens_drift"] == pytest.approx(row["tokens"] / monitors(watched, 1)["tokens"], rel=1e-5)
    rights = [one == "right" for one in status.values() if one not in ("error", "timeout")]
    assert row["right"] == pytest.approx(sum(rights) / len(rights), rel=1e-5)
    scores = [one for one in of(watched, Score, 2, "scores") if one.source == "prm" and one.valid]
    assert row["sources"]["prm"]["scored"] == len(scores) < len(samples)  # Those of accepted problems.
    assert row["sources"]["prm"]["pair_accuracy"] == pytest.approx(pair_accuracy(samples, status, scores), rel=1e-5)
    assert row["sources"].keys() == {"prm"}
    first = monitors(watched, 1)["sources"]["prm"]  # The model is its own reference still.
    assert (first["pair_accuracy"], first["auc"], first["correlation"]) == (0.5, 0.5, None)
    assert first["last_least"] == pytest.approx(first["last_least_chance"], rel=1e-5)


def pair_accuracy(samples: list[Sample], status: dict[str, str], scores: list[Score]) -> float:
    problem = {sample.id: sample.problem_id for sample in samples}
    pairs = defaultdict(list)
    for good in scores:
        for bad in scores:
            same = problem[good.sample_id] == problem[bad.sample_id]
            if same and status[good.sample_id] == "right" and status[bad.sample_id] != "right":
                assert good.reward is not None and bad.reward is not None
                won = (good.reward > bad.reward) + 0.5 * (good.reward == bad.reward)
                pairs[problem[good.sample_id]].append(won)
    return sum(sum(own) / len(own) for own in pairs.values()) / len(pairs)


def test_the_divergence_is_that_of_the_checkpoint_that_drew_from_the_first(watched: Path) -> None:
    assert [monitors(watched, 1)[name] for name in ("kl", "kl_k3", "kl_response")] == [0, 0, 0]
    samples = of(watched, Sample, 2, "samples")
    own, base = (watched / place / "checkpoint" for place in ("iteration_0001/policy", "warmup/policy"))
    ratios = log_ratios(own, base, [as_scored(sample, 0) for sample in samples])
    row, every = monitors(watched, 2), sum(float(one.sum()) for one in ratios)
    # The sampler recorded its side, and rounds otherwise than the trainer.
    assert row["kl"] == pytest.approx(every / sum(map(len, ratios)), abs=1e-5)
    assert row["kl_response"] == pytest.approx(every / len(samples), abs=1e-4)
    assert row["kl_k3"] > 0


def test_what_no_sampler_recorded_is_computed(watched: Path) -> None:
    """As it is where some tokens could not be drawn, for then the recorded numbers are of another distribution."""
    config = load_config(watched / "config.yaml", ["grow.draft.top_p=0.9"])
    (part, *_) = records.parts(watched / "iteration_0002" / "samples")
    with Session(config, RunDir(watched)) as session, Logprobs(session, 2) as logprobs:
        found = list(distances(session, 2, part, logprobs))
    samples = records.read(part, Sample)
    own, base = (watched / place / "checkpoint" for place in ("iteration_0001/policy", "warmup/policy"))
    ratios = log_ratios(own, base, [as_scored(sample, 0) for sample in samples])
    assert [one.tokens for one in found] == [len(sample.response_ids) for sample in samples]
    assert [one.k1 for one in found] == pytest.approx([float(ratio.sum()) for ratio in ratios], abs=1e-5)


def test_reports_show_them_and_redoing_sets_them_aside(
    watched: Path, start: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["report", str(watched)]) == 0
    text, page = capsys.readouterr().out, (watched / "report.html").read_text()
    assert (
        "\nrewards by prm:\n" in text
        and f"warning: iteration 2: tokens is {monitors(watched, 2)['tokens']:.4g}" in text
    )
    assert "<h2>Monitors</h2>" in page and 'aria-label="Rewards by prm by iteration"' in page
    assert main(["status", str(watched)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("iteration 2 monitors: right 0.")
    before = (watched / "iteration_0002" / "monitors.json").read_bytes()
    start("watched", "monitor.kl=true", WARN, "--redo", "2/score")
    assert (watched / "redone" / "000" / "iteration_0002" / "monitors.json").read_bytes() == before
    assert (watched / "iteration_0002" / "monitors.json").read_bytes() == before
