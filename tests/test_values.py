"""Fitting value heads: objectives against numbers worked out by hand, batches cut anyhow, targets that are none."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.models.checkpoint import load_model
from selftrain.models.head_form import WEIGHTS, HeadForm
from selftrain.models.heads import ValueModel, load_value_model
from selftrain.objectives.terms import Terms, Totals
from selftrain.objectives.values import BCE, MSE, StepPreference, bce_loss, mse_loss, step_preference_loss
from selftrain.schema import Optim, Validation
from selftrain.training.data import Batching, MicroBatch, micro_batches, totals
from selftrain.training.engine import Objective, TorchEngine
from selftrain.training.fit import Fit, fit
from selftrain.training.needs import check_needs
from selftrain.types import Example

NAN = math.nan
FORM = HeadForm(separator=" ")
FLAT = Optim(lr=1e-2, schedule="constant", warmup=0.0, clip=0.0, dtype="float32", batch_size=4, steps=2)


def number(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64, requires_grad=True)


def slope(loss: torch.Tensor, *of: torch.Tensor) -> list[float]:
    return [float(gradient) for gradient in torch.autograd.grad(loss.sum(), of)]


def test_regression_and_its_gradient() -> None:
    """s(0) = 1/2 and s(ln 3) = 3/4; the slope is 2 (s - v) s (1 - s)."""
    raw = number(math.log(3))
    assert mse_loss(number(0.0), number(0.25)).item() == pytest.approx(0.0625)
    loss = mse_loss(raw, number(0.25))
    assert loss.item() == pytest.approx(0.25)
    assert slope(loss, raw) == pytest.approx([2 * 0.5 * 0.75 * 0.25])


def test_cross_entropy_and_its_gradient() -> None:
    """-v log s - (1 - v) log(1 - s), whose slope is s - v; finite where s rounds to 1."""
    raw = number(math.log(3))
    loss = bce_loss(raw, number(0.5))
    assert loss.item() == pytest.approx(-0.5 * math.log(0.75) - 0.5 * math.log(0.25))
    assert slope(loss, raw) == pytest.approx([0.25])
    assert bce_loss(number(100.0), number(0.0)).item() == pytest.approx(100.0)


def test_preference_of_steps_and_its_gradient() -> None:
    """ln 2 without a margin; at tanh(r_w) = 1/2 and r_l = 0, log(1 + e^-1/2); by r_w it falls as s(-1/2) (1 - 1/4)."""
    assert step_preference_loss(number(0.3), number(0.3)).item() == pytest.approx(math.log(2))
    better, worse = number(math.atanh(0.5)), number(0.0)
    loss = step_preference_loss(better, worse)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5)))
    falls = 1 / (1 + math.exp(0.5))
    assert slope(loss, better, worse) == pytest.approx([-falls * 0.75, falls])
    assert step_preference_loss(number(50.0), number(-50.0)).item() == pytest.approx(math.log1p(math.exp(-2)))


def terms(raw: list[float], targets: list[float], sequences: list[int], weights: list[float], **more: Any) -> Terms:
    whose = torch.tensor(sequences)
    return Terms(
        logprobs=torch.zeros(0),
        sequences=whose,
        weights=torch.tensor(weights),
        values=torch.tensor(raw),
        targets=torch.tensor(targets),
        value_sequences=whose,
        **more,
    )


def test_a_loss_is_the_weighted_mean_over_targets() -> None:
    """Two targets of a sequence of weight 2 and one of weight 1, of a step with 5 targets in all."""
    seen = terms([0.0, 0.0, 0.0], [1.0, 0.0, 0.75], [0, 0, 1], [2.0, 1.0])
    found = MSE().loss(seen, Totals(tokens=9, sequences=2, values=5))
    assert float(found.value) == pytest.approx((2 * 0.25 + 2 * 0.25 + 0.0625) / 5)
    assert {name: float(mean.total) / mean.over for name, mean in found.measures.items()} == pytest.approx(
        {"value error": 1.25 / 3, "value accuracy": 2 / 3}
    )


def test_hard_labels_are_1_from_the_threshold_on() -> None:
    seen = terms([math.log(3)] * 3, [0.125, 0.5, 0.1], [0, 0, 0], [1.0])
    loss = BCE(labels="hard", threshold=0.125).loss(seen, Totals(0, 1, values=3)).value
    assert float(loss) == pytest.approx(-(2 * math.log(0.75) + math.log(0.25)) / 3)
    soft = BCE().loss(seen, Totals(0, 1, values=3)).value
    assert float(soft) == pytest.approx(-(0.725 * math.log(0.75) + 2.275 * math.log(0.25)) / 3)


def test_measures_of_hard_labels_are_of_what_is_learnt() -> None:
    """Values of 0.75 beside targets of 0.2 to 0.4: all right by a threshold of 0.2, two of three by 0.3."""
    seen = terms([math.log(3)] * 3, [0.2, 0.3, 0.4], [0, 0, 0], [1.0])
    for threshold, right in ((0.2, 3), (0.3, 2), (0.5, 0)):
        found = BCE(labels="hard", threshold=threshold).loss(seen, Totals(0, 1, values=3)).measures
        assert float(found["value accuracy"].total) == right
        assert float(found["value error"].total) == pytest.approx(0.25 * right + 0.75 * (3 - right))


def test_a_preference_is_the_mean_over_pairs_by_the_weight_of_the_better_side() -> None:
    pairs = torch.tensor([[0, 1], [3, 2]])
    seen = terms([0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0, 1, 2, 3], [3.0, 9.0, 9.0, 1.0], pairs=pairs)
    found = StepPreference().loss(seen, Totals(0, 4, pairs=4, values=4))
    assert float(found.value) == pytest.approx(4 * math.log(2) / 4)


def example(place: int, prompt: int, targets: list[float], **changes: Any) -> Example:
    ids = tuple(3 + (7 * place + i) % 15 for i in range(prompt + len(targets)))
    return replace(
        Example(f"e{place}", f"p{place}", "own", ids[:prompt], ids[prompt:]), targets=tuple(targets), **changes
    )


EXAMPLES = [
    example(0, 3, [NAN, 0.5, NAN, 1.0], weight=2.0),
    example(1, 5, [NAN, NAN, 0.0]),
    example(2, 2, [0.25, NAN, NAN, 0.75, NAN, NAN, 0.0]),
    example(3, 4, [NAN, NAN]),
]


def valued(model: ValueModel, one: Example) -> torch.Tensor:
    """The head's outputs at every token of a response, read alone."""
    ids = torch.tensor([[*one.prompt_ids, *one.response_ids]])
    hidden = model.backbone(ids, use_cache=False).last_hidden_state[0, len(one.prompt_ids) :]
    return model.read(hidden)


@pytest.fixture(scope="module")
def model(tiny: Path) -> ValueModel:
    made = load_value_model(tiny, FORM, dtype="float32", device="cpu")
    torch.manual_seed(0)
    torch.nn.init.normal_(made.head.get_parameter("0.weight"))
    return made


@pytest.mark.parametrize("batching", ["bucketed", "packed"])
@pytest.mark.parametrize("max_tokens", [1, 20, 4096])
def test_values_are_read_where_targets_stand(model: ValueModel, batching: Batching, max_tokens: int) -> None:
    """Loss and gradient are those of one response at a time, however a step is cut; nothing is read from padding."""
    expected = torch.zeros(())
    for one in EXAMPLES:
        outputs = valued(model, one)
        for place, target in enumerate(one.targets or ()):
            if not math.isnan(target):
                expected = expected + one.weight * (outputs[place].sigmoid() - target) ** 2
    wanted = torch.autograd.grad(expected / 6, list(model.parameters()))
    batches = micro_batches(EXAMPLES, batching=batching, max_tokens=max_tokens, pad=0)
    whole = totals(batches)
    assert whole.values == 6 and len(batches) == {1: 4, 20: 2, 4096: 1}[max_tokens]
    parts = [loss_of(model, batch, whole) for batch in batches]
    ours = torch.stack(parts).sum()
    assert ours.item() == pytest.approx(expected.item() / 6, rel=1e-5)
    for mine, other in zip(torch.autograd.grad(ours, list(model.parameters())), wanted, strict=True):
        assert (mine - other).abs().max() < 1e-5


def loss_of(model: ValueModel, batch: MicroBatch, whole: Totals) -> torch.Tensor:
    raw = model.raw(batch.input_ids, batch.position_ids, batch.value_positions)
    return MSE().loss(replace(batch.terms, values=raw), whole).value


def test_a_side_of_a_pair_is_read_at_its_target(model: ValueModel) -> None:
    sides = [
        example(0, 3, [NAN, 1.0, NAN], pair_id="a", role="chosen"),
        example(1, 3, [NAN, NAN, 0.0], pair_id="a", role="rejected"),
    ]
    (batch,) = micro_batches(sides, batching="bucketed", max_tokens=4096, pad=0)
    raw = model.raw(batch.input_ids, batch.position_ids, batch.value_positions)
    better, worse = valued(model, sides[0])[1], valued(model, sides[1])[2]
    found = StepPreference().loss(replace(batch.terms, values=raw), totals([batch])).value
    assert found.item() == pytest.approx(step_preference_loss(better, worse).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "needs", "told"),
    [
        (
            {"targets": (-100.0, 1.0)},
            {"values"},
            "1 targets are not within 0 and 1, such as -100; a token that is told",
        ),
        ({"targets": (NAN, NAN)}, {"values"}, "no example has a target"),
        ({"targets": (NAN, 1.0, NAN)}, {"values"}, "has 3 targets for the 2 tokens"),
        ({"targets": (0.0, math.inf)}, {"values"}, "such as inf"),
        ({"targets": None}, {"values"}, "1 of 1 examples have no targets"),
        ({"targets": (0.0, 1.0), "pair_id": "a", "role": "chosen"}, {"values", "pairs"}, "has 2 targets; give it one"),
    ],
)
def test_what_is_no_target_is_refused(changes: dict[str, Any], needs: set[str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        check_needs([replace(Example("e", "p", "own", (3,), (4, 5)), **changes)], needs)


def fitted(source: Path, folder: Path, objective: Objective, **changes: Any) -> tuple[list[Any], ValueModel]:
    optim = replace(FLAT, **changes)
    form = None if (source / WEIGHTS).exists() else FORM
    asked = Fit(source, folder / "out", folder / "log.jsonl", objective, optim, seed=0, head=form)
    return list(fit(EXAMPLES, asked)), load_value_model(folder / "out", dtype="float32", device="cpu")


def test_a_fit_moves_backbone_and_head_and_goes_on_from_what_it_saved(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    steps, first = fitted(tiny, tmp_path / "first", MSE())
    assert [one.last.loss_tokens for one in steps] == [6, 6]
    # All values begin at 1/2.
    assert steps[0].last.loss == pytest.approx((2 * 0.25 + 0.25 + 2 * 0.0625 + 0.25) / 6, abs=1e-6)
    assert first.form == FORM
    before = load_model(tiny, dtype="float32", device="cpu").base_model.state_dict()
    moved = [name for name, tensor in first.backbone.state_dict().items() if not tensor.equal(before[name])]
    assert len(moved) > 10 and all(bool(p.any()) for p in first.head.parameters())
    (tmp_path / "second").mkdir()
    again, _ = fitted(tmp_path / "first" / "out", tmp_path / "second", MSE())
    assert again[0].last.loss < steps[1].last.loss < steps[0].last.loss


@pytest.mark.parametrize(
    "changes", [{"gradient_checkpointing": True}, {"batching": "packed"}, {"micro_tokens": 1}], ids=str
)
def test_how_a_fit_is_laid_out_changes_nothing(changes: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    for name in ("plain", "other"):
        (tmp_path / name).mkdir()
    plain, _ = fitted(tiny, tmp_path / "plain", BCE())
    other, _ = fitted(tiny, tmp_path / "other", BCE(), **changes)
    assert [one.last.loss for one in other] == pytest.approx([one.last.loss for one in plain], rel=1e-4)


def test_bf16_computes_and_fp32_is_kept(tiny: Path) -> None:
    engine = TorchEngine(tiny, MSE(), replace(FLAT, dtype="bfloat16", lr=1e-6), steps=2, device="cpu", head=FORM)
    batches = micro_batches(EXAMPLES, batching="bucketed", max_tokens=4096, pad=0)
    # The first step moves the head away from zero: until then no gradient comes to the backbone.
    before = [engine.step(batches), {n: p.detach().clone() for n, p in engine.model.named_parameters()}][1]
    engine.step(batches)
    for name, parameter in engine.model.named_parameters():
        assert parameter.dtype == torch.float32
        assert 0 < (parameter - before[name]).abs().max() < 2e-6, name  # type: ignore[index]


def test_validation_stops_a_fit_and_keeps_the_best(tiny: Path, tmp_path: Path) -> None:
    optim = replace(FLAT, lr=0.3, steps=40, validation=Validation(every=1, patience=2))
    held = [replace(one, targets=tuple(1.0 - t for t in one.targets or ())) for one in EXAMPLES]
    asked = Fit(tiny, tmp_path / "out", tmp_path / "log", MSE(), optim, seed=0, head=FORM, held_out=held)
    steps = list(fit(EXAMPLES, asked))
    assert len(steps) < 40
    kept = load_value_model(tmp_path / "out", dtype="float32", device="cpu")
    batches = micro_batches(held, batching="bucketed", max_tokens=4096, pad=0)
    with torch.no_grad():
        loss = sum(float(loss_of(kept, batch, totals(batches))) for batch in batches)
    assert loss == pytest.approx(min(one.validation or math.inf for one in steps), rel=1e-4)
