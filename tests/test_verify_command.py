"""`selftrain verify` grades files and compares verifiers; `selftrain new verifier` writes one that passes its test."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from selftrain.cli import main
from selftrain.commands.grading import Count, Progress
from selftrain.types import Verdict

ROOT = Path(__file__).resolve().parent.parent
ROWS = [
    {"id": 1, "answer": "4", "response": "2 + 2 = 4"},
    {"id": "b", "answer": "4", "response": "#### 5"},
    {"id": "c", "response": "5"},
    {"id": "c", "answer": 4, "response": "four", "question": "2 + 2?", "metadata": {"level": 1}, "more": [1]},
    {"id": "e", "answer": {"kind": "none"}, "response": "\ud800 #### 4"},
]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def source(tmp_path: Path) -> str:
    return write(tmp_path / "in.jsonl", ROWS)


def test_what_fails_for_the_same_reason_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.py").write_text("def none(problem, response): raise ValueError('\"it\\'s\"\\n\\u200b')\n")
    rows = [{"id": f"r{place}", "response": ""} for place in range(1200)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["verify", "--verifier", f"{tmp_path}/bad.py:none", f"{tmp_path}/in.jsonl", f"{tmp_path}/o.jsonl"]) == 0
    told = capsys.readouterr().out.splitlines()[7:9]
    assert told == [
        "what bad.py:none could not judge, by the first reasons:",
        """  error on r0 and 1,199 more: ValueError: "it's"\\n\\u200b""",
    ]


def test_a_file_is_graded_in_order(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.jsonl"
    assert main(["verify", "--verifier", "numeric_answer", source, str(target)]) == 0
    rows = read(target)
    assert [list(row) for row in rows] == [["id", "status", "value", "answer", "reason", "seconds"]] * 5
    assert [row["id"] for row in rows] == [1, "b", "c", "c", "e"]
    assert [row["status"] for row in rows] == ["right", "wrong", "error", "unparsed", "error"]
    assert [row["value"] for row in rows] == [1.0, 0.0, None, 0.0, None]
    assert all(0 <= row["seconds"] < 1 for row in rows)
    out, err = capsys.readouterr()
    told = dict(line.split()[:2] for line in out.splitlines()[1:6])
    assert told == {"right": "1", "wrong": "1", "unparsed": "1", "timeout": "0", "error": "2"}
    assert "numeric_answer: 5 responses" in out and "error on c: the gold answer is not a number" in out
    assert out.count("error on ") == 2 and "and 1 more" not in out  # Another reason each.
    assert err == ""  # No terminal, no progress.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_options_of_the_verifier(source: str, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    assert main(["verify", source, str(target), "--verifier", "numeric_answer", "marker=####"]) == 0
    assert [row["answer"] for row in read(target)] == ["4", "5", None, None, None]
    assert [row["status"] for row in read(target)][:2] == ["right", "wrong"]
    words = ["verify", "--verifier=any", "verifiers.a=numeric_answer", "verifiers.b=exact_answer"]
    assert main([*words, "verifiers.b.marker=####", source, str(target)]) == 0
    assert [row["reason"] for row in read(target)][:2] == ["a right", "a wrong; b wrong"]


def test_two_verifiers_are_compared(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.jsonl"
    words = ["--verifier", "numeric_answer", "--against", "exact_answer", "against.marker=####", "tolerance=0.5"]
    assert main(["verify", *words, source, str(target)]) == 0
    assert [row["status"] for row in read(target)] == ["right", "right", "error", "unparsed", "error"]
    first, second = read(tmp_path / "out.disagreements.jsonl")
    told = {"status": "unparsed", "value": 0.0, "answer": None, "reason": "no final answer"}
    assert first.pop("against").items() >= told.items() and first.pop("verifier")["status"] == "right"
    assert first == ROWS[0]
    assert (second["id"], second["against"]["status"]) == ("b", "wrong")
    table = capsys.readouterr().out.partition("(across)\n")[2].splitlines()
    assert [line.split()[-3:] for line in table[1:4]] == [["0", "2", "0"], ["0", "1", "0"], ["0", "0", "2"]]
    assert "agree on 3 of 5 ( 60.0 %) and disagree on 2" in table[4]
    assert table[5] == "  1: numeric_answer right 1 4; exact_answer unparsed 0 (no final answer)"


def test_values_that_differ_are_a_disagreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "half.py").write_text(
        "def half(problem, response): return 0.5\ndef none(problem, response): return 0\n"
    )
    source, target = write(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    words = ["--verifier", f"{tmp_path}/half.py:half", "--against", f"{tmp_path}/half.py:none"]
    other = tmp_path / "elsewhere.jsonl"
    assert main(["verify", *words, source, str(target), "--disagreements", str(other)]) == 0
    assert "agree on 0 of 5 (  0.0 %) and disagree on 5, 5 of them only about the value" in capsys.readouterr().out
    assert len(read(other)) == 5


BAD: dict[str, tuple[str, str]] = {
    "no id": ('{"response": "4"}', ":2: no field 'id'; there are: response"),
    "no response": ('{"id": 1}', ":2: no field 'response'"),
    "no text": ('{"id": 1, "response": 4}', ":2: response is 4; it must be text"),
    "no name": ('{"id": 1.5, "response": "4"}', ":2: id is 1.5; it must be text or an integer"),
    "no object": ("[1]", ":2: expected an object with fields, got list"),
    "metadata": ('{"id": 1, "response": "4", "metadata": 1}', ":2: metadata is 1; it must be an object"),
    "torn": ('{"id": 1,', ":2: invalid JSON"),
    "bytes": ("\udcff", ":2: not UTF-8 text"),
    "deep": ("[" * 100_000, ":2: cannot be read"),
    "digits": (f'{{"id": {"1" * 5000}, "response": ""}}', ":2: cannot be read"),
}


@pytest.mark.parametrize(("line", "message"), BAD.values(), ids=list(BAD))
def test_a_bad_row_is_said_before_anything_is_judged(
    tmp_path: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(f'{{"id": 1, "response": "4"}}\n{line}\n'.encode(errors="surrogateescape"))
    assert main(["verify", "--verifier", "numeric_answer", str(source), str(tmp_path / "out.jsonl")]) == 2
    err = capsys.readouterr().err
    assert f"{source}{message}" in err and err.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["numeric_anser", "in.jsonl", "out.jsonl"], "--verifier: unknown verifier 'numeric_anser' (did you mean"),
        (["numeric_answer", "in.jsonl", "out.jsonl", "tolerence=1"], "--verifier.tolerence: unknown key (did you mean"),
        (["numeric_answer", "in.jsonl", "out.jsonl", "tolerance=5"], "--verifier: tolerance must be"),
        (["numeric_answer", "in.jsonl"], "give INPUT.jsonl and OUTPUT.jsonl, not 1 files"),
        (["numeric_answer", "no.jsonl", "out.jsonl"], "no such file: no.jsonl (did you mean 'in.jsonl'?)"),
        (["numeric_answer", "in.jsonl", "in.jsonl"], "in.jsonl: would be written over"),
        (["numeric_answer", "in.jsonl", "out.jsonl", "against.marker=x"], "there is no other verifier"),
        (["numeric_answer", "in.jsonl", "out.jsonl", "--against", "exact"], "--against: unknown verifier 'exact'"),
        (["numeric_answer", "in.jsonl", "out.jsonl", "--workers", "0"], "must be above 0"),
        (["no.py:judge", "in.jsonl", "out.jsonl"], "no such file"),
        (["one.py:judge", "in.jsonl", "out.jsonl"], "must take (problem, response)"),
        (["broken.py:Judge", "in.jsonl", "out.jsonl"], "does not load: OSError: no model"),
    ],
)
def test_bad_usage_is_one_line(
    source: str, tmp_path: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.py").write_text("def judge(response): return True\n")
    Path("broken.py").write_text("class Judge:\n    def __init__(self): raise OSError('no model')\n")
    assert main(["verify", "--verifier", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1, err
    assert not Path("out.jsonl").exists()


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        source = write(
            tmp_path / "in.jsonl", [{"id": n, "answer": "4", "response": "4" * 20_000} for n in range(count)]
        )
        code = f"""
import re
from selftrain.cli import main
main(['verify', '--verifier', 'exact_answer', '--workers', '1', {source!r}, {str(tmp_path / "out.jsonl")!r}])
print(int(re.search("VmHWM: *([0-9]+)", open("/proc/self/status").read().replace("\\t", " "))[1]) >> 10)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        return int(done.stdout.splitlines()[-1])

    few, many = peak(10), peak(3000)
    assert many < few + 25, (few, many)  # MiB; the longer file has 57.


def test_sigterm_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ndef judge(problem, response): time.sleep(600)\n")
    source = write(tmp_path / "in.jsonl", ROWS)
    words = [sys.executable, "-m", "selftrain.cli", "verify", "--verifier", f"{tmp_path}/slow.py:judge"]
    with subprocess.Popen([*words, source, str(tmp_path / "out.jsonl")], cwd=ROOT) as process:
        end = time.monotonic() + 30
        while not list(tmp_path.glob(".*.tmp")) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "slow.py"]


def test_progress_is_shown_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    count = Count("v")
    with Progress(1234) as progress:
        count.add(1, Verdict("right", 1.0))
        progress.step(count)
    assert "1 of 1,234, 100.0 % right, 0 not judged" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_grading_loads_nothing_heavy(source: str, tmp_path: Path) -> None:
    words = ["verify", "--verifier", "numeric_answer", source, str(tmp_path / "out.jsonl")]
    heavy = {"torch", "transformers", "pyarrow", "datasets"}
    code = f"import sys, selftrain.cli; selftrain.cli.main({words!r}); print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_new_verifier_passes_its_test_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "verifier", "even_number", "--folder", "mine"]) == 0
    assert "python -m pytest mine/test_even_number.py" in capsys.readouterr().out
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "mine/test_even_number.py"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert tested.returncode == 0 and "8 passed" in tested.stdout, tested.stdout
    for word in ("wrong", "error"):  # Every row is really looked at.
        file = Path("mine/even_number.py")
        changed = file.read_text().replace(f'"{word}"),', '"right"),', 1)
        Path("mine/even_number.py").write_text(changed)
        failed = subprocess.run(tested.args, capture_output=True, text=True, env=environment)
        assert failed.returncode == 1
    source = write(tmp_path / "in.jsonl", [{"id": 1, "answer": "4", "response": "Answer: 4"}])
    assert main(["verify", "--verifier", "mine/even_number.py:verify", source, "out.jsonl"]) == 0
    assert read(tmp_path / "out.jsonl")[0]["status"] == "right"


@pytest.mark.parametrize("name", ["even-number", "json", "class", "mine/even", ""])
def test_a_new_verifier_needs_a_name_of_its_own(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "verifier", name]) == 2
    assert "cannot be the name of a module" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", ["even.py", "test_even.py"])
def test_a_new_verifier_overwrites_nothing(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(there).write_text("mine")
    assert main(["new", "verifier", "even"]) == 2
    assert f"{there} is there already" in capsys.readouterr().err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
