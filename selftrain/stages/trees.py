"""The trees of a step of Grow as files, and what lies in them.

A part is three files: ``trees/STEP-00000.parquet``, ``.json`` with what its trees cost, and
``samples/STEP-00000.parquet`` with their complete responses, which is written last: where it lies the others are whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, product
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from selftrain import records
from selftrain.artifacts import RunDir, Stage
from selftrain.drawing.sampled import finish_reason
from selftrain.events import Event, Notice
from selftrain.files import read_json, write_json
from selftrain.planning.writers import Writer
from selftrain.sampling.base import Completion, Request
from selftrain.schema import Grow
from selftrain.search.health import reversed_told
from selftrain.search.tree import Node, Tree, records_of
from selftrain.seeds import sample_id
from selftrain.session import Session
from selftrain.types import FinishReason, Sample, TreeNode

JUDGED = {"right": True, "wrong": False, "unparsed": False}
"""Verdicts that say whether an end is right; the others say nothing."""
COUNTED = ("spent", "ended", "closed", "dropped", "warnings")
"""What is counted of the trees of a part."""


class Searched(NamedTuple):
    """A tree of a run, and what is known of its ends."""

    nodes: list[TreeNode]
    """Parents before children."""
    right: dict[int, bool]
    """By node id of each end that was judged."""


def trees_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "trees"


def searched(run: RunDir, iteration: int, step: str = "") -> Iterator[Searched]:
    """The trees of a step, or of all, with the verdicts on their ends where there are any yet."""
    folder = run.iteration(iteration)
    for part in records.parts(folder / "trees", f"{step}-" if step else ""):
        judged = _judged(folder / "verdicts" / part.name)
        for _, rows in groupby(records.rows(part, TreeNode), key=attrgetter("tree_id")):
            nodes = list(rows)
            yield Searched(nodes, {n.node_id: judged[n.sample_id] for n in nodes if n.sample_id in judged})


def _judged(verdicts: Path) -> dict[str | None, bool]:
    """Whether each sample of a part is right, where that is known."""
    if not verdicts.exists():
        return {}
    rows = zip(*records.columns(verdicts, "sample_id", "status"), strict=True)
    return {sample: JUDGED[status] for sample, status in rows if status in JUDGED}


class Reading(NamedTuple):
    """What a value model did for the trees of a part, beside what their budgets count."""

    tokens: int = 0
    """That it read: prompts, and what it read again, too."""
    whole: str | None = None
    """Why it read every path from its beginning, where it had to."""


@dataclass(frozen=True)
class Forest:
    """The trees of one step of an iteration."""

    session: Session
    stage: Stage
    step: str
    work: Sequence[Request]
    """One request for each problem, of one sample whose seed is the tree's."""
    writer: Writer

    @property
    def iteration(self) -> int:
        return self.stage.iteration


def answers(session: Session, step: Grow, tree: Tree) -> list[tuple[Node, Completion]]:
    """The complete responses of a tree that become samples, each with its node, in order of node id."""
    ends = tree.ends()
    if step.keep == "chosen":
        ends = [end for end in ends if end is tree.found]
    special = frozenset(session.tokenizer.all_special_ids)
    made = []
    for index, node in enumerate(ends):
        path = node.path()
        ids = tuple(token for one in path for token in one.ids)
        text = str(session.tokenizer.decode(ids, skip_special_tokens=True))
        # What a stop string or id ended has no end token.
        ended: FinishReason = "eos" if ids and ids[-1] in special else "stop"
        made.append((node, Completion(0, index, ids, text, ended)))
    return made


def write_part(
    forest: Forest, asked: Mapping[str, Request], trees: Sequence[Tree], reading: Reading, path: Path
) -> None:
    """The files of a part, that of the samples last."""
    session, folder = forest.session, trees_folder(forest.session, forest.iteration)
    chosen = session.config.grow[forest.step]
    names = (session.config.run.seed, forest.iteration, forest.step)
    nodes: list[TreeNode] = []
    samples: list[Sample] = []
    found: dict[str, int] = {}
    for tree in trees:
        request = asked[tree.problem]
        made = answers(session, chosen, tree)
        ids = {node.id: sample_id(*names, tree.problem, None, answer.index) for node, answer in made}
        rows = records_of(tree, sample_id(*names, tree.problem, "tree"), tree.problem)
        if tree.found is not None:
            found[rows[0].tree_id] = tree.found.id
        nodes += [replace(row, sample_id=ids.get(row.node_id)) for row in rows]
        samples += [_sample(forest, request, ids[node.id], answer) for node, answer in made]
    records.write(folder / path.name, TreeNode, nodes)
    write_json(folder / f"{path.stem}.json", cost(trees, reading) | {"found": found})
    records.write(path, Sample, samples)


def _sample(forest: Forest, request: Request, id: str, answer: Completion) -> Sample:
    return Sample(
        id=id,
        problem_id=request.problem.id,
        iteration=forest.iteration,
        step=forest.step,
        index=answer.index,
        prompt_ids=request.prompt_ids,
        response_ids=answer.ids,
        text=answer.text,
        finish_reason=finish_reason(forest.session, request, answer),
        policy=forest.writer.name,
        sampler=forest.writer.sampler.kind,
        seed=request.seeds[0],
    )


def cost(trees: Sequence[Tree], reading: Reading) -> dict[str, Any]:
    """What the trees of a part cost, and what became of them: counts alone, so that parts can be added up."""
    found: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    found["spent"]["tokens_read"] = reading.tokens
    if reading.whole is not None:
        found["warnings"][f"the value model reads every path from its beginning ({reading.whole})"] = len(trees)
    for tree in trees:
        found["spent"].update(trees=1, nodes=len(tree.nodes), ends=len(tree.ends()), **asdict(tree.spent))
        found["ended"][tree.ended or "done"] += 1
        found["closed"].update(node.reason or "" for node in tree.nodes if node.state == "closed")
        found["dropped"].update(tree.dropped)
        found["warnings"].update(set(tree.warnings))
    return {name: dict(counts) for name, counts in found.items()}


def told(session: Session, iteration: int, step: str) -> Iterator[Event]:
    """What the trees of a step cost, and what to look at."""
    found: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    for file in sorted(trees_folder(session, iteration).glob(f"{step}-[0-9]*.json")):
        part = read_json(file)
        for name, counts in found.items():
            counts.update(part[name])
    spent = found["spent"]
    if not (trees := spent["trees"]):
        return
    tokens = (spent["policy_tokens"] + spent["value_tokens"]) / trees
    parts = [
        f"{trees} trees of {step}, {tokens:,.0f} tokens each",
        f"{spent['policy_tokens']:,} drawn, {spent['value_tokens']:,} valued",
        *([f"the value model read {spent['tokens_read']:,} in all"] if spent["tokens_read"] else []),
        f"{spent['nodes'] - trees:,} steps of {spent['proposals']:,} proposals, {spent['ends']:,} complete responses",
        *(f"{name} {_listed(found[name])}" for name in ("ended", "closed", "dropped") if found[name]),
    ]
    yield Notice(f"iteration {iteration}: {'; '.join(parts)}", "info")
    for text, count in sorted(found["warnings"].items()):
        yield Notice(f"iteration {iteration}, {step}: {text} ({count} of {trees} trees)", "warning")
    if (turned := reversed_told(right_and_wrong(session.run, iteration, step))) is not None:
        yield Notice(f"iteration {iteration}, {step}: {turned}", "warning")


def right_and_wrong(run: RunDir, iteration: int, step: str) -> Iterator[tuple[float, float]]:
    """Values of each right and each wrong response of a tree."""
    folder = run.iteration(iteration)
    for part in records.parts(folder / "trees", f"{step}-"):
        judged = _judged(folder / "verdicts" / part.name)
        ends: dict[str, tuple[list[float], list[float]]] = {}
        for tree, sample, value in zip(*records.columns(part, "tree_id", "sample_id", "value"), strict=True):
            if sample in judged and value is not None:
                ends.setdefault(tree, ([], []))[0 if judged[sample] else 1].append(value)
        for right, wrong in ends.values():
            yield from product(right, wrong)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
