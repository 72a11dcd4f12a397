"""The program in a response, and the shape of the tests it is judged by."""

from __future__ import annotations

import ast
import re
from typing import Any

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)$", re.MULTILINE)
_PROMPT = re.compile(r"^(?:>>>|\.\.\.)(?: |$)(.*)$", re.MULTILINE)
_UNSEEN = "\ufeff\u200b"
"""Marks of an encoding, and of nothing, that some text begins with."""
_PYTHON = re.compile(r"\{?\.?(?:python|py|python3|pycon)\b", re.IGNORECASE)


def program_of(response: str) -> str | None:
    """The last fenced block, or else all of a response; None where that is empty.

    A block marked as Python goes before those without a mark, and those before others (``text``, ``bash``); a fence
    that is never closed runs to the end. Of a session at Python's prompt it is what was typed.
    """
    response = response.lstrip(_UNSEEN)
    blocks = fenced(response)
    for rank in (2, 1, 0):
        ranked = [code for label, code in blocks if _rank(label) == rank and code.strip()]
        if ranked:
            return _typed(ranked[-1])
    return _typed(response) if response.strip() and not blocks else None


def _typed(code: str) -> str:
    code = code.lstrip(_UNSEEN)
    return "\n".join(_PROMPT.findall(code)) if code.lstrip().startswith(">>>") else code


def _rank(label: str) -> int:
    return 2 if _PYTHON.match(label) else 0 if label else 1


def fenced(text: str) -> list[tuple[str, str]]:
    """Label and content of every fenced block.

    As CommonMark has it, one is closed by at least as many of the same mark, indented by less than four: a fence in a
    docstring closes none.
    """
    blocks: list[tuple[str, str]] = []
    opening: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        mark, label = match[1], match[2].strip()
        if opening is None:
            opening = match
        elif mark[0] == opening[1][0] and len(mark) >= len(opening[1]) and not label and _near(match, opening):
            blocks.append(_block(opening, text[opening.end() + 1 : match.start()]))
            opening = None
    if opening is not None:
        blocks.append(_block(opening, text[opening.end() + 1 :]))
    return blocks


def _near(closing: re.Match[str], opening: re.Match[str]) -> bool:
    return closing.start(1) - closing.start() < opening.start(1) - opening.start() + 4


def _block(opening: re.Match[str], content: str) -> tuple[str, str]:
    """A block in a list is indented as its fence is; that much is no part of it."""
    indent = opening[0][: opening.start(1) - opening.start()]
    lines = content.split("\n")
    return opening[2].strip(), "\n".join(line.removeprefix(indent) for line in lines) if indent else content


def whole(program: str, prefix: str) -> tuple[str, str]:
    """What runs first, and the program.

    A program that begins with an indented line goes on from the prefix (HumanEval is asked that way); any other is run
    behind it, so that imports and helpers of the question are there.
    """
    first = next((line for line in program.splitlines() if line.strip()), "")
    return ("", f"{prefix}{program}") if prefix and first[:1].isspace() else (prefix, program)


def imports_of(setup: str) -> str:
    """What the setup of asserts imports; programs use that too, since others run both in one namespace."""
    try:
        body = ast.parse(setup).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""  # Those who run it say so.
    return "\n".join(ast.unparse(node) for node in body if isinstance(node, (ast.Import, ast.ImportFrom)))


def same_output(found: str, expected: str) -> bool:
    """Whether they differ in nothing but white space at the ends of lines and of the whole."""
    return _lines(found) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def number_of(tests: Any) -> int:
    """How many tests an object holds.

    Raises:
        ValueError: it is no object of tests; the message says why.
    """
    if not isinstance(tests, dict):
        raise ValueError(f"the tests are a {type(tests).__name__}, not an object with a 'kind'")
    kind = tests.get("kind")
    fields = FIELDS.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise ValueError(f"the kind of the tests is {kind!r}; known: {', '.join(FIELDS)}")
    for name, kinds in fields.items():
        if not isinstance(tests.get(name, "" if name == "setup" else None), kinds):
            raise ValueError(f"tests of kind '{kind}' need '{name}', a {kinds.__name__}")
    if kind == "asserts":
        return _count(tests["tests"], "tests", lambda test: isinstance(test, str))
    if kind == "stdio":
        return _count(tests["cases"], "cases", _stdio_case)
    if kind == "calls":
        return _count(tests["cases"], "cases", lambda c: isinstance(c, dict) and "expected" in c and _arguments(c))
    return 1


FIELDS: dict[str, dict[str, type]] = {
    "asserts": {"setup": str, "tests": list},
    "check": {"entry_point": str, "test": str},
    "stdio": {"cases": list},
    "calls": {"entry_point": str, "cases": list},
}


def _stdio_case(case: Any) -> bool:
    return isinstance(case, dict) and isinstance(case.get("input"), str) and isinstance(case.get("output"), str)


def _arguments(case: dict[str, Any]) -> bool:
    return isinstance(case.get("args"), list)


def _count(cases: list[Any], name: str, good: Any) -> int:
    for number, case in enumerate(cases, 1):
        if not good(case):
            raise ValueError(f"number {number} of the '{name}' of the tests is not as documented: {str(case)[:80]!r}")
    return len(cases)
