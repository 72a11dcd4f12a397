"""Values of growing paths: the same as of whole ones, and each token read once."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from small_values import QWEN, causal, saved

from selftrain.models.head_form import HeadForm
from selftrain.models.published import Laid
from selftrain.training.paths import PathValues
from selftrain.training.valuing import StepPath, Valuer

PROMPTS = [(5, 9, 4), (7, 3, 8, 8, 6, 11, 12), (10,)]
EXACT = 1e-4


@pytest.fixture(scope="module")
def value(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("value")
    return saved(folder / "value", causal(folder / "base"), HeadForm("mlp"))


def tree(rng: random.Random, prompt: tuple[int, ...], size: int) -> list[StepPath]:
    """Paths from the root to every node of a random tree."""
    paths = [StepPath(prompt, ())]
    while len(paths) < size:
        step = tuple(rng.randrange(3, 25) for _ in range(rng.choice([1, 2, 3, 9])))
        above = rng.choice(paths)
        paths.append(StepPath(prompt, (*above.steps, step)))
    return paths


def whole(value: Path, paths: list[StepPath]) -> list[float]:
    """Each path anew, as one row."""
    laid = [Laid(ids := path.prompt_ids + sum(path.steps, ()), 0, (len(ids) - 1,)) for path in paths]
    with Valuer(value, device="cpu") as valuer:
        return [float(own[0]) for own in valuer.laid(laid)]


@pytest.mark.parametrize("room", [2**17, 60, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_values_are_those_of_whole_paths(value: Path, room: int, seed: int) -> None:
    """Over random trees, batches of any size and order, and room for all, some or none of what was read."""
    rng = random.Random(seed)
    paths = [path for prompt in PROMPTS for path in tree(rng, prompt, 14)]
    rng.shuffle(paths)
    expected = dict(zip(paths, whole(value, paths), strict=True))
    assert len({round(own, 4) for own in expected.values()}) > 30
    with PathValues(value, max_cached_tokens=room, device="cpu") as values:
        assert values.whole is None
        for _ in range(2):
            asked = list(paths)
            while asked:
                batch, asked = asked[: (count := rng.choice([1, 2, 5, 16]))], asked[count:]
                assert values.values(batch) == pytest.approx([expected[path] for path in batch], abs=EXACT)
                assert values.cached_tokens <= room
        assert (values.tokens_read_again > 0) == (room < 2**17)
        once = sum(len(path.steps[-1]) for path in set(paths) if path.steps) + sum(map(len, PROMPTS))
        assert values.tokens_read - values.tokens_read_again == once


def test_a_chain_is_read_once_whatever_its_depth(value: Path) -> None:
    prompt, depth, size = PROMPTS[1], 12, 5
    steps = [tuple(range(3 + at, 3 + at + size)) for at in range(depth)]
    with PathValues(value, device="cpu") as values:
        for at in range(depth):
            values.values([StepPath(prompt, tuple(steps[: at + 1]))])
            assert values.tokens_read == len(prompt) + (at + 1) * size
        values.values([StepPath(prompt, tuple(steps))])
        assert (values.tokens_read, values.tokens_read_again) == (len(prompt) + depth * size, 0)


def test_siblings_asked_for_at_once_share_their_prompt(value: Path) -> None:
    prompt = PROMPTS[1]
    paths = [StepPath(prompt, ((4, 5), (at,))) for at in range(3, 11)]
    with PathValues(value, device="cpu") as values:
        found = values.values([*paths, paths[0]])
        assert values.tokens_read == len(prompt) + 2 + 8
        assert found[0] == found[-1]
        assert found[:8] == pytest.approx(whole(value, paths), abs=EXACT)


def test_a_finished_tree_is_forgotten(value: Path) -> None:
    with PathValues(value, device="cpu") as values:
        values.values([StepPath(prompt, ((4, 5),)) for prompt in PROMPTS])
        values.forget(PROMPTS[0])
        assert values.cached_tokens == sum(len(prompt) + 2 for prompt in PROMPTS[1:])
        values.forget((99,))
        values.values([StepPath(PROMPTS[0], ((4, 5),))])
        assert values.tokens_read_again == 0
        assert values.tokens_read == sum(len(prompt) + 2 for prompt in PROMPTS) + len(PROMPTS[0]) + 2


def test_the_least_recently_used_goes_first(value: Path) -> None:
    first, second, third = (StepPath(PROMPTS[0], ((at, at, at),)) for at in (4, 5, 6))
    with PathValues(value, max_cached_tokens=9, device="cpu") as values:
        for path in (first, second, first, third):
            values.values([path])
        before = values.tokens_read
        values.values([StepPath(first.prompt_ids, (*first.steps, (7,)))])
        assert values.tokens_read - before == 1
        values.values([StepPath(second.prompt_ids, (*second.steps, (7,)))])
        assert (values.tokens_read - before, values.tokens_read_again) == (1 + 4, 3)


def test_steps_without_a_token_and_paths_too_long(value: Path) -> None:
    prompt = PROMPTS[0]
    with PathValues(value, device="cpu") as values:
        root, empty, step = values.values([StepPath(prompt, ()), StepPath(prompt, ((),)), StepPath(prompt, ((), (4,)))])
        assert root == empty != step
        limit = QWEN["max_position_embeddings"]
        fits, beyond = (StepPath(prompt, ((4,) * (limit - len(prompt) + more),)) for more in (0, 1))
        found = values.values([fits, beyond])
        assert math.isfinite(found[0]) and math.isnan(found[1])
        assert values.tokens_read == limit + 1
        with pytest.raises(ValueError, match="a prompt without a token"):
            values.values([StepPath((), ((4,),))])


def test_other_weights_are_read_anew(value: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "other", causal(tmp_path / "base", seed=5), HeadForm("mlp"), seed=6)
    paths = [StepPath(prompt, ((4, 5), (6,))) for prompt in PROMPTS]
    with PathValues(value, device="cpu") as values:
        before = values.values(paths)
        assert values.reload(other)
        after = values.values(paths)
        assert after == pytest.approx(whole(other, paths), abs=EXACT)
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) > 0.01
        linear = saved(tmp_path / "linear", causal(tmp_path / "third"))
        assert not values.reload(linear)
        assert values.values(paths) == after


GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
WINDOWED = {**QWEN, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}


def test_learnt_positions(tmp_path: Path) -> None:
    value = saved(tmp_path / "value", causal(tmp_path / "base", GPT2))
    paths = tree(random.Random(2), PROMPTS[1], 12)
    with PathValues(value, device="cpu") as values:
        assert values.whole is None
        for at in range(0, len(paths), 3):
            assert values.values(paths[at : at + 3]) == pytest.approx(whole(value, paths[at : at + 3]), abs=EXACT)


def test_half_precision(value: Path) -> None:
    """Backbones compute in bfloat16 and heads in fp32; what differs is rounding."""
    paths = [path for prompt in PROMPTS for path in tree(random.Random(4), prompt, 8)]
    with PathValues(value, dtype="bfloat16", device="cpu") as values:
        assert values.whole is None
        found = [values.values([path])[0] for path in paths]
    assert found == pytest.approx(whole(value, paths), abs=0.05)


def test_a_model_with_a_window_reads_whole_paths_and_says_so(tmp_path: Path) -> None:
    value = saved(tmp_path / "value", causal(tmp_path / "base", WINDOWED))
    steps = tuple((at, at, at) for at in range(4, 9))
    paths = [StepPath(PROMPTS[0], steps[:depth]) for depth in range(1, 6)]
    with PathValues(value, device="cpu") as values:
        assert "remembers more than keys and values of every token" in (values.whole or "")
        for path in paths:
            assert values.values([path]) == pytest.approx(whole(value, [path]), abs=EXACT)
        assert values.tokens_read == sum(3 + 3 * depth for depth in range(1, 6))
        values.values(paths)
        assert values.tokens_read == sum(3 + 3 * depth for depth in range(1, 6))


@pytest.mark.parametrize("form", [QWEN, WINDOWED], ids=["piece by piece", "whole"])
def test_a_path_whose_value_is_no_number_has_none(tmp_path: Path, form: dict[str, object]) -> None:
    """Token 20 is one that the model cannot read; the other path of the call keeps its value."""
    value = saved(tmp_path / "value", causal(tmp_path / "base", form))
    paths = [StepPath(PROMPTS[0], ((4,), (5,))), StepPath(PROMPTS[0], ((4,), (20,)))]

    def spoil(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("backbone.embed_tokens.weight")[20] = math.nan

    with PathValues(value, device="cpu") as values:
        spoil(values._valuer.model)
        found = values.values(paths)
        assert math.isfinite(found[0]) and math.isnan(found[1])
    with Valuer(value, device="cpu") as valuer:
        spoil(valuer.model)
        with pytest.raises(ValueError, match="a value that is not a number; compute in float32"):
            valuer.along(paths)
