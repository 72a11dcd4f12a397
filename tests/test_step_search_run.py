"""A run whose learners are taught steps of search trees: pairs of them, and shares of right completions."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.config import load_config
from selftrain.labelling.monte_carlo import of_nodes, progress
from selftrain.labelling.trees import path
from selftrain.session import Session
from selftrain.stages.examples import chosen_examples
from selftrain.stages.improve import warmup_examples
from selftrain.stages.tree_examples import tree_examples
from selftrain.stages.trees import Searched, searched
from selftrain.types import Example

CONFIG = Path(__file__).parent / "step_search.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    assert main(["run", str(CONFIG), f"run.folder={folder}"]) == 0
    return folder / "step-search"


def taught(run: Path, learner: str) -> list[Example]:
    parts = records.parts(run / "iteration_0001" / "examples" / learner)
    return [row for part in parts for row in records.rows(part, Example)]


def trees(run: Path, step: str) -> list[Searched]:
    return list(searched(RunDir(run), 1, step))


def numbers(example: Example) -> dict[int, float]:
    return {place: target for place, target in enumerate(example.targets or ()) if not math.isnan(target)}


def sides(run: Path, learner: str) -> dict[str, dict[str, Example]]:
    found: dict[str, dict[str, Example]] = {}
    for one in taught(run, learner):
        found.setdefault(str(one.pair_id), {})[str(one.role)] = one
    return found


def log(run: Path, learner: str) -> list[dict[str, Any]]:
    lines = (run / "iteration_0001" / learner / "log.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def test_pairs_of_steps_teach_a_preference_model(run: Path) -> None:
    grown = {tree.nodes[0].tree_id: tree.nodes for tree in trees(run, "tree")}
    pairs = sides(run, "preferred")
    assert len(pairs) > 10
    for name, both in pairs.items():
        tree, _, places = name.removeprefix("1/").partition("/")
        chosen, rejected = (grown[tree][int(place)] for place in places.split(">"))
        assert chosen.parent == rejected.parent
        assert chosen.value_sum / chosen.visits > rejected.value_sum / rejected.visits
        before = tuple(token for place in path(grown[tree], chosen.parent) for token in grown[tree][place].ids)
        for node, role, target in ((chosen, "chosen", 1.0), (rejected, "rejected", 0.0)):
            prompt = both[role].prompt_ids
            assert both[role].response_ids == node.ids and prompt[len(prompt) - len(before) :] == before
            assert numbers(both[role]) == {len(node.ids) - 1: target}
    assert max(Counter(both["chosen"].problem_id for both in pairs.values()).values()) <= 6
    first = log(run, "preferred")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)  # All values of a fresh head are alike.
    told = json.loads((run / "iteration_0001/preferred/checkpoint/value_head.json").read_text())
    assert told["normaliser"] == "tanh"


def test_pairs_of_a_problem_are_counted_over_all_iterations(run: Path) -> None:
    reasons: Counter[str] = Counter()
    with Session(load_config(str(CONFIG), [f"run.folder={run.parent}"]), RunDir(run)) as session:
        made = list(tree_examples(session, [1, 1], "preferred", "steps", reasons))
    once, twice = (
        Counter(one.problem_id for one in examples if one.role == "chosen")
        for examples in (taught(run, "preferred"), made)
    )
    assert twice == {problem: min(6, 2 * count) for problem, count in once.items()}
    assert reasons["over the cap"] == sum(count == 6 for count in once.values()) > 0
    assert reasons["kept"] == len(made)


def test_the_same_pairs_teach_the_policy_by_dpo(run: Path) -> None:
    pairs, same = sides(run, "policy"), sides(run, "preferred")
    assert pairs.keys() == same.keys()
    for name, both in pairs.items():
        for role, one in both.items():
            assert one.response_ids == same[name][role].response_ids and one.targets is None
    assert log(run, "policy")[0]["loss"] == pytest.approx(math.log(2), abs=1e-3)
    assert (run / "iteration_0001/policy/checkpoint/config.json").exists()


@pytest.mark.parametrize("learner", ["soft", "hard"])
def test_shares_of_right_completions_are_taught_as_they_are_or_as_labels(run: Path, learner: str) -> None:
    for step in ("shares", "bisected"):
        expected = [
            share for tree in trees(run, step) for share in of_nodes(tree.nodes, is_hard=learner == "hard").values()
        ]
        found = [target for one in taught(run, learner) if one.source == step for target in numbers(one).values()]
        assert sorted(found) == pytest.approx(sorted(expected), abs=1e-6)
        assert 0.0 in found and any(target > 0 for target in found)
        assert learner == "hard" or any(0 < target < 1 for target in found)
        assert learner == "soft" or set(found) == {0.0, 1.0}


def test_labels_are_taught_that_a_reward_source_agrees_with(run: Path) -> None:
    """A fresh head gives every step 0.5, which is right here: agreement is on responses without a wrong step."""
    expected = 0
    for nodes, _ in trees(run, "shares"):
        own = of_nodes(nodes, is_hard=True)
        for leaf in (node for node in nodes if node.state == "end"):
            labels = [own.get(place) for place in path(nodes, leaf.node_id)[1:]]
            expected += len(labels) if set(labels) == {1.0} else 0
    found = [target for one in taught(run, "agreed") for target in numbers(one).values()]
    assert found == [1.0] * expected and 0 < expected < len(taught(run, "hard"))


def test_progress_is_taught_from_step_to_step(run: Path) -> None:
    expected = []
    for nodes, _ in trees(run, "shares"):
        above = {node.parent for node in nodes}
        for leaf in (node for node in nodes[1:] if node.node_id not in above):  # No step of these trees is shared.
            route = [nodes[place].mc for place in path(nodes, leaf.node_id)[1:]]
            expected += [label for label in progress(route, nodes[0].mc) if label is not None]
    found = [target for one in taught(run, "progress") for target in numbers(one).values()]
    assert sorted(found) == sorted(expected) and set(found) == {0.0, 1.0}


def test_values_are_taught_behind_the_prompt_they_are_asked_with(run: Path) -> None:
    """Also where a task has another one to teach, which is for those that write."""
    words = [f"run.folder={run.parent}", "tasks.arithmetic.train_prompt.template='{question} '"]
    with Session(load_config(str(CONFIG), [*words, "warmup.soft={}"]), RunDir(run)) as session:
        for learner, name, prompt in (
            ("preferred", "steps", "prompt"),
            ("soft", "shares", "prompt"),
            ("policy", "steps", "train_prompt"),
        ):
            prompter = session.prompters[prompt]["arithmetic"]
            made = list(chosen_examples(session, 1, learner, name)[0])
            assert made
            for one in made:
                ids = prompter.ids(session.problems.by_id[one.problem_id])
                other = {"prompt": "train_prompt", "train_prompt": "prompt"}[prompt]
                unlike = session.prompters[other]["arithmetic"].ids(session.problems.by_id[one.problem_id])
                assert one.prompt_ids[: len(ids)] == ids != unlike
        for learner, prompt in (("soft", "prompt"), ("policy", "train_prompt")):
            own = session.prompters[prompt]["arithmetic"]
            first = warmup_examples(session, learner)[0]
            assert first.prompt_ids == own.ids(session.problems.by_id[first.problem_id])
