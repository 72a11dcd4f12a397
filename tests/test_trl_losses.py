"""Preference losses and their gradients against TRL's own trainers on the same logits, through the batches that are
trained on; where TRL departs from the paper, against the paper.

TRL's trainers are made without their constructors and given what their losses read; a model that stands in returns
fixed logits, whose gradient is compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, pad
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from selftrain.objectives import preference
from selftrain.objectives.labelled import KTO
from selftrain.objectives.paired import DPO, IPO, NCA, ORPO, RobustDPO, SimPO, SLiC
from selftrain.training.data import Batching, micro_batches, totals
from selftrain.training.engine import Objective
from selftrain.types import Example

VOCABULARY, PAD = 11, 0
LENGTHS = [(3, 4), (3, 2), (1, 6), (1, 1), (5, 3), (5, 7)]
"""Prompt and response of each side of three pairs."""


def examples(lengths: Sequence[tuple[int, int]] = LENGTHS) -> list[Example]:
    torch.manual_seed(1)
    made = []
    for i, (prompt, response) in enumerate(lengths):
        ids = torch.randint(1, VOCABULARY, (prompt + response,)).tolist()
        own = Example(f"e{i}", f"p{i // 2}", "own", tuple(ids[:prompt]), tuple(ids[prompt:]), label=float(i % 3 > 0))
        reference = tuple((-3 * torch.rand(response)).tolist())
        role: Any = "rejected" if i % 2 else "chosen"
        made.append(replace(own, reference_logprobs=reference, pair_id=f"pair {i // 2}", role=role))
    return made


EXAMPLES = examples()
WIDTH = max(map(sum, LENGTHS))


def fixed_logits(count: int = len(LENGTHS), width: int = WIDTH) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(count, width, VOCABULARY).mul_(2).requires_grad_()


def ours(objective: Objective, logits: Tensor, own: Sequence[Example], batching: Batching = "bucketed") -> Tensor:
    """The loss of one step in two forward passes or more, on the logits of each example's row."""
    batches = micro_batches(own, batching=batching, max_tokens=2 * WIDTH, pad=PAD)
    assert len(batches) > 1 or len(own) == 2
    loss = torch.zeros(())
    for batch in batches:
        rows = logits[batch.examples, : batch.input_ids.shape[1]]
        if batching == "packed":
            rows = torch.cat([logits[i, : sum(LENGTHS[i])] for i in batch.examples.tolist()])
        chosen = rows.reshape(-1, VOCABULARY)[batch.positions.index].log_softmax(dim=1)
        logprobs = chosen.gather(1, batch.positions.targets[:, None]).squeeze(1)
        loss = loss + objective.loss(replace(batch.terms, logprobs=logprobs), totals(batches, Z)).value
    return loss


Z = 0.3
"""The divergence that KTO is given."""


def same(ours: Tensor, logits: Tensor, theirs: Tensor, their_logits: Tensor, scale: float = 1.0) -> None:
    """Loss and gradient by logits, to 1e-5; every logit that carries loss takes part."""
    assert ours.item() == pytest.approx(scale * theirs.item(), abs=1e-5)
    (own,), (other,) = torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, their_logits)
    assert own.abs().sum().item() > 0.05
    assert (own - scale * other).abs().max().item() < 1e-5


def gather(value: Tensor) -> Tensor:
    return value


def trainer(kind: Any, **options: Any) -> Any:
    """A trainer of theirs as its loss sees it."""
    made = object.__new__(kind)
    own: dict[str, Any] = {
        "accelerator": SimpleNamespace(device=torch.device("cpu"), gather=gather, gather_for_metrics=gather),
        "model": torch.nn.Linear(1, 1),
        "ref_model": None,
        "aux_loss_enabled": False,
        "precompute_ref_logps": True,
        "_metrics": {"train": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "is_encoder_decoder": False,
        "loss_type": None,
    }
    for name, value in {**own, **options}.items():
        setattr(made, name, value)
    return made


def rows(own: Sequence[Example]) -> dict[str, Tensor]:
    """Their batch: ids, what of them is read, what carries loss."""

    def padded(of: Any) -> Tensor:
        return torch.stack([pad(torch.tensor(of(one)), (0, WIDTH - len(of(one))), value=PAD) for one in own])

    return {
        "input_ids": padded(lambda one: [*one.prompt_ids, *one.response_ids]),
        "attention_mask": padded(lambda one: [1] * (len(one.prompt_ids) + len(one.response_ids))),
        "completion_mask": padded(lambda one: [0] * len(one.prompt_ids) + [1] * len(one.response_ids)),
    }


class Model:
    """What their model returns: numbers of the next token where it carries loss, 0 elsewhere."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, ids: Tensor | None = None, labels: Tensor | None = None, **_: Any) -> Any:
        if labels is None:
            return SimpleNamespace(logits=self.logits)
        wanted = labels[:, 1:]
        logprobs = self.logits[:, :-1].log_softmax(dim=-1).gather(2, wanted.clamp(min=0)[..., None]).squeeze(-1)
        zeros = torch.zeros_like(logprobs)
        return SimpleNamespace(
            log_probs=logprobs * (wanted != -100), entropy=zeros, mean_logits=zeros, is_top1=zeros > 0
        )


def reference(own: Sequence[Example]) -> Tensor:
    return torch.tensor([sum(one.reference_logprobs or ()) for one in own])


def dpo_of_trl(
    logits: Tensor, loss_type: str, beta: float, own: Sequence[Example] = EXAMPLES, e: float = 0.0
) -> Tensor:
    """Their batch has the chosen ones first, then the rejected ones."""
    theirs = trainer(
        DPOTrainer,
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=e,
        f_divergence_type="reverse_kl",
        ld_alpha=None,
        use_weighting=False,
    )
    order = [*range(0, len(own), 2), *range(1, len(own), 2)]
    sums = reference([own[i] for i in order]).chunk(2)
    batch = {**rows([own[i] for i in order]), "ref_chosen_logps": sums[0], "ref_rejected_logps": sums[1]}
    return torch.as_tensor(theirs._compute_loss(Model(logits[order]), batch, False))


CASES: list[tuple[Objective, str, float, float]] = [
    (DPO(beta=0.1), "sigmoid", 0.1, 0.0),
    (RobustDPO(beta=0.2, noise=0.15), "robust", 0.2, 0.15),
    (IPO(tau=0.3), "ipo", 0.3, 0.0),
    (SLiC(beta=0.25), "hinge", 0.25, 0.0),
    (NCA(beta=0.15), "nca_pair", 0.15, 0.0),
]


@pytest.mark.parametrize("batching", ["bucketed", "packed"])
@pytest.mark.parametrize("objective, loss_type, beta, e", CASES, ids=lambda value: getattr(value, "__name__", None))
def test_losses_on_pairs(objective: Objective, loss_type: str, beta: float, e: float, batching: Batching) -> None:
    logits, other = fixed_logits(), fixed_logits()
    same(ours(objective, logits, EXAMPLES, batching), logits, dpo_of_trl(other, loss_type, beta, e=e), other)


def test_dpo_with_the_likelihood_of_chosen_responses() -> None:
    """TRL's ``sft`` is a mean over the tokens of all chosen responses; iterative RPO's (Pang et al. 2024, equation 1)
    is by response. On one pair they are the same."""
    own = EXAMPLES[:2]
    logits, other = fixed_logits(2), fixed_logits(2)
    theirs = dpo_of_trl(other, "sigmoid", 0.1, own) + 0.7 * dpo_of_trl(other, "sft", 0.1, own)
    same(ours(DPO(nll=0.7), logits, own), logits, theirs, other)
    by_response = ours(DPO(nll=0.7), fixed_logits(), EXAMPLES)
    by_token = dpo_of_trl(fixed_logits(), "sigmoid", 0.1) + 0.7 * dpo_of_trl(fixed_logits(), "sft", 0.1)
    assert abs(by_response.item() - by_token.item()) > 0.01


def test_conservative_dpo_smooths_labels_where_trl_ignores_that() -> None:
    """TRL 1.16's ``sigmoid`` reads no ``label_smoothing`` (`DPOTrainer._compute_loss`); Mitchell 2023 ("A note on DPO
    with noisy preferences", equation 3) does. TRL's CPO still has that formula, here given log-ratios."""
    assert dpo_of_trl(fixed_logits(), "sigmoid", 0.1, e=0.2).item() == dpo_of_trl(fixed_logits(), "sigmoid", 0.1).item()
    ratios = torch.randn(2, 50, dtype=torch.float64)
    theirs = trainer(CPOTrainer, loss_type="sigmoid", beta=0.3, label_smoothing=0.2, alpha=0.0).cpo_loss(*ratios)[0]
    torch.testing.assert_close(preference.dpo_loss(ratios[0] - ratios[1], 0.3, 0.2), theirs)
    smoothed, plain = (ours(DPO(smoothing=e), fixed_logits(), EXAMPLES).item() for e in (0.2, 0.0))
    assert abs(smoothed - plain) > 0.1


def test_ipo_counts_the_tokens_it_sums() -> None:
    """TRL divides by the completion mask before it is shifted, which counts a first token that nothing stands before
    (TRL #6879); a token outside the loss mask, of a tool for instance, is no more in our mean than in the sum."""
    masked = [replace(one, loss_mask=(True, *(False for _ in one.response_ids[1:]))) for one in EXAMPLES]
    short = [
        replace(one, response_ids=one.response_ids[:1], reference_logprobs=(one.reference_logprobs or ())[:1])
        for one in EXAMPLES
    ]
    assert ours(IPO(), fixed_logits(), masked).item() == pytest.approx(ours(IPO(), fixed_logits(), short).item())
    assert abs(ours(IPO(), fixed_logits(), masked).item() - ours(IPO(), fixed_logits(), EXAMPLES).item()) > 0.1


def chosen_and_rejected(own: Sequence[Example]) -> dict[str, Tensor]:
    """The batch of their CPO and ORPO."""
    batch = {}
    for side, examples in (("chosen", own[::2]), ("rejected", own[1::2])):
        found = rows(examples)
        batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"] = found["input_ids"], found["attention_mask"]
        batch[f"{side}_labels"] = found["input_ids"].masked_fill(found["completion_mask"] == 0, -100)
    return batch


def test_simpo() -> None:
    """TRL's ``simpo_gamma`` is the paper's gamma: it divides by beta first, and multiplies by it afterwards."""
    logits, other = fixed_logits(), fixed_logits()
    theirs = trainer(
        CPOTrainer, loss_type="simpo", beta=2.5, simpo_gamma=1.2, label_smoothing=0.0, alpha=0.0, cpo_alpha=0.0,
        pad_token_id=PAD,
    )  # fmt: skip
    order = [0, 2, 4, 1, 3, 5]
    loss, _ = theirs.get_batch_loss_metrics(Model(other[order]), chosen_and_rejected(EXAMPLES))
    same(ours(SimPO(beta=2.5, gamma=1.2), logits, EXAMPLES), logits, loss, other)


def orpo_of_trl(logits: Tensor, own: Sequence[Example], beta: float) -> tuple[Tensor, dict[str, float]]:
    theirs = trainer(ORPOTrainer, beta=beta, padding_value=PAD)
    order = [*range(0, len(own), 2), *range(1, len(own), 2)]
    loss, metrics = theirs.get_batch_loss_metrics(Model(logits[order]), chosen_and_rejected(own))
    return loss, metrics


def test_orpo() -> None:
    """On one pair whose prompt is one token, which is never predicted."""
    own = EXAMPLES[2:4]
    logits, other = fixed_logits(2), fixed_logits(2)
    same(ours(ORPO(ratio=0.4), logits, own), logits, orpo_of_trl(other, own, 0.4)[0], other)


def test_orpo_teaches_the_response_where_trl_teaches_the_prompt_too() -> None:
    """TRL's likelihood is a mean over the tokens of all chosen prompts and responses; the paper's is log P(y|x) by
    response (Hong et al. 2024, equations 2 and 6). The odds are the same."""
    logits, other = fixed_logits(), fixed_logits()
    loss, metrics = orpo_of_trl(other, EXAMPLES, 0.4)
    found = rows(EXAMPLES[::2])
    logprobs = Model(logits[::2])(labels=found["input_ids"].masked_fill(found["completion_mask"] == 0, -100)).log_probs
    likelihood = -(logprobs.sum(1) / found["completion_mask"].sum(1)).mean()
    own = ours(ORPO(ratio=0.4), logits, EXAMPLES)
    assert abs(metrics["nll_loss"] - likelihood.item()) > 0.01
    assert (own - likelihood).item() == pytest.approx(loss.item() - metrics["nll_loss"], abs=1e-5)


def kto_of_trl(logits: Tensor, mismatched: Tensor, desirable: float, undesirable: float) -> tuple[Tensor, float]:
    """Both models give the partners fixed log-probabilities, ``[2, S]``."""
    theirs = trainer(
        KTOTrainer,
        loss_type="kto",
        beta=0.2,
        calculate_KL=True,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
        _compute_kl_logps=lambda model, batch: mismatched[0],
    )
    labels = torch.tensor([one.label for one in EXAMPLES]) > 0.5
    batch = {**rows(EXAMPLES), "label": labels, "ref_logps": reference(EXAMPLES), "ref_KL_logps": mismatched[1]}
    loss: Tensor = theirs._compute_loss(Model(logits), batch, False)
    return loss, theirs._metrics["train"]["kl"][0]


@pytest.mark.parametrize("desirable, undesirable", [(1.0, 1.0), (1.3, 0.6)])
def test_kto(desirable: float, undesirable: float) -> None:
    logits, other = fixed_logits(), fixed_logits()
    mismatched = torch.randn(2, 6)
    mismatched[0] += Z - (mismatched[0] - mismatched[1]).mean()
    loss, divergence = kto_of_trl(other, mismatched, desirable, undesirable)
    assert divergence == pytest.approx(Z, abs=1e-6)
    same(ours(KTO(0.2, desirable, undesirable), logits, EXAMPLES), logits, loss, other)


def test_trl_has_the_equations_that_are_written_here() -> None:
    """DPO's as its paper writes it, on sums over the response."""
    sums = []
    for i, one in enumerate(EXAMPLES):
        logprobs = fixed_logits().detach()[i].log_softmax(dim=1)
        first = len(one.prompt_ids) - 1
        sums.append(sum(float(logprobs[first + t, token]) for t, token in enumerate(one.response_ids)))
    h = [mine - other for mine, other in zip(sums, reference(EXAMPLES).tolist(), strict=True)]
    expected = -logsigmoid(torch.tensor([0.1 * (h[i] - h[i + 1]) for i in (0, 2, 4)])).mean()
    assert dpo_of_trl(fixed_logits(), "sigmoid", 0.1).item() == pytest.approx(expected.item(), abs=1e-6)
    assert ours(DPO(), fixed_logits(), EXAMPLES).item() == pytest.approx(expected.item(), abs=1e-6)
