"""Log-probabilities in chunks are those of plain cross-entropy, for every architecture the head is read of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from selftrain.models import attention, logprobs
from selftrain.models.checkpoint import load_model
from selftrain.models.logprobs import Positions, batch_logprobs, check_head, check_packing, read_head, token_logprobs

VOCABULARY = 97
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {},
    "gemma2": {"final_logit_softcapping": 3.0, "query_pre_attn_scalar": 16},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
    "gpt2": {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0},
}


def build(kind: str, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**COMMON, **ARCHITECTURES[kind], **changes})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> Any:
    return build(request.param)


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 2 * VOCABULARY)


def random_ids(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def every_token(ids: torch.Tensor) -> Positions:
    """Every token but the first of each row, as a target."""
    index = torch.arange(ids.numel()).reshape(ids.shape)[:, :-1].reshape(-1)
    return Positions(index, ids[:, 1:].reshape(-1))


def plain(model: Any, ids: torch.Tensor) -> torch.Tensor:
    log_softmax = model(ids).logits.float().log_softmax(-1)[:, :-1]
    return log_softmax.gather(2, ids[:, 1:, None]).reshape(-1)  # type: ignore[no-any-return]


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert one.keys() == other.keys()
    for name in one:
        scale = max(1.0, other[name].abs().max().item())
        assert (one[name] - other[name]).abs().max().item() < tolerance * scale, name


@pytest.mark.usefixtures("chunks_of_two")
def test_chunks_equal_plain_log_softmax_in_value_and_gradient(model: Any) -> None:
    ids = random_ids(3, 7)
    weights = torch.rand(18, generator=torch.Generator().manual_seed(1))
    ours = batch_logprobs(model, ids, None, every_token(ids))
    expected = plain(model, ids)
    assert expected.std() > 0.3
    assert torch.allclose(ours, expected, atol=1e-5)
    assert_close(gradients(model, (weights * ours).sum()), gradients(model, (weights * expected).sum()))


@pytest.mark.usefixtures("chunks_of_two")
def test_without_gradient_the_values_are_the_same(model: Any) -> None:
    ids = random_ids(2, 6)
    with torch.no_grad():
        assert torch.allclose(batch_logprobs(model, ids, None, every_token(ids)), plain(model, ids), atol=1e-5)


def test_no_more_than_a_chunk_of_logits_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "CHUNK_LOGITS", 5 * VOCABULARY)
    sizes: list[int] = []
    weight = torch.randn(VOCABULARY, 4)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        sizes.append(len(hidden))
        return hidden @ weight.T

    hidden = torch.randn(23, 4, requires_grad=True)
    token_logprobs(hidden, head, random_ids(23), VOCABULARY).sum().backward()
    assert max(sizes) == 5
    assert sum(sizes) == 2 * 23, "each chunk is computed once forward and once again backward"


def test_only_wanted_positions_are_read(model: Any) -> None:
    ids = random_ids(2, 6)
    wanted = torch.tensor([8, 0, 3])
    positions = every_token(ids)
    found = batch_logprobs(model, ids, None, Positions(wanted, ids.reshape(-1)[wanted + 1]))
    everywhere = dict(zip(positions.index.tolist(), plain(model, ids).tolist(), strict=True))
    assert found.tolist() == pytest.approx([everywhere[at] for at in wanted.tolist()], abs=1e-5)


def test_packed_sequences_do_not_see_each_other(model: Any) -> None:
    """Values equal those of each sequence alone; a change in one leaves the others as they are, bit for bit."""
    sequences = [random_ids(size, seed=size) for size in (5, 9, 4)]
    row = torch.cat(sequences)[None]
    position_ids = torch.cat([torch.arange(len(s)) for s in sequences])[None]
    positions = every_token(row)
    own = [plain(model, s[None]) for s in sequences]
    inner = [*range(4), *range(5, 13), *range(14, 17)]
    packed = batch_logprobs(model, row, position_ids, positions)
    assert torch.allclose(packed[inner], torch.cat(own), atol=1e-5)

    changed = row.clone()
    changed[0, 5:14] = random_ids(9, seed=99)
    again = batch_logprobs(model, changed, position_ids, every_token(changed))
    others = [*range(4), *range(14, 17)]
    assert again[others].equal(packed[others])
    assert not again[5:13].equal(packed[5:13])


@pytest.mark.parametrize("again", [False, True], ids=["kept", "checkpointed"])
def test_varlen_attention_is_that_of_sdpa_without_a_mask(model: Any, again: bool) -> None:
    """In value and gradient, also where layers are computed again; lengths may be given or are read off the position
    ids. What follows a sequence or stands before it does not reach it."""
    sizes = (5, 9, 4)
    row = torch.cat([random_ids(size, seed=size) for size in sizes])[None]
    position_ids = torch.cat([torch.arange(size) for size in sizes])[None]
    masked = batch_logprobs(model, row, position_ids, every_token(row))
    expected = gradients(model, masked.sum())
    masks: list[Any] = []
    hook = model.base_model.layers[0].self_attn.register_forward_pre_hook(
        lambda _, args, kwargs: masks.append(kwargs["attention_mask"]), with_kwargs=True
    ) if hasattr(model.base_model, "layers") else None  # fmt: skip
    attention.use(model, attention.VARLEN)
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.train()
    try:
        found = batch_logprobs(model, row, position_ids, every_token(row), lengths=sizes)
        assert_close(gradients(model, found.sum()), expected)
        assert torch.allclose(found, masked, atol=1e-5)
        assert batch_logprobs(model, row, position_ids, every_token(row)).equal(found)
        other = row.clone()
        other[0, 5:14] = random_ids(9, seed=99)
        changed = batch_logprobs(model, other, position_ids, every_token(other), lengths=sizes)
        assert changed[:4].equal(found[:4]) and changed[14:].equal(found[14:]) and not changed[5:13].equal(found[5:13])
        assert not masks or set(masks) == {None}
        check_packing(model)
    finally:
        attention.use(model, "sdpa")
        model.gradient_checkpointing_disable()
        model.eval()
        if hook is not None:
            hook.remove()


def test_varlen_reads_and_grows_padded_rows_as_sdpa_does() -> None:
    model = build("qwen3")
    ids = random_ids(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    plain_rows, grown = model(ids, attention_mask=mask).logits, model.generate(ids[:1], max_new_tokens=5)
    attention.use(model, attention.VARLEN)
    assert model(ids, attention_mask=mask).logits.equal(plain_rows)
    assert model.generate(ids[:1], max_new_tokens=5).equal(grown)


@pytest.mark.parametrize(
    ("kind", "changes", "suits"),
    [
        ("qwen3", {}, True),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, False),
        ("llama", {"attention_dropout": 0.1}, False),
        ("gpt2", {"attn_pdrop": 0.1}, False),
        ("gemma2", {}, False),
    ],
)
def test_varlen_is_for_attention_that_is_only_causal(kind: str, changes: dict[str, Any], suits: bool) -> None:
    assert attention.suits_varlen(build(kind, **changes)) is suits


def test_the_flash_kernel_is_called_with_what_it_takes() -> None:
    """Shapes and arguments, as PyTorch checks them without a GPU; grouped keys too."""
    query, key = (torch.empty(1, heads, 20, 16, dtype=torch.bfloat16, device="meta") for heads in (4, 2))
    ends = torch.empty(3, dtype=torch.int32, device="meta")
    assert attention._flash(query, key, key, ends, 12, 0.25).shape == (1, 20, 4, 16)


def test_padding_on_the_right_changes_nothing(model: Any) -> None:
    short, long = random_ids(4, seed=1), random_ids(9, seed=2)
    padded = torch.stack([torch.cat([short, torch.zeros(5, dtype=torch.long)]), long])
    index = torch.tensor([0, 1, 2, *range(9, 17)])
    found = batch_logprobs(model, padded, None, Positions(index, padded.reshape(-1)[index + 1]))
    assert torch.allclose(found, torch.cat([plain(model, short[None]), plain(model, long[None])]), atol=1e-5)


def test_heads_that_are_known_pass(model: Any) -> None:
    model.train()
    check_head(model)
    assert model.training


@pytest.mark.parametrize("spread", [0.2, 0.02])
@pytest.mark.parametrize("factor", [0.9, 1.1, 4.0])
def test_heads_that_are_unknown_are_refused(factor: float, spread: float) -> None:
    """A model that scales its logits where the config does not say so, for large and for small weights."""
    model = build("llama", initializer_range=spread)
    head: Callable[..., Any] = model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        output = head(*args, **kwargs)
        output.logits = output.logits * factor
        return output

    model.forward = scaled
    with pytest.raises(ValueError, match="LlamaForCausalLM computes its logits in a way"):
        check_head(model)


def test_the_head_gives_fp32_logits_also_under_autocast(tiny: Path) -> None:
    model = load_model(tiny, dtype="float32", device="cpu")
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.base_model(random_ids(1, 4) % 16).last_hidden_state
        assert read_head(model)(hidden[0]).dtype == torch.float32


def test_architectures_that_mix_packed_sequences_are_refused(model: Any) -> None:
    """OPT takes its positions from the mask it is not given, whatever position ids say."""
    check_packing(model)
    from transformers import OPTConfig, OPTForCausalLM

    torch.manual_seed(0)
    mixing = OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        init_std=0.02,
    )
    with pytest.raises(ValueError, match="OPTForCausalLM does not keep packed sequences apart"):
        check_packing(OPTForCausalLM(mixing))
