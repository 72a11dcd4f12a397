"""What searches of an evaluation draw is counted: in the budget of a run, and in the estimate before it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selftrain.artifacts import RunDir
from selftrain.checks.workload import Assumed, Workload
from selftrain.config import load_config
from selftrain.session import Session
from selftrain.spending.tokens import held, spent

SMOKE = Path(__file__).resolve().parent.parent / "configs" / "smoke.yaml"


def test_all_that_its_trees_drew_counts(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    folder = run.iteration(1) / "evaluation"
    trees = folder / "search" / "mcts" / "trees"
    trees.mkdir(parents=True)
    answers = pa.table({"response_ids": [[1, 2, 3], [4, 5]]})
    pq.write_table(answers, folder / "arithmetic-val.parquet")
    # The answers that were chosen are among what the trees drew.
    pq.write_table(answers, folder / "search" / "mcts" / "arithmetic-val.parquet")
    for number, tokens in enumerate((70, 9)):
        cost = {"spent": {"policy_tokens": tokens, "value_tokens": 1000}}
        (trees / f"arithmetic-val-{number:05d}.json").write_text(json.dumps(cost))
    assert held(folder) == 5
    assert spent(run, 1) == {"evaluate": 5 + 79}


def test_what_its_trees_may_draw_is_expected(tmp_path: Path) -> None:
    search = "{strategy: {kind: best_of_n, n: 4}, budget: %s}"
    drawn = []
    for number, budget in enumerate((None, "{tokens: 300}", "{proposals: 4}")):
        given = [] if budget is None else [f"evaluate.search={{votes: {search % budget}}}"]
        with Session(load_config(SMOKE, given), RunDir(tmp_path / str(number))) as session:
            work = Workload(session, Assumed(20)).evaluate(1)
        assert work.samples == 3 * 250
        drawn.append(work.drawn)
    plain, tokens, proposals = drawn
    assert (tokens - plain, proposals - plain) == (250 * 300, 250 * 4 * 20)
