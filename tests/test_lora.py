"""Adapters: what is fitted and what is not, in which type, and what saving, loading and merging make of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selftrain.config import ConfigError, check_tree, to_tree
from selftrain.models import adapters, checkpoint, export, logprobs
from selftrain.models.logprobs import Positions, batch_logprobs
from selftrain.objectives.nll import NLL
from selftrain.objectives.terms import Totals
from selftrain.planning import fingerprints
from selftrain.schema import Lora, Optim
from selftrain.training.data import micro_batches
from selftrain.training.engine import TorchEngine
from selftrain.training.learnt import LanguageModel
from selftrain.types import Example

FLAT = Optim(lr=1e-2, schedule="constant", warmup=0.0, dtype="float32")
LORA = Lora(r=4, alpha=8)
IDS = torch.arange(3, 17)[None]
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def engine(source: Path, optim: Optim = FLAT, lora: Lora | None = LORA) -> TorchEngine:
    torch.manual_seed(0)
    return TorchEngine(source, NLL(), optim, steps=10, device="cpu", lora=lora)


def batches() -> Any:
    examples = [Example(f"e{i}", f"p{i}", "own", (3, 4 + i), (5, 6, 7 + i, 1)) for i in range(4)]
    return micro_batches(examples, batching="bucketed", max_tokens=64, pad=0)


def gradients(made: TorchEngine) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in made.model.named_parameters() if p.grad is not None}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, use_cache=False).logits.float()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of three steps on the tiny model."""
    made = engine(tiny)
    for _ in range(3):
        made.step(batches())
    folder = tmp_path_factory.mktemp("adapter") / "checkpoint"
    made.save(folder)
    return folder


def config(**learner: Any) -> Any:
    learners = {"policy": {"examples": {"own": {"from": "draft"}}, **learner}}
    return check_tree({"tasks": {"arithmetic": {}}, "grow": {"draft": {}}, "learners": learners})


def test_learning_rate_is_ten_times_the_default_where_none_is_written() -> None:
    assert config().learners["policy"].optim.lr == pytest.approx(1e-5)
    assert config(lora={}).learners["policy"].optim.lr == pytest.approx(1e-4)
    assert config(lora={}, optim={"lr": None, "steps": 3}).learners["policy"].optim.lr == pytest.approx(1e-4)
    assert config(lora={}, optim={"lr": 1e-5}).learners["policy"].optim.lr == pytest.approx(1e-5)
    warm = check_tree({**to_tree(config()), "warmup": {"policy": {"lora": {"targets": "q_proj"}}}})
    assert warm.warmup["policy"].optim.lr == pytest.approx(1e-4)
    assert warm.warmup["policy"].lora == Lora(targets=("q_proj",))
    assert check_tree(to_tree(warm)) == warm


@pytest.mark.parametrize(
    ("lora", "told"),
    [
        ({"r": 0}, "learners.policy.lora.r: must be at least 1, got 0"),
        ({"rank": 4}, "learners.policy.lora.rank: unknown key"),
        ({"dropout": 1.0}, "learners.policy.lora.dropout: must be at least 0 and less than 1"),
        ("all-linear", "learners.policy.lora: expected a mapping of keys such as learners.policy.lora.r"),
    ],
)
def test_wrong_settings_are_told(lora: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        config(lora=lora)


def test_settings_count_and_micro_batches_do_not() -> None:
    def depends(**learner: Any) -> Any:
        return fingerprints.improve(config(**learner), "policy")

    assert depends(lora={"r": 4}) != depends(lora={"r": 8}) != depends()
    assert depends(lora={}, optim={"micro_tokens": 512}) == depends(lora={})


def test_every_linear_layer_but_the_head_has_an_adapter_and_nothing_else_changes(tiny: Path) -> None:
    made = engine(tiny)
    layers = adapters.linear_layers(checkpoint.load_model(tiny, device="cpu"))
    assert sorted(layer.rpartition(".")[2] for layer in layers) == sorted([*LINEAR, *LINEAR])
    fitted = {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert fitted == {f"{layer}.lora_{side}.default.weight" for layer in layers for side in "AB"}
    before = {name: p.detach().clone() for name, p in made.model.named_parameters()}
    for _ in range(2):
        made.step(batches())
    changed = {name for name, p in made.model.named_parameters() if not p.equal(before[name])}
    assert changed == fitted


def test_a_fresh_adapter_changes_nothing_yet(tiny: Path) -> None:
    assert logits(engine(tiny).model).equal(logits(checkpoint.load_model(tiny, dtype="float32", device="cpu")))


def test_named_targets_alone_are_adapted(tiny: Path) -> None:
    made = engine(tiny, lora=Lora(r=2, alpha=4, targets=("q_proj", "mlp.down_proj")))
    fitted = {name.split(".lora_")[0].rpartition(".")[2] for name in made.weights()}
    assert fitted == {"q_proj", "down_proj"}


def test_in_bf16_the_base_is_bf16_and_small_steps_of_the_adapter_are_kept(tiny: Path, adapter: Path) -> None:
    made = engine(tiny, replace(FLAT, dtype="bfloat16"))
    assert {p.dtype for p in made.model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in made.model.parameters() if not p.requires_grad} == {torch.bfloat16}
    losses = [made.step(batches()).loss for _ in range(6)]
    assert losses[-1] < losses[0] - 0.05
    served = checkpoint.load_model(adapter, dtype="bfloat16", device="cpu")
    assert {p.dtype for p in served.parameters()} == {torch.bfloat16}
    small = engine(adapter, replace(FLAT, dtype="bfloat16", lr=1e-6))
    before = small.weights()
    small.step(batches())
    for name, tensor in small.weights().items():
        moved = (tensor - before[name]).abs().max()
        assert 0 < moved < 2e-6, name
        assert before[name].abs().max() > 1e-3  # Where bf16 has no number that near.


def test_chunked_logprobs_have_the_gradient_of_plain_cross_entropy(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = engine(adapter)
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 3 * made.model.config.vocab_size)
    positions = Positions(torch.arange(IDS.numel() - 1), IDS[0, 1:])
    (-batch_logprobs(made.model, IDS, None, positions).sum()).backward()
    ours = gradients(made)
    made.model.zero_grad()
    assert isinstance(made.learnt, LanguageModel) and made.learnt.adapter is not None
    scores = made.learnt.adapter.wrapper(IDS, use_cache=False).logits
    nn.functional.cross_entropy(scores[0, :-1], IDS[0, 1:], reduction="sum").backward()
    plain = gradients(made)
    assert len(ours) == 28 and ours.keys() == plain.keys()
    for name in ours:
        assert ours[name].abs().max() > 0
        assert (ours[name] - plain[name]).abs().max() < 1e-5 * max(1.0, float(plain[name].abs().max())), name


def test_gradient_checkpointing_gives_the_same_gradients(adapter: Path) -> None:
    made = [engine(adapter, replace(FLAT, gradient_checkpointing=again)) for again in (False, True)]
    assert made[1].model.is_gradient_checkpointing
    found = []
    for one in made:
        one._loss(batches()[0], Totals(16, 4)).value.backward()
        found.append(gradients(one))
    assert len(found[0]) == 28 and found[0].keys() == found[1].keys()
    for name, tensor in found[0].items():
        assert tensor.abs().max() > 0 and torch.allclose(tensor, found[1][name], atol=1e-6), name


def test_dropout_is_there_in_training_only(adapter: Path) -> None:
    made = engine(adapter, lora=replace(LORA, dropout=0.5))
    assert made.evaluate(batches()) == made.evaluate(batches())
    with torch.no_grad():
        one, other = (made._loss(batches()[0], Totals(16, 4)).value for _ in range(2))
    assert one != other


def test_a_saved_adapter_loads_unmerged_and_is_continued(adapter: Path, tiny: Path, tmp_path: Path) -> None:
    assert sorted(file.name for file in adapter.glob("*.safetensors")) == ["adapter_model.safetensors"]
    assert adapters.adapter_base(adapter) == tiny and adapters.adapter_base(tiny) is None
    loaded = checkpoint.load_model(adapter, device="cpu")
    assert any(".lora_A." in name for name, _ in loaded.named_parameters())
    assert (logits(loaded) - logits(checkpoint.load_model(tiny, device="cpu"))).abs().max() > 0.01
    again = engine(adapter)
    assert logits(again.model).equal(logits(loaded))
    assert checkpoint.end_tokens(loaded, again.tokenizer) == {1}
    again.step(batches())
    again.save(tmp_path / "next")
    assert adapters.adapter_base(tmp_path / "next") == tiny


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_export_merges_and_stands_alone(adapter: Path, tmp_path: Path, dtype: Any) -> None:
    difference = export.export(adapter, tmp_path / "full", dtype)
    assert not list((tmp_path / "full").glob("adapter*"))
    whole = checkpoint.load_model(tmp_path / "full", dtype="float32", device="cpu")
    assert export.stored_dtype(tmp_path / "full") == (dtype or "float32")
    unmerged = logits(checkpoint.load_model(adapter, device="cpu"))
    apart = float((logits(whole) - unmerged).abs().max() / unmerged.abs().max())
    limit = 1e-5 if dtype is None else 0.05
    assert apart < limit and difference < limit
    assert export.export(tmp_path / "full", tmp_path / "copy") == 0.0
    assert logits(checkpoint.load_model(tmp_path / "copy", dtype="float32", device="cpu")).equal(logits(whole))


def test_a_merge_that_changes_the_logits_is_refused(adapter: Path, tmp_path: Path) -> None:
    same = torch.tensor([1.0, -2.0, 0.5])
    assert export.check_same(same, same + 0.001, "float32") == pytest.approx(0.0005, rel=1e-3)
    with pytest.raises(ValueError, match=r"logits differ by 0.005 of the largest, allowed is 0.001"):
        export.check_same(same, same + 0.01, "float32")
    with pytest.raises(ValueError, match="differ by nan"):
        export.check_same(same, same * float("nan"), "bfloat16")


def test_an_adapter_of_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(adapter / adapters.WEIGHTS)
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_file(dict(list(tensors.items())[:-1]), tmp_path / adapters.WEIGHTS)
    with pytest.raises(ValueError, match="does not fit its base: 1 of its tensors are missing"):
        checkpoint.load_model(tmp_path, device="cpu")


def test_a_full_fit_of_an_adapter_starts_from_what_it_computes(adapter: Path, tmp_path: Path) -> None:
    made = engine(adapter, lora=None)
    assert torch.allclose(logits(made.model), logits(checkpoint.load_model(adapter, device="cpu")), atol=1e-5)
    before = made.weights()
    made.step(batches())
    assert sum(not tensor.equal(before[name]) for name, tensor in made.weights().items()) > 14
    made.save(tmp_path / "full")
    assert adapters.adapter_base(tmp_path / "full") is None


def test_the_base_is_named_so_that_a_run_can_be_moved(adapter: Path, tmp_path: Path) -> None:
    folder, base = tmp_path / "run" / "iteration_0001" / "policy" / "checkpoint", tmp_path / "run" / "start"
    folder.mkdir(parents=True)
    base.mkdir()
    (folder / adapters.SETTINGS).write_text((adapter / adapters.SETTINGS).read_text())
    for place, name in (
        (base, "../../../start"),
        (tmp_path, str(tmp_path)),
        (Path("Qwen/Qwen3-0.6B"), "Qwen/Qwen3-0.6B"),
    ):
        adapters.set_base(folder, place, tmp_path / "run")
        assert json.loads((folder / adapters.SETTINGS).read_text())[adapters.BASE] == name
        assert adapters.adapter_base(folder) == place
    adapters.set_base(folder, base, tmp_path / "run")
    base.rmdir()
    with pytest.raises(FileNotFoundError, match=r"the base of the adapter in .* is not at '../../../start'"):
        adapters.adapter_base(folder)
