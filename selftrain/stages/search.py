"""Searching as a step of Grow: a tree for every problem, many at once, and a sample for every complete response.

Trees of a part of whole problems grow together; what they ask the policy goes out as few full calls of its engine, what
they ask of values as few calls of the value model, and both stay open. A part is three files, ``trees/STEP-00000.parquet``,
``.json`` with what it cost, and ``samples/STEP-00000.parquet``, which is written last: where it lies the others are whole.
A part that a kill cut short is searched again from its beginning and ends the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.artifacts import Stage
from selftrain.config import instantiate
from selftrain.drawing.parts import planned
from selftrain.drawing.proposing import Proposer
from selftrain.drawing.sampled import Advance, finish_reason
from selftrain.errors import RunError
from selftrain.events import Event, Notice
from selftrain.files import read_json, write_json
from selftrain.planning.writers import Writer
from selftrain.sampling.base import Completion, Request
from selftrain.search.asks import Budget, Functions, State
from selftrain.search.driver import advance
from selftrain.search.tree import Node, Tree, records_of
from selftrain.seeds import derive, sample_id
from selftrain.session import Session
from selftrain.stages.guide import Guide, guide
from selftrain.stages.watch import Judging
from selftrain.types import Sample, TreeNode, Verdict

SAMPLES = 8
"""What a tree counts as where problems are cut into parts of ``run.part_size`` samples."""
FEW = 16
"""Steps that are drawn before it is said that none of them ended as steps do."""


def trees_folder(session: Session, iteration: int) -> Path:
    return session.run.iteration(iteration) / "trees"


@dataclass(frozen=True)
class Forest:
    """The trees of one step of an iteration."""

    session: Session
    stage: Stage
    step: str
    work: Sequence[Request]
    """One request for each problem, of one sample whose seed is the tree's."""
    writer: Writer
    judging: Judging

    @property
    def iteration(self) -> int:
        return self.stage.iteration


def search_parts(forest: Forest) -> Iterator[Advance]:
    """Search every problem into the files of its part; parts that are on disk already come first.

    Raises:
        Interrupted: the run was asked to stop.
        RunError: a model failed, or no step ends as ``separator`` says; the parts that are finished stay.
        StaleStage: the parts on disk are of another work list.
    """
    session, folder = forest.session, forest.session.run.iteration(forest.iteration)
    stem = folder / "samples" / forest.step
    size = max(1, session.config.run.part_size // SAMPLES)
    groups = planned(stem.with_name(f"{stem.name}.plan.json"), forest.work, size, forest.stage.label)
    paths = [stem.with_name(f"{stem.name}-{number:05d}.parquet") for number in range(len(groups))]
    for path, group in zip(paths, groups, strict=True):
        if path.exists():
            yield Advance(part=path, samples=len(group), fresh=False)
    left = [number for number, path in enumerate(paths) if not path.exists()]
    if not left:
        return
    with guide(session, forest.iteration, forest.step) as guided:
        for number in left:
            yield from _search_part(forest, groups[number], paths[number], guided)
            session.check_stop()


def _search_part(forest: Forest, group: Sequence[int], path: Path, guided: Guide | None) -> Iterator[Advance]:
    """One part: its trees as they are finished, then its files."""
    session, places = forest.session, {forest.work[place].problem.id: place for place in group}
    asked = {name: forest.work[place] for name, place in places.items()}
    chosen = session.config.grow[forest.step]
    engine = session.sampler(forest.writer.sampler, forest.writer.checkpoint)
    proposer = Proposer(engine, session.tokenizer, asked, chosen.separator)
    functions = Functions(
        proposer,
        None if guided is None else lambda states: guided.values(states, asked),
        lambda states: judged(forest, asked, states),
        (lambda states: [any(mark in state.text for mark in chosen.solved) for state in states])
        if chosen.solved
        else None,
    )
    trees: dict[str, Tree] = {}
    seed = derive(session.config.run.seed, forest.iteration, forest.step)
    grown = advance(asked, strategy_of(session, forest.step), functions, budget=budget_of(forest, asked), lanes=chosen.lanes, seed=seed)
    for tree in grown:
        trees[tree.problem] = tree
        forest.judging.arrived(forest.work, [answer for answer, _ in responses(forest, tree, places[tree.problem])])
        if guided is not None:
            guided.forget(asked[tree.problem])
        yield Advance(tokens=tree.spent.policy_tokens, samples=1)
    check_separated(forest.step, chosen.separator, proposer)
    write_part(forest, [trees[name] for name in sorted(trees)], places, path)
    yield Advance(part=path)
