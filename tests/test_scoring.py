"""Scores of given responses: those of plain log-softmax, to the last token, whatever stands beside them."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scored import ANSWERS, END, answer, assert_equal, log_ratios, nudged

from selftrain.models.checkpoint import load_model
from selftrain.rewards.process import step_rewards, token_rewards
from selftrain.training import scoring
from selftrain.training.data import padded
from selftrain.training.scoring import Scorer, alone, batches
from selftrain.types import Example

BF16_TOLERANCE = 0.03
"""Of a bf16 model whose log-probabilities have a spread of 0.44: 0.016 was the most over 1,541 tokens."""


@pytest.fixture(scope="module")
def other(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nudged(tiny, tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def scorer(tiny: Path) -> Scorer:
    return Scorer(tiny, dtype="float32", device="cpu")


@functools.cache
def loaded(checkpoint: Path) -> Any:
    return load_model(checkpoint, dtype="float32", device="cpu").eval()


def plain(checkpoint: Path, example: Example, temperature: float = 1.0) -> np.ndarray[Any, Any]:
    """One row at a time, every logit at once."""
    ids = torch.tensor([(*example.prompt_ids, *example.response_ids)])
    with torch.inference_mode():
        logits = loaded(checkpoint)(ids).logits[0, :-1] / temperature
    every = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    return every[len(example.prompt_ids) - 1 :].numpy()  # type: ignore[no-any-return]


def assert_close(found: Sequence[Any], expected: Sequence[Any], tolerance: float = 1e-5) -> None:
    for own, wanted in zip(found, expected, strict=True):
        assert own.dtype == np.float32 and own.shape == wanted.shape
        assert np.abs(own - wanted).max(initial=0.0) < tolerance


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_are_those_of_plain_log_softmax_in_the_order_asked(
    scorer: Scorer, tiny: Path, temperature: float
) -> None:
    asked = ANSWERS[:40]
    found = scorer.logprobs(asked, temperature=temperature)
    assert np.concatenate(found).std() > 0.3
    assert_close(found, [plain(tiny, one, temperature) for one in asked])
    assert [len(own) for own in found] == [len(one.response_ids) for one in asked]


def test_batches_hold_like_lengths_and_order_is_the_callers(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scorer.logprobs(ANSWERS)
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 200)
    cut = batches(alone(ANSWERS))
    assert len(cut) > 5 and [i for group in cut for i in group] != list(range(len(ANSWERS)))
    widths = [[len(ANSWERS[i].prompt_ids) + len(ANSWERS[i].response_ids) for i in group] for group in cut]
    assert all(max(own) <= min(later) for own, later in pairwise(widths))
    assert_close(scorer.logprobs(ANSWERS), whole, 1e-6)
    shuffled = random.Random(1).sample(range(len(ANSWERS)), len(ANSWERS))
    again = scorer.logprobs([ANSWERS[i] for i in shuffled])
    assert_close(again, [whole[i] for i in shuffled], 1e-6)


def test_neither_padding_nor_other_rows_matter(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind a response never reaches it, bit for bit; other rows do not either."""
    short, long = answer((3, 4), (5, 6, END)), answer((7,) * 20, (8,) * 20)
    beside = scorer.logprobs([short, long])[0]
    assert_close([scorer.logprobs([short])[0]], [beside], 1e-6)
    assert_equal([scorer.logprobs([short, replace(long, response_ids=(9,) * 20)])[0]], [beside])
    name = "selftrain.training.scoring.padded"
    monkeypatch.setattr(name, lambda examples, group, pad, device: padded(examples, group, 11, device))
    assert_equal([scorer.logprobs([short, long])[0]], [beside])


def test_the_prompt_has_no_number_and_a_mask_leaves_zeros(scorer: Scorer) -> None:
    one = answer((3, 4, 5), (6, 7, 8, END))
    masked = replace(one, loss_mask=(True, False, False, True))
    (every,), (own,) = scorer.logprobs([one]), scorer.logprobs([masked])
    assert len(every) == 4 and (every < 0).all()
    assert own.tolist() == [every[0], 0.0, 0.0, every[3]]


def test_an_empty_response_has_no_number_and_harms_no_other(scorer: Scorer) -> None:
    one, empty = answer((3,), (4, END)), answer((3, 4), ())
    assert scorer.logprobs([empty])[0].shape == (0,)
    assert scorer.logprobs([]) == []
    found = scorer.logprobs([empty, one, replace(one, loss_mask=(False, False))])
    assert [own.shape for own in found] == [(0,), (2,), (2,)] and found[2].tolist() == [0, 0]
    assert_close(found[1:2], scorer.logprobs([one]), 1e-6)


def test_one_side_of_a_pair_may_be_scored_alone(scorer: Scorer) -> None:
    """A response that stands in several pairs is asked for once."""
    one = replace(answer((3,), (4, END)), pair_id="p", role="chosen")
    assert_equal(scorer.logprobs([one]), scorer.logprobs([replace(one, pair_id=None, role=None)]))


def test_a_bf16_model_gives_fp32_numbers_near_those_of_fp32(scorer: Scorer, tiny: Path) -> None:
    """The softmax itself is fp32: the numbers are finer than bf16 can write, and the probabilities sum to 1."""
    halved = Scorer(tiny, dtype="bfloat16", device="cpu")
    found = halved.logprobs(ANSWERS)
    assert_close(found, scorer.logprobs(ANSWERS), BF16_TOLERANCE)
    every = torch.from_numpy(np.concatenate(found))
    assert not every.bfloat16().float().equal(every)
    next_token = halved.logprobs([answer((3, 4), (token,)) for token in range(loaded(tiny).config.vocab_size)])
    assert np.exp(np.concatenate(next_token).astype(float)).sum() == pytest.approx(1.0, abs=1e-5)


def test_weights_that_are_not_numbers_are_an_error(tiny: Path) -> None:
    model: Any = load_model(tiny, dtype="float32", device="cpu").eval()
    with torch.no_grad():
        model.get_output_embeddings().weight[5, 0] = float("nan")
    with pytest.raises(ValueError, match="a log-probability that is not a number; compute in float32"):
        scoring.score(model, ANSWERS[:3])


def test_token_step_and_whole_rewards_sum_to_the_same_and_need_the_end_token(tiny: Path, other: Path) -> None:
    """Telescoping, and a planted bug: without the end token the sum is another."""
    complete = [one for one in ANSWERS if len(one.response_ids) > 3]
    complete = [replace(one, response_ids=(*one.response_ids[:-1], END)) for one in complete]
    ratios = log_ratios(tiny, other, complete)
    cut = log_ratios(tiny, other, [replace(one, response_ids=one.response_ids[:-1]) for one in complete])
    for own, short in zip(ratios, cut, strict=True):
        tokens = token_rewards(own, 0.05)
        steps, (alone_,) = step_rewards(tokens, (1, 3, len(tokens))), step_rewards(tokens, (len(tokens),))
        assert steps.sum() == pytest.approx(tokens.sum(), abs=1e-12) == pytest.approx(alone_, abs=1e-12)
        assert_close([own[:-1]], [short])
        assert abs(own.sum() - short.sum()) == pytest.approx(abs(own[-1]), abs=1e-5)
    assert np.abs([own[-1] for own in ratios]).mean() > 0.05
