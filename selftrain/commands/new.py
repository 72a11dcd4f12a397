"""`selftrain new`: files to begin with."""

from __future__ import annotations

import argparse
import keyword
import sys
from pathlib import Path

from selftrain.config import ConfigError
from selftrain.files import write_text

EXAMPLES = """examples:
  selftrain new verifier even_number                      even_number.py and test_even_number.py, here
  selftrain new verifier even_number --folder verifiers
"""
VERIFIER = '''"""Says whether a response is right. Here: what follows the last "Answer:" equals the gold answer."""

from __future__ import annotations

from selftrain.types import Problem, Verdict

TABLE = [
    # gold answer, response, status
    ("4", "2 + 2 = 4. Answer: 4", "right"),
    ("4", "Answer: 5\\n\\nNo: Answer:  4 ", "right"),
    ("4", "Answer: 5", "wrong"),
    ("4", "Answer: 4 or 5", "wrong"),
    ("4", "Answer: 44", "wrong"),
    ("4", "It is 4.", "unparsed"),
    ("4", "", "unparsed"),
    (None, "Answer: 4", "error"),
]
"""What this verifier promises; the test beside it checks every row. Begin here: add what must not be accepted."""


def verify(problem: Problem, response: str) -> Verdict:
    if problem.answer is None:
        return Verdict("error", reason="the problem has no gold answer")
    _, found, answer = response.rpartition("Answer:")
    answer = answer.strip()
    if not found or not answer:
        return Verdict("unparsed", reason="nothing follows 'Answer:'")
    return Verdict("right" if answer == str(problem.answer) else "wrong", answer=answer)
'''
TEST = '''"""Every row of the table in {name}.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from selftrain.judging import VerifierSpec, asked, load
from selftrain.registry import resolve
from selftrain.types import Problem

FILE = Path(__file__).with_name("{name}.py")
JUDGE = load(VerifierSpec(f"{{FILE}}:verify"))


@pytest.mark.parametrize(("gold", "response", "status"), resolve("verifier", f"{{FILE}}:TABLE"))
def test_table(gold: Any, response: str, status: str) -> None:
    verdict = asked(JUDGE, Problem("{name}/test/0", "{name}", "test", "?", gold), response)
    assert verdict is not None and verdict.status == status, verdict
    assert verdict.value == {{"right": 1.0, "wrong": 0.0, "unparsed": 0.0, "error": None}}[status]
'''


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("what", choices=["verifier"])
    command.add_argument("name", help="what it is called; the files are NAME.py and test_NAME.py")
    command.add_argument("--folder", type=Path, default=Path(), help="where they are written (default: here)")


def main(options: argparse.Namespace) -> int:
    name: str = options.name
    if not name.isidentifier() or keyword.iskeyword(name) or name in sys.stdlib_module_names:
        raise ConfigError(f"'{name}' cannot be the name of a module of yours; give one such as even_number")
    verifier, test = options.folder / f"{name}.py", options.folder / f"test_{name}.py"
    for path in (verifier, test):
        if path.exists():
            raise ConfigError(f"{path} is there already; give another name or --folder, or remove it")
    write_text(verifier, VERIFIER)
    write_text(test, TEST.format(name=name))
    print(f"{verifier}  the verifier and the table of what it promises")
    print(f"{test}  checks every row: python -m pytest {test}")
    print(f"grade a file:  selftrain verify --verifier {verifier}:verify INPUT.jsonl OUTPUT.jsonl")
    print(f"in a run:      tasks.TASK.verifier={verifier}:verify")
    return 0
