"""Rollouts of other tools become samples that the loop judges, selects and trains on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from selftrain import records
from selftrain.cli import main
from selftrain.types import Example, Problem, Sample, Verdict

TINY = Path(__file__).with_name("tiny.yaml")
FILES = Path(__file__).with_name("rollouts")
END = 1
"""Id of the end token of a tokenizer of characters."""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands for a run in ``tmp_path`` that starts from a checkpoint: status, output and errors."""
    (tmp_path / "run.yaml").write_text(f"""
include: {TINY}
run: {{name: r, folder: {tmp_path}}}
model: {{path: {tiny}, architecture: null, alphabet: null}}
warmup: null
learners: {{policy: {{examples: {{gold: null}}}}}}
""")

    def command(name: str, *words: object) -> tuple[int, str, str]:
        status = main([name, str(tmp_path / "run.yaml"), *map(str, words)])
        return status, *capsys.readouterr()

    return command


def samples(folder: Path) -> list[Sample]:
    return [sample for part in records.parts(folder / "samples") for sample in records.rows(part, Sample)]


def questions(root: Path) -> dict[str, str]:
    rows = records.read(root / "problems.parquet", Problem)
    return {problem.id: problem.question for problem in rows}


EXPECTED: dict[str, tuple[tuple[str, ...], list[tuple[str, str, str, str]]]] = {
    "trl": (
        ("trl.jsonl",),
        [
            ("2+7=", "2+7=8 #8", "eos", "retokenised"),
            ("2+7=", "2+7=9 #9", "eos", "retokenised"),
            ("8+5=", "8+5=3 #3", "eos", "retokenised"),
            ("8+5=", "8+5=3 #3 #3", "length", "retokenised"),
            ("9+1+8=", "9+1=0 0+8=8 #8", "eos", "retokenised"),
        ],
    ),
    "nemo-skills": (
        ("output-rs0.jsonl",),
        [
            ("2+7=", "2+7=", "length", "retokenised"),
            ("8+5=", "8+5=3 #3", "eos", "retokenised"),
            ("9+1+8=", "9+1=0 0+8=8 #8", "eos", "retokenised"),
        ],
    ),
    "verl": (
        ("verl.jsonl",),
        [("8+5=", "8+5=3 #3", "eos", "retokenised"), ("9+1+8=", "9+1=0 0+8=8 #8", "eos", "retokenised")],
    ),
    "prime-rl": (
        ("prime_rl.jsonl",),
        [
            ("2+7=", "2+7=9", "length", "engine"),
            ("2+7=", "#9", "stop", "engine"),
            ("2+7=", "2+7=9 #9", "eos", "retokenised"),
            ("8+5=", "8+5=3 #3", "eos", "engine"),
            ("9+1+8=", "9+1=0 #8", "eos", "engine"),
        ],
    ),
    "jsonl": (
        ("plain.jsonl", "--field", "question=prompt.text", "--field", "response=outputs.0", "--field", "answer=gold"),
        [("8+5=", "8+5=3 #3", "eos", "retokenised"), ("9+1+8=", "9+1=0 0+8=8 #8", "eos", "retokenised")],
    ),
}


@pytest.mark.parametrize("format", EXPECTED)
def test_every_format_is_known_by_its_fields_and_becomes_samples(format: str, run: Run, tmp_path: Path) -> None:
    (name, *words), expected = EXPECTED[format]
    status, _, error = run("adopt", FILES / name, *words)
    assert status == 0, error
    asked = questions(tmp_path / "r")
    made = samples(tmp_path / "r" / "iteration_0001")
    assert sorted((asked[s.problem_id], s.text, s.finish_reason, s.ids_from) for s in made) == sorted(expected)
    assert {(s.sampler, s.origin, s.step, s.iteration, s.seed) for s in made} == {
        (format, f"adopted:{name}", "draft", 1, 0)
    }
    assert [s.problem_id for s in made] == sorted(s.problem_id for s in made)
    for sample in made:
        assert (sample.response_ids[-1] == END) == (sample.finish_reason == "eos")
        assert sample.index == [s.id for s in made if s.problem_id == sample.problem_id].index(sample.id)


def test_what_is_left_out_is_told_with_its_reasons(run: Run) -> None:
    _, output, _ = run("adopt", FILES / "trl.jsonl")
    assert "adopted 5 samples of 3 problems as iteration 1, step draft" in output
    assert "0 with token ids of their own, 5 encoded here, 1 truncated" in output
    left_out = output.partition("left out: 5\n")[2].splitlines()
    assert sorted(left_out[:5]) == [
        "       1  answer to a problem of 'test', from which nothing may be learnt",
        "       1  no problem has this question or id",
        "       1  no single response of a model (tool calls)",
        "       1  special tokens in the text, or characters the tokenizer does not know",
        "       1  there twice",
    ]
    assert left_out[5] == f" such as  {FILES / 'trl.jsonl'}:7: What is love?"


def test_the_loop_goes_on_with_adopted_samples_and_trains_on_the_right_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = [str(TINY), f"run.folder={tmp_path}", "loop.iterations=1", "learners.policy.examples.gold=null"]
    assert main(["adopt", config[0], str(FILES / "trl.jsonl"), *config[1:]]) == 2
    assert "what stage 0/warmup-policy makes, which is not done" in capsys.readouterr().err
    assert main(["run", *config, "--until", "0/warmup-policy"]) == 0
    assert main(["adopt", config[0], str(FILES / "trl.jsonl"), *config[1:]]) == 0
    folder = tmp_path / "tiny" / "iteration_0001"
    before = {path.name: path.read_bytes() for path in (folder / "samples").iterdir()}
    mark = (folder / "grow.done").read_bytes()
    assert main(["run", *config]) == 0
    assert {path.name: path.read_bytes() for path in (folder / "samples").iterdir()} == before
    assert (folder / "grow.done").read_bytes() == mark

    (part,) = records.parts(folder / "samples")
    verdicts = records.read(folder / "verdicts" / part.name, Verdict)
    by_text = {s.text: v.status for s, v in zip(samples(folder), verdicts, strict=True)}
    assert by_text == {  # Not the dump's own rewards, which are wrong.
        "8+5=3 #3": "right",
        "8+5=3 #3 #3": "right",
        "9+1=0 0+8=8 #8": "right",
        "2+7=9 #9": "right",
        "2+7=8 #8": "wrong",
    }
    taught = [e for p in records.parts(folder / "examples" / "policy") for e in records.rows(p, Example)]
    right = [s for s in samples(folder) if s.finish_reason == "eos" and by_text[s.text] == "right"]
    assert sorted((e.sample_id, e.prompt_ids, e.response_ids) for e in taught) == sorted(
        (s.id, s.prompt_ids, s.response_ids) for s in right
    )
    assert len(taught) == 3
    rows = [json.loads(line) for line in (tmp_path / "tiny" / "metrics.jsonl").read_text().splitlines()]
    assert {row["iteration"] for row in rows} == {0, 1}


def test_the_result_is_that_of_the_rows_of_a_problem_not_of_problems_in_a_file(run: Run, tmp_path: Path) -> None:
    lines = (FILES / "output-rs0.jsonl").read_text().splitlines()
    made = []
    for number, order in enumerate((lines, lines[::-1])):
        (tmp_path / "rows.jsonl").write_text("\n".join(order))
        assert run("adopt", tmp_path / "rows.jsonl", f"run.name=r{number}")[0] == 0
        made.append([(s.id, s.text) for s in samples(tmp_path / f"r{number}" / "iteration_0001")])
    assert made[0] == made[1]


def test_parts_hold_whole_problems(run: Run, tmp_path: Path) -> None:
    assert run("adopt", FILES / "trl.jsonl", "run.part_size=1")[0] == 0
    parts = records.parts(tmp_path / "r" / "iteration_0001" / "samples")
    assert [part.name for part in parts] == [f"draft-0000{number}.parquet" for number in range(3)]
    assert [len({s.problem_id for s in records.rows(part, Sample)}) for part in parts] == [1, 1, 1]


def test_parquet_of_messages_is_read_as_trl_writes_it(run: Run, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = {
        "step": [10],
        "prompt": [[{"role": "user", "content": "8+5="}]],
        "completion": [[{"role": "assistant", "content": "8+5=3 #3"}]],
        "accuracy": [0.0],
        "advantage": [0.0],
    }
    pq.write_table(pa.table(table), tmp_path / "completions_00010.parquet")
    assert run("adopt", tmp_path / "completions_00010.parquet")[0] == 0
    assert [s.text for s in samples(tmp_path / "r" / "iteration_0001")] == ["8+5=3 #3"]


def test_samples_that_are_there_stay_unless_they_are_set_aside(run: Run, tmp_path: Path) -> None:
    assert run("adopt", FILES / "trl.jsonl")[0] == 0
    status, _, error = run("adopt", FILES / "verl.jsonl")
    assert status == 2 and "iteration 1 has samples already" in error and "--redo" in error
    assert len(samples(tmp_path / "r" / "iteration_0001")) == 5
    assert run("adopt", FILES / "verl.jsonl", "--redo")[0] == 0
    assert len(samples(tmp_path / "r" / "iteration_0001")) == 2
    assert len(samples(tmp_path / "r" / "redone" / "000" / "iteration_0001")) == 5


def test_grow_never_goes_on_where_adopting_was_killed(run: Run, tmp_path: Path) -> None:
    assert run("adopt", FILES / "trl.jsonl")[0] == 0
    (tmp_path / "r" / "iteration_0001" / "grow.done").unlink()
    status, _, error = run("run", "--until", "1/grow")
    assert status == 2 and "begun with other settings: adopted" in error
    assert run("adopt", FILES / "verl.jsonl")[0] == 0
    assert len(samples(tmp_path / "r" / "iteration_0001")) == 2


LINE = '{"prompt": "8+5=", "completion": "8+5=3 #3"}'
BAD: dict[str, tuple[str | None, tuple[str, ...], tuple[str, ...]]] = {
    "no file": (None, (), ("name at least one file",)),
    "missing file": (None, ("gone.jsonl",), ("no such file: gone.jsonl",)),
    "unknown format": (LINE, ("--format", "nemo-skill"), ("--format", "did you mean 'nemo-skills'?")),
    "unrecognised": ('{"a": 1, "b": 2}', (), ("rows.jsonl:1", "a, b", "--field")),
    "missing field": (LINE + '\n{"prompt": "8+5=", "x": 1}', ("--format", "trl"), ("rows.jsonl:2", "prompt, x")),
    "missing mapped field": (LINE, ("--field", "response=out.text"), ("'out.text'", "prompt, completion")),
    "unknown role": (LINE, ("--field", "respnse=out"), ("--field", "did you mean 'response'?")),
    "no mapping": (LINE, ("--field", "response"), ("role=path",)),
    "mapping of a known format": (LINE, ("--format", "trl", "--field", "response=x"), ("'trl' has fields of its own",)),
    "not JSON": (LINE + '\n{"prompt":', (), ("rows.jsonl:2: invalid JSON",)),
    "no object": ("[1]", (), ("rows.jsonl:1", "list")),
    "content is no text": ('{"messages": [{"role": "assistant", "content": 3}]}', (), ("rows.jsonl:1", "int")),
    "broken trace": ('{"task": {}, "nodes": [{"sampled": true}]}', (), ("rows.jsonl:1", "'nodes'")),
    "half a character": ('{"prompt": "8+5=", "completion": "\\ud800"}', (), ("none of the 1 rows", "does not know")),
    "empty": ("", (), ("rows.jsonl holds no rows",)),
    "unknown kind of file": (LINE, ("notes.txt",), ("notes.txt: unknown kind of file",)),
    "nothing matches": ('{"prompt": "2-3=", "completion": "#9"}', (), ("none of the 1 rows", "'test'", "kind jsonl")),
    "nothing can be spelt": ('{"prompt": "8+5=", "completion": "drei"}', (), ("none of the 1 rows", "does not know")),
    "no such iteration": (LINE, ("--iteration", "3"), ("--iteration 3: loop.iterations is 2",)),
    "iteration before it": (LINE, ("--iteration", "2"), ("1/improve-policy makes, which is not done",)),
    "unknown step": (LINE, ("--step", "drft"), ("--step drft", "did you mean 'draft'?")),
    "several steps": (LINE, ("grow.more.n=1",), ("--step", "draft, more")),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("x")
    text, words, told = BAD[case]
    if text is not None:
        Path("rows.jsonl").write_text(text)
    status, output, error = run("adopt", *(["rows.jsonl"] if text is not None else []), *words)
    assert status == 2, (output, error)
    assert error.count("\n") == 1 and all(part in error for part in told), error
    assert not (tmp_path / "r").exists()
