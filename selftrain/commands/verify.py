"""`selftrain verify`: grade a file of responses, and show where two verifiers disagree."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import IO, Any

from selftrain.commands.following import TERMINATED
from selftrain.commands.grading import Agreement, Count, Progress, same
from selftrain.config import ConfigError, apply_overrides, component
from selftrain.files import replacing
from selftrain.judging import Request, VerifierError
from selftrain.registry import TABLES
from selftrain.schema import Component, Verify
from selftrain.session import verifier_spec
from selftrain.tasks.jsonl import read_records
from selftrain.types import Problem, Verdict
from selftrain.verification import VerifierPool

EXAMPLES = """a row of INPUT:   {"id": 1, "answer": "4", "response": "2 + 2 = 4"}; answer may be any JSON, or absent;
                  question and metadata come with it where the verifier reads them
a row of OUTPUT:  {"id": 1, "status": "right", "value": 1.0, "answer": "4", "reason": null, "seconds": 0.00002}

examples:
  selftrain verify --verifier numeric_answer answers.jsonl verdicts.jsonl
  selftrain verify --verifier exact_answer marker=#### answers.jsonl verdicts.jsonl
  selftrain verify --verifier my.py:judge --seconds 60 --workers 8 answers.jsonl verdicts.jsonl
  selftrain verify --verifier any verifiers.number=numeric_answer verifiers.text.kind=exact_answer in.jsonl out.jsonl
  selftrain verify --verifier my.py:judge --against exact_answer against.marker=#### in.jsonl out.jsonl
"""
OWN, OTHER = "verifier", "against"
Row = dict[str, Any]


def arguments(command: argparse.ArgumentParser) -> None:
    command.usage = "selftrain verify --verifier NAME [key=value ...] INPUT.jsonl OUTPUT.jsonl [--against OTHER]"
    known = fill(f"verifiers of the package: {', '.join(TABLES['verifier'])}", 110, subsequent_indent="  ")
    command.epilog = f"{known}\n\n{EXAMPLES}"
    command.add_argument(
        "--verifier", required=True, metavar="NAME", help="by name, package.module:name or FILE.py:name"
    )
    # Files and options of the verifier are told apart later: they may stand anywhere.
    command.add_argument("overrides", nargs="*", metavar="INPUT OUTPUT", help="JSON Lines; key=value: its options")
    command.add_argument("--against", metavar="OTHER", help="a second verifier; its options are against.key=value")
    command.add_argument("--disagreements", type=Path, metavar="FILE", help="default: OUTPUT.disagreements.jsonl")
    command.add_argument("--seconds", type=float, default=Verify.seconds, help="deadline of one judgement (10)")
    command.add_argument("--memory-mb", type=int, default=Verify.memory_mb, help="memory of a worker, in MiB (2048)")
    command.add_argument("--workers", type=int, default=2, help="processes that judge (2)")


def main(options: argparse.Namespace) -> int:
    words: list[str] = options.overrides
    settings = [word for word in words if re.match(r"[\w.-]+=", word) and not Path(word).exists()]
    files = [Path(word) for word in words if word not in settings]
    if len(files) != 2:
        raise ConfigError(f"selftrain verify: give INPUT.jsonl and OUTPUT.jsonl, not {len(files)} files")
    if options.seconds <= 0 or options.memory_mb < 1 or options.workers < 1:
        raise ConfigError("--seconds, --memory-mb and --workers must be above 0")
    judges = _judges(options, settings)
    source, target = files
    disagreements = options.disagreements or target.with_suffix(".disagreements.jsonl")
    if len({path.resolve() for path in (source, target, disagreements)}) < 3:
        raise ConfigError(f"{target}: would be written over another of the files; give another name")
    total = sum(1 for _ in _rows(source))  # All rows are looked at before the first is judged.
    try:
        with _terminable(), contextlib.ExitStack() as opened:
            output = opened.enter_context(_writing(target))
            differing = opened.enter_context(_writing(disagreements)) if OTHER in judges else None
            lines = _grade(options, judges, source, total, output, differing)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    print("\n".join([*lines, f"verdicts: {target}", *([f"disagreements: {disagreements}"] if differing else [])]))
    return 0


def _judges(options: argparse.Namespace, settings: Sequence[str]) -> dict[str, Component]:
    """The verifier, and the one it is compared with, by name of the task they judge here."""
    trees: dict[str, Any] = {OWN: {"kind": options.verifier}}
    if options.against:
        trees[OTHER] = {"kind": options.against}
    for setting in settings:
        of_other = setting.startswith(f"{OTHER}.")
        if of_other and not options.against:
            raise ConfigError(f"'{setting}': there is no other verifier; name it by --against")
        name = OTHER if of_other else OWN
        trees[name] = apply_overrides(
            {"tasks": {name: {"verifier": trees[name]}}}, [f"tasks.{name}.verifier.{setting.removeprefix(f'{OTHER}.')}"]
        )["tasks"][name]["verifier"]
    return {name: component("verifier", tree, f"--{name}") for name, tree in trees.items()}


def _grade(
    options: argparse.Namespace,
    judges: dict[str, Component],
    source: Path,
    total: int,
    output: IO[str],
    differing: IO[str] | None,
) -> list[str]:
    """Write the verdicts, and what two verifiers say otherwise; the lines to close with."""
    bounds = Verify(options.seconds, options.memory_mb)
    specs = {name: verifier_spec(judge, bounds) for name, judge in judges.items()}
    waiting: deque[Row] = deque()

    def requests() -> Iterator[Request]:
        for row in _rows(source):
            waiting.append(row)
            problem = _problem(row)
            yield from (Request(name, problem, row["response"]) for name in specs)

    names = {name: Path(judge.kind).name for name, judge in judges.items()}
    counts = {name: Count(shown) for name, shown in names.items()}
    agreement = Agreement(names[OWN], names[OTHER]) if OTHER in judges else None
    with contextlib.ExitStack() as opened:
        try:
            pool = opened.enter_context(
                VerifierPool(specs, workers=options.workers, seconds=bounds.seconds, memory_mb=bounds.memory_mb)
            )
        except VerifierError as error:
            raise ConfigError(str(error)) from error
        progress = opened.enter_context(Progress(total))
        verdicts = pool.judge(requests())
        for verdict in verdicts:
            row = waiting.popleft()
            counts[OWN].add(row["id"], verdict)
            output.write(_line({"id": row["id"], **_told(verdict)}))
            if agreement is not None and differing is not None:
                other = next(verdicts)
                counts[OTHER].add(row["id"], other)
                agreement.add(row["id"], verdict, other)
                if not same(verdict, other):
                    differing.write(_line({**row, OWN: _told(verdict), OTHER: _told(other)}))
            progress.step(counts[OWN])
    return [line for count in counts.values() for line in count.lines()] + (agreement.lines() if agreement else [])


def _rows(path: Path) -> Iterator[Row]:
    """The rows of the input; raises ConfigError with file and line for one that is none."""
    try:
        for place, row in read_records(path, ".jsonl"):
            _check(place, row)
            yield row
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else ConfigError(str(error)) from error


def _check(place: str, row: Row) -> None:
    kinds: dict[str, tuple[type, ...]] = {"id": (str, int), "response": (str,), "question": (str,), "metadata": (dict,)}
    for name, kind in kinds.items():
        if name not in row and name in ("id", "response"):
            raise ConfigError(f"{place}: no field '{name}'; there are: {', '.join(row) or 'none'}")
        if name in row and not isinstance(row[name], kind):
            wanted = " or ".join(
                {"str": "text", "int": "an integer", "dict": "an object"}[one.__name__] for one in kind
            )
            raise ConfigError(f"{place}: {name} is {json.dumps(row[name])[:80]}; it must be {wanted}")


def _problem(row: Row) -> Problem:
    known = {name: row[name] for name in ("question", "answer", "metadata") if name in row}
    return Problem(id=str(row["id"]), task=OWN, split="", **{"question": "", **known})


def _told(verdict: Verdict) -> Row:
    told = {name: getattr(verdict, name) for name in ("status", "value", "answer", "reason")}
    return {**told, "seconds": round(verdict.seconds, 6)}


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"  # Escaped: what is no UTF-8 can be written too.


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[IO[str]]:
    """The file appears when all of it is written."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        yield stream


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Inside, SIGTERM ends the command with nothing left behind."""

    def end(*_: object) -> None:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
