"""Runs that search: trees on disk, samples of their leaves, what learners are taught of them, and kills."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from kill_driver import Driver, Trap
from runs import Run, of, runs

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.labelling.trees import path, value_targets
from selftrain.stages.trees import searched
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
    assert "iterations that have some: 1, 2" in capsys.readouterr().err
