"""What hand audits say of the verifiers of a run, as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from selftrain.artifacts import RunDir
from selftrain.auditing.design import kind_of
from selftrain.auditing.results import Result, open_strata, results
from selftrain.auditing.sheets import Record, records_of
from selftrain.digests import file_digest
from selftrain.files import read_json
from selftrain.intervals import Estimate
from selftrain.report.tables import align

FEW = 50
"""Judged responses from which the interval was measured to hold."""
MEASURES = {"greedy": "pass@1", "sampled": "avg", "grow": "right"}
RATES = ("false +", "false -", "taught wrong")
LEGEND = (
    "by verifier: share of responses it calls right; corrected: share that is right, as far as the audit tells, with",
    "its 95 % interval over problems. false +: of the wrong responses, those it accepts; false -: of the right ones,",
    "those it does not; taught wrong: of the accepted ones, those that are wrong. All in per cent.",
)


def audit_lines(run: RunDir) -> list[str]:
    """All audits of a run; none where there are none."""
    return [line for path in records_of(run) for line in (*record_lines(run, read_json(path)), "")]


def record_lines(run: RunDir, record: Record) -> list[str]:
    """One audit: what it says of each task, stratum by stratum, and what to mind."""
    head = (
        f"audit of iteration {record['iteration']}, {record['split']} ({record['of']} answers): "
        f"{len(record['human'])} of {len(record['drawn'])} drawn responses judged by hand"
    )
    found = results(record)
    lines = [head, *_mind(run, record, found)]
    if not found:
        return lines
    measure = MEASURES[record["of"]]
    header = [
        "task",
        "responses",
        "judged",
        f"{measure} by verifier",
        "corrected",
        "false +",
        "false -",
        "taught wrong",
    ]
    lines += [align([header, *map(_cells, found)]), *(f"  {line}" for line in LEGEND)]
    for result in found:
        lines.append(align([[f"{result.task}, by kind", "responses", "judged", "right"], *_strata(result)]))
    return lines


def _cells(result: Result) -> list[str]:
    said = result.audit
    shares = [said.corrected, said.false_positive, said.false_negative, said.accepted_wrong]
    apparent = f"{100 * said.apparent:.1f}"
    return [result.task, f"{result.responses:,}", str(result.judged), apparent, *map(_percent, shares)]


def _strata(result: Result) -> list[list[str]]:
    return [[kind_of(s.name), f"{s.size:,}", str(s.judged), str(s.right)] for s in result.strata]


def _percent(estimate: Estimate) -> str:
    if math.isnan(estimate.mean):
        return "-"
    return f"{100 * estimate.mean:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _mind(run: RunDir, record: Record, found: Sequence[Result]) -> list[str]:
    told = []
    stage = "verify" if record["of"] == "grow" else "evaluate"
    mark = run.iteration(record["iteration"]) / f"{stage}.done"
    if not mark.exists() or file_digest(mark)[:8] != record["mark"]:
        told.append("of former verdicts: they or the responses were made anew since; draw again to audit these")
    if missing := open_strata(record):
        told.append(f"no judgement yet of: {', '.join(missing)}; a task is told when each of its kinds has one")
    told += [
        f"{result.task}: {result.judged} judgements; intervals were measured to hold from {FEW} on"
        for result in found
        if result.judged < FEW
    ]
    return [f"  {line}" for line in told]
