"""Models that are missing, damaged or cannot be are one clear line before a run, exit status 2; nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from one_line import check_refused

from selftrain.checks.described import described_config
from selftrain.models.checkpoint import load_model
from selftrain.schema import Model, RunConfig

CONFIG = Path(__file__).with_name("smaller.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Models that are wrong in one way each."""
    made = tmp_path_factory.mktemp("bad")
    (made / "nothing").mkdir()
    models: dict[str, Callable[[dict[str, Any]], object]] = {
        "no_pad": lambda settings: settings.pop("pad_token"),
        "no_end": lambda settings: settings.pop("eos_token"),
        "two_begins": lambda settings: settings.update(
            bos_token="#", chat_template="{{ bos_token }}{{ bos_token }}{{ messages[0]['content'] }}"
        ),
        "bad_template": lambda settings: settings.update(chat_template="{% for %}"),
    }
    for name, spoil in models.items():
        shutil.copytree(tiny, made / name)
        path = made / name / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        spoil(settings)
        path.write_text(json.dumps(settings))
    shutil.copytree(tiny, made / "no_weights", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(tiny, made / "cut_off")
    weights = made / "cut_off" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return made


MODEL = ("model.architecture=null", "model.alphabet=null")
BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "no model": ((*MODEL,), ("model", "needs a path, or an architecture")),
    "two models": (("model.path={}/no_pad",), ("model: has a path and an architecture", "model.architecture=null")),
    "missing model": ((*MODEL, "model.path={}/none"), ("model.path", "no folder", "none")),
    "no checkpoint": ((*MODEL, "model.path={}/nothing"), ("model.path", "nothing' is no checkpoint")),
    "no weights": ((*MODEL, "model.path={}/no_weights"), ("model.path", "no checkpoint", "holds no weights")),
    "weights cut off": (
        (*MODEL, "model.path={}/cut_off"),
        ("model.path", "is no checkpoint", "model.safetensors is damaged or cut off", "download it again"),
    ),
    "no pad token": ((*MODEL, "model.path={}/no_pad"), ("no_pad has no pad token", "tokenizer_config.json")),
    "no end token": ((*MODEL, "model.path={}/no_end"), ("no_end has no end token", "tokenizer_config.json")),
    "two begins": ((*MODEL, "model.path={}/two_begins"), ("two beginning tokens", "chat template")),
    "bad template": ((*MODEL, "model.path={}/bad_template"), ("chat template", "model.chat=none")),
    "unknown architecture": (("model.architecture.model_type=qwen99",), ("model.architecture", "qwen99")),
    "unknown key of an architecture": (
        ("model.architecture.hiden_size=5",),
        ("model.architecture.hiden_size", "qwen3", "did you mean 'hidden_size'?"),
    ),
    "vocabulary of its own": (("model.architecture.vocab_size=50",), ("vocab_size", "follows from model.alphabet")),
    "width that is no number": (("model.architecture.hidden_size=abc",), ("model.architecture", "hidden_size", "abc")),
    "context that is no number": (("model.architecture.max_position_embeddings=abc",), ("max_position_embeddings",)),
    "negative width": (
        ("model.architecture.hidden_size=-5",),
        ("model.architecture.hidden_size", "must be at least 1, got -5"),
    ),
    "no attention": (("model.architecture.num_attention_heads=0",), ("num_attention_heads", "at least 1, got 0")),
    "no layers": (("model.architecture.num_hidden_layers=0",), ("num_hidden_layers", "at least 1, got 0")),
    "heads that do not divide": (
        ("model.architecture.num_attention_heads=3", "model.architecture.num_key_value_heads=2"),
        ("model.architecture.num_key_value_heads", "must divide num_attention_heads, got 2 for 3 heads"),
    ),
    "odd head": (("model.architecture.head_dim=15",), ("model.architecture", "even rotary dimension", "15")),
    "more experts asked than there are": (
        (
            "model.architecture.model_type=qwen3_moe",
            *(f"model.architecture.num_experts{n}" for n in ("=2", "_per_tok=3")),
        ),
        ("model.architecture", "no model can be made", "RuntimeError"),
    ),
    "unknown activation": (("model.architecture.hidden_act=foo",), ("model.architecture", "no model can be", "foo")),
    "unknown number format": (("model.architecture.dtype=foo",), ("model.architecture", "foo")),
    "unknown characters": (("model.alphabet=123",), ("tasks.arithmetic", "does not know", "model.alphabet")),
    "prompt too long": (
        ("model.architecture.max_position_embeddings=4",),
        ("tasks.arithmetic", "has 4 tokens, the model's context is 4"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_model_is_one_line_and_writes_nothing(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides, told = BAD[name]
    filled = [override.replace("{}", str(folder)) for override in overrides]
    runs = tmp_path / "runs"
    check_refused(["run", str(CONFIG), f"run.folder={runs}", *filled], told, capsys, unwritten=runs)


@pytest.mark.parametrize(
    "fields",
    [
        {
            "model_type": "qwen2",
            "head_dim": 8,
            "torch_dtype": "float32",
            "rope_theta": 1e6,
            "use_sliding_window": False,
        },
        {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "_name_or_path": "somebody/it"},
        {"model_type": "qwen3", "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "architectures": ["X"]},
        {
            "model_type": "gpt2",
            "n_embd": 8,
            "num_attention_heads": 2,
            "hidden_size": 8,
            "transformers_version": "4.40.0",
        },
        {"model_type": "phi3", "partial_rotary_factor": 0.5, "use_cache": True, "output_attentions": False},
    ],
)
def test_what_published_configs_hold_is_known(fields: dict[str, Any]) -> None:
    assert described_config(RunConfig(model=Model(architecture=fields))).model_type == fields["model_type"]


def test_weights_cut_off_that_no_check_saw_are_an_error_of_the_disk(folder: Path) -> None:
    with pytest.raises(OSError, match=r"cut_off: .*header"):
        load_model(folder / "cut_off", device="cpu")
