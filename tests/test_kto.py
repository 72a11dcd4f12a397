"""KTO's divergence: what it is estimated on, that it is a constant of a step, and that KTO trains with it."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selftrain.models.checkpoint import load_model
from selftrain.objectives.labelled import KTO, kto_loss
from selftrain.schema import Optim, Validation
from selftrain.training.data import micro_batches
from selftrain.training.divergence import apart, divergence, with_partners
from selftrain.training.engine import TorchEngine
from selftrain.training.fit import Fit, fit
from selftrain.training.scoring import Scorer
from selftrain.types import Example

FLAT = Optim(schedule="constant", warmup=0.0, clip=0.0, dtype="float32", lr=3e-3, batch_size=8)


def examples(problems: int = 4, each: int = 2) -> list[Example]:
    """Right responses say 3, wrong ones 4, behind a prompt of their problem."""
    made = []
    for problem in range(problems):
        for i in range(each):
            right = i % 2 == 0
            response = (3,) * (2 + problem % 2) + (1,) if right else (4, 5, 1)
            own = Example(f"e{problem}.{i}", f"p{problem}", "own", (6 + problem, 7), response, label=float(right))
            made.append(own)
    return made


def referenced(checkpoint: Path, every: Sequence[Example]) -> list[Example]:
    with Scorer(checkpoint, dtype="float32", device="cpu") as scorer:
        found = scorer.logprobs(every)
    return [replace(one, reference_logprobs=tuple(own.tolist())) for one, own in zip(every, found, strict=True)]


def test_partners_are_the_responses_again_under_prompts_of_other_problems() -> None:
    for sizes in ([2, 2, 2], [1, 1], [3, 1, 2], [5, 5], [1, 4, 2, 1]):
        own = [one for p, size in enumerate(sizes) for one in examples(p + 1, size)[-size:]]
        own = [replace(one, response_ids=(20 + i, 1)) for i, one in enumerate(own)]
        learnt, partners = apart(with_partners(own))
        assert learnt == own
        author = {one.response_ids: one.problem_id for one in own}
        for mine, partner in zip(own, partners, strict=True):
            assert (partner.prompt_ids, partner.problem_id) == (mine.prompt_ids, mine.problem_id)
            assert author[partner.response_ids] != mine.problem_id
        assert Counter(one.response_ids for one in partners) == Counter(one.response_ids for one in own)


def test_partners_follow_from_the_examples_alone() -> None:
    own = examples(5, 3)
    found = {one.id: one for one in with_partners(own)}
    blocks = [own[i : i + 3] for i in range(0, 15, 3)]
    random.Random(0).shuffle(blocks)
    assert {one.id: one for one in with_partners([one for block in blocks for one in block])} == found


def test_a_problem_with_most_of_the_examples_meets_the_others_several_times() -> None:
    own = [*examples(1, 6), *examples(2, 2)[2:]]
    _, partners = apart(with_partners(own))
    assert {one.response_ids for one in partners[:6]} == {one.response_ids for one in own[6:]}
    assert all(one.response_ids in {mine.response_ids for mine in own[:6]} for one in partners[6:])


def test_one_problem_alone_has_no_partners() -> None:
    with pytest.raises(ValueError, match="all examples are of one"):
        with_partners(examples(1, 4))
    assert with_partners([]) == []


def test_a_partner_keeps_the_loss_mask_and_is_never_longer_than_the_longest_example() -> None:
    short = Example("a", "p0", "own", (6,) * 9, (3, 1))
    long = Example("b", "p1", "own", (6,), (4, 5, 4, 5, 1), loss_mask=(True, False, True, False, True))
    _, (under_short, under_long) = apart(with_partners([short, long]))
    assert (under_short.response_ids, under_short.loss_mask) == ((4, 5), (True, False))
    assert (under_long.response_ids, under_long.loss_mask) == ((3, 1), None)


def test_the_divergence_is_a_mean_of_sums_and_at_least_zero() -> None:
    one = Example("a", "p", "own", (6,), (3, 1), reference_logprobs=(-1.0, -2.0))
    two = replace(one, response_ids=(3, 5, 1), loss_mask=(True, False, True), reference_logprobs=(-1.0, -9.0, -1.0))
    rising = [np.array([-0.5, -1.0], np.float32), np.array([-0.75, 0.0, -0.25], np.float32)]
    assert divergence([one, two], rising) == pytest.approx((1.5 + 1.0) / 2)
    assert divergence([one, two], [3 * own - 1 for own in rising]) == 0.0
    assert divergence([], []) == 0.0


def test_the_gradient_takes_the_divergence_for_a_constant() -> None:
    """A divergence with a gradient, here of the learnt responses themselves, would teach something else."""
    logprobs = torch.tensor([-1.0, -0.2], requires_grad=True)
    labels, reference = torch.ones(2), torch.tensor([-1.5, -0.6])
    ratios = logprobs - reference
    constant, moving = (kto_loss(ratios, labels, 0.5, z, 1.0, 1.0).sum() for z in (0.45, ratios.mean()))  # type: ignore[arg-type]
    assert constant.item() == pytest.approx(moving.item())
    (expected,), (wrong,) = (torch.autograd.grad(loss, logprobs, retain_graph=True) for loss in (constant, moving))
    sigmoid = [1 / (1 + math.exp(-0.5 * (ratio - 0.45))) for ratio in (0.5, 0.4)]
    assert expected.tolist() == pytest.approx([-0.5 * s * (1 - s) for s in sigmoid])
    assert float((expected - wrong).abs().max()) > 0.1


@pytest.fixture(scope="module")
def own(tiny: Path) -> list[Example]:
    return referenced(tiny, with_partners(examples()))


def fitted(source: Path, folder: Path, own: Sequence[Example], optim: Optim) -> list[dict[str, Any]]:
    """The lines of the log."""
    list(fit(own, Fit(source, folder / "out", folder / "log.jsonl", KTO(beta=0.1), optim, seed=0)))
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_divergence_of_a_step_is_that_of_the_weights_before_it(
    tiny: Path, own: list[Example], tmp_path: Path
) -> None:
    """0 while the policy is the reference; after three steps, in which all responses were right, what plain passes of
    both models say, sequence by sequence."""
    own = [replace(one, label=1.0) for one in own]
    log = fitted(tiny, tmp_path, own, replace(FLAT, steps=4))
    assert log[0]["divergence"] == pytest.approx(0, abs=1e-5)
    assert log[0]["loss"] == pytest.approx(0.5, abs=1e-5)
    (tmp_path / "three").mkdir()
    fitted(tiny, tmp_path / "three", own, replace(FLAT, steps=3))
    models = [load_model(path, dtype="float32", device="cpu") for path in (tmp_path / "three" / "out", tiny)]
    ratios = []
    for one in own[8:]:
        ids = torch.tensor([*one.prompt_ids, *one.response_ids])
        with torch.no_grad():
            every = [model(ids[None]).logits[0, :-1].log_softmax(1) for model in models]
        policy, reference = (found.gather(1, ids[1:, None])[len(one.prompt_ids) - 1 :].sum() for found in every)
        ratios.append(float(policy - reference))
    assert sum(ratios) / 8 > 0.01
    assert log[3]["divergence"] == pytest.approx(sum(ratios) / 8, rel=1e-3)


def test_estimating_it_leaves_no_gradient_behind(tiny: Path, own: list[Example]) -> None:
    engine = TorchEngine(tiny, KTO(desirable=2.0), FLAT, steps=1, device="cpu")
    learnt, partners = apart(own)
    engine.logprobs(partners)
    assert all(p.grad is None for p in engine.model.parameters())
    batches = micro_batches(learnt, batching="bucketed", max_tokens=4096, pad=0)
    assert engine.evaluate(batches) == pytest.approx(0.75, abs=1e-5)
    s = 1 / (1 + math.exp(-0.5))
    assert engine.evaluate(batches, divergence=5.0) == pytest.approx((2 * s + 1 - s) / 2, abs=1e-5)


def test_kto_tells_right_from_wrong(tiny: Path, own: list[Example], tmp_path: Path) -> None:
    optim = replace(FLAT, steps=30, validation=Validation(fraction=0.3, every=10))
    log = fitted(tiny, tmp_path, own, optim)
    assert log[0]["reward accuracy"] < 0.7
    assert log[-1]["reward accuracy"] == 1.0
    assert log[-1]["right reward"] > 0 > log[-1]["wrong reward"]
    assert all(line["divergence"] >= 0 for line in log)
    assert log[-1]["loss"] < 0.45
    looked = [line["validation"] for line in log if line["validation"] is not None]
    assert len(looked) == 3


def test_examples_without_partners_are_refused(tiny: Path, own: list[Example], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="8 of 8 examples have no partner"):
        fitted(tiny, tmp_path, own[:8], FLAT)
    with pytest.raises(ValueError, match="8 of 8 examples have no partner"):
        fitted(tiny, tmp_path, [*own[:8], *apart(with_partners(own[:8]))[1]], FLAT)
