"""Batches and steps: what moves the loss, what must not, and what a fit leaves behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from selftrain.models.checkpoint import load_model, load_tokenizer
from selftrain.models.logprobs import batch_logprobs
from selftrain.objectives.nll import NLL
from selftrain.schema import Optim, Validation
from selftrain.training.data import Batching, length, micro_batches, totals
from selftrain.training.engine import TorchEngine, lr_factor
from selftrain.training.fit import Fit, fit, hold_out, validation_loss
from selftrain.training.schedule import epochs_to_steps, schedule
from selftrain.types import Example

BATCHINGS: tuple[Batching, ...] = ("bucketed", "packed")
FLAT = Optim(schedule="constant", warmup=0.0, clip=0.0, dtype="float32")


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return load_model(tiny, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Any:
    return load_tokenizer(tiny)


def example(number: int, prompt: Sequence[int], response: Sequence[int], **changes: Any) -> Example:
    return replace(Example(f"e{number}", f"p{number}", "own", tuple(prompt), tuple(response)), **changes)


@pytest.fixture
def examples() -> list[Example]:
    """Eight examples of 3 to 24 tokens with different weights; the last token of each response is the end token."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(8):
        prompt = rng.integers(3, 19, rng.integers(2, 8)).tolist()
        response = [*rng.integers(3, 19, rng.integers(0, 16)).tolist(), 1]
        made.append(example(number, prompt, response, weight=float(rng.uniform(0.5, 2.0))))
    return made


def plain_nll(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Cross-entropy of one example at a time, weighted and summed."""
    total = torch.zeros(())
    for one in examples:
        ids = torch.tensor([*one.prompt_ids, *one.response_ids])
        logits = model(ids[None]).logits[0]
        start = len(one.prompt_ids)
        losses = cross_entropy(logits[start - 1 : -1], ids[start:], reduction="none")
        mask = torch.tensor(one.loss_mask or [True] * len(losses))
        total = total + one.weight * losses[mask].sum()
    return total


def our_nll(
    model: Any, examples: Sequence[Example], objective: NLL, batching: Batching = "bucketed", max_tokens: int = 4096
) -> torch.Tensor:
    batches = micro_batches(examples, batching=batching, max_tokens=max_tokens, pad=0)
    parts = []
    for batch in batches:
        logprobs = batch_logprobs(model, batch.input_ids, batch.position_ids, batch.positions)
        parts.append(objective.loss(replace(batch.terms, logprobs=logprobs), totals(batches)).value)
    return torch.stack(parts).sum()


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    """All gradients as one vector."""
    model.zero_grad()
    loss.backward()
    return torch.cat([p.grad.reshape(-1).clone() for p in model.parameters()])


def loss_tokens(examples: Sequence[Example]) -> int:
    return sum(sum(one.loss_mask) if one.loss_mask else len(one.response_ids) for one in examples)


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("max_tokens", [1, 40, 4096])
def test_loss_and_gradient_are_those_of_plain_cross_entropy(
    model: Any, examples: list[Example], batching: Batching, max_tokens: int
) -> None:
    """Packed or padded, in one forward pass or cut into many."""
    expected = plain_nll(model, examples)
    for objective, count in ((NLL(), loss_tokens(examples)), (NLL("sequences"), len(examples))):
        ours = our_nll(model, examples, objective, batching, max_tokens)
        assert ours.item() == pytest.approx(expected.item() / count, rel=1e-5)
        difference = gradient(model, ours) - gradient(model, plain_nll(model, examples) / count)
        assert difference.abs().max().item() < 1e-5


@pytest.mark.parametrize("batching", BATCHINGS)
def test_micro_batches_keep_to_their_bound(examples: list[Example], batching: Batching) -> None:
    batches = micro_batches(examples, batching=batching, max_tokens=40, pad=0)
    assert 1 < len(batches) < len(examples)
    assert all(batch.input_ids.numel() <= 40 for batch in batches)
    assert sum(batch.tokens for batch in batches) == sum(map(length, examples))
    assert {i for batch in batches for i in batch.examples.tolist()} == set(range(len(examples)))


@pytest.mark.parametrize("batching", BATCHINGS)
def test_targets_are_the_response_ids_byte_for_byte(examples: list[Example], batching: Batching) -> None:
    for batch in micro_batches(examples, batching=batching, max_tokens=60, pad=0):
        flat = batch.input_ids.reshape(-1)
        assert flat[batch.positions.index + 1].equal(batch.positions.targets)
        for place, i in enumerate(batch.examples.tolist()):
            own = batch.terms.sequences == place
            assert tuple(batch.positions.targets[own].tolist()) == examples[i].response_ids
            first = int(batch.positions.index[own][0]) + 1
            start = first - len(examples[i].prompt_ids)
            assert tuple(flat[start:first].tolist()) == examples[i].prompt_ids


@pytest.mark.parametrize("batching", BATCHINGS)
def test_prompt_and_pad_carry_no_loss_and_the_end_token_does(
    model: Any, examples: list[Example], batching: Batching
) -> None:
    """Of the tokens a loss is taken of, the end token is one, and neither prompt nor pad is."""
    (batch,) = micro_batches(examples, batching=batching, max_tokens=4096, pad=0)
    logprobs = batch_logprobs(model, batch.input_ids, batch.position_ids, batch.positions)
    assert len(logprobs) == loss_tokens(examples)
    assert (batch.positions.targets == 1).sum() == len(examples)
    assert (batch.positions.targets == 0).sum() == 0
    per_token = -batch.terms.weights[batch.terms.sequences] * logprobs
    assert per_token.sum().item() == pytest.approx(plain_nll(model, examples).item(), rel=1e-5)

    without_end = [replace(one, loss_mask=(*[True] * (len(one.response_ids) - 1), False)) for one in examples]
    ends = batch.positions.targets == 1
    difference = our_nll(model, examples, NLL("sequences")) - our_nll(model, without_end, NLL("sequences"))
    assert difference.item() == pytest.approx(per_token[ends].sum().item() / len(examples), rel=1e-4)
    assert difference.item() > 0.1


def test_the_pad_id_does_not_matter(model: Any, examples: list[Example]) -> None:
    losses, gradients = [], []
    for pad in (0, 7):
        (batch,) = micro_batches(examples, batching="bucketed", max_tokens=4096, pad=pad)
        assert (batch.input_ids == pad).sum() > 20
        loss = -batch_logprobs(model, batch.input_ids, None, batch.positions).sum()
        losses.append(loss.item())
        gradients.append(gradient(model, loss))
    assert losses[0] == losses[1]
    assert gradients[0].equal(gradients[1])


@pytest.mark.parametrize("batching", BATCHINGS)
def test_masked_tokens_carry_no_loss(model: Any, batching: Batching) -> None:
    masked = [
        example(0, [3, 4], [5, 6, 7, 8, 1], loss_mask=(True, False, False, True, True)),
        example(1, [3, 9, 4], [5, 1], loss_mask=(False, True)),
        example(2, [9, 4], [5, 9, 1]),
    ]
    (batch,) = micro_batches(masked, batching=batching, max_tokens=4096, pad=0)
    assert sorted(batch.positions.targets.tolist()) == sorted([5, 8, 1, 1, 5, 9, 1])
    ours = our_nll(model, masked, NLL(), batching)
    assert ours.item() == pytest.approx(plain_nll(model, masked).item() / 7, rel=1e-5)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_an_example_that_is_masked_whole_costs_nothing(model: Any, batching: Batching) -> None:
    silent = example(0, [3, 4], [5, 6], loss_mask=(False, False))
    taught = example(1, [3, 4, 5], [6, 7, 8, 1])
    expected = our_nll(model, [taught], NLL())
    assert our_nll(model, [silent, taught], NLL(), batching, max_tokens=1).item() == pytest.approx(expected.item())


@pytest.mark.parametrize("batching", BATCHINGS)
def test_a_step_does_not_depend_on_how_it_is_cut(tiny: Path, examples: list[Example], batching: Batching) -> None:
    steps, weights = [], []
    for max_tokens in (1, 50, 4096):
        engine = TorchEngine(tiny, NLL(), replace(FLAT, lr=1e-3, clip=0.5), steps=2, device="cpu")
        batches = micro_batches(examples, batching=batching, max_tokens=max_tokens, pad=0)
        steps.append([engine.step(batches) for _ in range(2)])
        weights.append(engine.weights())
    for first, second in zip(steps[0], steps[-1], strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-5)
        assert first.grad_norm == pytest.approx(second.grad_norm, rel=1e-4)
        assert (first.tokens, first.loss_tokens) == (second.tokens, second.loss_tokens)
    assert steps[0][1].loss < steps[0][0].loss
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=1e-5)
        assert torch.allclose(tensor, weights[2][name], atol=1e-5)


def test_gradient_checkpointing_changes_nothing(tiny: Path, examples: list[Example]) -> None:
    batches = micro_batches(examples, batching="bucketed", max_tokens=4096, pad=0)
    norms = [
        TorchEngine(tiny, NLL(), replace(FLAT, gradient_checkpointing=again), steps=1, device="cpu")
        .step(batches)
        .grad_norm
        for again in (False, True)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_nll_of_accepted_samples_is_reinforce_over_acceptance(model: Any, examples: list[Example]) -> None:
    """grad NLL over the A accepted of n samples = n / A times grad of REINFORCE with rewards 0 and 1."""
    samples = [replace(one, weight=1.0) for one in examples]
    rewards = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    accepted = [sample for sample, reward in zip(samples, rewards, strict=True) if reward]
    reinforce = torch.stack(
        [reward * plain_nll(model, [sample]) for sample, reward in zip(samples, rewards, strict=True)]
    ).mean()
    expected = gradient(model, reinforce) * len(samples) / len(accepted)
    ours = gradient(model, our_nll(model, accepted, NLL("sequences")))
    assert expected.abs().max().item() > 0.1
    assert (ours - expected).abs().max().item() < 1e-5


def note(touched: torch.Tensor, grad: torch.Tensor) -> None:
    """Remember which elements received a gradient."""
    touched |= grad != 0


def test_small_steps_in_bfloat16_move_the_fp32_weights(tiny: Path, examples: list[Example]) -> None:
    """200 steps at learning rate 1e-6: bf16 weights would round nearly all of them away."""
    optim = replace(FLAT, lr=1e-6, dtype="bfloat16")
    engine = TorchEngine(tiny, NLL(), optim, steps=200, device="cpu")
    before = engine.weights()
    touched = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in engine.model.named_parameters()}
    for name, parameter in engine.model.named_parameters():
        parameter.register_hook(partial(note, touched[name]))
    batches = micro_batches(examples, batching="bucketed", max_tokens=4096, pad=0)
    for _ in range(200):
        engine.step(batches)
    after = engine.weights()
    moved = sum(int(((after[name] != before[name]) & mask).sum()) for name, mask in touched.items())
    received = sum(int(mask.sum()) for mask in touched.values())
    assert received > 0.9 * sum(mask.numel() for mask in touched.values())
    assert moved >= 0.99 * received
    assert all(tensor.dtype == torch.float32 for tensor in after.values())


SCHEDULES = [(10, 3, 25), (64, 64, 3), (100, 64, 40), (5, 8, 9), (700, 4, 400), (1, 1, 3), (50, 8, 150)]


@pytest.mark.parametrize(("n", "batch_size", "steps"), SCHEDULES)
def test_every_example_comes_once_before_any_comes_again(n: int, batch_size: int, steps: int) -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(5, 60, n).tolist()
    batches = list(schedule(lengths, batch_size, steps, seed=0))
    assert [len(batch) for batch in batches] == [min(batch_size, n)] * steps
    seen: Counter[int] = Counter(dict.fromkeys(range(n), 0))
    for batch in batches:
        seen.update(batch)
        assert max(seen.values()) - min(seen.values()) <= 1
    if n % batch_size == 0 or n < batch_size:
        assert all(len(set(batch)) == len(batch) for batch in batches)


@pytest.mark.parametrize("n", [100, 400, 512])
def test_a_single_step_on_a_batch_that_is_not_full_counts_no_example_twice(n: int) -> None:
    (batch,) = schedule([1] * n, 512, 1, seed=0)
    assert sorted(batch) == list(range(n))


def test_the_order_follows_from_the_seed_and_batches_pad_little() -> None:
    lengths = np.random.default_rng(1).integers(5, 200, 2000).tolist()
    one, same, other = ([list(batch) for batch in schedule(lengths, 8, 250, seed)] for seed in (0, 0, 1))
    assert one == same
    assert one != other
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in one)
    assert padded < 1.1 * sum(lengths[i] for batch in one for i in batch)
    means = [np.mean([lengths[i] for i in batch]) for batch in one]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3


def test_epochs_to_steps() -> None:
    assert epochs_to_steps(1000, 64, 2.0) == 31
    assert epochs_to_steps(3, 64, 1.0) == 1
    assert epochs_to_steps(3, 64, 5.0) == 5


def test_the_learning_rate_rises_then_falls_half_a_cosine() -> None:
    optim = Optim(schedule="cosine", warmup=0.1, min_lr=0.2)
    factors = [lr_factor(step, 100, optim) for step in range(101)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1.0
    assert factors[55] == pytest.approx(0.6)
    assert factors[100] == pytest.approx(0.2)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    flat = [lr_factor(step, 100, replace(optim, schedule="constant")) for step in range(100)]
    assert flat[10:] == [1.0] * 90
    assert lr_factor(0, 1, Optim(warmup=0.0)) == 1.0


def test_the_engine_uses_the_schedule_and_clips(tiny: Path, examples: list[Example]) -> None:
    engine = TorchEngine(tiny, NLL(), Optim(lr=1e-3, warmup=0.5, clip=1.0), steps=4, device="cpu")
    batches = micro_batches(examples, batching="bucketed", max_tokens=4096, pad=0)
    assert [engine.step(batches).lr for _ in range(4)] == pytest.approx([5e-4, 1e-3, 1e-3, 5.5e-4])


def run_fit(
    tmp_path: Path, tiny: Path, examples: Sequence[Example], optim: Optim, name: str = "fit", seed: int = 0
) -> tuple[Path, list[dict[str, Any]]]:
    target, log = tmp_path / name, tmp_path / f"{name}.jsonl"
    for _ in fit(examples, Fit(tiny, target, log, NLL(), optim, seed)):
        pass
    return target, [json.loads(line) for line in log.read_text().splitlines()]


def noise(count: int) -> list[Example]:
    """Responses nothing can be learnt from but by heart."""
    rng = np.random.default_rng(3)
    return [example(i, rng.integers(3, 19, 6).tolist(), [*rng.integers(3, 19, 8).tolist(), 1]) for i in range(count)]


def test_a_fit_stops_early_and_keeps_its_best_weights(tmp_path: Path, tiny: Path) -> None:
    optim = replace(FLAT, lr=1e-2, batch_size=8, steps=400, validation=Validation(fraction=0.4, every=5, patience=3))
    examples = noise(24)
    target, log = run_fit(tmp_path, tiny, examples, optim)
    looks = [row["validation"] for row in log if row["validation"] is not None]
    best = looks.index(min(looks))
    assert len(log) == 5 * len(looks) < 400
    assert best == len(looks) - 4
    _, held_out = hold_out(examples, 0.4)
    restored = validation_loss(TorchEngine(target, NLL(), optim, steps=1, device="cpu"), held_out, optim)
    assert restored == pytest.approx(min(looks), rel=1e-5)
    assert restored < looks[-1] - 0.01


def test_the_held_out_side_follows_from_the_problem(examples: list[Example]) -> None:
    many = [example(i % 100, [3, 4], [5, 1], id=str(i)) for i in range(400)]
    training, held_out = hold_out(many, 0.2)
    assert len(training) + len(held_out) == 400
    assert not {one.problem_id for one in training} & {one.problem_id for one in held_out}
    assert 0.1 < len(held_out) / 400 < 0.3
    assert hold_out(many[:50], 0.2)[1] == [one for one in held_out if one in many[:50]]
    assert hold_out(examples, 0.0) == (examples, [])


def test_a_fit_is_the_same_twice(tmp_path: Path, tiny: Path) -> None:
    optim = replace(FLAT, lr=1e-3, batch_size=4, steps=6)
    (one, first), (two, second) = (run_fit(tmp_path, tiny, noise(12), optim, name) for name in ("one", "two"))
    assert first == second
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_a_fit_with_dropout_is_the_same_twice(tmp_path: Path, tokenizer: Any) -> None:
    """Also where the model draws random numbers of its own while it trains."""
    from selftrain.models.checkpoint import save
    from selftrain.models.small import random_model

    shape = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64, "resid_pdrop": 0.3}
    save(random_model(shape, tokenizer, seed=0), tokenizer, tmp_path / "dropout")
    optim = replace(FLAT, lr=1e-3, batch_size=4, steps=4)
    logs = []
    for name in ("one", "two"):
        logs.append(run_fit(tmp_path, tmp_path / "dropout", noise(12), optim, name)[1])
        torch.rand(1)
    assert logs[0] == logs[1]


def test_no_examples_are_refused(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(ValueError, match="there are no examples"):
        run_fit(tmp_path, tiny, [], FLAT)


def test_a_saved_checkpoint_stops_by_itself(tmp_path: Path, tiny: Path, tokenizer: Any) -> None:
    """Trained on one constant response, then generating with nothing said about where to stop."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    response = [*tokenizer.encode("12 #3"), tokenizer.eos_token_id]
    rng = np.random.default_rng(0)
    examples = [example(i, rng.integers(3, 19, 5).tolist(), response) for i in range(32)]
    target, log = run_fit(tmp_path, tiny, examples, replace(FLAT, lr=1e-2, batch_size=16, steps=60))
    assert log[-1]["loss"] < 0.1 < log[0]["loss"]
    settings = json.loads((target / "generation_config.json").read_text())
    assert settings["eos_token_id"] == tokenizer.eos_token_id
    assert settings["pad_token_id"] == tokenizer.pad_token_id
    served: Any = AutoModelForCausalLM.from_pretrained(target)
    prompt = torch.tensor([tokenizer.encode("5+8*2=")])
    generated = served.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=40)
    assert generated[0, prompt.shape[1] :].tolist() == response
    assert AutoTokenizer.from_pretrained(target).eos_token == tokenizer.eos_token
