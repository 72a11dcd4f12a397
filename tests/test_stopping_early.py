"""Stopping early by index, and responses that outlive a kill: the ledger, the journal, and a Grow that uses them."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from selftrain import records
from selftrain.cli import main
from selftrain.drawing.journal import Journal
from selftrain.drawing.ledger import Ledger
from selftrain.sampling.base import AllWanted, Begun, Completion, Request
from selftrain.sampling.order import order
from selftrain.schema import Sampling
from selftrain.types import Example, Problem, Sample, Verdict

ENOUGH = 2
RAMBLING = f"{Path(__file__).parent}/plugins/samplers.py:Rambling"


def work(n: int, problems: int = 3) -> list[Request]:
    return [
        Request(Problem(f"t/train/{p}", "t", "train", str(p)), (1, 2), tuple(range(n)), Sampling())
        for p in range(problems)
    ]


def response(request: int, index: int, length: int = 3) -> Completion:
    return Completion(request, index, tuple(range(length)), "x", "eos")


def kept_of_all(rights: list[bool]) -> list[int]:
    """What full sampling keeps: everything up to the K-th right sample in order of index."""
    seen = 0
    for index, right in enumerate(rights):
        seen += right
        if seen == ENOUGH:
            return list(range(index + 1))
    return list(range(len(rights)))


@pytest.mark.parametrize("seed", range(20))
def test_what_is_kept_depends_on_the_index_and_not_on_who_finishes_first(seed: int) -> None:
    draw = random.Random(seed)
    rights = [[draw.random() < 0.4 for _ in range(8)] for _ in range(3)]
    ledger = Ledger(work(8), enough=ENOUGH)
    places = [(r, i) for r in range(3) for i in range(8)]
    draw.shuffle(places)  # Of any speed, and judged in any order.
    pending: list[tuple[int, int]] = []
    for place in places:
        ledger.finish([response(*place)])
        pending.append(place)
        if draw.random() < 0.5:
            request, index = pending.pop(draw.randrange(len(pending)))
            ledger.judge(request, index, rights[request][index])
    for request, index in pending:
        ledger.judge(request, index, rights[request][index])
    for request in range(3):
        assert ledger.complete(request)
        assert [c.index for c in ledger.take(request)] == kept_of_all(rights[request])


def test_later_samples_become_superfluous_and_earlier_ones_never() -> None:
    ledger = Ledger(work(6, 1), enough=ENOUGH)
    for index in (1, 4):
        ledger.finish([response(0, index)])
        ledger.judge(0, index, True)
    assert ledger.dropped() == [(0, 5)] and ledger.dropped() == []
    assert [index for index in range(6) if ledger.wanted(0, index)] == [0, 2, 3]
    assert not ledger.complete(0)
    ledger.finish([response(0, 0)])
    ledger.judge(0, 0, True)  # Now the second right one is index 1.
    assert ledger.dropped() == [(0, 2), (0, 3), (0, 4)]
    assert [c.index for c in ledger.take(0)] == [0, 1]
    assert (ledger.kept, ledger.taken, ledger.spared, ledger.drawn) == (6, 2, 4, 9)


def test_a_request_waits_for_the_verdicts_that_may_still_shorten_it() -> None:
    ledger = Ledger(work(2, 1), enough=1)
    ledger.finish([response(0, 0), response(0, 1)])
    ledger.judge(0, 1, True)
    assert not ledger.complete(0)
    ledger.judge(0, 0, False)
    assert ledger.complete(0)


def test_first_samples_of_a_block_come_before_second_ones_where_later_ones_may_be_superfluous() -> None:
    assert list(order(work(2), AllWanted(), block=2)) == [(r, i) for r in range(3) for i in range(2)]
    waves = list(order(work(2), AllWanted(by_index=True), block=2))
    assert waves == [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (2, 1)]


def test_a_journal_gives_back_what_was_finished_and_what_was_begun(tmp_path: Path) -> None:
    path = tmp_path / "draft.journal"
    done = Completion(1, 0, (5, 6, 7), "abc", "eos", (-0.5, -0.25, -1.0), "engine", (2,))
    first = Journal(path)
    first.grown((0, 0), [1, 2], None)
    first.grown((1, 0), [5, 6], [-0.5, -0.25])
    first.grown((0, 0), [3], None)
    first.finish([done])
    first.close()
    second = Journal(path)
    assert second.finished == [done] and second.begun == {(0, 0): Begun((1, 2, 3))}
    second.grown((0, 0), [4], None)
    second.close()
    with path.open("ab") as file:
        file.write(b'{"at":[0,0],"ids":[9')  # A kill in the middle of a line.
    third = Journal(path)
    assert third.begun == {(0, 0): Begun((1, 2, 3, 4), None, (3,))}
    third.close()


def test_a_ledger_takes_up_what_its_journal_holds(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    before = Ledger(work(2, 2), journal=journal)
    before.finish([response(0, 1), response(1, 0)])
    before.grown(0, 0, [7], None)
    journal.close()
    reopened = Journal(tmp_path / "j", [1])  # Its part is on disk.
    after = Ledger(work(2, 2), journal=reopened, closed=[1])
    assert after.recover() == [response(0, 1)] and after.recover() == [] == reopened.finished
    assert after.drawn == 3
    assert after.begun(0, 0) == Begun((7,))
    assert list(order(work(2, 2), after, 1)) == [(0, 0)]
    reopened.close()


CONFIG = """
run: {{name: {name}, folder: {folder}, part_size: 40}}
model:
  architecture: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 64}}
  alphabet: "0123456789+-*= #"
tasks:
  arithmetic: {{sizes: {{demonstrations: 30, train: 40, val: 10, test: 20, transfer: 5}}, lengths: [1, 2]}}
grow: {{draft: {{n: 16, max_tokens: 24, sampler: {{kind: scripted, accuracy: 0.4}}}}}}
learners: {{policy: {{examples: {{own: {{from: draft, verdict: right, cap: 2}}}}, optim: {{steps: 1}}}}}}
evaluate: {{n: 0}}
loop: {{iterations: 1}}
track: {{live: none}}
"""


def grown(folder: Path, name: str, *settings: str) -> list[tuple[Sample, Verdict]]:
    config = folder / f"{name}.yaml"
    config.write_text(CONFIG.format(name=name, folder=folder))
    assert main(["run", str(config), "--until", "grow", *settings]) == 0
    found: list[tuple[Sample, Verdict]] = []
    for part in records.parts(folder / name / "iteration_0001" / "samples"):
        verdicts = records.read(folder / name / "iteration_0001" / "verdicts" / part.name, Verdict)
        found += zip(records.read(part, Sample), verdicts, strict=True)
    return found


def examples(folder: Path, name: str, *settings: str) -> list[Example]:
    """What the policy is taught, by id."""
    config = folder / f"{name}.yaml"
    config.write_text(CONFIG.format(name=name, folder=folder))
    assert main(["run", str(config), "--until", "1/improve-policy", "grow.draft.n=32", *settings]) == 0
    taught = records.parts(folder / name / "iteration_0001" / "examples" / "policy")
    return sorted((row for part in taught for row in records.read(part, Example)), key=lambda example: example.id)


@pytest.mark.parametrize(
    "settings",
    [
        (f"grow.draft.sampler={{kind: '{RAMBLING}', accuracy: 0.3}}",),
        ("grow.draft.sampler={accuracy: 0.7, length: 1}", "learners.policy.examples.own.dedupe=text"),
    ],
    ids=["right but cut short", "right but the same again"],
)
def test_the_examples_are_those_of_full_sampling(tmp_path: Path, settings: tuple[str, ...]) -> None:
    settings = (*settings, "learners.policy.examples.own.cap=4")
    whole = examples(tmp_path, "whole", *settings)
    early = examples(tmp_path, "early", *settings, "grow.draft.enough=4")
    assert early == whole
    assert len(whole) > 2 * 40
    left = Counter(example.problem_id for example in whole)
    assert 4 in left.values() and len(drawn_of(tmp_path, "early")) < 0.8 * len(drawn_of(tmp_path, "whole"))


def drawn_of(folder: Path, name: str) -> list[str]:
    parts = records.parts(folder / name / "iteration_0001" / "samples")
    return [identifier for part in parts for identifier in records.column(part, "id")]


def test_right_samples_of_one_text_count_once_as_the_first_of_them() -> None:
    ledger = Ledger(work(8, 1), enough=2)
    ledger.finish([response(0, index) for index in range(8)])
    for index, text in ((7, "b"), (5, "a"), (6, "a")):
        ledger.judge(0, index, True, text)
    assert ledger.dropped() == []  # 5 and 7 are the first of their texts, so nothing comes after the second.
    ledger.judge(0, 3, True, "b")
    assert ledger.dropped() == [(0, 6), (0, 7)]
    ledger.judge(0, 4, True, "b")
    ledger.judge(0, 1, True, "a")
    assert ledger.dropped() == [(0, 4), (0, 5)]


def test_stopping_early_keeps_what_full_sampling_would_have_kept(tmp_path: Path) -> None:
    whole = grown(tmp_path, "whole")
    early = grown(tmp_path, "early", f"grow.draft.enough={ENOUGH}")
    assert len(whole) == 640
    expected: list[str] = []
    for problem in dict.fromkeys(sample.problem_id for sample, _ in whole):
        mine = [(s, v.status == "right") for s, v in whole if s.problem_id == problem]
        kept = kept_of_all([right for _, right in mine])
        expected += [mine[index][0].id for index in kept]
    assert sorted(sample.id for sample, _ in early) == sorted(expected)
    assert len(expected) < 300
    by_id = {sample.id: sample for sample, _ in whole}
    assert all(by_id[sample.id].response_ids == sample.response_ids for sample, _ in early)
