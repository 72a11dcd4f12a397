"""Runs that stop early with responses that outlive kills: what they draw and keep, and what they say they saved."""

from __future__ import annotations

import re
import shutil
import signal
from collections import defaultdict
from pathlib import Path

import pytest
from kill_driver import Driver, Ended, Trap

from selftrain import records
from selftrain.drawing.journal import Journal
from selftrain.types import Sample

N, ENOUGH, PROBLEMS = 16, 2, 60
SAMPLER = f"{Path(__file__).parent}/plugins/samplers.py:Growing"
CONFIG = """
run: {{name: {name}, folder: {folder}, part_size: 64, reuse: false}}
model:
  architecture: {{model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
                 num_attention_heads: 2, max_position_embeddings: 512}}
  alphabet: "0123456789+-*= #"
tasks:
  arithmetic: {{sizes: {{demonstrations: 9, train: {problems}, val: 3, test: 3, transfer: 0}}, lengths: [1, 2],
               verifier: '{folder}/slow.py:judge'}}
grow: {{draft: {{n: {n}, max_tokens: 300, enough: {enough},
                sampler: {{kind: '{sampler}', accuracy: 0.4, log: {log}}}}}}}
learners: {{policy: {{examples: {{own: {{from: draft, verdict: right, cap: 2}}}}, optim: {{steps: 1}}}}}}
evaluate: {{n: 0, sampler: scripted}}
loop: {{iterations: 1}}
launch: {{verify_workers: 2}}
track: {{live: plain}}
"""
SLOW = '''
import time
def judge(problem, response):
    """As quick as the engine at most, so that drawing without looking would draw too much."""
    time.sleep(0.002)
    return response.endswith(f"#{problem.answer}")
'''
Places = dict[tuple[int, int], int]
"""Tokens by request and index."""


class Runs:
    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        (folder / "slow.py").write_text(SLOW)

    def run(self, name: str, log: str, *settings: str, trap: Trap | None = None) -> Ended:
        config = self.folder / f"{name}.yaml"
        values = {"name": name, "folder": self.folder, "log": self.folder / log, "sampler": SAMPLER}
        config.write_text(CONFIG.format(**values, problems=PROBLEMS, n=N, enough=ENOUGH))
        return self.driver.run(["run", str(config), "--until", "1/grow", *settings], trap)

    def drawn(self, log: str) -> Places:
        found: Places = defaultdict(int)
        for line in (self.folder / log).read_text().splitlines():
            request, index, tokens = map(int, line.split())
            found[request, index] += tokens
        return found

    def samples(self, name: str) -> Path:
        return self.folder / name / "iteration_0001" / "samples"

    def parts(self, name: str) -> dict[str, bytes]:
        return {part.name: part.read_bytes() for part in records.parts(self.samples(name))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Runs:
    """With an undisturbed run ``whole`` and one that was killed after its first part, ``killed``."""
    made = Runs(driver, tmp_path_factory.mktemp("early"))
    ended = made.run("whole", "whole.log")
    assert ended.status == 0, ended.err
    (made.folder / "whole.out").write_text(ended.out)
    trap = Trap("replaced", "samples/draft-0", 1)
    assert made.run("killed", "first.log", trap=trap).status == -signal.SIGKILL
    assert len(made.parts("killed")) == 1
    shutil.copytree(made.samples("killed"), made.folder / "left")
    ended = made.run("killed", "second.log")
    assert ended.status == 0, ended.err
    (made.folder / "killed.out").write_text(ended.out)
    return made


def test_a_killed_run_keeps_the_same_samples(runs: Runs) -> None:
    assert runs.parts("killed") == runs.parts("whole")
    assert sum(records.count(part) for part in records.parts(runs.samples("whole"))) < 0.7 * PROBLEMS * N
    assert not (runs.samples("killed") / "draft.journal").exists()


def test_after_a_kill_nothing_is_drawn_that_the_answers_there_make_superfluous(runs: Runs) -> None:
    """All the journal holds is judged before the engine begins."""
    journal = Journal(runs.folder / "left" / "draft.journal")
    there = {(done.request, done.index): done for done in journal.finished}
    journal.close()
    again = runs.drawn("second.log")
    assert there and again and not there.keys() & again.keys()
    right = defaultdict(list)
    gold = answers(runs)
    for (request, index), done in there.items():
        if done.text.endswith(f"#{gold[request]}"):
            right[request].append(index)
    known = {request: sorted(found)[ENOUGH - 1] for request, found in right.items() if len(found) >= ENOUGH}
    assert known
    assert [place for place in again if place[1] > known.get(place[0], N)] == []


def answers(runs: Runs) -> dict[int, str]:
    """Gold answers by place in the work list: parts hold whole problems in its order, four to a part."""
    from selftrain.config import load_config
    from selftrain.planning.problems import load_problems

    by_length = sorted(
        load_problems(load_config(runs.folder / "whole.yaml")).of("arithmetic", "train"),
        key=lambda problem: (len(problem.question), problem.id),
    )
    return {place: str(problem.answer) for place, problem in enumerate(by_length)}


def test_the_tokens_saved_are_what_all_samples_would_have_taken_less_those_drawn(runs: Runs) -> None:
    whole = [sample for part in records.parts(runs.samples("whole")) for sample in records.read(part, Sample)]
    drawn = sum(runs.drawn("whole.log").values())
    assert sum(len(sample.response_ids) for sample in whole) < drawn  # Some was given up, and some came too late.
    assert said(runs, "whole") == reckoned(whole) - drawn > 0


def test_after_a_kill_the_tokens_saved_are_those_of_the_parts_that_were_missing(runs: Runs) -> None:
    done = {part.name for part in records.parts(runs.folder / "left")}
    missing = [part for part in records.parts(runs.samples("killed")) if part.name not in done]
    samples = [sample for part in missing for sample in records.read(part, Sample)]
    each = 64 // N  # Problems in a part.
    closed = {int(name[6:11]) * each + place for name in done for place in range(each)}
    journal = Journal(runs.folder / "left" / "draft.journal", closed)
    there = sum(len(done.ids) for done in journal.finished) + sum(len(begun.ids) for begun in journal.begun.values())
    journal.close()
    assert there > 0
    assert said(runs, "killed") == reckoned(samples) - there - sum(runs.drawn("second.log").values()) > 0


def said(runs: Runs, name: str) -> int:
    (found,) = re.findall(r"saved about ([\d,]+) tokens", (runs.folder / f"{name}.out").read_text())
    return int(found.replace(",", ""))


def reckoned(samples: list[Sample]) -> int:
    """Tokens of all samples, those that were not drawn being as long as the others of their problem."""
    lengths = defaultdict(list)
    for sample in samples:
        lengths[sample.problem_id].append(len(sample.response_ids))
    return round(sum(N * sum(found) / len(found) for found in lengths.values()))


def test_nothing_is_said_to_be_saved_where_all_was_drawn(runs: Runs) -> None:
    ended = runs.run("all", "all.log", "grow.draft.enough=null")
    assert ended.status == 0, ended.err
    assert "saved" not in ended.out and f"{PROBLEMS * N} samples" in ended.out
