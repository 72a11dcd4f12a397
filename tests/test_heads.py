"""Value models: where they are read, what they compute in, and that what is saved comes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_values import QWEN, causal, last_layer, saved, value_model
from transformers import AutoModelForCausalLM

from selftrain.models import checkpoint
from selftrain.models.head_form import Head, HeadForm, has_value_head, read_form
from selftrain.models.heads import load_value_model, save_value_model

HEADS: tuple[Head, ...] = ("linear", "mlp")
IDS = [5, 9, 11, 3, 4, 8]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("base") / "model")


def own(base: Path, model: Any, ids: list[int]) -> torch.Tensor:
    """The head's outputs at every token, computed by transformers' own model alone."""
    causal_model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        hidden = causal_model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0]
        out: torch.Tensor = model.head(hidden.float())[:, 0]
    return out


@pytest.mark.parametrize("head", HEADS)
def test_the_value_stands_at_its_token_and_never_at_padding(base: Path, head: Head) -> None:
    """ReST-MCTS*'s code reads the last column, which is padding for all rows but the longest."""
    model = value_model(base, HeadForm(head=head))
    wanted = own(base, model, IDS[:4])
    rows = torch.tensor([[*IDS[:4], 0, 0], IDS])
    with torch.no_grad():
        raw = model.raw(rows, None, torch.tensor([1, 3, 6 + 5]))
        last_column = model.raw(rows, None, torch.tensor([5]))
    assert torch.allclose(raw[:2], wanted[[1, 3]], atol=1e-5)
    assert torch.allclose(raw[2], own(base, model, IDS)[-1], atol=1e-5)
    assert abs(float(last_column - wanted[3])) > 1e-2


def test_packed_rows_are_told_apart(base: Path) -> None:
    model = value_model(base)
    packed, positions = torch.tensor([[*IDS[:4], *IDS]]), torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 4, 5]])
    with torch.no_grad():
        raw = model.raw(packed, positions, torch.tensor([3, 9]))
    assert torch.allclose(raw, torch.stack([own(base, model, IDS[:4])[-1], own(base, model, IDS)[-1]]), atol=1e-5)


def test_the_head_is_over_hidden_states_and_computes_in_fp32(base: Path) -> None:
    model = value_model(base, dtype="bfloat16")
    assert model.backbone.dtype == torch.bfloat16
    assert {p.dtype for p in model.head.parameters()} == {torch.float32}
    assert last_layer(model).in_features == QWEN["hidden_size"]
    assert not any(name.endswith("lm_head.weight") for name in model.state_dict())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        raw = model.raw(torch.tensor([IDS]), None, torch.tensor([2, 5]))
        hidden = model.backbone(torch.tensor([IDS]), use_cache=False).last_hidden_state[0, [2, 5]]
    assert raw.dtype == torch.float32
    assert torch.equal(raw, model.head(hidden.float())[:, 0])


def test_normalisers(base: Path) -> None:
    raw = torch.tensor([-2.0, 0.0, 0.5])
    sigmoid, tanh = value_model(base), value_model(base, HeadForm(normaliser="tanh"))
    assert sigmoid.normalised(raw).tolist() == pytest.approx([0.119203, 0.5, 0.622459], abs=1e-6)
    assert tanh.normalised(raw).tolist() == pytest.approx([0.017986, 0.5, 0.731059], abs=1e-6)


def test_a_fresh_head_says_one_half_and_learns(base: Path) -> None:
    for head in HEADS:
        model = load_value_model(base, HeadForm(head=head), device="cpu", seed=3)
        raw = model.raw(torch.tensor([IDS]), None, torch.arange(6))
        assert model.normalised(raw).tolist() == [0.5] * 6
        (raw - 1).square().mean().backward()
        gradient = last_layer(model).weight.grad
        assert gradient is not None and float(gradient.norm()) > 0.1
        again = load_value_model(base, HeadForm(head=head), device="cpu", seed=3)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("form", [HeadForm(), HeadForm("mlp", "tanh", "last", "\n\n")])
def test_what_is_saved_comes_back(base: Path, tmp_path: Path, form: HeadForm) -> None:
    model, tokenizer = value_model(base, form), checkpoint.load_tokenizer(base)
    tokenizer.chat_template = "{{ messages[0].content }}"
    save_value_model(model, tokenizer, tmp_path / "value")
    assert has_value_head(tmp_path / "value") and not has_value_head(base)
    assert read_form(tmp_path / "value") == form
    assert json.loads((tmp_path / "value" / "value_head.json").read_text())["size"] == QWEN["hidden_size"]
    again = load_value_model(tmp_path / "value", device="cpu")
    assert again.form == form
    places = torch.arange(6)
    with torch.no_grad():
        before, after = (each.raw(torch.tensor([IDS]), None, places) for each in (model, again.eval()))
    assert torch.equal(before, after)
    theirs = checkpoint.load_tokenizer(tmp_path / "value")
    assert (theirs.chat_template, theirs.eos_token_id) == (tokenizer.chat_template, tokenizer.eos_token_id)
    assert again.config.eos_token_id == tokenizer.eos_token_id
    assert sorted(path.name for path in tmp_path.iterdir()) == ["value"]


def test_what_does_not_come_back_equal_is_not_left(base: Path, tmp_path: Path) -> None:
    model = value_model(base)
    with torch.no_grad():
        last_layer(model).weight[0, 3] = torch.nan
    with pytest.raises(ValueError, match="does not load back as it was saved"):
        save_value_model(model, checkpoint.load_tokenizer(base), tmp_path / "value")
    assert not (tmp_path / "value").exists()


def test_what_is_no_value_model_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no value head"):
        load_value_model(base, device="cpu")
    value = saved(tmp_path / "value", base)
    with pytest.raises(ValueError, match="a value head of another form"):
        load_value_model(value, HeadForm("mlp"), device="cpu")
    (value / "value_head.json").write_text('{"head": "linear"}')
    with pytest.raises(ValueError, match=r"value_head\.json: these are no settings of a value head"):
        load_value_model(value, device="cpu")


def test_a_model_that_sees_what_follows_is_refused(tmp_path: Path) -> None:
    bert = {"model_type": "bert", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    folder = causal(tmp_path / "bert", {**bert, "num_attention_heads": 2, "initializer_range": 0.5})
    with pytest.raises(ValueError, match="lets tokens see what follows them"):
        load_value_model(folder, HeadForm(), device="cpu")


def test_an_adapter_is_merged_into_its_base(base: Path, tmp_path: Path) -> None:
    from selftrain.models import adapters
    from selftrain.schema import Lora

    model = checkpoint.load_model(base, dtype="float32", device="cpu")
    wrapper = adapters.trainable(model, Lora(r=2, alpha=64), None)
    with torch.no_grad():
        for name, parameter in wrapper.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    checkpoint.save(model, checkpoint.load_tokenizer(base), tmp_path / "adapter", adapters.Adapter(wrapper, base))
    ids = torch.tensor([IDS])
    with torch.no_grad():
        own_states = model.base_model(ids, use_cache=False).last_hidden_state
        loaded = load_value_model(tmp_path / "adapter", HeadForm(), dtype="float32", device="cpu")
        states = loaded.backbone(ids, use_cache=False).last_hidden_state
    assert not any("lora" in name for name in loaded.state_dict())
    assert torch.allclose(own_states, states, atol=1e-4)
