"""Whatever a verifier returns and a response holds: through the pool, through `selftrain verify`, through a run.

The sample carries ``error`` and the reason, the count is shown, all others are judged, and too many stop the run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kill_driver import Driver, Ended

from selftrain import records
from selftrain.cli import main
from selftrain.judging import Request, VerifierSpec
from selftrain.types import Problem, Verdict
from selftrain.verification import VerifierPool

JUDGES = '''
import numbers
from selftrain.judging import batched
from selftrain.types import Verdict

ODD = {
    "nan": float("nan"), "none": None, "text": "right", "two": 2, "list": [1.0],
    "surrogate": Verdict("wrong", answer="\\ud800", reason="a \\udfff here"),
    "nul": Verdict("wrong", answer="a\\x00b", reason="\\x00"),
    "long": Verdict("wrong", answer="x" * 1_000_000, reason="y" * 1_000_000),
}

def judge(problem, response):
    if response == "block":
        return pow(7, 10**8)
    if problem.answer is None:
        raise ValueError("no gold \\ud800 answer")
    return ODD[response] if response in ODD else response == problem.answer

@batched
def together(problems, responses):
    results = [judge(problem, response) for problem, response in zip(problems, responses)]
    return results[:-1] if "short" in responses else results

async def later(problem, response):
    return judge(problem, response)

def shaken(problem, response):
    """In a run nobody knows what is written: the number of characters says what to do."""
    act = [*ODD, "block", "fine"][sum(map(ord, problem.id + response)) % (len(ODD) + 2)]
    return act == "fine" or judge(problem, act)

def gone(problem, response):
    return ODD["surrogate"] if len(response) % 2 else {error}
'''
SAID: dict[str, tuple[str, str]] = {
    "nan": ("error", "value nan, not a number"),
    "none": ("error", "returned a NoneType"),
    "text": ("error", "returned a str"),
    "two": ("error", "value 2, not a number from 0 to 1"),
    "list": ("error", "returned a list"),
    "block": ("timeout", "killed after"),
    "surrogate": ("wrong", "a \udfff here"),
    "nul": ("wrong", "\x00"),
    "long": ("wrong", "yyy"),
}
RESPONSES = ["4", *SAID, "short", "x" * 1_000_000, "a\x00b", "\ud800", "5", "4"]


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("judges") / "judges.py"
    path.write_text(JUDGES.replace("{error}", "None"))
    return path


def check(form: str, verdicts: list[Any], missing: Any) -> None:
    """Verdicts on `RESPONSES`, and one on a problem without a gold answer; as objects with attributes."""
    statuses = [verdict.status for verdict in verdicts]
    short = "error" if form == "together" else "wrong"
    assert statuses == ["right", *(status for status, _ in SAID.values()), short, *["wrong"] * 4, "right"]
    for verdict, (status, told) in zip(verdicts[1:], SAID.values(), strict=False):
        assert told in verdict.reason
        assert (verdict.value is None) == (status != "wrong")
    if form == "together":
        assert "0 verdicts for 1 responses" in verdicts[len(SAID) + 1].reason
    assert (missing.status, missing.value) == ("error", None)
    assert "no gold \ud800 answer" in missing.reason


@pytest.mark.parametrize("form", ["judge", "together", "later"])
def test_through_the_pool(judges: Path, form: str) -> None:
    requests = [Request("t", Problem("p", "t", "train", "?", "4"), response) for response in RESPONSES]
    requests.append(Request("t", Problem("p", "t", "train", "?"), "4"))
    with VerifierPool({"t": VerifierSpec(f"{judges}:{form}")}, workers=1, seconds=0.5) as pool:
        *verdicts, missing = pool.judge(requests)
    check(form, verdicts, missing)


@pytest.mark.parametrize("form", ["judge", "together", "later"])
def test_through_the_command(judges: Path, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [{"id": n, "answer": "4", "response": one} for n, one in enumerate(RESPONSES)]
    rows.append({"id": len(rows), "response": "4"})
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["verify", "--verifier", f"{judges}:{form}", "--seconds", "0.5", str(source), str(target)]
    assert main([*words, "--against", "exact_answer"]) == 0
    graded = [json.loads(line) for line in target.read_text("ascii").splitlines()]
    assert [row.pop("id") for row in graded] == [row["id"] for row in rows]
    *verdicts, missing = (Verdict(**row) for row in graded)
    check(form, verdicts, missing)
    out = capsys.readouterr().out
    assert out.isascii() and max(map(len, out.splitlines())) < 1000
    count = sum(row["status"] == "error" for row in graded)
    table = dict(line.split()[:2] for line in out.splitlines()[1:6])
    assert (table["error"], table["timeout"]) == (str(count), "1")


def test_through_the_files(tmp_path: Path) -> None:
    odd, written = "a\x00b \ud800" + "x" * 1_000_000, "a\x00b ?" + "x" * 1_000_000
    records.write(tmp_path / "v.parquet", Verdict, [Verdict("wrong", 0.0, odd, odd)], sample_id=["s"])
    records.write(tmp_path / "p.parquet", Problem, [Problem("p", "t", "train", odd, odd, metadata={"a": "\ud800"})])
    (verdict,) = records.read(tmp_path / "v.parquet", Verdict)
    assert (verdict.answer, verdict.reason) == (written, written)
    question, answer, metadata = records.columns(tmp_path / "p.parquet", "question", "answer", "metadata")
    assert (question, answer, metadata) == ([written], [written], ['{"a": "\\ud800"}'])


def run(driver: Driver, folder: Path, *more: str) -> Ended:
    config = folder / "tiny.yaml"
    config.write_text(f"include: {Path(__file__).with_name('tiny.yaml')}\nloop: {{iterations: 1}}\n")
    scripted = ("grow.draft.sampler.kind=scripted", "grow.draft.sampler.batch_size=null", "evaluate.n=0")
    sizes = [f"tasks.arithmetic.sizes.{split}={n}" for split, n in {"train": 20, "val": 2, "test": 2}.items()]
    verify = ("reward.verify.seconds=0.5", "grow.draft.n=1", *sizes)
    return driver.run(["run", str(config), f"run.folder={folder}", *scripted, *verify, *more])


def test_through_a_run(judges: Path, tmp_path: Path, driver: Driver) -> None:
    ended = run(
        driver, tmp_path, f"tasks.arithmetic.verifier={judges}:shaken", "reward.verify.max_errors=1", "run.part_size=64"
    )
    assert ended.status == 0, ended.err
    (part,) = records.parts(tmp_path / "tiny" / "iteration_0001" / "verdicts")
    verdicts = records.read(part, Verdict)
    (samples,) = records.parts(tmp_path / "tiny" / "iteration_0001" / "samples")
    acts = [*(act for act in SAID if act != "block"), "block", "fine"]
    for identifier, text, verdict in zip(*records.columns(samples, "problem_id", "text"), verdicts, strict=True):
        act = acts[sum(map(ord, f"{identifier}{text}")) % len(acts)]
        status, told = SAID.get(act, ("right", ""))
        assert verdict.status == status
        # Parquet holds UTF-8: what is none is replaced.
        assert told.replace("\udfff", "?") in (verdict.reason or "")
    failed = sum(verdict.status == "error" for verdict in verdicts)
    assert failed > 3 and f"{failed} error" in ended.out
    assert (tmp_path / "tiny" / "report.html").exists()


def test_too_many_stop_a_run_whatever_they_say(judges: Path, tmp_path: Path, driver: Driver) -> None:
    failing = tmp_path / "judges.py"
    failing.write_text(JUDGES.replace("{error}", "Verdict('error', reason='\\ud800' * 9)"))
    ended = run(driver, tmp_path, f"tasks.arithmetic.verifier={failing}:gone", "reward.verify.max_errors=0.1")
    assert ended.status == 1 and ended.err.startswith("selftrain: the verifier could not judge"), ended.err
    assert "allowed share: 0.1" in ended.err
