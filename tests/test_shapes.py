"""Shapes of models: exact numbers of parameters, by name and from a config.json, without the hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from selftrain.config import ConfigError
from selftrain.estimating.known import CONFIGS, family
from selftrain.estimating.shapes import adapter_parameters, from_fields, given, known, shape_of

PUBLISHED = {
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-72B": 72_706_203_648,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "mistralai/Mistral-7B-v0.3": 7_248_023_552,
}
"""As the files of their publishers hold them."""


def test_known_shapes_have_the_parameters_that_are_published() -> None:
    assert {name: shape_of(known(name)).parameters for name in CONFIGS} == PUBLISHED


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("Qwen/Qwen2.5-Math-7B", "Qwen/Qwen2.5-7B"),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", "Qwen/Qwen2.5-32B"),
        ("Qwen/Qwen3-4B-Base", "Qwen/Qwen3-4B"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "Qwen/Qwen2.5-7B"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "meta-llama/Llama-3.1-8B"),
        ("meta-llama/Llama-3.3-70B-Instruct", "meta-llama/Llama-3.1-70B"),
        ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.3"),
    ],
)
def test_tuned_models_have_the_shape_of_their_base(name: str, same: str) -> None:
    assert family(name) == same


def test_a_shape_is_read_from_a_file_and_an_unknown_name_is_refused(tmp_path: Path) -> None:
    small = shape_of(known("Qwen/Qwen2.5-0.5B"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS["Qwen/Qwen2.5-0.5B"]))
    assert shape_of(given(str(tmp_path))) == shape_of(given(str(tmp_path / "config.json"))) == small
    (tmp_path / "other.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(ConfigError, match="no config of a model"):
        given(str(tmp_path / "other.json"))
    with pytest.raises(ConfigError, match=r"no known model \(did you mean 'Qwen/Qwen2.5-7B'"):
        given("Qwen/Qwen25-7B")


def test_tokens_meet_the_experts_they_are_sent_to_and_leave_keys_and_values() -> None:
    mixture, dense = (shape_of(known(name)) for name in ("Qwen/Qwen3-30B-A3B", "Qwen/Qwen2.5-7B"))
    assert 2.9e9 < mixture.active < 3.4e9  # 3.3 G as published, input embeddings included.
    assert dense.active == dense.parameters - 152_064 * 3584
    assert dense.kv_values == 2 * 28 * 4 * 128  # 57,344 bytes in bf16.
    assert mixture.qk_norm and not dense.qk_norm and dense.largest == 152_064 * 3584


def test_an_adapter_has_its_rank_times_both_sides_of_every_layer() -> None:
    fields = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 40, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    config = from_fields({"model_type": "llama", **fields, **heads})
    attention, wide = (16 + 16) + 2 * (16 + 8) + (16 + 16), 3 * (16 + 40)
    assert adapter_parameters(config, 8, ("all-linear",)) == 3 * 8 * (attention + wide)
    assert adapter_parameters(config, 8, ("down_proj",)) == 3 * 8 * 56
