"""Three tasks with a verifier each, and replayed data, in one iteration through the real vLLM."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from counted import kill_at
from published import DATA, needs_data, rows, tiny_model

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.cli import main
from selftrain.config import load_config
from selftrain.drawing.journal import Journal
from selftrain.selection import ENDED
from selftrain.session import Session
from selftrain.stages.grow import work_list
from selftrain.types import Example, Sample, Verdict

pytestmark = needs_data
CONFIG = Path(__file__).parent.parent / "configs" / "mixed.yaml"
PROMPTS, N, ENOUGH = 32, 4, 2


def prepared(folder: Path) -> None:
    """Local data and a tiny model."""
    (folder / "aqua").mkdir()
    whole = (DATA / "aqua" / "aqua_dev.json").read_text().splitlines(keepends=True)
    (folder / "aqua" / "aqua_train.json").write_text("".join(whole[:200]))
    (folder / "aqua" / "aqua_dev.json").write_text("".join(whole[200:]))
    (folder / "aqua" / "aqua_test.json").write_text((DATA / "aqua" / "aqua_test.json").read_text())
    chat = [{"prompt": f"Say {word}.", "response": f"{word}!"} for word in ("hello", "good night", "thanks", "yes")]
    (folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat))
    texts = [row["question"] + row["answer"] for row in rows("gsm8k/train.jsonl")[:200]]
    texts += [row["question"] + row["rationale"] for row in rows("aqua/aqua_dev.json")]
    tiny_model(folder / "model", [*texts, "numbers target <answer>(1+2)*3</answer>"])


def command(folder: Path, *more: str) -> list[str]:
    """The job's own config; the model is warmed up on solutions of the problems it then samples."""
    sizes = {"gsm8k": "{train: 16, val: 2, test: 4}", "aqua": "{train: 8, val: 2, test: 4}"}
    sizes["countdown"] = "{train: 8, val: 2, test: 4}"
    return [
        "run",
        str(CONFIG),
        f"model.path={folder / 'model'}",
        f"run.folder={folder}",
        "run.name=run",
        "run.reuse=false",
        *(f"tasks.{task}.data_dir={place}" for task, place in (("gsm8k", DATA / "gsm8k"), ("aqua", folder / "aqua"))),
        f"tasks.countdown.data_dir={DATA / 'countdown'}",
        *(f"tasks.{task}.limit={limit}" for task, limit in sizes.items()),
        "warmup.policy={from: gold, optim: {lr: 3e-3, steps: 100, batch_size: 16}}",
        f"grow.draft.prompts={PROMPTS}",
        f"grow.draft.n={N}",
        f"grow.draft.enough={ENOUGH}",
        "grow.draft.max_tokens=200",
        "tasks.countdown.sampling.max_tokens=60",
        "grow.draft.sampler.max_num_seqs=32",
        f"learners.policy.examples.own.cap={ENOUGH}",
        f"learners.policy.examples.chat.from=replay:{folder / 'chat.jsonl'}",
        "learners.policy.optim={lr: 1e-3, gradient_checkpointing: false}",
        "evaluate={n: 0, splits: [test]}",
        "loop={iterations: 1, stop: null}",
        "launch.keep=run",
        "run.part_size=8",  # Two problems, so that the kill finds some written, some half full and some not begun.
        "track.live=plain",
        *more,
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a run that was killed while it sampled, and what lay there then."""
    made = tmp_path_factory.mktemp("mixed")
    prepared(made)
    assert main(command(made, "--until", "0/evaluate")) == 0
    samples = made / "run" / "iteration_0001" / "samples"
    kill_at(made / "count", command(made), lambda: len(list(samples.glob("*.parquet"))) >= 4)
    shutil.copytree(samples, made / "before")
    assert main(command(made)) == 0
    return made


def test_killed_while_it_samples_no_sample_is_lost_or_doubled(folder: Path) -> None:
    samples, verdicts = (folder / "run" / "iteration_0001" / name for name in ("samples", "verdicts"))
    before = Journal(folder / "before" / "draft.journal")
    before.close()
    written = {samples / part.name: part.read_bytes() for part in records.parts(folder / "before")}
    assert before.finished and 4 <= len(written) < PROMPTS * N // 8
    assert all(part.read_bytes() == content for part, content in written.items())
    assert not (samples / "draft.journal").exists()
    drawn = [s for part in records.parts(samples) for s in records.read(part, Sample)]
    ids = [i for part in records.parts(verdicts) for i in records.column(part, "sample_id")]
    judged = dict(zip(ids, (v for p in records.parts(verdicts) for v in records.read(p, Verdict)), strict=True))
    assert len(judged) == len(ids)
    assert len({sample.id for sample in drawn}) == len(drawn)
    assert {sample.id for sample in drawn} == set(judged)

    def teaches(sample: Sample) -> bool:
        return judged[sample.id].status == "right" and sample.finish_reason in ENDED

    by_problem: dict[str, dict[int, Sample]] = {}
    for sample in drawn:
        by_problem.setdefault(sample.problem_id, {})[sample.index] = sample
    assert len(by_problem) == PROMPTS
    for found in by_problem.values():
        # All up to the one that made it enough, and none beyond it.
        assert set(found) == set(range(len(found)))
        # Of each text the first, and none that was cut short: what the selection keeps.
        texts = {found[index].text.strip(): index for index in sorted(found, reverse=True) if teaches(found[index])}
        right = sorted(texts.values())
        assert len(found) == (right[ENOUGH - 1] + 1 if len(right) >= ENOUGH else N)
    arguments = command(folder)
    with Session(load_config(arguments[1], [w for w in arguments[2:] if "=" in w]), RunDir(folder / "run")) as run:
        asked = [request.problem.id for request in work_list(run, 1, "draft")]
    kept = [(done, by_problem[asked[done.request]].get(done.index)) for done in before.finished]
    assert all(sample is None or sample.response_ids == done.ids for done, sample in kept)
    assert sum(sample is not None for _, sample in kept) > 20


def test_three_tasks_and_replay_in_one_run(folder: Path) -> None:
    run = folder / "run" / "iteration_0001"
    samples = [s for part in records.parts(run / "samples") for s in records.read(part, Sample)]
    verdicts = [v for part in records.parts(run / "verdicts") for v in records.read(part, Verdict)]
    asked = Counter(problem.split("/")[0] for problem in {sample.problem_id for sample in samples})
    assert asked == {"gsm8k": 16, "aqua": 8, "countdown": 8}
    judges = {
        sample.problem_id.split("/")[0]: v.verifier.split("@")[0] for sample, v in zip(samples, verdicts, strict=True)
    }
    assert judges == {"gsm8k": "numeric_answer", "aqua": "choice_answer", "countdown": "countdown"}
    assert len(samples) < PROMPTS * N  # Stopped early where enough were right.
    taught = [e for part in records.parts(run / "examples" / "policy") for e in records.read(part, Example)]
    kept = Counter(example.problem_id.split("/")[0] for example in taught)
    assert kept["replay"] == 4
    assert kept["gsm8k"] and kept["aqua"] and kept["countdown"]
    assert sum(kept.values()) - 4 >= 20
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {(row["iteration"], row["task"]) for row in lines} == {(i, task) for i in (0, 1) for task in asked}
