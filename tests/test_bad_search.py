"""Settings of a search that do not go together are told in one line, before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from one_line import check_refused

from selftrain.checks.searching import check_searching
from selftrain.cli import main
from selftrain.config import check_tree, read_tree

CONFIG = Path(__file__).parent / "search.yaml"

BAD = [
    ("grow.tree.lanes=0", "grow.tree.lanes: must be at least 1, got 0"),
    ("grow.tree.budget.depth=0", "grow.tree.budget.depth: must be at least 1, got 0"),
    ("grow.tree.strategy.branch=0", "grow.tree.strategy: branch must be at least 1, got 0"),
    ("grow.tree.strategy=null", "grow.tree.strategy: a search needs one"),
    ("grow.tree.strategy.kind=mcts_sta", "did you mean 'mcts_star'?"),
    ("grow.tree.strategy.brunch=2", "grow.tree.strategy.brunch: unknown key"),
    ("grow.tree.value=null", "grow.tree.value: mcts_star asks what a path is worth"),
    ("grow.tree.value=learner:policy", "'learner:policy' is no value model"),
    ("grow.tree.value=learner:valve", "did you mean 'value'?"),
    ("grow.tree.value=reward:valeu", "grow.tree.value: 'reward:valeu' names no reward source (did you mean 'value'?)"),
    ("grow.tree.value=reward:verdict", "says nothing of unfinished responses"),
    (
        "grow.tree.value=reward:prm & reward.sources.prm={kind: implicit_prm, model: base, aggregation: min}",
        "grow.tree.value: a search reads the sum of reward:prm, and its aggregation is min",
    ),
    ("grow.tree.value=nowhere/at-all", "grow.tree.value: nowhere/at-all is no value model"),
    ("grow.tree.separator=;", "grow.tree.separator: no text of a response holds ';'"),
    ("grow.tree.separator=0=", "grow.tree.separator: '0=' stands in none of the 40 demonstrations"),
    ("grow.tree.separator='='", "grow.tree.separator: '=' is not what learner:value knows as the end of a step"),
    ("grow.tree.separator=''", "grow.tree.separator: is empty"),
    ("grow.tree.budget.tokens=5", "grow.tree.budget.tokens: 5 hold no step of budget.step_tokens=10"),
    (
        "grow.best={kind: search, strategy: best_of_n, max_tokens: 18, budget: {tokens: 17, step_tokens: 9}}",
        "grow.best.budget.tokens: 17 hold no whole response of max_tokens=18",
    ),
    *(
        (
            f"grow.best={{kind: search, strategy: {strategy}, value: learner:value, max_tokens: 18}}",
            f"grow.best.value: {strategy}, set as it is, asks nobody what a path is worth; remove it",
        )
        for strategy in ("uct", "monte_carlo", "omega_prm")
    ),
    (
        "grow.best={kind: search, strategy: best_of_n, max_tokens: 18, keep: chosen}",
        "grow.best.value: keep: chosen takes the response by values (value), and nobody gives any",
    ),
    (
        "grow.best={kind: search, strategy: {kind: uct, choose: weighted_vote}, max_tokens: 18, keep: chosen}",
        "takes the response by values (weighted_vote)",
    ),
    ("evaluate.search.mcts.strategy=null", "evaluate.search.mcts.strategy: a search needs one"),
    ("evaluate.search.mcts.strategy.brunch=2", "evaluate.search.mcts.strategy.brunch: unknown key"),
    ("evaluate.search.mcts.keep=all", "evaluate.search.mcts.keep: unknown key"),
    ("evaluate.search.mcts.budget.depth=0", "evaluate.search.mcts.budget.depth: must be at least 1, got 0"),
    ("evaluate.search.mcts.value=null", "evaluate.search.mcts.value: mcts_star asks what a path is worth"),
    ("evaluate.search.mcts.value=learner:valve", "evaluate.search.mcts.value: 'learner:valve' names no learner"),
    ("evaluate.search.mcts.separator='='", "evaluate.search.mcts.separator: '=' is not what learner:value knows"),
    ("evaluate.search.mcts.budget.tokens=5", "evaluate.search.mcts.budget.tokens: 5 hold no step of"),
    (
        "evaluate.search.vote.strategy.choose=value",
        "evaluate.search.vote.value: best_of_n takes the response by values",
    ),
    (
        "evaluate.search.found={strategy: uct}",
        "evaluate.search.found.strategy: uct, set as it is, asks the verifier while it searches, which knows the gold "
        "answers of what is evaluated; set strategy.reward to value and name who values",
    ),
    ("evaluate.search.found={strategy: monte_carlo}", "gold answers of what is evaluated; choose another"),
    (
        "evaluate.search={a/b: {strategy: {kind: best_of_n, choose: vote}}}",
        "evaluate.search.a/b: names a folder and a metric",
    ),
    ("loop.stop={metric: search_mctss}", "did you mean 'search_mcts'?"),
    ("grow.tree.n=4", "grow.tree.n: has no effect on a step of kind search"),
    ("grow.tree.enough=1", "grow.tree.enough: has no effect on a step of kind search"),
    ("grow.tree.model=other", "grow.tree.model: trees are grown with the policy alone"),
    (
        "grow.tree.sampler=openai & grow.tree.sampler.url=http://localhost:1/v1",
        "grow.tree.sampler: openai asks a server",
    ),
    ("grow.tree.kind=sample", "grow.tree.strategy: has no effect on a step of kind sample"),
    ("learners.policy.examples.own.from=gold", "learners.policy.examples.own"),
    ("learners.policy.examples.own.kind=tree_values", "learners.policy.examples.own.kind: nll learns from samples"),
    ("learners.value.examples.tree.kind=leaves", "learners.value.examples.tree.kind: mse learns from"),
    ("learners.value.examples.tree.cap=2", "learners.value.examples.tree.cap: has no effect on tree_values"),
]


@pytest.mark.parametrize(("change", "told"), BAD, ids=[change for change, _ in BAD])
def test_what_does_not_go_together_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, told: str
) -> None:
    command = ["run", str(CONFIG), f"run.folder={tmp_path}", "run.name=bad", *change.split(" & ")]
    check_refused(command, [told], capsys, unwritten=tmp_path / "bad")


def test_trees_are_asked_of_steps_that_grow_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["grow.draft={n: 2, max_tokens: 18}", "learners.policy.examples.own.from=draft"]
    assert main(["run", str(CONFIG), f"run.folder={tmp_path}", "run.name=bad", *changes]) == 2
    assert "leaves reads trees, and 'draft' grows none" in capsys.readouterr().err


def test_a_value_model_of_other_tokens_is_refused(
    tmp_path: Path, chat_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from selftrain.models.checkpoint import load_tokenizer
    from selftrain.models.head_form import HeadForm
    from selftrain.models.heads import load_value_model, save_value_model

    model = load_value_model(chat_model, HeadForm(separator=" "), dtype="float32", device="cpu")
    save_value_model(model, load_tokenizer(chat_model), tmp_path / "theirs")
    command = ["run", str(CONFIG), f"run.folder={tmp_path}", "run.name=bad", f"grow.tree.value={tmp_path}/theirs"]
    assert main(command) == 2
    assert "has another tokenizer than the policy" in capsys.readouterr().err


def test_a_dry_run_counts_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(CONFIG), f"run.folder={tmp_path}", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "grow tree: 8 trees, mcts_star by the values of learner:value, each of at most 600 tokens" in told
    assert "4,800 tokens per iteration, 2 at a time through transformers" in told
    assert (
        "  and by the search mcts: 8 trees, mcts_star by the values of learner:value, each of at most 240 tok" in told
    )


def test_the_page_on_searches_of_an_evaluation_shows_a_config_that_is_read() -> None:
    page = (CONFIG.parent.parent / "docs" / "search_evaluation.md").read_text()
    config = check_tree(read_tree(CONFIG) | yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0]))
    assert list(config.evaluate.search) == ["mcts", "beam", "votes"]
    check_searching(config)


def test_a_config_shows_what_its_kind_of_step_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", str(CONFIG)]) == 0
    searched = capsys.readouterr().out
    assert "lanes: 2" in searched and "enough: null" in searched
    assert main(["config", str(CONFIG.with_name("tiny.yaml"))]) == 0
    sampled = capsys.readouterr().out
    assert "lanes" not in sampled and "strategy" not in sampled
