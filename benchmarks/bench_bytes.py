"""Bytes that a sampled token and a sample take on disk, over GSM8K's model solutions: what `selftrain estimate` reckons
with. SELFTRAIN_DATA names the folder that holds `gsm8k/model_solutions.jsonl`; without it nothing is measured.

Four models solved each problem, so every prompt lies there four times. A token is a word or a sign, and its id one of
150,000 by its hash: ids repeat as those of a real tokenizer do.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import save

from selftrain import records
from selftrain.seeds import sample_id
from selftrain.types import Example, Sample, Score, Verdict

VOCABULARY = 150_000
PART = 1024


def ids(text: str) -> tuple[int, ...]:
    return tuple(zlib.crc32(token.encode()) % VOCABULARY for token in re.findall(r" ?\w{1,6}|[^\w]", text))


COMMON: dict[str, Any] = {"finish_reason": "eos", "policy": "0123456789abcdef", "sampler": "vllm", "origin": "policy"}


def samples_of(path: Path) -> list[Sample]:
    found = []
    for number, line in enumerate(path.read_text().splitlines()):
        row = json.loads(line)
        texts = [value["solution"] for value in row.values() if isinstance(value, dict) and "solution" in value]
        for index, text in enumerate(texts):
            name = sample_id(0, 1, "draft", str(number), None, index)
            seed, problem = number * 2**32 + index, f"gsm8k/train/{number}"
            found.append(
                Sample(name, problem, 1, "draft", index, ids(row["question"]), ids(text), text, seed=seed, **COMMON)
            )
    return found


def main() -> None:
    path = Path(os.environ.get("SELFTRAIN_DATA", "")) / "gsm8k" / "model_solutions.jsonl"
    if not path.is_file():
        print("bench_bytes: SELFTRAIN_DATA names no folder with gsm8k/model_solutions.jsonl; nothing is measured")
        return
    whole = samples_of(path)
    sizes: dict[int, int] = {}
    tokens: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        # Twice: as they are, and each response cut to its half; the difference is what tokens take.
        for share in (1, 2):
            rows = [_cut(one, share) for one in whole]
            tokens[share] = sum(len(row.response_ids) for row in rows)
            sizes[share] = _written(Path(folder) / str(share), rows)
    token = (sizes[1] - sizes[2]) / (tokens[1] - tokens[2])
    sample = (sizes[1] - token * tokens[1]) / len(whole)
    result = {"bytes_per_token": round(token, 2), "bytes_per_sample": round(sample)}
    save("bytes", {"samples": len(whole), "tokens": tokens[1], **result})


def _cut(sample: Sample, share: int) -> Sample:
    return replace(
        sample,
        response_ids=sample.response_ids[: len(sample.response_ids) // share],
        text=sample.text[: len(sample.text) // share],
    )


def _written(folder: Path, rows: list[Sample]) -> int:
    """Bytes of samples, verdicts, scores and, of every second sample, the example."""
    for start in range(0, len(rows), PART):
        part, name = rows[start : start + PART], f"draft-{start // PART:05d}.parquet"
        records.write(folder / "samples" / name, Sample, part)
        verdicts = [Verdict("right", 1.0, str(one.index), None, 0.001, "numeric_answer@12345678", None) for one in part]
        records.write(folder / "verdicts" / name, Verdict, verdicts, sample_id=[one.id for one in part])
        scores = [Score(one.id, source, True, 1.0) for one in part for source in ("verdict", "total")]
        records.write(folder / "scores" / name, Score, scores)
        examples = [
            Example(one.id, one.problem_id, "own", one.prompt_ids, one.response_ids, sample_id=one.id)
            for one in part[::2]
        ]
        records.write(folder / "examples" / name, Example, examples)
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


if __name__ == "__main__":
    main()
