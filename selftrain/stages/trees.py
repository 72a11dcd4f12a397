"""The trees of a search as files, and what lies in them.

A part is three files: ``trees/STEM-00000.parquet``, ``.json`` with what its trees cost, and a part of samples with
their complete responses, which is written last: where it lies the others are whole. Those of Grow are called by their
step and lie in the folder of the iteration; those of an evaluation by task and split, in a folder for each search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, product
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from selftrain import records
from selftrain.artifacts import RunDir, Stage
from selftrain.drawing.sampled import finish_reason
from selftrain.events import Event, Notice
from selftrain.files import write_json
from selftrain.planning.writers import Writer
from selftrain.prompts import Prompter
from selftrain.sampling.base import Completion, Request
from selftrain.schema import Searching
from selftrain.search.health import reversed_told
from selftrain.search.tree import Node, Tree, records_of
from selftrain.seeds import sample_id
from selftrain.session import Session
from selftrain.stages.tree_costs import Reading, cost, counted
from selftrain.types import FinishReason, Sample, TreeNode

JUDGED = {"right": True, "wrong": False, "unparsed": False}
"""Verdicts that say whether an end is right; the others say nothing."""


class Searched(NamedTuple):
    """A tree of a run, and what is known of its ends."""

    nodes: list[TreeNode]
    """Parents before children."""
    right: dict[int, bool]
    """By node id of each end that was judged."""


class TreePart(NamedTuple):
    """A part of trees that is on disk."""

    path: Path
    where: str
    """Place in the config of who grew it."""
    verdicts: Path
    """The file that knows of its ends, where it is there yet."""
    key: str = "sample_id"
    """Column of that file that names samples."""


def trees_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "trees"


def grown_parts(run: RunDir, iteration: int, step: str = "") -> list[TreePart]:
    """The trees of a step of Grow, or of all."""
    folder = run.iteration(iteration)
    found = [part for part in records.parts(folder / "trees") if step in ("", stem(part))]
    return [TreePart(part, f"grow.{stem(part)}", folder / "verdicts" / part.name) for part in found]


def stem(part: Path) -> str:
    """What the parts of one search are called."""
    return part.stem.rpartition("-")[0]


def searched(run: RunDir, iteration: int, step: str = "") -> Iterator[Searched]:
    """The trees of a step of Grow, or of all, with the verdicts on their ends where there are any yet."""
    for part in grown_parts(run, iteration, step):
        yield from searched_in(part)


def searched_in(part: TreePart) -> Iterator[Searched]:
    judged = _judged(part)
    for _, rows in groupby(records.rows(part.path, TreeNode), key=attrgetter("tree_id")):
        nodes = list(rows)
        yield Searched(nodes, {n.node_id: judged[n.sample_id] for n in nodes if n.sample_id in judged})


def _judged(part: TreePart) -> dict[str | None, bool]:
    """Whether each sample of a part is right, where that is known."""
    if not part.verdicts.exists():
        return {}
    rows = zip(*records.columns(part.verdicts, part.key, "status"), strict=True)
    return {sample: JUDGED[status] for sample, status in rows if status in JUDGED}


@dataclass(frozen=True)
class Forest:
    """The trees of one work list on their way to files."""

    session: Session
    stage: Stage
    where: str
    """Place of the search in the config."""
    name: str
    """What a person reads of it."""
    step: str
    """What its samples are recorded under."""
    search: Searching
    is_single: bool
    """Whether of a tree only the response becomes a sample that the strategy chooses."""
    work: Sequence[Request]
    """One request for each problem, of one sample whose seed is the tree's."""
    writer: Writer
    asked: Mapping[str, Prompter]
    """The prompts that are answered, by task."""
    samples: Path
    trees: Path
    """Of parts, without number and suffix."""

    @property
    def iteration(self) -> int:
        return self.stage.iteration


def answers(forest: Forest, tree: Tree) -> list[tuple[Node, Completion]]:
    """The complete responses of a tree that become samples, each with its node, in order of node id."""
    session, ends = forest.session, tree.ends()
    if forest.is_single:
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
    folder, name = forest.trees.parent, forest.trees.name + path.stem.removeprefix(forest.samples.name)
    names = (forest.session.config.run.seed, forest.iteration, forest.step)
    nodes: list[TreeNode] = []
    samples: list[Sample] = []
    found: dict[str, int] = {}
    for tree in trees:
        request = asked[tree.problem]
        made = answers(forest, tree)
        ids = {node.id: sample_id(*names, tree.problem, None, answer.index) for node, answer in made}
        rows = records_of(tree, sample_id(*names, tree.problem, "tree"), tree.problem)
        if tree.found is not None:
            found[rows[0].tree_id] = tree.found.id
        nodes += [replace(row, sample_id=ids.get(row.node_id)) for row in rows]
        samples += [_sample(forest, request, ids[node.id], answer) for node, answer in made]
    records.write(folder / f"{name}.parquet", TreeNode, nodes)
    write_json(folder / f"{name}.json", cost(trees, reading) | {"found": found})
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


def told(forest: Forest, parts: Sequence[TreePart]) -> Iterator[Event]:
    """What trees cost, and what to look at.

    Args:
        parts: those of the forest that are on disk.
    """
    found, iteration, name = counted(part.path for part in parts), forest.iteration, forest.name
    spent = found["spent"]
    if not (trees := spent["trees"]):
        return
    tokens = (spent["policy_tokens"] + spent["value_tokens"]) / trees
    sentences = [
        f"{trees} trees of {name}, {tokens:,.0f} tokens each",
        f"{spent['policy_tokens']:,} drawn, {spent['value_tokens']:,} valued",
        *([f"the value model read {spent['tokens_read']:,} in all"] if spent["tokens_read"] else []),
        f"{spent['nodes'] - trees:,} steps of {spent['proposals']:,} proposals, {spent['ends']:,} complete responses",
        *(f"{what} {_listed(found[what])}" for what in ("ended", "closed", "dropped") if found[what]),
    ]
    yield Notice(f"iteration {iteration}: {'; '.join(sentences)}", "info")
    for text, count in sorted(found["warnings"].items()):
        yield Notice(f"iteration {iteration}, {name}: {text} ({count} of {trees} trees)", "warning")
    if (turned := reversed_told(right_and_wrong(parts))) is not None:
        yield Notice(f"iteration {iteration}, {name}: {turned}", "warning")


def right_and_wrong(parts: Iterable[TreePart]) -> Iterator[tuple[float, float]]:
    """Values of each right and each wrong response of a tree."""
    for part in parts:
        judged = _judged(part)
        ends: dict[str, tuple[list[float], list[float]]] = {}
        for tree, sample, value in zip(*records.columns(part.path, "tree_id", "sample_id", "value"), strict=True):
            if sample in judged and value is not None:
                ends.setdefault(tree, ([], []))[0 if judged[sample] else 1].append(value)
        for right, wrong in ends.values():
            yield from product(right, wrong)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
