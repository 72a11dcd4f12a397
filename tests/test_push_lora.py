"""What a push makes of an adapter: merged where its base is not on the hub, and a card that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from selftrain.cli import main
from selftrain.models.checkpoint import load_model
from selftrain.report.lineage import adapter_of

TINY = Path(__file__).with_name("tiny.yaml")
LORA = "learners.policy.lora={r: 4, alpha: 8}"
ONE = "loop.iterations=1"


def push(run: Path, target: Path, iteration: int = 1) -> ModelCard:
    assert main(["push", str(run), "--to", str(target), "--iteration", str(iteration)]) == 0
    return ModelCard((target / "README.md").read_text())


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(3, 15)[None], use_cache=False).logits  # type: ignore[no-any-return]


def check_alone(pushed: Path, run: Path, iteration: int = 1) -> None:
    """The pushed folder, opened with transformers alone, computes what the run's checkpoint does."""
    from transformers import AutoModelForCausalLM

    assert not (pushed / "adapter_config.json").exists()
    checkpoint = run / f"iteration_{iteration:04d}" / "policy" / "checkpoint"
    assert (checkpoint / "adapter_config.json").exists()
    expected, found = (
        logits(model)
        for model in (
            load_model(checkpoint, dtype="float32", device="cpu"),
            AutoModelForCausalLM.from_pretrained(pushed),
        )
    )
    assert torch.allclose(found, expected, atol=1e-4) and float(expected.abs().max()) > 0.1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights are warmed up, then the learner fits an adapter on them."""
    folder = tmp_path_factory.mktemp("runs")
    assert main(["run", str(TINY), f"run.folder={folder}", LORA, ONE]) == 0
    return folder / "tiny"


def test_an_adapter_of_a_warmed_up_model_is_pushed_merged(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = push(run, tmp_path / "out")
    assert capsys.readouterr().err == ""
    check_alone(tmp_path / "out", run)
    warm = load_model(run / "warmup" / "policy" / "checkpoint", device="cpu")
    assert not torch.allclose(logits(load_model(tmp_path / "out", device="cpu")), logits(warm), atol=1e-2)
    text = " ".join(card.text.split())
    assert "What was fitted is a LoRA adapter: rank 4, alpha 8, dropout 0, on down_proj, gate_proj, k_proj," in text
    assert "This is a full checkpoint and needs no other." in text
    assert "| adapter | LoRA, rank 4, alpha 8, dropout 0, on down_proj," in text
    assert (card.data.get("library_name"), card.data.get("base_model")) == ("transformers", None)
    told = json.loads((tmp_path / "out" / "selftrain.json").read_text())["adapter"]
    assert told["base"] is None and (told["r"], told["alpha"]) == (4, 8) and 0 <= told["difference"] < 1e-3


def test_an_adapter_of_a_local_model_is_pushed_merged_without_its_place(run: Path, tiny: Path, tmp_path: Path) -> None:
    local = [f"model.path={tiny}", "model.architecture=null", "model.alphabet=null", "warmup=null"]
    assert main(["run", str(TINY), f"run.folder={tmp_path}", LORA, ONE, *local]) == 0
    card = push(tmp_path / "tiny", tmp_path / "out")
    check_alone(tmp_path / "out", tmp_path / "tiny")
    assert f"fitted from a local checkpoint, `{tiny.name}`" in card.text and card.data.get("base_model") is None
    for path in (tmp_path / "out").iterdir():
        assert str(tiny.parent).encode() not in path.read_bytes(), path


def test_an_adapter_without_its_base_is_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "warmup").rename(run / "hidden")
    try:
        assert main(["push", str(run), "--to", str(tmp_path / "out"), "--iteration", "1"]) == 1
    finally:
        (run / "hidden").rename(run / "warmup")
    error = capsys.readouterr().err
    assert "the base of the adapter in" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_full_checkpoint_has_no_adapter(run: Path, tmp_path: Path) -> None:
    assert adapter_of(run / "warmup" / "policy" / "checkpoint") is None
    card = push(run, tmp_path / "out", iteration=0)
    assert "adapter: " not in card.text.partition("## Config")[0]
