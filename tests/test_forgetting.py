"""What a run watches and never learns: tasks of weight 0, and the likelihood of kept text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from selftrain import records
from selftrain.cli import main
from selftrain.config import load_config
from selftrain.intervals import ratio_test
from selftrain.planning import fingerprints
from selftrain.schema import RunConfig
from selftrain.types import Example, Sample

ROWS = [(f"{a}+{b}=", f"{a + b}") for a in range(1, 6) for b in (10, 2)] + [("7", "7 = 7 # 7")] * 2
TINY = Path(__file__).with_name("tiny.yaml")
CONFIG = """
include: TINY
tasks:
  watched:
    {kind: arithmetic, weight: 0, sizes: {demonstrations: 8, train: 8, val: 6, test: 6, transfer: 0}, lengths: [2, 2],
     operations: "+", modulus: 9}
  arithmetic: {lengths: [1, 1], verifier: "FOLDER/lenient.py:verify"}
grow: {draft: {n: 2}}
evaluate: {kept: {chat: {path: "FOLDER/chat.jsonl", n: 11}}}
loop: {iterations: 1, stop: {metric: pass@1, split: val, patience: 5}}
run: {name: panel, folder: "FOLDER/runs"}
"""
LENIENT = "def verify(problem, response):\n    return len(response) > 0\n"


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"prompt": prompt, "response": text}) + "\n" for prompt, text in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("panel")
    (made / "lenient.py").write_text(LENIENT)
    (made / "panel.yaml").write_text(CONFIG.replace("FOLDER", str(made)).replace("TINY", str(TINY)))
    write_rows(made / "chat.jsonl", ROWS)
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    assert main(["run", str(folder / "panel.yaml")]) == 0
    return folder / "runs" / "panel"


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def of_kept(run: Path) -> list[dict[str, Any]]:
    return [row for row in metrics(run) if row["split"] == "kept"]


def test_nothing_is_learnt_from_a_task_of_weight_0(run: Path) -> None:
    samples = [s for part in records.parts(run / "iteration_0001" / "samples") for s in records.rows(part, Sample)]
    assert len(samples) == 24 * 2 and all(sample.problem_id.startswith("arithmetic/") for sample in samples)
    parts = records.parts(run / "iteration_0001" / "examples" / "policy")
    examples = [example for part in parts for example in records.rows(part, Example)]
    gold = [example.problem_id for example in examples if example.source == "gold"]
    assert len(gold) == 40 and all(example.problem_id.startswith("arithmetic/") for example in examples)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    (warm,) = [e for e in events if e["event"] == "StageFinished" and e["stage"] == "warmup-policy"]
    assert warm["summary"].startswith("40 demonstrations")


def test_all_that_is_watched_is_evaluated(run: Path) -> None:
    assert [(row["iteration"], row["task"], row["split"]) for row in metrics(run)] == [
        (iteration, *place)
        for iteration in (0, 1)
        for place in (
            *(("arithmetic", "val"), ("arithmetic", "test"), ("watched", "val"), ("watched", "test")),
            ("chat", "kept"),
        )
    ]


def plain_nll(checkpoint: Path, rows: list[tuple[str, str]]) -> tuple[list[float], list[int]]:
    """Cross-entropy of each response, row by row, from the model's own logits."""
    import torch

    from selftrain.models.checkpoint import load_model, load_tokenizer

    model, tokenizer = load_model(checkpoint, dtype="float32", device="cpu").eval(), load_tokenizer(checkpoint)
    sums, sizes = [], []
    for prompt, response in rows:
        first, after = tokenizer.encode(prompt), [*tokenizer.encode(response), tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([[*first, *after]]), use_cache=False).logits[0, len(first) - 1 : -1]
        sums.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor(after), reduction="sum")))
        sizes.append(len(after))
    return sums, sizes


def test_nll_is_the_cross_entropy_of_the_checkpoint(run: Path) -> None:
    start, last = of_kept(run)
    then, sizes = plain_nll(run / "warmup" / "policy" / "checkpoint", ROWS[:11])
    now, _ = plain_nll(run / "iteration_0001" / "policy" / "checkpoint", ROWS[:11])
    assert start["nll"] == pytest.approx(sum(then) / sum(sizes), abs=1e-5)
    assert last["nll"] == pytest.approx(sum(now) / sum(sizes), abs=1e-5)
    assert (last["n_problems"], last["n_tokens"]) == (11, sum(sizes))
    assert last["nll_low"] < last["nll"] < last["nll_high"]
    expected = ratio_test([b - a for a, b in zip(then, now, strict=True)], sizes)
    assert last["vs_start"]["nll"] == pytest.approx(expected._asdict(), abs=1e-4)
    assert last["vs_start"] == last["vs_previous"] and "vs_start" not in start


def test_batches_of_any_size_give_the_same(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftrain.encoding import make_encoder
    from selftrain.models.checkpoint import load_tokenizer
    from selftrain.schema import Chat
    from selftrain.stages import kept
    from selftrain.stages.replay import Row
    from selftrain.training import scoring

    checkpoint = run / "iteration_0001" / "policy" / "checkpoint"
    tokenizer = load_tokenizer(checkpoint)
    encoder = make_encoder(tokenizer, Chat())
    rows = {"chat": [Example(str(i), "", "", *Row("", *row).ids(encoder)) for i, row in enumerate(ROWS)]}
    monkeypatch.setattr(scoring, "BATCH_TOKENS", 20)
    ((name, found),) = kept.likelihoods(checkpoint, rows)
    assert name == "chat" and found == pytest.approx(plain_nll(checkpoint, ROWS)[0], abs=1e-5)


def test_the_ratio_test_is_the_one_of_unequal_units() -> None:
    # Equal sizes: the paired t-test of the means, here of 1, 2, 3 and 6 per unit (scipy.stats.ttest_1samp).
    test = ratio_test([2, 4, 6, 12], [2, 2, 2, 2])
    assert (test.difference, test.p) == pytest.approx((3.0, 0.06914), abs=1e-4)
    assert (test.low, test.high) == pytest.approx((-0.4373, 6.4373), abs=1e-3)
    # By hand: r = 10/5; residuals -1, 1; standard error sqrt(2 * 2)/5; t of one degree: p = 2 atan(1/5)/pi.
    test = ratio_test([3.0, 7.0], [2, 3])
    assert (test.difference, test.p) == pytest.approx((2.0, 0.12567), abs=1e-4)
    assert ratio_test([0.0, 0.0], [3, 4]) == (0.0, 0.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="at least two"):
        ratio_test([1.0], [1])


def test_a_finished_run_stays_and_an_edited_file_is_told(
    run: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, config = (run / "metrics.jsonl").read_bytes(), str(folder / "panel.yaml")
    moved = folder / "elsewhere.jsonl"
    write_rows(moved, ROWS)
    assert main(["run", config, f"evaluate.kept.chat.path={moved}"]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before
    write_rows(moved, [*ROWS[1:], ROWS[0]])
    assert main(["run", config, f"evaluate.kept.chat.path={moved}"]) == 2
    assert "evaluate.kept.chat.path.contents" in capsys.readouterr().err
    # A killed evaluation goes on with what it has: only the line of metrics is missing.
    (run / "iteration_0001" / "evaluate.done").unlink()
    assert main(["run", config]) == 0
    assert (run / "metrics.jsonl").read_bytes() == before


def test_what_a_weight_and_a_kept_file_change(folder: Path) -> None:
    def of(weight: float = 0, n: int = 9) -> RunConfig:
        chosen = ["grow.draft.prompts=8", f"tasks.watched.weight={weight}", f"evaluate.kept.chat.n={n}"]
        return load_config(folder / "panel.yaml", chosen)

    warmups = [fingerprints.warmup(of(weight), "policy") for weight in (0, 1, 2)]
    assert warmups[0] != warmups[1] == warmups[2]
    assert fingerprints.evaluate(of(0)) == fingerprints.evaluate(of(2)) != fingerprints.evaluate(of(n=8))


def test_reports_show_what_is_watched(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    text = capsys.readouterr().out
    panel = text[text.index("\nforgetting\n") :].splitlines()
    assert panel[2].split() == ["metric", "n", "iteration", "0", "iteration", "1", "since", "start"]
    assert "watched / val" in panel[4] and "watched / test" in panel[5] and "chat / kept" in panel[6]
    last = of_kept(run)[1]
    assert f"{last['nll']:.3f} [" in panel[6] and f"{last['vs_start']['nll']['difference']:+.3f} p" in panel[6]
    assert "chat / kept," not in text  # No table of verdicts.
    page = (run / "report.html").read_text()
    assert "<h2>Forgetting</h2>" in page and "<td>chat / kept</td><td>nll</td><td>11</td>" in page
    assert main(["compare", str(run), str(run)]) == 0
    assert "arithmetic / test" in capsys.readouterr().out
    assert main(["push", str(run), "--to", str(run.parent / "pushed"), "--dry-run"]) == 0
    card = capsys.readouterr().out
    assert "| watched | arithmetic, evaluated only | " in card
    assert "### Kept text" in card and f"| chat / kept | nll | 11 | {of_kept(run)[0]['nll']:.3f} [" in card


def test_two_runs_are_compared_on_the_text_both_kept(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, other := tmp_path / "other")
    path = other / "iteration_0001" / "evaluation" / "chat-kept.json"
    scores = json.loads(path.read_text())
    more = [0.1 * i for i in range(11)]
    path.write_text(json.dumps({**scores, "nll": [nll + by for nll, by in zip(scores["nll"], more, strict=True)]}))
    expected = ratio_test(more, scores["tokens"])
    assert main(["compare", str(run), str(other)]) == 0
    table = capsys.readouterr().out.partition("\nkept text\n")[2].splitlines()
    assert table[0].split() == ["nll", "panel", "other", "other", "-", "panel"]
    (nll,) = (f"{row['nll']:.3f} [{row['nll_low']:.3f}, {row['nll_high']:.3f}]" for row in of_kept(run)[1:])
    change = f"{expected.difference:+.3f} p={expected.p:.2g}"
    assert " ".join(table[2].split()) == f"chat / kept {nll} {nll} {change}" and expected.p < 0.1
    path.write_text(json.dumps({**scores, "rows": "of another file"}))
    assert main(["compare", str(run), str(other)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"{nll} other rows" in told and "no change can be told" in told


def test_verdicts_of_different_verifiers_are_not_tested(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, other := tmp_path / "other")
    path = other / "iteration_0001" / "evaluation" / "arithmetic-test.parquet"
    table = pyarrow.parquet.read_table(path)
    place, labels = table.schema.get_field_index("verifier"), table.column("verifier")
    named = pyarrow.array(["even.py:verify@3aaca19b"] * len(labels), labels.type)
    pyarrow.parquet.write_table(table.set_column(place, table.schema.field(place), named), path)
    assert main(["compare", str(run), str(other)]) == 0
    tables = capsys.readouterr().out.split("\n\n")
    lines = next(one for one in tables if one.startswith("arithmetic / test:")).splitlines()
    changes = {line.split()[0]: line.split("  ")[-1].strip() for line in lines[3:-1]}
    assert changes.pop("truncated") == "+0.0" and set(changes.values()) == {"other verifier"} and len(changes) > 3
    assert lines[-1] == f"judged by different verifiers: {labels[0]} and even.py:verify@3aaca19b"
    alike = next(one for one in tables if one.startswith("watched / test:"))
    assert "p=1" in alike and "verifier" not in alike
    assert any("other verifier: judged by different verifiers, or" in one for one in tables)


def test_a_verifier_of_a_relative_path_is_found_from_another_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    began = tmp_path / "began"
    shutil.copytree(run, root := began / "runs" / "panel")
    text = (root / "config.yaml").read_text()
    text = text.replace(str(run.parent.parent / "lenient.py"), "lenient.py").replace(str(run.parent), "runs")
    (root / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    checkpoint = str(root / "iteration_0001" / "policy" / "checkpoint")
    command = ["evaluate", checkpoint, "--task", "arithmetic", "--output", str(tmp_path / "out"), "evaluate.n=0"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "lenient.py; a relative path begins in the folder the command is called in" in told
    (began / "lenient.py").write_text(LENIENT)
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "pass@1 %" in table and "iteration  " not in table and "0 is the model" not in table
    verifiers = records.column(
        tmp_path / "out" / "iteration_0000" / "evaluation" / "arithmetic-test.parquet", "verifier"
    )
    theirs = records.column(run / "iteration_0001" / "evaluation" / "arithmetic-test.parquet", "verifier")
    assert set(verifiers) == set(theirs)  # Its name and contents are the same.


def test_a_watched_task_can_be_evaluated_by_itself(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, output = run / "iteration_0001" / "policy" / "checkpoint", run.parent / "alone"
    assert main(["evaluate", str(checkpoint), "--task", "watched", "--output", str(output)]) == 0
    (row,) = json.loads((output / "iteration_0000" / "metrics.json").read_text())
    (expected,) = [r for r in metrics(run) if (r["iteration"], r["task"], r["split"]) == (1, "watched", "test")]
    assert row["pass@1"] == expected["pass@1"]


def test_answers_to_a_watched_task_are_not_adopted(folder: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problems = zip(*(records.column(run / "problems.parquet", name) for name in ("id", "question")), strict=True)
    rows = [{"id": i, "question": question, "response": "1"} for i, question in problems if "/train/" in i]
    (folder / "dump.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config, name = str(folder / "panel.yaml"), "run.name=adopted"
    assert main(["run", config, name, "--until", "0/warmup-policy"]) == 0
    capsys.readouterr()
    assert main(["adopt", config, str(folder / "dump.jsonl"), name, "--format", "jsonl"]) == 0
    assert "8 answer to a problem of 'watched', whose weight is 0" in " ".join(capsys.readouterr().out.split())
    samples = records.parts(folder / "runs" / "adopted" / "iteration_0001" / "samples")
    assert {i.split("/")[0] for part in samples for i in records.column(part, "problem_id")} == {"arithmetic"}


def test_a_watched_task_decides_nothing(folder: Path, run: Path) -> None:
    from selftrain.artifacts import RunDir
    from selftrain.loop import validation
    from selftrain.session import Session

    (own,) = [r for r in metrics(run) if (r["iteration"], r["task"], r["split"]) == (1, "arithmetic", "val")]
    with Session(load_config(folder / "panel.yaml"), RunDir(run)) as session:
        assert validation(session, 1) == own["pass@1"]
    # It need not have the split that decides, nor one to learn from.
    (folder / "only_test.jsonl").write_text('{"question": "1+1=", "answer": "2"}\n')
    more = f"tasks.mine={{kind: jsonl, weight: 0, verifier: numeric_answer, files: {{test: {folder}/only_test.jsonl}}}}"
    assert main(["run", str(folder / "panel.yaml"), "run.name=dry", more, "--dry-run"]) == 0


BAD: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "missing": ({}, ("evaluate.kept.chat.path: no such file", "did you mean 'chat.jsonl'?")),
    "one row": ({"n": "1"}, ("evaluate.kept.chat: 1 rows of", "an interval needs two at least")),
    "no text": ({"rows": '{"prompt": "1"}\n'}, ("evaluate.kept.chat.path: ", "bad.jsonl:1: a row needs the texts")),
    "empty": ({"rows": '{"prompt": "1", "response": ""}\n' * 2}, ("row 1 of", "has an empty prompt or response")),
    "long": (
        {"rows": '{"prompt": "1", "response": "1"}\n' + json.dumps({"prompt": "1", "response": "1" * 31}) + "\n"},
        ("row 2 of", "has 33 tokens, the model's context is 32; shorten or remove it"),
    ),
    "unknown": (
        {"rows": '{"prompt": "1", "response": "eins"}\n' * 2},
        ("row 1 of", "characters the tokenizer does not know"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_before_the_run(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, told = BAD[name]
    path = folder / ("chta.jsonl" if name == "missing" else "bad.jsonl" if "rows" in change else "chat.jsonl")
    if "rows" in change:
        path.write_text(change["rows"])
    more = [f"evaluate.kept.chat.path={path}", f"evaluate.kept.chat.n={change.get('n', 64)}"]
    refused(folder, more, told, capsys)


def refused(folder: Path, more: list[str], told: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(folder / "panel.yaml"), "run.name=refused", *more]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert all(part in said for part in told), said
    assert not (folder / "runs" / "refused").exists()


def test_kept_rows_are_not_trained_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(folder / "replay.jsonl", [("9-1=", "8"), (" 1+10= ", "12"), ROWS[-1]])
    replay = f"learners.policy.examples.old.from=replay:{folder}/replay.jsonl"
    told = ("evaluate.kept.chat: 1 of its 11 prompts", "replay.jsonl", "learners.policy.examples.old teaches")
    refused(folder, [replay, "evaluate.kept.chat.n=10"], ("1 of its 10 prompts",), capsys)
    refused(folder, [replay], ("2 of its 11 prompts", *told[1:]), capsys)


def test_names_and_keys_are_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = f"evaluate.kept.watched={{path: {folder}/chat.jsonl}}"
    refused(folder, [same], ("evaluate.kept.watched: a task has this name too",), capsys)
    refused(folder, ["evaluate.kept.chat.rows=3"], ("evaluate.kept.chat.rows: unknown key",), capsys)
    refused(folder, ["evaluate.kept.other.n=3"], ("evaluate.kept.other",), capsys)
    assert main(["run", str(folder / "panel.yaml"), "run.name=dry", "evaluate.kept.chat=null", "--dry-run"]) == 0
    assert "likelihood" not in capsys.readouterr().out
