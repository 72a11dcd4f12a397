"""The real vLLM, in a process of its own: ids and text, seeds, stop strings, new weights, going on after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import ask, collect

from selftrain.models.checkpoint import load_model, load_tokenizer, save
from selftrain.objectives.nll import NLL
from selftrain.sampling import vllm_process
from selftrain.sampling.base import AllWanted, Begun, Request
from selftrain.sampling.transformers import Transformers
from selftrain.sampling.vllm import VLLM, VLLMSampler
from selftrain.sampling.vllm_drawing import Drawing, Row
from selftrain.sampling.vllm_engine import Grown
from selftrain.schema import Optim, Sampling, Trainer
from selftrain.training.data import micro_batches
from selftrain.training.zero.engine import DeepSpeedEngine, start_of
from selftrain.types import Example, Problem
from selftrain.workers import Worker

OPTIONS = VLLM(max_num_seqs=128, engine={"block_size": 32})
SAMPLED, GREEDY = Sampling(max_tokens=24), Sampling(temperature=0, max_tokens=24)
TIE = 1e-3
"""Log-probabilities that are closer than this may change places by rounding."""


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[VLLMSampler]:
    opened = OPTIONS.open(tiny)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def other(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the same architecture whose greedy answers are others."""
    import torch

    model = load_model(tiny, dtype="float32")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("other")
    save(model, load_tokenizer(tiny), folder)
    return folder


def work_list(tokenizer: Any, count: int, n: int, settings: Sampling = SAMPLED, before: str = "") -> list[Request]:
    prompts = [f"{before}{i % 10}{'+-*'[i % 3]}{i // 10 % 10}=" for i in range(count)]
    return [ask(tokenizer, prompt, n, settings) for prompt in prompts]


def test_ids_decode_to_the_text_of_a_thousand_stop_string_samples(engine: VLLMSampler, tokenizer: Any) -> None:
    work = work_list(tokenizer, 125, 8, Sampling(max_tokens=24, stop=("7", "#3")))
    found = collect(engine, work)
    assert len(found) == 1000
    stopped = [c for c in found.values() if c.finish_reason == "stop"]
    assert len(stopped) > 200
    for completion in found.values():
        assert tokenizer.decode(completion.ids, skip_special_tokens=True) == completion.text
        assert "7" not in completion.text and "#3" not in completion.text
        ends = [place for place, token in enumerate(completion.ids) if token == tokenizer.eos_token_id]
        assert ends == ([len(completion.ids) - 1] if completion.finish_reason == "eos" else [])


def test_stop_ids_end_a_response_and_are_cut(engine: VLLMSampler, tokenizer: Any) -> None:
    stop = tokenizer.encode("5", add_special_tokens=False)[0]
    found = collect(engine, work_list(tokenizer, 40, 4, Sampling(max_tokens=24, stop_ids=(stop,))))
    assert sum(c.finish_reason == "stop" for c in found.values()) > 20
    assert all(stop not in c.ids for c in found.values())


def test_a_kept_stop_string_stays_with_the_token_that_completes_it(engine: VLLMSampler, tokenizer: Any) -> None:
    stop = ("7", "#3")
    cut = work_list(tokenizer, 40, 4, Sampling(max_tokens=24, stop=stop))
    without, found = collect(engine, cut), collect(engine, [replace(request, keep_stop=True) for request in cut])
    assert sum(c.finish_reason == "stop" for c in found.values()) > 20
    for place, step in found.items():
        assert tokenizer.decode(step.ids, skip_special_tokens=True) == step.text
        assert step.text.startswith(without[place].text) and step.finish_reason == without[place].finish_reason
        ending = [one for one in stop if step.text == without[place].text + one]
        assert len(ending) == (step.finish_reason == "stop")


def test_a_seeded_subset_gives_the_same_responses(engine: VLLMSampler, tokenizer: Any) -> None:
    work = work_list(tokenizer, 40, 4)
    whole = collect(engine, work)
    kept = {(3, 1), (17, 0), (17, 3), (39, 2)}
    done = frozenset((r, i) for r in range(40) for i in range(4)) - kept
    again = collect(engine, work, AllWanted(done))
    assert set(again) == kept
    assert all(again[place].ids == whole[place].ids for place in kept)


def test_greedy_text_agrees_with_transformers(engine: VLLMSampler, tokenizer: Any, tiny: Path) -> None:
    work = work_list(tokenizer, 200, 1, GREEDY)
    ours = collect(engine, work)
    theirs = collect(Transformers(dtype="float32").open(tiny), work)
    assert set(ours) == set(theirs)
    differing = [place for place in ours if ours[place].ids != theirs[place].ids]
    assert len(differing) <= 10
    for request, index in differing:
        gap = tie(tiny, work[request].prompt_ids, ours[request, index].ids, theirs[request, index].ids)
        assert gap < TIE, f"{work[request].text}: {gap}"


def test_what_several_processes_fitted_is_served(
    engine: VLLMSampler, tokenizer: Any, tiny: Path, tmp_path: Path
) -> None:
    """A checkpoint that ranks of ZeRO-3 made together gives the same greedy text in transformers and here."""
    optim = Optim(lr=1e-3, dtype="float32")
    trainer = Trainer("deepspeed", 2, 3)
    fitted = DeepSpeedEngine(start_of(tiny, NLL(), optim), NLL(), optim, steps=3, trainer=trainer)
    taught = [Example(f"{i}", f"{i}", "own", (3, 4 + i % 9), (5, 6 + i % 7, 1)) for i in range(12)]
    for _ in range(3):
        fitted.step(micro_batches(taught, batching="bucketed", max_tokens=32, pad=0, shares=fitted.shares))
    fitted.save(tmp_path / "checkpoint")
    fitted.close()
    work = work_list(tokenizer, 200, 1, GREEDY)
    before = collect(engine, work)
    assert engine.reload(tmp_path / "checkpoint")
    ours = collect(engine, work)
    theirs = collect(Transformers(dtype="float32").open(tmp_path / "checkpoint"), work)
    assert engine.reload(tiny)
    assert sum(ours[place].text == theirs[place].text for place in ours) >= 190
    assert sum(ours[place].text != before[place].text for place in ours) > 20


def tie(checkpoint: Path, prompt: tuple[int, ...], one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """How far apart two responses' first differing tokens are from the best one there, in log-probability."""
    import torch

    at = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    with torch.inference_mode():
        scores = load_model(checkpoint, dtype="float32")(torch.tensor([(*prompt, *one[:at])])).logits[0, -1]
    scores = scores.double().log_softmax(dim=-1)
    return float(scores.max() - min(scores[one[at]], scores[other[at]]))


def test_what_counts_as_a_tie(tokenizer: Any, tiny: Path) -> None:
    (work,) = work_list(tokenizer, 1, 1, GREEDY)
    (best,) = collect(Transformers(dtype="float32").open(tiny), [work]).values()
    assert tie(tiny, work.prompt_ids, (*best.ids[:3], 0), (*best.ids[:3], 1)) > TIE


def test_new_weights_answer_as_a_fresh_engine_does(
    engine: VLLMSampler, tokenizer: Any, tiny: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A whole block of the cache, which all of them share.
    work = work_list(tokenizer, 60, 1, GREEDY, before="1+2=3 4*5=20 6-7=-1 8*9=72 3+4=7 ")
    assert min(len(request.prompt_ids) for request in work) > 32
    before = collect(engine, work)
    assert engine.reload(other)
    after = collect(engine, work)
    monkeypatch.setattr(vllm_process, "Worker", Worker)  # Fresh to the last import, as outside of tests.
    fresh = OPTIONS.open(other)
    expected = collect(fresh, work)
    fresh.close()
    assert engine.reload(tiny)
    assert {place: c.text for place, c in after.items()} == {place: c.text for place, c in expected.items()}
    assert sum(after[place].text != before[place].text for place in after) > 30
    assert collect(engine, work) == before


def test_a_response_goes_on_from_its_last_token(engine: VLLMSampler, tokenizer: Any) -> None:
    work = work_list(tokenizer, 30, 1, GREEDY)
    whole = collect(engine, work)
    long = [place for place, c in whole.items() if len(c.ids) > 8]
    assert len(long) > 5

    class Known(AllWanted):
        def begun(self, request: int, index: int) -> Begun | None:
            return Begun(whole[request, index].ids[:5], None, (2,)) if (request, index) in long else None

    again = collect(engine, work, Known())
    assert all(again[place].ids == whole[place].ids for place in whole)
    assert all(again[place].segments == (2, 5) for place in long)


class Losing(AllWanted):
    """All but first samples become superfluous with the first answer of the engine, when two turns had gone out."""

    turns = 0

    def wanted(self, request: int, index: int) -> bool:
        return index == 0 or self.turns < 3

    def dropped(self) -> list[tuple[int, int]]:
        self.__class__.turns += 1
        return [(r, i) for r in range(100) for i in range(1, 4)] if self.turns == 3 else []


def test_what_nobody_wants_any_more_is_given_up(
    engine: VLLMSampler, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[Grown]] = []
    grow = Drawing.grow

    def noted(drawing: Drawing, grown: Sequence[Grown]) -> list[Row]:
        drawn.append(list(grown))
        return grow(drawing, grown)

    monkeypatch.setattr(Drawing, "grow", noted)
    answers = list(engine.sample(work_list(tokenizer, 100, 4, Sampling(max_tokens=56)), Losing()))
    places = [(c.request, c.index) for completions in answers for c in completions]
    assert len(places) == len(set(places)) and {(r, 0) for r in range(100)} <= set(places)
    # 160 are under way at once, 120 of them no first samples.
    assert sum(c.index > 0 for c in answers[0]) < 120
    assert all(c.index == 0 for completions in answers[1:] for c in completions)
    assert all(piece.place[1] == 0 for pieces in drawn[2:] for piece in pieces)


def test_leaving_early_leaves_nothing_behind(engine: VLLMSampler, tokenizer: Any) -> None:
    few = work_list(tokenizer, 5, 2)[::-1]
    expected = collect(engine, few)
    rows = engine.sample(work_list(tokenizer, 100, 4, Sampling(max_tokens=56)))
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert collect(engine, few) == expected


def test_the_context_bounds_a_response(engine: VLLMSampler, tokenizer: Any) -> None:
    long = Request(
        Problem("t/train/long", "t", "train", "1", "3"), tuple(tokenizer.encode("1" * 60)), (1, 2, 3), Sampling()
    )
    found = collect(engine, [long])
    assert all(len(c.ids) <= 4 for c in found.values())
    assert {c.finish_reason for c in found.values()} <= {"context", "eos"}


def test_an_adapter_answers_unmerged_and_gives_way_to_another(tokenizer: Any, tiny: Path, tmp_path: Path) -> None:
    import torch

    from selftrain.models.adapters import Adapter, trainable
    from selftrain.schema import Lora

    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        model = load_model(tiny, dtype="float32")
        wrapper = trainable(model, Lora(r=4, alpha=16), None)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.3)
        save(model, tokenizer, folder, Adapter(wrapper, tiny))
    work = work_list(tokenizer, 60, 1, GREEDY)
    opened = OPTIONS.open(folders[0])
    found = [collect(opened, work)]
    assert opened.reload(folders[1])
    found.append(collect(opened, work))
    opened.close()
    for folder, ours in zip(folders, found, strict=True):
        theirs = collect(Transformers(dtype="float32").open(folder), work)
        assert sum(ours[place].text == theirs[place].text for place in ours) >= 57
    assert sum(found[0][place].text != found[1][place].text for place in found[0]) > 20


def test_an_engine_without_adapters_says_it_cannot_take_one(engine: VLLMSampler, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(f'{{"r": 8, "base_model_name_or_path": "{tiny}"}}')
    assert not engine.reload(tmp_path)
