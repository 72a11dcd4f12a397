"""`selftrain audit`: draw responses to judge by hand, and tell from the judgements how wrong the verifier is."""

from __future__ import annotations

import argparse
from pathlib import Path

from selftrain.artifacts import RunDir
from selftrain.commands.opening import existing
from selftrain.config import ConfigError

EXAMPLES = """examples:
  selftrain audit runs/quickstart --draw 100 sheet.jsonl  judge these by hand ...
  selftrain audit runs/quickstart sheet.jsonl             ... and read how wrong the verifier is
  selftrain audit runs/quickstart --draw 50 grown.jsonl --split train --iteration 1
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.usage = "selftrain audit RUN [SHEET.jsonl ...] [--draw K SHEET.jsonl] [options]"
    command.add_argument("run", type=Path, help="run directory")
    command.add_argument("sheets", nargs="*", metavar="SHEET.jsonl", help="filled sheets to read")
    command.add_argument("--draw", type=int, metavar="K", help="write K responses to judge to the sheet")
    command.add_argument("--iteration", type=int, metavar="N", help="whose responses (default: the last evaluated one)")
    command.add_argument(
        "--split", metavar="NAME", help="an evaluated split (default: test, or the first one), or train: what Grow drew"
    )
    command.add_argument("--verdicts", action="store_true", help="show them on the sheet, last; hidden by default")


def main(options: argparse.Namespace) -> int:
    from selftrain.auditing.sheets import draw_sheet, read_sheets
    from selftrain.report.audits import audit_lines, record_lines

    run, sheets = existing(options.run), [Path(name) for name in options.sheets]
    if options.draw is not None:
        if options.draw < 1 or len(sheets) != 1:
            raise ConfigError("--draw K SHEET.jsonl: give a number above 0 and one file to write")
        iteration = _last(run) if options.iteration is None else options.iteration
        split = options.split or _split(run, iteration)
        (sheet,) = sheets
        with run.lock():
            record = draw_sheet(run, iteration, split, options.draw, sheet, verdicts=options.verdicts)
        print(
            f"{sheet}: responses of iteration {iteration}, {split}, in random order; drawn so far: "
            f"{len(record['drawn'])}\nset `human` to true or false from the top on, then: "
            f"selftrain audit {options.run} {sheet}"
        )
        return 0
    if not sheets:
        print("\n".join(audit_lines(run)) or f"{run.root}: no audit yet; begin with --draw K SHEET.jsonl")
        return 0
    with run.lock():
        taken = read_sheets(run, sheets)
    print("\n\n".join("\n".join(record_lines(run, record)) for record in taken))
    return 0


def _last(run: RunDir) -> int:
    done = [number for number in run.iterations() if (run.iteration(number) / "evaluate.done").exists()]
    if not done:
        raise ConfigError(f"{run.root}: no iteration is evaluated yet; name one with --iteration, and --split train")
    return done[-1]


def _split(run: RunDir, iteration: int) -> str:
    from selftrain import records

    folder = run.iteration(iteration) / "evaluation"
    splits = [path.stem.rpartition("-")[2] for path in records.parts(folder) if records.has(path, "reason")]
    return "test" if "test" in splits or not splits else splits[0]
