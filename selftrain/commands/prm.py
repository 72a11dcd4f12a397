"""`selftrain prm`: how well a reward source finds the wrong steps of labelled solutions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, get_args

from selftrain.commands.following import TERMINATED, stop_on_sigterm, watch
from selftrain.commands.opening import prepare_libraries
from selftrain.config import instantiate
from selftrain.digests import value_digest
from selftrain.files import write_json, write_text
from selftrain.labelling.files import LabelledSteps, Neutral

ABOUT = """Scores the steps of solutions that people have labelled, and tells how often the first step below a threshold
is the first wrong one (ProcessBench), whether scores are chances to be right, and where in a solution they are."""
EXAMPLES = """a row of FILE:  {"id": "1", "problem": "2+2+3?", "steps": ["2+2=5", "5+3=8"], "label": 0}
                label: index of the first wrong step, -1 where none is (ProcessBench); or "labels": [0, null]; or rows
                of PRM800K

examples:
  selftrain prm runs/first/iteration_0001/value/checkpoint --data processbench/math.jsonl
  selftrain prm implicit_prm model=runs/implicit/iteration_0001/prm/checkpoint \\
      reference=runs/implicit/warmup/policy/checkpoint --data math.jsonl --validation gsm8k.jsonl
  selftrain prm implicit_prm model=PRM reference=MODEL separator='"\\n\\n"' chat=none prompt.template='{question} ' \\
      --data steps.jsonl
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.usage = "selftrain prm SOURCE --data FILE [--validation FILE | --threshold T] [key=value ...]"
    command.description = ABOUT
    command.add_argument("source", help="a reward source that scores steps, or the folder of a model with a value head")
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help=fill(
            "options of the source; prompt.KEY and chat.KEY say how a problem becomes a prompt, as in a config", 90
        ),
    )
    command.add_argument("--data", type=Path, required=True, metavar="FILE", help="labelled solutions, reported on")
    chosen = command.add_mutually_exclusive_group()
    chosen.add_argument(
        "--validation",
        type=Path,
        metavar="FILE",
        help="labelled solutions that choose the threshold (default: a fifth of the problems of --data)",
    )
    chosen.add_argument("--threshold", type=float, metavar="T", help="scores below it mean wrong")
    command.add_argument(
        "--neutral", choices=get_args(Neutral), default="right", help="what PRM800K's rating 0 means (right)"
    )
    command.add_argument("--output", type=Path, metavar="DIR", help="default: runs/prm-...")


def main(options: argparse.Namespace) -> int:
    prepare_libraries()
    from selftrain.checks.prm import config_of, encoded, read_given, source_of
    from selftrain.session import Session
    from selftrain.stages.labelled import step_scores
    from selftrain.stages.train import FitDir

    root = options.output or _place(options)
    config, prompt = config_of(options.source, options.overrides, root)
    given = read_given(options.data, options.validation, options.neutral, choose=options.threshold is None)
    rows = [*given.tested, *given.validation]
    folder, source = FitDir(root), source_of(config)
    found: list[tuple[float, ...]] = []
    with Session(config, folder) as session:
        judged = encoded(session, rows, prompt)

        def work() -> Iterator[Any]:
            found.extend((yield from step_scores(session, instantiate("reward", source), source.kind, judged)))

        with folder.lock(), stop_on_sigterm(folder):
            folder.remove_temporaries()
            if not watch(session, work()):
                return TERMINATED
    result = _told(options, rows, found, len(given.tested))
    write_json(root / "prm.json", {"source": {"kind": source.kind, **source.options}, **result})
    write_text(root / "rows.jsonl", "".join(_lines(rows, found, result["threshold"], len(given.tested))))
    from selftrain.report.prm import prm_lines

    print("\n".join([*([given.note] if given.note else []), *prm_lines(result)]))
    print(f"\nnumbers: {root / 'prm.json'}; scores of every step: {root / 'rows.jsonl'}")
    return 0


def _place(options: argparse.Namespace) -> Path:
    """Other sources, settings and files are another evaluation: each gets a folder of its own."""
    files = [str(path and path.absolute()) for path in (options.data, options.validation)]
    place = value_digest([options.source, sorted(options.overrides), files, options.neutral])[:6]
    return Path("runs") / f"prm-{Path(options.source).name}-{options.data.stem}-{place}"


def _told(
    options: argparse.Namespace, rows: Sequence[LabelledSteps], found: Sequence[tuple[float, ...]], tested: int
) -> dict[str, Any]:
    from selftrain.prm_evaluation.steps import ScoredSteps
    from selftrain.prm_evaluation.whole import evaluation

    scored = [ScoredSteps(row.problem, own, row.labels) for row, own in zip(rows, found, strict=True)]
    told = evaluation(scored[:tested], scored[tested:], options.threshold)
    return {"data": str(options.data), "validation": options.validation and str(options.validation), **told}


def _lines(
    rows: Sequence[LabelledSteps], found: Sequence[tuple[float, ...]], threshold: float, tested: int
) -> Iterator[str]:
    from selftrain.prm_evaluation.steps import ScoredSteps

    for number, (row, own) in enumerate(zip(rows, found, strict=True)):
        one = ScoredSteps(row.problem, own, row.labels)
        told = {"first": one.first, "predicted": one.predicted(threshold), "validation": number >= tested}
        yield (
            json.dumps({"id": row.id, **told, "scores": [round(score, 6) for score in own], "labels": row.labels})
            + "\n"
        )
