"""Runs of searches that choose by votes, ask verifiers while they go, or follow an implicit process reward model."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scored import log_ratios

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.config import load_config
from selftrain.errors import RunError
from selftrain.labelling.trees import path
from selftrain.planning import fingerprints
from selftrain.search.tree import Tree
from selftrain.stages.search import check_separated
from selftrain.stages.tree_costs import Reading, cost
from selftrain.stages.trees import Searched, grown_parts, right_and_wrong, searched
from selftrain.types import Example, Sample, TreeNode, Verdict

CONFIG = Path(__file__).parent / "searches.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    folder = tmp_path_factory.mktemp("searches")
    assert main(["run", str(CONFIG), f"run.folder={folder}", f"reward.sources.ratio.model={tiny}"]) == 0
    return folder / "searches"


def trees(run: Path, step: str) -> list[Searched]:
    found = list(searched(RunDir(run), 1, step))
    assert len(found) == 8
    return found


def costs(run: Path, step: str) -> dict[str, Any]:
    [file] = (run / "iteration_0001" / "trees").glob(f"{step}-*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def of(run: Path, kind: type, folder: str, step: str) -> list[Any]:
    parts = records.parts(run / "iteration_0001" / folder, f"{step}-")
    return [row for part in parts for row in records.rows(part, kind)]


def ids(nodes: list[TreeNode], node: int) -> tuple[int, ...]:
    return tuple(token for place in path(nodes, node) for token in nodes[place].ids)


def test_the_answer_of_most_responses_is_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, verdicts = of(run, Sample, "samples", "vote"), of(run, Verdict, "verdicts", "vote")
    answers = {sample.problem_id: verdict.answer for sample, verdict in zip(samples, verdicts, strict=True)}
    assert len(answers) == len(samples) >= 6
    found, decided = costs(run, "vote")["found"], 0
    for nodes, _ in trees(run, "vote"):
        problem, kept = nodes[0].problem_id, [node for node in nodes if node.sample_id is not None]
        assert [node.node_id for node in kept] == ([found[nodes[0].tree_id]] if problem in answers else [])
        whole = ["".join(nodes[at].text for at in path(nodes, n.node_id)) for n in nodes if n.state == "end"]
        votes = Counter(text.partition("#")[2].strip() for text in whole if "#" in text)
        if problem in answers:
            assert votes[answers[problem]] == max(votes.values())
            decided += len(votes) > 1
    assert decided
    assert main(["status", str(run), "--tree", samples[0].problem_id]) == 0
    assert "* leads to the answer the search chose" in capsys.readouterr().out


def test_uct_is_rewarded_by_verdicts(run: Path) -> None:
    seen = 0
    for nodes, right in trees(run, "uct"):
        assert nodes[0].visits <= 4 and all(node.value is None for node in nodes)
        for node in nodes:
            if node.node_id in right and node.visits:
                assert node.value_sum == (1.0 if right[node.node_id] else -1.0) * node.visits
                seen += 1
    assert seen >= 8
    assert costs(run, "uct")["spent"]["judged"] >= seen


def test_steps_get_the_share_of_their_completions(run: Path) -> None:
    for step, completions in (("shares", 3), ("errors", 3)):
        found = 0
        for nodes, right in trees(run, step):
            for node in nodes[1:]:
                if node.state == "end":
                    assert node.mc == float(right[node.node_id])
                elif node.mc is not None:
                    assert round(node.mc * completions, 4) in range(completions + 1)
                    found += 1
        assert found >= (8 if step == "shares" else 1)


def test_a_path_is_worth_sigma_of_its_scaled_log_ratio(run: Path, tiny: Path) -> None:
    base = run / "warmup" / "policy" / "checkpoint"
    samples = {sample.problem_id: sample for sample in of(run, Sample, "samples", "guided")}
    checked = 0
    for nodes, _ in trees(run, "guided"):
        if nodes[0].problem_id not in samples:
            continue
        valued = [node for node in nodes if node.value is not None]
        prompt = samples[nodes[0].problem_id].prompt_ids
        examples = [Example("", "", "", prompt, ids(nodes, node.node_id)) for node in valued]
        ratios = [0.1 * float(own.sum()) for own in log_ratios(tiny, base, examples)]
        assert [node.value for node in valued] == pytest.approx(
            [1 / (1 + 2.718281828**-one) for one in ratios], abs=1e-4
        )
        checked += len(valued)
    assert checked > 40
    spent = costs(run, "guided")["spent"]
    assert spent["tokens_read"] > 2 * spent["value_tokens"]  # By two models, each path from its beginning.
    assert costs(run, "uct")["spent"]["tokens_read"] == 0


def test_who_chooses_by_votes_depends_on_the_verifier() -> None:
    def judging(*overrides: str) -> set[str]:
        only = ["grow.uct=null", "grow.shares=null", "grow.errors=null", "grow.guided=null", *overrides]
        return {key for key in fingerprints.grow(load_config(CONFIG, only)) if key.startswith("judging.")}

    assert judging() and judging("grow.vote.strategy.choose=weighted_vote")
    assert not judging("grow.vote.keep=all")
    assert not judging("grow.vote.strategy.choose=value")


def test_how_fast_paths_are_read_is_no_part_of_a_fingerprint() -> None:
    found = fingerprints.grow(load_config(CONFIG, ["grow.guided.cached_tokens=5"]))
    assert found == fingerprints.grow(load_config(CONFIG, []))


def test_a_separator_that_ends_no_step_stops_all_but_best_of_n() -> None:
    grow = load_config(CONFIG, []).grow
    check_separated("grow.vote", grow["vote"], 16, 0)
    for step in ("shares", "uct", "guided"):
        check_separated(f"grow.{step}", grow[step], 15, 0)
        check_separated(f"grow.{step}", grow[step], 16, 1)
        with pytest.raises(RunError, match=f"grow.{step}.separator: none of 16 steps ended with ' '"):
            check_separated(f"grow.{step}", grow[step], 16, 0)


def test_warnings_are_counted_by_tree_and_paths_read_whole_are_one() -> None:
    trees = [Tree("p", warnings=["some values lay outside [0, 1] and were cut to it"]) for _ in range(3)]
    found = cost([*trees, Tree("q")], Reading(70, "it has a window"))
    assert found["warnings"] == {
        "some values lay outside [0, 1] and were cut to it": 3,
        "the value model reads every path from its beginning (it has a window)": 4,
    }
    assert (found["spent"]["trees"], found["spent"]["tokens_read"]) == (4, 70)


def test_values_are_compared_by_the_verdicts_of_each_tree(run: Path, tmp_path: Path) -> None:
    """Right responses are given 0.25 and wrong ones 0.5: as many pairs as each tree has, one after the other."""
    folder, grown = tmp_path / "iteration_0001", trees(run, "errors")
    shutil.copytree(run / "iteration_0001" / "verdicts", folder / "verdicts")
    worth = {True: 0.25, False: 0.5}
    rows = [
        replace(node, value=worth[tree.right[node.node_id]] if node.node_id in tree.right else node.value)
        for tree in grown
        for node in tree.nodes
    ]
    [part] = records.parts(run / "iteration_0001" / "trees", "errors-")
    records.write(folder / "trees" / part.name, TreeNode, rows)
    counts = [Counter(tree.right.values()) for tree in grown]
    expected = [(0.25, 0.5)] * sum(count[True] * count[False] for count in counts)
    assert expected and list(right_and_wrong(grown_parts(RunDir(tmp_path), 1, "errors"))) == expected
