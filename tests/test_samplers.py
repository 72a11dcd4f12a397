"""Every sampler keeps the contract; the transformers one draws from the distribution it says it draws from."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import ask, collect
from scipy import stats

from selftrain.models.checkpoint import load_model
from selftrain.sampling.base import AllWanted, Answers, Completion, Request, Sampler
from selftrain.sampling.draw import draw
from selftrain.sampling.scripted import Characters, Scripted, ScriptedSampler
from selftrain.sampling.transformers import Transformers, TransformersSampler
from selftrain.schema import Sampling
from selftrain.types import Problem

PROMPTS = ("1+2=", "7+5*3-2=", "9*9=", "3-8+4=", "6*2-2+1=", "8=")
SAMPLED = Sampling(max_tokens=24)
GREEDY = Sampling(temperature=0, max_tokens=24)


@pytest.fixture(params=["scripted", "transformers"])
def sampler(request: pytest.FixtureRequest, tiny: Path) -> Any:
    """Each sampler, open with the tiny checkpoint."""
    options: dict[str, Any] = {
        "scripted": Scripted(length=12, unparsed=0.1),
        "transformers": Transformers(batch_size=7),
    }
    opened = options[request.param].open(tiny)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return load_model(tiny, dtype="float32", device="cpu").eval()


def work_list(tokenizer: Any, settings: Sampling = SAMPLED, n: int = 4) -> list[Request]:
    return [ask(tokenizer, prompt, n, settings) for prompt in PROMPTS]


def all_but(work: list[Request], kept: int | None) -> Answers:
    return AllWanted(frozenset((r, i) for r, item in enumerate(work) for i in range(len(item.seeds)) if r != kept))


def test_every_request_gets_each_of_its_samples(sampler: Sampler, tokenizer: Any) -> None:
    work = [ask(tokenizer, prompt, n, SAMPLED) for n, prompt in enumerate(PROMPTS, 1)]
    found = collect(sampler, work)
    assert set(found) == {(place, index) for place in range(len(work)) for index in range(place + 1)}


def test_a_response_depends_on_its_seed_and_not_on_what_is_done(sampler: Sampler, tokenizer: Any) -> None:
    work = work_list(tokenizer)
    whole = collect(sampler, work)
    assert len({completion.ids for completion in whole.values()}) > len(PROMPTS)
    for kept in range(len(work)):
        again = collect(sampler, work, all_but(work, kept))
        assert {(kept, index) for index in range(4)} <= set(again)
        assert all(whole[key] == completion for key, completion in again.items())


def test_nothing_is_sampled_when_all_is_done(sampler: Sampler, tokenizer: Any) -> None:
    work = work_list(tokenizer)
    assert collect(sampler, work, all_but(work, None)) == {}


def test_purposes_of_one_problem_are_told_apart(sampler: Sampler, tokenizer: Any) -> None:
    work = [ask(tokenizer, PROMPTS[0], 1, GREEDY, "greedy"), ask(tokenizer, PROMPTS[0], 3, SAMPLED, "sampled")]
    assert set(collect(sampler, work)) == {(0, 0), (1, 0), (1, 1), (1, 2)}
    assert {key for key in collect(sampler, work, all_but(work, 1)) if key[0] == 1} == {(1, 0), (1, 1), (1, 2)}


def test_ids_decode_to_the_text_and_say_how_it_ended(sampler: Sampler, tokenizer: Any) -> None:
    found = collect(sampler, work_list(tokenizer, Sampling(max_tokens=23), n=32)).values()
    short = collect(sampler, work_list(tokenizer, Sampling(max_tokens=5), n=2)).values()
    assert {completion.finish_reason for completion in [*found, *short]} == {"eos", "length"}
    for completion in found:
        assert tokenizer.decode(completion.ids, skip_special_tokens=True) == completion.text
        assert len(completion.ids) <= 23
        assert (completion.ids[-1] == tokenizer.eos_token_id) == (completion.finish_reason == "eos")
        assert tokenizer.eos_token_id not in completion.ids[:-1]
        assert len(completion.ids) == 23 or completion.finish_reason == "eos"
    assert all(len(c.ids) == 5 for c in short if c.finish_reason == "length")


def test_stop_strings_end_a_response_and_are_cut(sampler: Sampler, tokenizer: Any) -> None:
    free = collect(sampler, work_list(tokenizer, n=16))
    stopped = collect(sampler, work_list(tokenizer, Sampling(max_tokens=24, stop=("4", "7")), n=16))
    reasons = Counter(completion.finish_reason for completion in stopped.values())
    assert reasons["stop"] > 20
    for key, completion in stopped.items():
        assert not {"4", "7"} & set(completion.text)
        assert tokenizer.decode(completion.ids, skip_special_tokens=True) == completion.text
        assert free[key].text.startswith(completion.text)
        if completion.finish_reason == "stop":
            assert tokenizer.eos_token_id not in completion.ids
            assert free[key].text[len(completion.text)] in "47"


def test_scripted_has_the_shares_it_is_asked_for(tiny: Path, tokenizer: Any) -> None:
    work = [ask(tokenizer, prompt, 2000, SAMPLED) for prompt in PROMPTS[:2]]
    texts = [c.text for c in collect(Scripted(accuracy=0.3, unparsed=0.2).open(tiny), work).values()]
    right = sum(text.endswith(" #34") for text in texts) / len(texts)
    unparsed = sum(not set(text) & set("0123456789") for text in texts) / len(texts)
    assert right == pytest.approx(0.3, abs=0.03)
    assert unparsed == pytest.approx(0.2, abs=0.03)
    assert len(set(texts)) > 0.7 * len(texts)


def test_scripted_writes_characters_where_there_is_no_tokenizer(tmp_path: Path, tokenizer: Any) -> None:
    opened = Scripted(accuracy=1).open(tmp_path)
    (completion,) = collect(opened, [ask(tokenizer, "1+2=", 1, SAMPLED)]).values()
    assert completion.ids == (*map(ord, completion.text), Characters.end)
    assert completion.text.endswith(" #34")


def test_scripted_streams(tmp_path: Path) -> None:
    problem = Problem("t/train/0", "t", "train", "1+2=", "3")
    work = [Request(problem, (1,), tuple(range(8)), SAMPLED, str(place)) for place in range(4000)]
    sizes = [len(completions) for completions in ScriptedSampler(Scripted(), Characters()).sample(work)]
    assert sum(sizes) == 32000
    assert max(sizes) <= 4096


@pytest.mark.parametrize(
    "options", [{"accuracy": 0.9, "unparsed": 0.2}, {"accuracy": -0.1}, {"accuracy": float("nan")}, {"length": 0}]
)
def test_scripted_refuses_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"accuracy|length"):
        Scripted(**options)


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_here_is_refused(tiny: Path, device: str) -> None:
    for use in (Transformers(device=device).check, lambda: Transformers(device=device).open(tiny)):
        with pytest.raises(ValueError, match=rf"no '{device}' here; choose auto or one of cpu"):
            use()
    Transformers(device="cpu").check()


@pytest.fixture
def engine(tiny: Path) -> Any:
    opened = Transformers(batch_size=7, dtype="float32", device="cpu", logprobs=True).open(tiny)
    yield opened
    opened.close()


def alone(engine: TransformersSampler, item: Request) -> list[Completion]:
    return [completion for _, completion in sorted(collect(engine, [item]).items())]


def test_greedy_equals_generate(engine: TransformersSampler, tokenizer: Any, model: Any) -> None:
    found = collect(engine, work_list(tokenizer, GREEDY, n=1))
    for place, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer.encode(prompt)])
        generated = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
        assert found[place, 0].ids == tuple(generated[0, ids.shape[1] :].tolist())
        assert set(found[place, 0].logprobs or ()) == {0.0}


def test_left_padding_and_neighbours_change_nothing(engine: TransformersSampler, tokenizer: Any) -> None:
    for settings in (GREEDY, SAMPLED):
        work = work_list(tokenizer, settings)
        together = collect(engine, work)
        for place, item in enumerate(work):
            assert [together[place, index].ids for index in range(4)] == [c.ids for c in alone(engine, item)]


def test_batch_size_changes_nothing(engine: TransformersSampler, tiny: Path, tokenizer: Any) -> None:
    work = work_list(tokenizer, n=6)
    expected = {key: completion.ids for key, completion in collect(engine, work).items()}
    for size in (1, 64):
        opened = Transformers(batch_size=size, dtype="float32", device="cpu").open(tiny)
        assert {key: completion.ids for key, completion in collect(opened, work).items()} == expected


def next_distribution(model: Any, ids: list[int], settings: Sampling) -> torch.Tensor:
    """The distribution after these ids, written down naively."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    probabilities = (logits / settings.temperature).softmax(0)
    ranked = sorted(range(len(probabilities)), key=lambda token: -probabilities[token].item())
    if settings.top_k:
        ranked = ranked[: settings.top_k]
    kept, mass, whole = [], 0.0, probabilities[ranked].sum().item()
    for token in ranked:
        if mass >= settings.top_p * whole:
            break
        kept.append(token)
        mass += probabilities[token].item()
    only = torch.zeros_like(probabilities)
    only[kept] = probabilities[kept]
    return only / only.sum()


FIRST_TOKEN = [
    Sampling(max_tokens=1),
    Sampling(max_tokens=1, temperature=0.5),
    Sampling(max_tokens=1, top_k=5),
    Sampling(max_tokens=1, top_p=0.6),
    Sampling(max_tokens=1, temperature=1.5, top_k=8, top_p=0.8),
]


@pytest.mark.parametrize("settings", FIRST_TOKEN, ids=str)
def test_tokens_are_drawn_from_the_distribution(tiny: Path, tokenizer: Any, model: Any, settings: Sampling) -> None:
    n = 4000
    opened = Transformers(batch_size=n, dtype="float32", device="cpu").open(tiny)
    item = ask(tokenizer, "7+5*3-2=", n, settings)
    counts = Counter(completion.ids[0] for completion in collect(opened, [item]).values())
    expected = next_distribution(model, list(item.prompt_ids), settings)
    support = expected.nonzero().squeeze(1).tolist()
    assert set(counts) <= set(support)
    assert len(support) == (settings.top_k or len(support)) or settings.top_p < 1
    observed = [counts[token] for token in support]
    assert stats.chisquare(observed, (expected[support] * n).tolist()).pvalue > 1e-3


@pytest.mark.parametrize("settings", [SAMPLED, Sampling(temperature=0.7, top_k=6, top_p=0.9, max_tokens=24)], ids=str)
def test_logprobs_are_those_of_the_distribution_drawn_from(
    engine: TransformersSampler, tokenizer: Any, model: Any, settings: Sampling
) -> None:
    for completion in alone(engine, ask(tokenizer, "9*9=", 3, settings)):
        ids = tokenizer.encode("9*9=")
        assert completion.logprobs is not None
        for token, logprob in zip(completion.ids, completion.logprobs, strict=True):
            assert logprob == pytest.approx(next_distribution(model, ids, settings)[token].log().item(), abs=1e-4)
            ids.append(token)


def test_logprobs_follow_the_cut_of_a_stop_string(engine: TransformersSampler, tokenizer: Any) -> None:
    item = ask(tokenizer, "9*9=", 16, Sampling(max_tokens=24, stop=("4",)))
    for completion in alone(engine, item):
        assert completion.logprobs is not None
        assert len(completion.logprobs) == len(completion.ids)


def test_a_stop_string_of_several_tokens(engine: TransformersSampler, tokenizer: Any) -> None:
    free = alone(engine, ask(tokenizer, "9*9=", 1, GREEDY))[0].text
    stop = free[2:5]
    (stopped,) = alone(engine, ask(tokenizer, "9*9=", 1, Sampling(temperature=0, max_tokens=24, stop=(stop,))))
    assert (stopped.text, stopped.finish_reason) == (free[: free.index(stop)], "stop")


def test_the_context_ends_a_response(engine: TransformersSampler, tokenizer: Any) -> None:
    """Prompts of 1, 61 and 64 of 64 tokens, in one batch."""
    work = [ask(tokenizer, "1" * size, 40, Sampling(max_tokens=80)) for size in (1, 61, 64)]
    found = collect(engine, work)
    for place, room in enumerate((63, 3, 0)):
        for completion in (found[place, index] for index in range(40)):
            ended = completion.ids[-1:] == (tokenizer.eos_token_id,)
            assert completion.finish_reason == ("eos" if ended else "context")
            assert len(completion.ids) <= room if ended else len(completion.ids) == room
    assert {found[1, index].finish_reason for index in range(40)} == {"eos", "context"}


def test_learnt_positions_are_never_left(tmp_path: Path, tokenizer: Any) -> None:
    """Rows that have ended stay in their batch for a while, but are not read beyond the last position there is."""
    from selftrain.models.checkpoint import save
    from selftrain.models.small import random_model

    shape = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16}
    save(random_model(shape, tokenizer, seed=0), tokenizer, tmp_path)
    opened = Transformers(batch_size=64, dtype="float32", device="cpu").open(tmp_path)
    work = [ask(tokenizer, "1" * size, n, Sampling(max_tokens=80)) for size, n in ((2, 40), (12, 8))]
    found = collect(opened, work)
    longest = [max(len(found[place, index].ids) for index in range(n)) for place, n in enumerate((40, 8))]
    assert longest == [14, 4]
    alone = collect(opened, work[1:])
    assert [found[1, index].ids for index in range(8)] == [alone[0, index].ids for index in range(8)]


def test_no_uniform_lands_on_a_token_that_cannot_be() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 1.0, -torch.inf]]).expand(3, -1)
    tokens, logprobs = draw(logits, torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64), Sampling())
    assert tokens.tolist() == [1, 3, 3]
    assert logprobs.exp().tolist() == pytest.approx([0.268941, 0.731059, 0.731059], abs=1e-6)
    tokens, _ = draw(logits, torch.zeros(3, dtype=torch.float64), Sampling(top_p=0.0))
    assert tokens.tolist() == [3, 3, 3], "the likeliest token is never cut"


def test_reloaded_weights_answer_as_an_engine_opened_with_them(tiny: Path, tokenizer: Any, tmp_path: Path) -> None:
    other = load_model(tiny, dtype="float32", device="cpu")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    other.save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")
    work = work_list(tokenizer)
    engine = Transformers(batch_size=7).open(tiny)
    before = collect(engine, work)
    assert engine.reload(tmp_path / "other")
    fresh = collect(Transformers(batch_size=7).open(tmp_path / "other"), work)
    assert collect(engine, work) == fresh != before


def test_weights_of_another_model_are_not_loaded_into_this_one(tiny: Path, chat_model: Path, tokenizer: Any) -> None:
    engine = Transformers(batch_size=7).open(tiny)
    before = collect(engine, work_list(tokenizer))
    assert not engine.reload(chat_model)
    assert collect(engine, work_list(tokenizer)) == before
