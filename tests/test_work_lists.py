"""Work lists mean the same to every process of a stage, or the stage refuses to go on with what is on disk."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from kill_driver import Driver, Ended, Trap

from selftrain import records
from selftrain.drawing.parts import by_length, digest
from selftrain.sampling.base import Request
from selftrain.schema import Sampling
from selftrain.types import Problem, Sample

HEAD = """
run: {{name: {name}, folder: {folder}, part_size: 16, reuse: false}}
model:
  architecture: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 64}}
  alphabet: "0123456789+-*= #"
grow: {{draft: {{n: 4, max_tokens: 24, sampler: scripted}}}}
learners: {{policy: {{examples: {{own: {{from: draft, verdict: right}}}}, optim: {{steps: 1}}}}}}
evaluate: {{n: 0}}
loop: {{iterations: 1}}
track: {{live: none}}
tasks:
"""
SIZES = "sizes: {demonstrations: 9, train: 12, val: 3, test: 3, transfer: 0}, lengths: [1, 2]"
SUMS, OTHERS = (f"  {name}: {{kind: arithmetic, operations: '{name[-1]}', {SIZES}}}" for name in ("a+", "b*"))
KILL = Trap("replaced", "iteration_0001/samples/draft-", 2)


def grow(driver: Driver, folder: Path, name: str, *tasks: str, trap: Trap | None = None) -> Ended:
    config = folder / f"{name}.yaml"
    config.write_text(HEAD.format(name=name, folder=folder) + "\n".join(tasks) + "\n")
    return driver.run(["run", str(config), "--until", "1/grow"], trap)


def samples(folder: Path, name: str) -> dict[str, bytes]:
    """The parts of a run by name."""
    return {part.name: part.read_bytes() for part in records.parts(folder / name / "iteration_0001" / "samples")}


def test_the_order_of_tasks_means_nothing_to_a_run_that_goes_on_after_a_kill(driver: Driver, tmp_path: Path) -> None:
    assert grow(driver, tmp_path, "whole", SUMS, OTHERS).status == 0
    assert grow(driver, tmp_path, "killed", SUMS, OTHERS, trap=KILL).status == -signal.SIGKILL
    assert 0 < len(samples(tmp_path, "killed")) < 6
    ended = grow(driver, tmp_path, "killed", OTHERS, SUMS)
    assert ended.status == 0, ended.err
    assert samples(tmp_path, "killed") == samples(tmp_path, "whole")
    parts = records.parts(tmp_path / "killed" / "iteration_0001" / "samples")
    ids = [sample.id for part in parts for sample in records.read(part, Sample)]
    assert len(set(ids)) == len(ids) == 2 * 12 * 4


SECRETIVE = '''
import json
from dataclasses import dataclass
from pathlib import Path
from selftrain.types import Problem

@dataclass(frozen=True)
class Secretive:
    """Reads a file and tells nobody."""

    name = "secretive"
    verifier = "numeric_answer"

    def splits(self):
        return ("train", "test")

    def problems(self, split):
        rows = json.loads(Path(__file__).with_name("rows.json").read_text())[split]
        return [Problem(f"secretive/{split}/{i}", "secretive", split, f"{i}+{a}=", str(i + a)) for i, a in rows]
'''


def test_changed_data_of_a_task_that_names_no_sources_is_refused_and_redone(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "secretive.py").write_text(SECRETIVE)
    rows = {"train": [[i, i] for i in range(24)], "test": [[99, 1]]}
    task = f"  mine: {{kind: '{tmp_path}/secretive.py:Secretive'}}"
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    assert grow(driver, tmp_path, "run", task, trap=KILL).status == -signal.SIGKILL
    before = samples(tmp_path, "run")
    rows["train"][7] = [7, 3]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    ended = grow(driver, tmp_path, "run", task)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith(
        f"selftrain: {tmp_path}/run/iteration_0001/samples/draft.plan.json: the samples there answer other problems"
    )
    assert ended.err.rstrip().endswith("or redo it with --redo 1/grow")
    assert samples(tmp_path, "run") == before
    config = str(tmp_path / "run.yaml")
    ended = driver.run(["run", config, "--until", "1/grow", "--redo", "1/grow"])
    assert ended.status == 0, ended.err
    assert len(samples(tmp_path, "run")) == 6


def ask(name: str, length: int, purpose: str = "", seed: int = 0) -> Request:
    return Request(Problem(name, "t", "train", name), (1,) * length, (seed,), Sampling(), purpose)


def test_a_work_list_is_ordered_by_length_problem_and_purpose_whatever_it_came_in() -> None:
    ordered = [ask("b", 1), ask("a", 2, "greedy"), ask("a", 2, "sampled"), ask("c", 2)]
    assert by_length(ordered) == by_length(ordered[::-1]) == ordered
    others = ([*ordered[:3], ask("c", 2, seed=1)], [*ordered[:3], ask("d", 2)], [ordered[0], *ordered[2:], ordered[1]])
    assert len({digest(work) for work in (ordered, *others)}) == 4
