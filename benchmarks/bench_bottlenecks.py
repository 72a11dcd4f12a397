"""What one process does for all samples of an iteration, however many GPUs draw them: does it take longer for each
sample where there are ten times as many?

The work list with its plan of parts, the queue (ledger and journal), the writer of parts, and what is digested for
marks and manifests, at 100,000 and at 1,000,000 samples of 10 a problem, 64 parts each. Every size runs in a process of
its own; the times are the processor's. Responses are the scripted sampler's, whose own time is told apart.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from common import fresh, save

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.config import check_tree
from selftrain.drawing.journal import Journal
from selftrain.drawing.ledger import Ledger
from selftrain.drawing.parts import planned
from selftrain.drawing.sampled import Drawing, Waiting, sample_of
from selftrain.drawing.store import shared_samples
from selftrain.sampling.base import Completion
from selftrain.session import Session
from selftrain.stages.grow import samples_folder, work_list
from selftrain.stages.start import start
from selftrain.types import Sample

SIZES, PARTS, PER_PROBLEM = (100_000, 1_000_000), 64, 10


class Clock:
    """Seconds of processor time by what they were spent on."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - began


def config(samples: int, folder: str) -> dict[str, object]:
    sizes = {"train": samples // PER_PROBLEM, "val": 0, "test": 1, "demonstrations": 0, "transfer": 0}
    small = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    return {
        "run": {"folder": folder},
        "model": {"architecture": small, "alphabet": "0123456789+-*= #"},
        # Enough different chains for a hundred thousand problems.
        "tasks": {"arithmetic": {"sizes": sizes, "lengths": [4, 6]}},
        "grow": {"draft": {"n": PER_PROBLEM, "sampler": "scripted"}},
        "learners": {"policy": {"examples": {"own": {"from": "draft"}}}},
    }


def measure(samples: int) -> dict[str, float]:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir(Path(folder) / "run")
        with Session(check_tree(config(samples, folder)), run) as session:
            for _ in start(session):
                pass
            assert session.problems.all("train") and session.tokenizer
            grow(session, samples, clock)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    microseconds = {name: round(1e6 * own / samples, 2) for name, own in clock.seconds.items()}
    return {"samples": samples, "peak_mb": round(memory), **microseconds}


def grow(session: Session, samples: int, clock: Clock) -> None:
    """As `selftrain.drawing.sampled.sample_parts` does it, with a journal."""
    stage, folder = session.stages.grow(1), samples_folder(session, 1)
    with clock.of("work list"):
        work = work_list(session, 1, "draft")
        groups = planned(folder / "draft.plan.json", work, samples // PARTS, stage.label)
    writer = session.writer("draft", 0)
    drawing = Drawing(work, folder / "draft", writer, stage)
    engine = session.sampler(writer.sampler, writer.checkpoint)
    with closing(Journal(drawing.journal)) as journal:
        ledger = Ledger(work, journal=journal)
        waiting = Waiting(groups, set(), ledger)
        answers = engine.sample(work, ledger)
        while True:
            with clock.of("sampler"):
                drawn = next(answers, None)
            if drawn is None:
                break
            with clock.of("queue"):
                finished = waiting.finished({completion.request for completion in ledger.finish(drawn)})
            for number in finished:
                with clock.of("queue"):
                    held = [ledger.take(index) for index in groups[number]]
                with clock.of("writer"):
                    _write(session, drawing, groups[number], held, number)
                with clock.of("queue"):
                    ledger.written(groups[number])
    drawing.journal.unlink()
    shared = shared_samples(session, 1, {"draft": work})
    with clock.of("manifest"):
        stage.finish([folder])
        list(shared.publish(folder))
    assert len(records.parts(folder)) >= PARTS and stage.done()


def _write(session: Session, drawing: Drawing, group: list[int], held: list[list[Completion]], number: int) -> None:
    samples = [
        sample_of(session, drawing, drawing.work[index], answer)
        for index, answers in zip(group, held, strict=True)
        for answer in answers
    ]
    samples.sort(key=lambda sample: (sample.problem_id, sample.step, sample.index))
    records.write(drawing.stem.with_name(f"draft-{number:05d}.parquet"), Sample, samples)


def main() -> None:
    rows = [fresh(__file__, size) for size in SIZES]
    named = ("work list", "queue", "writer", "manifest")
    ratios = {name: round(rows[1][name] / rows[0][name], 3) for name in named}
    whole = [sum(row[name] for name in named) for row in rows]
    save("bottlenecks", {"microseconds_per_sample": rows, "ratios": ratios, "ratio": round(whole[1] / whole[0], 3)})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
