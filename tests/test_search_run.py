"""Runs that search: trees on disk, samples of their leaves, what learners are taught of them, kills, and
evaluations by searches."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kill_driver import Driver, Trap
from shared_runs import Run, of, runs

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.labelling.trees import path, value_targets
from selftrain.stages.search_evaluation import evaluated_parts
from selftrain.stages.trees import Searched, searched, searched_in
from selftrain.types import Example, Sample, TreeNode, Verdict

CONFIG = Path(__file__).parent / "search.yaml"


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return runs(CONFIG, tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def run(start: Run) -> Path:
    return start("whole")


def trees(run: Path, iteration: int, step: str = "") -> list[list[TreeNode]]:
    return [tree.nodes for tree in searched(RunDir(run), iteration, step)]


def response(nodes: list[TreeNode], node: int) -> tuple[int, ...]:
    return tuple(token for place in path(nodes, node) for token in nodes[place].ids)


def test_every_problem_has_a_tree_within_its_budget(run: Path) -> None:
    for iteration in (1, 2):
        for step, bound in (("beam", 400), ("tree", 600)):
            grown = trees(run, iteration, step)
            assert len({nodes[0].problem_id for nodes in grown}) == len(grown) == 8
            for nodes in grown:
                assert sum(len(node.ids) for node in nodes) <= bound
                assert max(node.depth for node in nodes) <= 5
                assert all(len(node.ids) <= 10 for node in nodes)
            files = sorted((run / f"iteration_{iteration:04d}" / "trees").glob(f"{step}-*.json"))
            assert len(files) == {"beam": 1, "tree": 4}[step]  # As many trees a part as grow together.
            spent = [json.loads(file.read_text())["spent"] for file in files]
            assert sum(one["trees"] for one in spent) == 8
            assert sum(one["nodes"] for one in spent) == sum(map(len, grown))
            assert all(one["policy_tokens"] + one["value_tokens"] <= bound * one["trees"] for one in spent)


def test_steps_end_with_their_separator_and_responses_with_the_end_token(run: Path) -> None:
    ended = 0
    for nodes in trees(run, 1) + trees(run, 2):
        for node in nodes[1:]:
            assert node.prior is not None and node.prior <= 0
            if node.state == "open":
                assert node.text.endswith(" ") and node.text.strip()
            if node.state == "end":
                ended += 1
                assert " " not in node.text.rstrip()
            if node.value is not None:
                assert 0 <= node.value <= 1
    assert ended > 20


def test_every_end_is_a_sample_and_is_judged(run: Path) -> None:
    for iteration in (1, 2):
        samples = {sample.id: sample for sample in of(run, Sample, iteration, "samples")}
        judged = [
            id
            for part in records.parts(run / f"iteration_{iteration:04d}" / "verdicts")
            for id in records.column(part, "sample_id")
        ]
        assert sorted(judged) == sorted(samples)
        ends = {
            node.sample_id: (nodes, node) for nodes in trees(run, iteration) for node in nodes if node.state == "end"
        }
        assert ends.keys() == samples.keys()
        for id, (nodes, node) in ends.items():
            assert samples[id].response_ids == response(nodes, node.node_id)
            assert samples[id].finish_reason == "eos"
            assert samples[id].problem_id == node.problem_id
        by_tree: dict[tuple[str, str], list[int]] = {}
        for sample in samples.values():
            by_tree.setdefault((sample.problem_id, sample.step), []).append(sample.index)
        assert all(sorted(indices) == list(range(len(indices))) for indices in by_tree.values())


def test_values_are_taught_once_for_every_step(run: Path) -> None:
    taught = of(run, Example, 2, "examples", "value")
    assert taught
    for step in ("tree", "beam"):
        expected = [
            number
            for tree in searched(RunDir(run), 2, step)
            for node, number in value_targets(tree.nodes, tree.right).items()
            if tree.nodes[node].ids
        ]
        found = [
            number
            for example in taught
            if example.source == step
            for number in example.targets
            if not math.isnan(number)
        ]
        assert sorted(found) == pytest.approx(sorted(expected), abs=1e-6)
    for example in taught:
        assert len(example.targets) == len(example.response_ids)
        assert not math.isnan(example.targets[-1])


def test_the_policy_is_taught_right_leaves_that_are_worth_it(run: Path) -> None:
    ends = {node.sample_id: node for nodes in trees(run, 2) for node in nodes if node.sample_id}
    parts = records.parts(run / "iteration_0002" / "verdicts")
    status = {
        id: verdict.status
        for part in parts
        for id, verdict in zip(records.column(part, "sample_id"), records.rows(part, Verdict), strict=True)
    }
    taught = [one for one in of(run, Example, 2, "examples", "policy") if one.source in ("own", "beam")]
    assert taught
    for example in taught:
        assert status[example.sample_id] == "right"
        assert example.source == "beam" or (ends[example.sample_id].value or 0.0) > 0.1


@pytest.mark.parametrize(
    "trap",
    [
        Trap("replaced", "trees/tree-00001.parquet"),
        Trap("write", "samples/.tree-00001"),
    ],
    ids=["trees without samples", "half of the samples"],
)
def test_a_killed_search_ends_as_an_undisturbed_one(run: Path, driver: Driver, trap: Trap) -> None:
    name = f"killed-{trap.event}-{Path(trap.path).stem}"
    command = ["run", str(CONFIG), f"run.folder={run.parent}", f"run.name={name}"]
    assert driver.run(command, trap).status == -9
    killed = run.with_name(name)
    kept = {part: part.stat().st_mtime_ns for part in records.parts(killed / "iteration_0001" / "samples")}
    assert kept
    ended = driver.run(command)
    assert ended.status == 0, ended.err
    assert all(part.stat().st_mtime_ns == time for part, time in kept.items())
    assert (killed / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    for iteration in (1, 2):
        assert trees(killed, iteration) == trees(run, iteration)


def test_a_tree_is_shown_as_text_and_as_a_picture(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = trees(run, 2, "tree")[0][0].problem_id
    assert main(["status", str(run), "--tree", problem.rpartition("/")[2]]) == 0
    out = capsys.readouterr().out
    assert f"{problem}, iteration 2, grow.tree:" in out and "└─" in out
    pictures = [Path(line.removeprefix("picture: ")) for line in out.splitlines() if line.startswith("picture: ")]
    assert pictures and all(picture.read_text().startswith("<svg") for picture in pictures)
    assert pictures[0].parent == run / "pictures" / "iteration_0002"
    assert out.count("* leads to the complete response of the largest value") == len(pictures)
    assert {file.suffix for file in (run / "iteration_0002" / "trees").iterdir()} == {".json", ".parquet"}


def test_a_tree_that_is_not_there_is_told_with_near_names(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = trees(run, 2, "tree")[0][0].problem_id
    assert main(["status", str(run), "--tree", problem[:-1]]) == 2
    assert f"no such problem was searched in iteration 2 (did you mean '{problem}'?)" in capsys.readouterr().err
    assert main(["status", str(run), "--tree", problem, "--iteration", "7"]) == 2
    assert "iterations that have some: 0, 1, 2" in capsys.readouterr().err


def answered(run: Path, iteration: int, name: str) -> dict[str, str]:
    """Status of the answer to each problem of val by a search of the evaluation, as far as there is one."""
    path = run / f"iteration_{iteration:04d}/evaluation/search/{name}/arithmetic-val.parquet"
    return dict(zip(*records.columns(path, "problem_id", "status"), strict=True))


def grown_for(run: Path, iteration: int, name: str) -> list[Searched]:
    return [tree for part in evaluated_parts(RunDir(run), iteration, name) for tree in searched_in(part)]


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_checkpoint_is_evaluated_by_searches_with_what_they_cost(run: Path) -> None:
    rows = metrics(run)
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    for row in rows:
        for name, parts in (("mcts", 4), ("vote", 1)):
            status, grown = answered(run, row["iteration"], name), grown_for(run, row["iteration"], name)
            assert len(grown) == row["n_problems"] == 8
            assert row[f"search_{name}"] == Counter(status.values())["right"] / 8
            assert row[f"search_{name}_low"] <= row[f"search_{name}"] <= row[f"search_{name}_high"]
            assert row.get(f"search_{name}_unanswered", 0.0) == 1 - len(status) / 8
            test = row[f"search_{name}_vs_maj"]
            assert test["difference"] == pytest.approx(row[f"search_{name}"] - row["maj@2"], abs=1e-6)
            files = evaluated_parts(RunDir(run), row["iteration"], name)
            spent: Counter[str] = Counter()
            for file in files:
                spent.update(json.loads(file.path.with_suffix(".json").read_text())["spent"])
            assert len(files) == parts  # As many trees a part as grow together.
            assert spent["policy_tokens"] == 8 * row[f"search_{name}_policy_tokens"] > 0
            assert spent["value_tokens"] == 8 * row[f"search_{name}_value_tokens"]
            assert spent["judged"] == 0  # Nobody is told what is right.
            if name == "mcts":
                assert spent["tokens"] > 0 or spent["policy_tokens"] + spent["value_tokens"] <= 8 * 240
                assert spent["value_tokens"] > 0
        assert not (run / f"iteration_{row['iteration']:04d}/evaluation/search/mcts/unjudged").exists()


def test_the_answer_that_counts_is_the_one_the_strategy_chooses(run: Path) -> None:
    decided = 0
    for iteration in (0, 1, 2):
        for nodes, right in grown_for(run, iteration, "vote"):
            ends = [node for node in nodes if node.state == "end"]
            texts = ["".join(nodes[at].text for at in path(nodes, end.node_id)) for end in ends]
            votes = Counter(text.partition("#")[2].strip() for text in texts)
            chosen = [node for node in nodes if node.sample_id is not None]
            assert len(chosen) == len(right) <= bool(votes)
            if chosen and "" not in votes:  # Of a text without a mark the verifier takes the last number.
                [text] = [text for text, end in zip(texts, ends, strict=True) if end is chosen[0]]
                assert votes[text.partition("#")[2].strip()] == max(votes.values())
                decided += len(votes) > 1
        for nodes, _ in grown_for(run, iteration, "mcts"):
            chosen = [node for node in nodes if node.sample_id is not None]
            assert len(chosen) == any(node.state == "end" for node in nodes)
    assert decided


def test_a_killed_search_of_an_evaluation_goes_on_with_the_parts_it_finished(run: Path, driver: Driver) -> None:
    killed = Path(shutil.copytree(run, run.with_name("killed-evaluation")))
    command = ["run", str(CONFIG), f"run.folder={run.parent}", f"run.name={killed.name}"]
    trap = Trap("replaced", "iteration_0002/evaluation/search/mcts/trees/arithmetic-val-00002.parquet")
    assert driver.run([*command, "--redo", "2/evaluate"], trap).status == -9
    folder = killed / "iteration_0002/evaluation/search/mcts"
    kept = {part: part.stat().st_ino for part in records.parts(folder / "unjudged")}
    assert len(kept) == 2 and len(records.parts(folder / "trees")) == 3
    trees_kept = {path: path.stat().st_ino for path in records.parts(folder / "trees")[:2]}
    assert driver.run(command).status == 0
    assert {path: path.stat().st_ino for path in trees_kept} == trees_kept
    assert (killed / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    for name in ("mcts", "vote"):
        assert grown_for(killed, 2, name) == grown_for(run, 2, name)


def test_another_search_keeps_the_samples_and_the_searches_that_are_the_same(run: Path, driver: Driver) -> None:
    other = Path(shutil.copytree(run, run.with_name("other-search")))
    command = ["run", str(CONFIG), f"run.folder={run.parent}", f"run.name={other.name}"]
    change = "evaluate.search.mcts.strategy.iterations=2"
    refused = driver.run([*command, change])
    assert refused.status == 2 and "search.mcts.strategy.iterations" in refused.err
    flags = [word for number in range(3) for word in ("--redo", f"{number}/evaluate")]
    assert "(samples and searches that are the same stay) with " + " ".join(flags) in refused.err
    files = ("arithmetic-val.parquet", "search/vote/arithmetic-val.parquet")
    same = [f"iteration_{number:04d}/evaluation/{file}" for number in range(3) for file in files]
    before = {place: (other / place).stat().st_mtime_ns for place in same}
    lone = "evaluate.search.lone={strategy: {kind: best_of_n, n: 2}, value: learner:value, separator: ' '}"
    ended = driver.run([*command, change, lone, *flags])
    assert ended.status == 0, ended.err
    assert {place: (other / place).stat().st_mtime_ns for place in same} == before
    for old, new in zip(metrics(run), metrics(other), strict=True):
        assert new["search_vote"] == old["search_vote"] and new["avg@2"] == old["avg@2"]
        assert new["search_mcts_policy_tokens"] < old["search_mcts_policy_tokens"]
        assert 0 < new["search_lone_value_tokens"] <= new["search_lone_policy_tokens"]
    assert (other / "redone/000/iteration_0000").exists()


def test_a_tree_of_an_evaluation_is_shown(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = grown_for(run, 2, "vote")[0].nodes[0].problem_id
    assert main(["status", str(run), "--tree", problem]) == 0
    out = capsys.readouterr().out
    for name in ("mcts", "vote"):
        assert f"{problem}, iteration 2, evaluate.search.{name}:" in out
    assert "* leads to the answer the search chose" in out and out.count("picture: ") == 2


def test_the_report_tells_what_searches_answer_and_take(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    told, row = capsys.readouterr().out, metrics(run)[-1]
    assert "arithmetic / val, searches at iteration 2, 8 problems" in told and "search mcts - maj@2: " in told
    drawn, read = (f"{row[f'search_mcts_{kind}_tokens']:,.0f}" for kind in ("policy", "value"))
    [line] = [line.split() for line in told.splitlines() if line.strip().startswith("search mcts  ") and "[" in line]
    assert line[-2:] == [drawn, read]
    assert "<h3>Searches, iteration 2</h3>" in (run / "report.html").read_text()


def test_a_checkpoint_is_evaluated_by_the_searches_of_its_run(run: Path, tmp_path: Path) -> None:
    checkpoint = run / "iteration_0002/policy/checkpoint"
    command = ["evaluate", str(checkpoint), "--task", "arithmetic", "--split", "val", f"--output={tmp_path}/out"]
    assert main([*command, "evaluate.search.vote=null"]) == 0
    [row] = metrics(tmp_path / "out")
    assert row["pass@1"] == metrics(run)[-1]["pass@1"]
    assert row["search_mcts_value_tokens"] > 0 and "search_vote" not in row
    value = (tmp_path / "out/config.yaml").read_text()
    assert f"value: {run}/iteration_0002/value/checkpoint" in value
