"""Whole runs whose Grow is written by the model of a server."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ALPHABET
from fake_openai import FakeOpenAI

from selftrain import records
from selftrain.cli import main
from selftrain.types import Example, Sample

TINY = Path(__file__).with_name("tiny.yaml")


def mostly_right(prompt: str, seed: int) -> str:
    """The answer to a question such as ``3+4-2=``; every third one is wrong."""
    value = sum(int(term) for term in re.findall(r"[+-]?\d+", prompt))
    return f"#{(value + (seed % 3 == 0)) % 10}"


def config(folder: Path, url: str, more: str = "") -> list[str]:
    sampler = f'{{kind: openai, batch_size: null, url: "{url}", retries: 1, concurrency: 8, {more}}}'
    text = f"""
include: {TINY}
run: {{folder: {folder}}}
grow: {{draft: {{model: teacher, sampler: {sampler}}}}}
learners: {{policy: {{examples: {{gold: null}}}}}}
evaluate: {{n: 0, sampler: transformers}}
loop: {{iterations: 1}}
"""
    (folder / "taught.yaml").write_text(text)
    return ["run", str(folder / "taught.yaml")]


def samples_of(folder: Path) -> dict[str, Sample]:
    parts = records.parts(folder / "tiny" / "iteration_0001" / "samples")
    return {sample.id: sample for part in parts for sample in records.rows(part, Sample)}


@pytest.mark.parametrize("own", [False, True], ids=["other tokens", "the policy's tokens"])
def test_a_run_learns_from_a_teacher_and_outlives_its_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own: bool
) -> None:
    from selftrain.models.small import character_tokenizer

    tokenizer = character_tokenizer(ALPHABET, context=32)
    with FakeOpenAI() as fake:
        fake.write, fake.dies_after = mostly_right, 40
        if own:
            fake.encode, fake.decode, fake.end = tokenizer.encode, tokenizer.decode, tokenizer.eos_token_id
        command = config(tmp_path, fake.url, "prompt_ids: true" if own else "")
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "no answer from" in said
        assert f"{len(fake.answered)} responses had come and are kept" in said and len(fake.answered) >= 40
        fake.dies_after = None
        assert main([*command, "grow.draft.sampler.concurrency=4"]) == 0
    # What had come before the server died was not asked for again.
    assert len(set(fake.answered)) == len(fake.answered) == 24 * 4
    samples = samples_of(tmp_path)
    assert len(samples) == 24 * 4
    for sample in samples.values():
        assert (sample.policy, sample.origin, sample.sampler) == ("teacher", "teacher", "openai")
        assert sample.ids_from == ("engine" if own else "retokenised") and sample.finish_reason == "eos"
        assert sample.response_ids == (*tokenizer.encode(sample.text), tokenizer.eos_token_id)
    folder = tmp_path / "tiny" / "iteration_0001" / "examples" / "policy"
    taught = [example for part in records.parts(folder) for example in records.rows(part, Example)]
    assert len(taught) > 24
    for example in taught:
        assert example.response_ids == samples[str(example.sample_id)].response_ids


def test_what_the_policy_cannot_spell_is_not_taught(tmp_path: Path) -> None:
    with FakeOpenAI() as fake:
        fake.write = lambda prompt, seed: ("", "so ", "<end>")[seed // 3 % 3] + mostly_right(prompt, seed)
        assert main(config(tmp_path, fake.url)) == 0
    samples = samples_of(tmp_path)
    assert {s.text.rpartition("#")[0]: s.finish_reason for s in samples.values()} == {
        "": "eos",
        "so ": "length",
        "<end>": "length",
    }
    folder = tmp_path / "tiny" / "iteration_0001" / "examples" / "policy"
    taught = [str(example.sample_id) for part in records.parts(folder) for example in records.rows(part, Example)]
    assert taught and all(samples[name].text.startswith("#") for name in taught)


def test_early_stopping_keeps_what_asking_for_all_would_have_kept(tmp_path: Path) -> None:
    with FakeOpenAI() as fake:
        fake.write, fake.delay = mostly_right, 0.005
        assert main(config(tmp_path, fake.url)) == 0
        everything = samples_of(tmp_path)
        (early := tmp_path / "early").mkdir()
        assert main([*config(early, fake.url), "grow.draft.enough=1", "learners.policy.examples.own.cap=1"]) == 0
    kept = samples_of(early)
    assert len(kept) < len(everything)
    right: dict[str, list[int]] = {}
    for sample in everything.values():
        if sample.seed % 2**31 % 3:
            right.setdefault(sample.problem_id, []).append(sample.index)
    expected = {s.id for s in everything.values() if s.index <= min(right.get(s.problem_id, [3]))}
    assert set(kept) == expected


def test_a_server_cannot_sample_the_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = config(tmp_path, "http://127.0.0.1:9/v1")
    wrong = {
        "grow.draft.model=policy": "grow.draft.sampler: a server cannot load this run's checkpoints; set grow.draft",
        "evaluate.sampler=openai": "evaluate.sampler: a server cannot load this run's checkpoints",
        "grow.draft.sampler.url=here": "grow.draft.sampler.url: 'here' is no address",
        "grow.draft.sampler.urls=x": "grow.draft.sampler.urls: unknown key (did you mean 'url'?)",
    }
    for override, says in wrong.items():
        assert main([*command, override]) == 2
        assert says in capsys.readouterr().err
    assert not (tmp_path / "tiny").exists()
