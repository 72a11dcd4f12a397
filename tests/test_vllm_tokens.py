"""The real vLLM with a tokenizer whose tokens hold several characters, and a model with two end tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from asking import ask, collect
from qwen_like import ENDOFTEXT, IM_END, write

from selftrain.models.checkpoint import load_tokenizer
from selftrain.sampling.base import AllWanted, Begun, Place, Request
from selftrain.sampling.vllm import VLLM, VLLMSampler
from selftrain.sampling.vllm_drawing import Drawing, Row
from selftrain.sampling.vllm_engine import Grown
from selftrain.schema import Sampling

LONG = 120


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> Any:
    return load_tokenizer(model)


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[VLLMSampler]:
    opened = VLLM(max_num_seqs=64).open(model)
    yield opened
    opened.close()


def work_list(tokenizer: Any, count: int, settings: Sampling, n: int = 2) -> list[Request]:
    return [ask(tokenizer, f"Question: {i // 8}+{i % 8}=", n, settings) for i in range(count)]


@pytest.mark.parametrize("stop", [(), (" is",)])
def test_every_end_token_of_the_model_is_an_end(engine: VLLMSampler, tokenizer: Any, stop: tuple[str, ...]) -> None:
    ends = tokenizer.convert_tokens_to_ids([IM_END, ENDOFTEXT])
    found = collect(engine, work_list(tokenizer, 60, Sampling(max_tokens=LONG, stop=stop), n=4)).values()
    for end in ends:
        by_it = [c for c in found if c.ids and c.ids[-1] == end]
        assert len(by_it) > 20
        assert {c.finish_reason for c in by_it} == {"eos"}
    for completion in found:
        assert not set(completion.ids[:-1]) & set(ends)
        assert (completion.ids[-1:] and completion.ids[-1] in ends) == (completion.finish_reason == "eos")


def test_an_end_token_that_was_asked_for_as_a_stop_id_is_cut(engine: VLLMSampler, tokenizer: Any) -> None:
    end, pad = tokenizer.convert_tokens_to_ids([IM_END, ENDOFTEXT])
    found = collect(engine, work_list(tokenizer, 60, Sampling(max_tokens=LONG, stop_ids=(pad,)))).values()
    assert {c.finish_reason for c in found} >= {"stop", "eos"}
    assert all(pad not in c.ids for c in found)
    assert all((c.ids[-1:] == (end,)) == (c.finish_reason == "eos") for c in found)


def test_a_stop_string_inside_a_token_is_met(engine: VLLMSampler, tokenizer: Any, model: Path) -> None:
    """'sw' lies within ' answer' and the like, and its end is not the end of a token."""
    inside = [token for token in range(len(tokenizer)) if "sw" in tokenizer.decode([token])[:-1]]
    assert inside
    settings = Sampling(max_tokens=LONG, stop=("sw", "tion"))
    work = work_list(tokenizer, 60, settings)
    found = collect(engine, work)
    cut = [c for c in found.values() if c.finish_reason == "stop"]
    assert len(cut) > 40
    for completion in found.values():
        assert "sw" not in completion.text and "tion" not in completion.text
        assert tokenizer.decode(completion.ids, skip_special_tokens=True) == completion.text
    assert {c.ids_from for c in cut} == {"engine", "retokenised"}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Counter[Place]:
    """Tokens the engine gave, by place."""
    given: Counter[Place] = Counter()
    grow = Drawing.grow

    def counted(drawing: Drawing, grown: Sequence[Grown]) -> list[Row]:
        for piece in grown:
            given[piece.place] += len(piece.ids)
        return grow(drawing, grown)

    monkeypatch.setattr(Drawing, "grow", counted)
    return given


class Known(AllWanted):
    """Responses that an earlier process had begun."""

    heads: ClassVar[dict[Place, tuple[int, ...]]] = {}

    def begun(self, request: int, index: int) -> Begun | None:
        return Begun(self.heads[request, index]) if (request, index) in self.heads else None


def test_a_stop_string_across_a_kill_ends_a_response(
    engine: VLLMSampler, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, drawn: Counter[Place]
) -> None:
    free = Sampling(temperature=0, max_tokens=LONG)
    sampled = collect(engine, work_list(tokenizer, 60, Sampling(max_tokens=30), n=1))
    heads = {place: c.ids[:-1] for place, c in sampled.items() if len(c.ids) > 12}
    monkeypatch.setattr(Known, "heads", heads)
    whole = collect(engine, work_list(tokenizer, 60, free, n=1), Known())
    tried = 0
    for place, completion in whole.items():
        head = tokenizer.decode(heads.get(place, ()))
        stop = completion.text[max(0, len(head) - 2) : len(head) + 2]
        once = stop.isascii() and completion.text.count(stop) == 1 and completion.text.startswith(head)
        if len(stop) < 4 or not once or stop in head or len(completion.ids) < LONG:
            continue
        tried += 1
        drawn.clear()
        work = work_list(tokenizer, 60, Sampling(temperature=0, max_tokens=LONG, stop=(stop,)), n=1)
        done = AllWanted(frozenset(whole)).done - {place}
        (again,) = collect(engine, work, Known(done)).values()
        assert (again.text, again.finish_reason) == (head[:-2], "stop")
        assert again.ids == heads[place][: len(again.ids)] or again.ids_from == "retokenised"
        # How much of the rest is drawn before the engine hears of it is a matter of milliseconds.
        assert 0 < drawn[place] < len(completion.ids) - len(heads[place])
        if tried == 4:
            break
    assert tried == 4


def test_a_stop_string_that_had_come_before_a_kill_needs_no_further_token(
    engine: VLLMSampler, tokenizer: Any, drawn: Counter[Place]
) -> None:
    ids = tuple(tokenizer.encode(" The answer is 3.\nQuestion: What?"))
    work = work_list(tokenizer, 1, Sampling(max_tokens=LONG, stop=("\nQuestion",)), n=1)
    known = Known()
    known.heads[0, 0] = ids
    (found,) = collect(engine, work, known).values()
    known.heads.clear()
    assert (found.text, found.finish_reason) == (" The answer is 3.", "stop")
    assert not drawn


def test_an_engine_keeps_its_tokenizer_ends_and_shape(
    engine: VLLMSampler, tokenizer: Any, model: Path, tiny: Path, tmp_path: Path
) -> None:
    work = work_list(tokenizer, 10, Sampling(temperature=0, max_tokens=24), n=1)
    before = collect(engine, work)
    write(tmp_path / "base", base=True)
    for other in (tiny, tmp_path / "base"):
        assert not engine.reload(other)
    assert collect(engine, work) == before
    assert engine.reload(model)
