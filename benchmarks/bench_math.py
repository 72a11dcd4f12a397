"""Throughput of `math_answer` in two workers against math-verify in a pool of two processes, and the time of an answer.

Both judge the same real responses: GSM8K's labelled model solutions and MATH's reference solutions. math-verify needs
another release of latex2sympy2_extended than the protocols do, so it runs under an interpreter of its own, which
SELFTRAIN_MATH_VERIFY names (`pip install math-verify==0.9.0 antlr4-python3-runtime==4.13.2`). Needs SELFTRAIN_DATA.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from common import save

PEER = """
import json, multiprocessing, sys, time
from math_verify import parse, verify

def judge(row):
    gold, response = row
    try:
        return bool(verify(parse("\\\\boxed{" + gold + "}"), parse(response)))
    except Exception:
        return False

if __name__ == "__main__":
    rows = json.load(open(sys.argv[1]))
    with multiprocessing.Pool(2) as pool:
        pool.map(judge, rows[:8])
        began = time.perf_counter()
        verdicts = pool.map(judge, rows, chunksize=16)
        print(json.dumps({"seconds": time.perf_counter() - began, "right": sum(verdicts)}))
"""
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


def responses(data: Path) -> list[tuple[str, str]]:
    """Gold answer and response."""
    from selftrain.verifiers.final_answer import boxed

    rows = []
    for line in (data / "gsm8k" / "model_solutions.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A: ")[2]
        rows += [(gold, row[model]["solution"]) for model in MODELS]
    for line in (data / "math" / "test.jsonl").read_text("utf-8").splitlines():
        solution = json.loads(line)["solution"]
        final = boxed(solution)
        assert final is not None
        rows.append((final.text, solution))
    return rows


def ours(rows: list[tuple[str, str]]) -> dict[str, Any]:
    from selftrain.judging import Request, VerifierSpec
    from selftrain.types import Problem
    from selftrain.verification import VerifierPool

    requests = [
        Request("math", Problem(str(index), "math", "test", "", gold), response)
        for index, (gold, response) in enumerate(rows)
    ]
    with VerifierPool({"math": VerifierSpec("math_answer")}, workers=2) as pool:
        list(pool.judge([Request("math", Problem("0", "math", "test", "", "1"), "\\boxed{\\sqrt{2}}")] * 8))
        began = time.perf_counter()
        verdicts = list(pool.judge(requests))
        seconds = time.perf_counter() - began
    times = sorted(verdict.seconds for verdict in verdicts)
    return {
        "seconds": seconds,
        "right": sum(verdict.status == "right" for verdict in verdicts),
        "p50_ms": 1000 * times[len(times) // 2],
        "p99_ms": 1000 * times[int(0.99 * len(times))],
        "max_ms": 1000 * times[-1],
    }


def math_verify(rows: list[tuple[str, str]], interpreter: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        script, data = Path(folder) / "peer.py", Path(folder) / "rows.json"
        script.write_text(PEER)
        data.write_text(json.dumps(rows))
        done = subprocess.run([interpreter, str(script), str(data)], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


if __name__ == "__main__":
    data, interpreter = os.environ.get("SELFTRAIN_DATA"), os.environ.get("SELFTRAIN_MATH_VERIFY")
    if data and interpreter:
        rows = responses(Path(data))
        mine, peer = ours(rows), math_verify(rows, interpreter)
        ratio = peer["seconds"] / mine["seconds"]
        save("math", {"responses": len(rows), "ours": mine, "math-verify": peer, "ratio": ratio})
    else:
        print("not run: set SELFTRAIN_DATA, and SELFTRAIN_MATH_VERIFY to a Python that has math-verify 0.9.0")
