"""What a person reads of a run directory: closing table, report.html, status."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.compose import read_tree
from selftrain.evaluation import JUDGE
from selftrain.files import read_json
from selftrain.planning.best import best_iteration, watched_tasks
from selftrain.regrading import lines, why
from selftrain.report.audits import audit_lines
from selftrain.report.best_of import best_of_lines
from selftrain.report.budget import budget_lines
from selftrain.report.forgetting import forgetting_lines, overview_lines
from selftrain.report.html import write_report
from selftrain.report.monitors import monitor_lines, monitor_rows
from selftrain.report.protocols import protocol_lines
from selftrain.report.searches import search_lines
from selftrain.report.tables import iterations_table

SHOWN_SAMPLES = 6
OF_SAMPLE, OF_VERDICT = ("problem_id", "index", "text", "finish_reason"), ("status", "answer", "reason")
"""What is shown of them, by column."""


def rows_of(run: RunDir) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, or of the finished iterations where the run has not written it yet."""
    if run.metrics.exists():
        return [json.loads(line) for line in run.metrics.read_text().splitlines()]
    found = [run.iteration(number) / "metrics.json" for number in run.iterations()]
    return [row for path in found if path.exists() for row in read_json(path)]


def closing(run: RunDir) -> str:
    """The table of iterations, where things lie and what to try next; writes report.html."""
    rows = rows_of(run)
    if not rows:
        return f"{run.root}: nothing is evaluated yet; run the same command again, without --until, to go on"
    path, config = run.root / "report.html", read_tree(run.config)
    watched, told, monitors = watched_tasks(config), said_of_verdicts(run), monitor_rows(run)
    write_report(
        path,
        title=f"selftrain: {run.root.name}",
        rows=rows,
        selection=selections(run),
        acceptance=acceptances(run),
        config_text=run.config.read_text(),
        samples=shown_samples(run),
        watched=watched,
        told=told,
        monitors=monitors,
    )
    last = max(row["iteration"] for row in rows)
    best = best_iteration(rows, config)
    summary = [*overview_lines(rows, watched), *forgetting_lines(rows, watched)]
    places = {
        "checkpoint": checkpoint_of(run, last),
        **({f"best by {best[1]}": checkpoint_of(run, best[0])} if best and best[0] != last else {}),
        "report": path,
        "metrics": run.metrics,
        **({"samples": run.iteration(last) / "samples"} if last else {}),
    }
    width = max(map(len, places))
    verdicts = [line for heading, body in told.items() for line in (heading.lower(), *body, "")]
    places_and_next = [
        *(f"{what.ljust(width)}  {where}" for what, where in places.items()),
        "",
        "next: other settings with key=value (loop.iterations=5, grow.draft.n=16, run.seed=1 run.name=second);",
        "      your own data with tasks.NAME.kind=jsonl; your own verifier with tasks.NAME.verifier=FILE.py:name",
    ]
    others = [
        *budget_lines(run),
        *best_of_lines(rows),
        *search_lines(rows),
        *protocol_lines(rows),
        *monitor_lines(monitors, config),
    ]
    return "\n".join([iterations_table(rows), "", *others, *summary, *verdicts, *places_and_next])


def said_of_verdicts(run: RunDir) -> dict[str, list[str]]:
    """By title, what is to be told of the verdicts: what a judge accepted, what judging again changed, audits."""
    found = {"Accepted by a judge": judged_lines(run), "Judged again": regraded_lines(run), "Audits": audit_lines(run)}
    return {title: lines for title, lines in found.items() if lines}


def regraded_lines(run: RunDir) -> list[str]:
    """What changed where answers were judged again, by iteration and split."""
    told = []
    for path in sorted(run.root.glob("iteration_*/regraded-*.json")):
        table = read_json(path)
        told.append(f"{path.relative_to(run.root)}: {', '.join(table['verifiers']['after'])}")
        told += [f"  {line}" for line in (*lines(table), *why(table))]
    return told


def judged_lines(run: RunDir) -> list[str]:
    """Of the right samples of Grow, those that only a judge model called right; none where none was asked."""
    told = []
    for number in run.iterations():
        parts = records.parts(run.iteration(number) / "verdicts")
        pairs = Counter(pair for part in parts for pair in zip(*records.columns(part, "status", "by"), strict=True))
        asked = sum(count for (_, by), count in pairs.items() if by == JUDGE)
        right = sum(count for (status, _), count in pairs.items() if status == "right")
        if asked:
            told.append(
                f"iteration {number}: {pairs['right', JUDGE]:,} of {right:,} right samples; it decided {asked:,} of "
                f"{pairs.total():,}"
            )
    return told


def checkpoint_of(run: RunDir, iteration: int) -> str:
    made = run.iteration(iteration) if iteration else run.warmup
    warmed = run.warmup / "policy" / "checkpoint"
    found = [path for path in (made / "policy" / "checkpoint", warmed, run.start) if path.exists()]
    return str(found[0]) if found else "the model the run started from"


def selections(run: RunDir) -> dict[int, dict[str, int]]:
    """Samples kept and left out, by iteration and reason, over all learners."""
    found: dict[int, dict[str, int]] = {}
    for number in run.iterations():
        counts: Counter[str] = Counter()
        for path in sorted(run.iteration(number).glob("selection-*.json")):
            counts.update(read_json(path)["sampled"])
        if counts:
            found[number] = dict(counts)
    return found


def acceptances(run: RunDir) -> dict[int, float]:
    """Share of right samples by iteration."""
    found = {}
    for number in run.iterations():
        statuses = [
            s for part in records.parts(run.iteration(number) / "verdicts") for s in records.column(part, "status")
        ]
        if statuses:
            found[number] = statuses.count("right") / len(statuses)
    return found


def shown_samples(run: RunDir) -> Sequence[Mapping[str, Any]]:
    """A few samples of the last Grow."""
    for number in reversed(run.iterations()):
        for part in records.parts(run.iteration(number) / "samples")[:1]:
            verdicts = run.iteration(number) / "verdicts" / part.name
            if not verdicts.exists():
                continue
            columns = [*records.columns(part, *OF_SAMPLE), *records.columns(verdicts, *OF_VERDICT)]
            rows = list(zip(*columns, strict=True))
            chosen = rows[:: max(1, len(rows) // SHOWN_SAMPLES)][:SHOWN_SAMPLES]
            return [dict(zip((*OF_SAMPLE, *OF_VERDICT), row, strict=True)) | {"iteration": number} for row in chosen]
    return []


def stages_done(run: RunDir) -> dict[int, dict[str, str]]:
    """By iteration: which stages have their mark, and how far the open one is."""
    found: dict[int, dict[str, str]] = {}
    marks = [*run.root.glob("start/*.done"), *run.warmup.glob("*/*.done")]
    if marks:
        found[0] = {mark.stem: "done" for mark in marks}
    for number in run.iterations():
        folder = run.iteration(number)
        stages = {mark.stem: "done" for mark in sorted(folder.glob("*.done"), key=lambda path: path.stat().st_mtime)}
        if "grow" not in stages and (folder / "samples").exists():
            stages["grow"] = f"{len(records.parts(folder / 'samples'))} parts"
        found[number] = {**found.get(number, {}), **stages}
    return found
