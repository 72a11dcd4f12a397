"""Grow through vLLM: against a bare ``LLM.generate``, and stopping early against sampling all and judging afterwards.

Each side is a process of its own, asked for the same responses with the same settings and seeds; engine start and
model loading are outside the clock, verification and the writing of samples and verdicts inside ours.

The model is small and its lengths have a heavy tail: nineteen in twenty responses are a few tokens long, the rest
fill the room. The second comparison counts accepted examples: right responses, at most two of a problem.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import DIGITS, fresh, random_checkpoint, save

if TYPE_CHECKING:
    from selftrain.session import Session

RUNS, PROBLEMS, N, CAP, ROOM = 5, 256, 16, 2, 260
SETTINGS: dict[str, Any] = {"temperature": 1.0, "max_tokens": ROOM}
ENGINE = {"max_num_seqs": 256, "dtype": "float32"}
VERIFIER = "def judge(problem, response):\n    return response[-1:] in '02468' and bool(response)\n"
CONFIG = """
run: {{name: grow, folder: {folder}/runs, reuse: false}}
model: {{path: {folder}/model}}
tasks: {{arithmetic: {{sizes: {{demonstrations: 8, train: {problems}, val: 8, test: 8, transfer: 0}},
                      lengths: [2, 3], verifier: "{folder}/even.py:judge"}}}}
grow: {{draft: {{n: {n}, max_tokens: {room}, sampler: {{kind: vllm, max_num_seqs: 256, dtype: float32}}}}}}
learners: {{policy: {{examples: {{own: {{from: draft, verdict: right, cap: {cap}}}}}}}}}
track: {{live: none}}
"""


def make(folder: Path) -> None:
    """The model, fitted to responses of two kinds, the verifier, and the config."""
    from selftrain.objectives.nll import NLL
    from selftrain.schema import Optim
    from selftrain.training.fit import Fit, fit
    from selftrain.types import Example

    tokenizer = random_checkpoint(
        folder / "start",
        f"{DIGITS}abcdefgh",
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=320,
        initializer_range=0.05,
    )
    draw = random.Random(0)
    examples = []
    for number in range(2000):
        # The mean over tokens counts the first token of a long response a twentieth: half of them make one in twenty.
        length = draw.randint(150, 250) if draw.random() < 0.5 else draw.randint(4, 12)
        body = "a" * length if length > 12 else "".join(draw.choice("bcdefgh") for _ in range(length))
        prompt = "".join(draw.choice("0123456789+-*") for _ in range(6)) + "="
        response = (*tokenizer.encode(f"{body}#{draw.randint(0, 9)}"), tokenizer.eos_token_id)
        examples.append(Example(str(number), str(number), "made", tuple(tokenizer.encode(prompt)), response))
    optim = Optim(lr=3e-3, steps=300, batch_size=32)
    for _ in fit(examples, Fit(folder / "start", folder / "model", folder / "log", NLL(), optim, seed=0)):
        pass
    (folder / "even.py").write_text(VERIFIER)
    (folder / "grow.yaml").write_text(CONFIG.format(folder=folder, problems=PROBLEMS, n=N, room=ROOM, cap=CAP))


def session_of(folder: Path, overrides: list[str]) -> Session:
    from selftrain.artifacts import RunDir
    from selftrain.config import load_config
    from selftrain.session import Session

    config = load_config(folder / "grow.yaml", overrides)
    return Session(config, RunDir(Path(tempfile.mkdtemp(dir=folder))))


def ours(folder: Path, *overrides: str) -> dict[str, Any]:
    """The Grow stage, its engine and verifiers started before the clock."""
    from selftrain.stages import grow as stage

    with session_of(folder, list(overrides)) as session:
        writer = session.writer("draft", 0)
        engine = session.sampler(writer.sampler, writer.checkpoint)
        warm = stage.work_list(session, 99, "draft")[:8]
        tokens = {"drawn": 0}
        list(engine.sample(warm))
        list(session.verifiers.judge([session.judgement(warm[0].problem, "a", session.asked("draft"))]))
        began = time.perf_counter()
        for event in stage.grow(session, 1):
            tokens["drawn"] = max(tokens["drawn"], getattr(event, "tokens", 0))
        seconds = time.perf_counter() - began
        kept = list(rows(session.run.iteration(1)))
    assert tokens["drawn"], "the samples were taken from another run"
    return {"seconds": seconds, "tokens": tokens["drawn"], **accepted(kept)}


def rows(folder: Path) -> Iterator[tuple[str, int, int, bool]]:
    """Problem, index, length, right."""
    from selftrain import records
    from selftrain.types import Sample, Verdict

    for part in records.parts(folder / "samples"):
        verdicts = records.read(folder / "verdicts" / part.name, Verdict)
        for sample, verdict in zip(records.read(part, Sample), verdicts, strict=True):
            yield sample.problem_id, sample.index, len(sample.response_ids), verdict.status == "right"


def accepted(found: list[tuple[str, int, int, bool]]) -> dict[str, Any]:
    """The right ones under the cap, by index; and what they are like."""
    kept: dict[str, list[tuple[int, int]]] = {}
    for problem, index, length, right in sorted(found):
        if right and len(kept.setdefault(problem, [])) < CAP:
            kept[problem].append((index, length))
    chosen = [one for several in kept.values() for one in several]
    lengths = sorted(length for *_, length, _ in found)
    return {
        "accepted": len(chosen),
        "indices": [index for index, _ in chosen],
        "lengths": [length for _, length in chosen],
        "p50": lengths[len(lengths) // 2],
        "p99": lengths[int(0.99 * len(lengths))],
    }


def bare(folder: Path, judged: bool) -> dict[str, Any]:
    """``LLM.generate`` with the same requests; with ``judged``, all verified after all are sampled."""
    import os

    from selftrain.sampling.vllm import VLLM
    from selftrain.stages import grow as stage

    options = VLLM(max_num_seqs=256, dtype="float32")
    os.environ.update(options.environment(gpu=False))
    from vllm import LLM, SamplingParams, TokensPrompt

    with session_of(folder, []) as session:
        work = stage.work_list(session, 1, "draft")
        arguments = {k: v for k, v in options.arguments(gpu=False).items() if k != "disable_log_stats"}
        engine = LLM(model=str(folder / "model"), **arguments)
        places = [(request, index) for request in work for index in range(N)]
        prompts = [TokensPrompt(prompt_token_ids=list(request.prompt_ids)) for request, _ in places]
        params = [SamplingParams(**SETTINGS, seed=request.seeds[i], detokenize=False) for request, i in places]
        engine.generate(prompts[:8], params[:8], use_tqdm=False)
        if judged:
            list(session.verifiers.judge([session.judgement(work[0].problem, "a", session.asked("draft"))]))
        began = time.perf_counter()
        outputs = engine.generate(prompts, params, use_tqdm=False)
        drawn = [output.outputs[0].token_ids for output in outputs]
        right = [False] * len(drawn)
        if judged:
            texts = session.tokenizer.batch_decode(drawn, skip_special_tokens=True)
            prompters = session.asked("draft")
            asked = [session.judgement(r.problem, text, prompters) for (r, _), text in zip(places, texts, strict=True)]
            right = [verdict.status == "right" for verdict in session.verifiers.judge(asked)]
        seconds = time.perf_counter() - began
    found = [(request.problem.id, i, len(ids), ok) for (request, i), ids, ok in zip(places, drawn, right, strict=True)]
    return {"seconds": seconds, "tokens": sum(map(len, drawn)), **accepted(found)}


SIDES: dict[str, Any] = {
    "grow": ours,
    "bare": lambda folder: bare(folder, judged=False),
    "stopping early": lambda folder: ours(folder, f"grow.draft.enough={CAP}"),
    "all, judged afterwards": lambda folder: bare(folder, judged=True),
}


def chi_square(ours: list[int], theirs: list[int]) -> float:
    """p of the test that two lists of numbers are of one distribution, over bins of at least ten."""
    from scipy.stats import chi2_contingency

    ordered = sorted(ours + theirs)
    edges = sorted({ordered[len(ordered) * k // 12] for k in range(1, 12)})
    table = [[0] * (len(edges) + 1) for _ in range(2)]
    for row, values in zip(table, (ours, theirs), strict=True):
        for value in values:
            row[sum(value >= edge for edge in edges)] += 1
    columns = [list(column) for column in zip(*table, strict=True) if sum(column) >= 10]
    return float(chi2_contingency([list(row) for row in zip(*columns, strict=True)]).pvalue)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(RUNS):
            for side in SIDES:
                runs[side].append(fresh(__file__, "--measure", side, name))
    speed = {side: [run["tokens"] / run["seconds"] for run in runs[side]] for side in ("grow", "bare")}
    rate = {side: [run["accepted"] / run["seconds"] for run in runs[side]] for side in list(SIDES)[2:]}
    gain = statistics.median(rate["stopping early"]) / statistics.median(rate["all, judged afterwards"])
    early, late = runs["stopping early"][0], runs["all, judged afterwards"][0]
    save(
        "grow",
        {
            "tokens_per_second": {side: [round(value) for value in values] for side, values in speed.items()},
            "of_bare": round(statistics.median(speed["grow"]) / statistics.median(speed["bare"]), 3),
            "accepted_per_second": {side: [round(value, 1) for value in values] for side, values in rate.items()},
            "stopping_early_gains": round(gain, 3),
            "tail": {"p50": late["p50"], "p99": late["p99"], "p99/p50": round(late["p99"] / late["p50"], 1)},
            "accepted": {"stopping early": early["accepted"], "all": late["accepted"]},
            "p_of_equal_indices": round(chi_square(early["indices"], late["indices"]), 4),
            "p_of_equal_lengths": round(chi_square(early["lengths"], late["lengths"]), 4),
        },
    )  # fmt: skip


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        print(json.dumps(SIDES[sys.argv[2]](Path(sys.argv[3]))))
    else:
        main()
