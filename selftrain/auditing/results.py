"""From the record of an audit to what it says of each task."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from selftrain.auditing.design import ACCEPTED, GUESSED, kind_of
from selftrain.auditing.estimates import Audit, Stratum, audit, spread_over_problems
from selftrain.auditing.sheets import Record

BY_JUDGE = "right by the judge"


class Result(NamedTuple):
    """What an audit says of one task."""

    task: str
    responses: int
    judged: int
    audit: Audit
    strata: list[Stratum]


def results(record: Record) -> list[Result]:
    """One per task whose strata all have a judgement."""
    strata = _strata(record)
    found = []
    for task in dict.fromkeys(name.rpartition(": ")[0] for name in strata):
        own = [stratum for name, stratum in strata.items() if name.rpartition(": ")[0] == task]
        known = [stratum for stratum in own if stratum is not None]
        if len(known) < len(own):
            continue
        shares = {stratum.name: stratum.share for stratum in known}
        problems = (counts for one, counts, times in record["problems"] if one == task for _ in range(times))
        said = audit(known, spread_over_problems(problems, shares))
        size, judged = sum(stratum.size for stratum in known), sum(stratum.judged for stratum in known)
        found.append(Result(task, size, judged, said, known))
    return found


def open_strata(record: Record) -> list[str]:
    """Strata without any judgement yet."""
    return [name for name, stratum in _strata(record).items() if stratum is None]


def _strata(record: Record) -> dict[str, Stratum | None]:
    judged = Counter(record["drawn"][key] for key in record["human"])
    right = Counter(record["drawn"][key] for key, human in record["human"].items() if human)
    order = list(GUESSED)
    names = sorted(record["strata"], key=lambda name: (name.rpartition(": ")[0], order.index(kind_of(name))))
    return {
        name: Stratum(name, record["strata"][name], kind_of(name) in ACCEPTED, judged[name], right[name])
        if judged[name]
        else None
        for name in names
    }
