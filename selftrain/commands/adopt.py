"""`selftrain adopt`: rollouts of other tools as the samples of an iteration."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from pathlib import Path

from selftrain.artifacts import RunDir
from selftrain.commands.opening import begin, check_once, journal_line, prepare_libraries, root_of, set_aside
from selftrain.config import load_config

EXAMPLES = """examples:
  selftrain adopt my.yaml completions/*.parquet           completions of TRL, judged anew
  selftrain adopt my.yaml out.jsonl --field question=input.text --field response=output
  selftrain adopt my.yaml second.jsonl --iteration 2 --step draft run.name=adopted
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.usage = "selftrain adopt CONFIG FILE... [options] [key=value ...]"
    command.add_argument("config", type=Path, help="YAML file of the run they are for")
    # Files and overrides are told apart later: overrides may stand anywhere.
    command.add_argument("overrides", nargs="*", metavar="FILE", help="JSON Lines, a JSON list, or Parquet")
    command.add_argument("--iteration", type=int, default=1, metavar="N", help="whose samples they become (default: 1)")
    command.add_argument("--step", metavar="NAME", help="the step of grow they are of, where there are several")
    command.add_argument(
        "--format", metavar="NAME", help="auto (default), trl, nemo-skills, verl, prime-rl, jsonl, or FILE.py:Reader"
    )
    command.add_argument(
        "--field",
        metavar="ROLE=PATH",
        action="append",
        default=[],
        help="of plain JSONL: where question, response, answer, id, finish_reason or truncated stands; dots go deeper",
    )
    command.add_argument("--redo", action="store_true", help="set aside the samples the iteration has")


def main(options: argparse.Namespace) -> int:
    files, overrides = _files_and_overrides(options.overrides)
    config = load_config(options.config, overrides)
    prepare_libraries()
    from selftrain.adoption import adopt as stage
    from selftrain.adoption.harvest import gather
    from selftrain.events import StageFinished
    from selftrain.loop import check_marks
    from selftrain.session import Session

    started = time.monotonic()
    wanted = stage.wanted(config, files, options.iteration, options.step, options.format, options.field)
    folder = RunDir(root_of(config.run))
    redo = [f"{wanted.iteration}/grow"] if options.redo else []
    with Session(config, folder) as session:
        check_once(session)
        stage.check_place(session, wanted.iteration, redo=options.redo)
        harvest = gather(session, wanted.files, wanted.format, wanted.fields)
        with folder.lock():
            check_marks(session, redo)
            stage.check_place(session, wanted.iteration, redo=options.redo)
            if redo:
                set_aside(session, redo)
            begin(session)
            lines = stage.adopt(session, wanted, harvest)
            done = StageFinished(wanted.iteration, "grow", time.monotonic() - started, "; ".join(lines), False)
            with folder.events.open("a") as journal:
                journal.write(journal_line(done))
    print("\n".join(lines))
    return 0


def _files_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """An override looks like key=value, and is no file."""
    overrides = [word for word in words if re.match(r"[\w.-]+=", word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides
