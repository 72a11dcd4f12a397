"""Searching: a tree for every problem, many at once, and samples of their complete responses.

Trees of a part of whole problems grow together; what they ask the policy goes out as few full calls of its engine, what
they ask of values as few calls of the value model, and both stay open. A part that a kill cut short is searched again
from its beginning and ends the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from selftrain.config import instantiate
from selftrain.drawing.parts import planned
from selftrain.drawing.proposing import Proposer
from selftrain.drawing.sampled import NOBODY, Advance, Watcher
from selftrain.errors import RunError, failing_as_run_error
from selftrain.sampling.base import Request
from selftrain.schema import Searching
from selftrain.search.asks import Budget, Functions, State
from selftrain.search.choose import choose, way
from selftrain.search.driver import advance
from selftrain.search.tree import Tree
from selftrain.search.whole import BestOfN
from selftrain.seeds import derive
from selftrain.stages.guide import Guide, guide
from selftrain.stages.tree_costs import Reading
from selftrain.stages.trees import Forest, answers, write_part
from selftrain.types import UNJUDGED, Problem, Verdict

SAMPLES = 8
"""What a tree counts as where problems are cut into parts of ``run.part_size`` samples; a part holds ``lanes`` trees at
least. Trees of two parts never grow together: who shares a forward pass must not depend on what a kill left undone."""
FEW = 16
"""Steps that are drawn before it is said that none of them ended as steps do."""


def search_parts(forest: Forest, watcher: Watcher = NOBODY) -> Iterator[Advance]:
    """Search every problem into the files of its part; parts that are on disk already come first.

    Args:
        watcher: who judges responses while others are searched for.

    Raises:
        Interrupted: the run was asked to stop.
        RunError: a model failed, or no step ends as ``separator`` says; the parts that are finished stay.
        StaleStage: the parts on disk are of another work list.
    """
    session, stem = forest.session, forest.samples
    size = max(forest.search.lanes, session.config.run.part_size // SAMPLES)
    groups = planned(stem.with_name(f"{stem.name}.plan.json"), forest.work, size, forest.stage.label)
    paths = [stem.with_name(f"{stem.name}-{number:05d}.parquet") for number in range(len(groups))]
    for path, group in zip(paths, groups, strict=True):
        if path.exists():
            yield Advance(part=path, samples=len(group), fresh=False)
    left = [number for number, path in enumerate(paths) if not path.exists()]
    if not left:
        return
    with guide(session, forest.stage, forest.where, forest.search) as guided:
        for number in left:
            yield from _search_part(forest, groups[number], paths[number], guided, watcher)
            session.check_stop()


def _search_part(
    forest: Forest, group: Sequence[int], path: Path, guided: Guide | None, watcher: Watcher
) -> Iterator[Advance]:
    """One part: its trees as they are finished, then its files."""
    session, chosen = forest.session, forest.search
    places = {forest.work[place].problem.id: place for place in group}
    asked = {name: forest.work[place] for name, place in places.items()}
    engine = session.sampler(forest.writer.sampler, forest.writer.checkpoint)
    proposer = Proposer(engine, session.tokenizer, asked, chosen.separator)
    trees: dict[str, Tree] = {}
    before = 0 if guided is None else guided.tokens_read
    for tree in advance(
        asked,
        instantiate("search", chosen.strategy),
        functions(forest, proposer, guided, asked),
        budget=lambda problem: budget(chosen, asked[problem].settings.max_tokens),
        lanes=chosen.lanes,
        seed=derive(session.config.run.seed, forest.iteration, forest.step),
    ):
        trees[tree.problem] = tree
        settle(forest, tree, asked[tree.problem].problem)
        found = [answer for _, answer in answers(forest, tree)]
        placed = [replace(answer, request=places[tree.problem]) for answer in found]
        watcher.arrived(forest.work, placed)
        if guided is not None:
            guided.forget(asked[tree.problem])
        yield Advance(tokens=tree.spent.policy_tokens, samples=1)
    check_separated(forest.where, chosen, proposer.steps, proposer.separated)
    reading = Reading() if guided is None else Reading(guided.tokens_read - before, guided.whole)
    write_part(forest, asked, [trees[name] for name in sorted(trees)], reading, path)
    yield Advance(part=path)


def functions(forest: Forest, proposer: Proposer, guided: Guide | None, asked: Mapping[str, Request]) -> Functions:
    """What the trees of a part ask."""

    def valued(states: Sequence[State]) -> Iterator[float]:
        assert guided is not None
        yield from guided.values(states, asked)

    def values(states: Sequence[State]) -> list[float]:
        return list(failing_as_run_error(valued(states), "the value model"))

    def judge(states: Sequence[State]) -> list[float | None]:
        told = verdicts(forest, [(asked[state.problem].problem, state.text) for state in states])
        return [credit(verdict) for verdict in told]

    needs = instantiate("search", forest.search.strategy).needs
    return Functions(proposer, values if guided else None, judge if "judge" in needs else None)


def verdicts(forest: Forest, responses: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    session = forest.session
    return list(session.verifiers.judge(session.judgement(*one, forest.asked) for one in responses))


def settle(forest: Forest, tree: Tree, problem: Problem) -> None:
    """The response that the strategy chooses, where only that becomes a sample."""
    ends = tree.ends()
    if forest.is_single and ends:
        how = way(instantiate("search", forest.search.strategy))
        if how == "value":
            tree.found = choose(tree)
            return
        told = verdicts(forest, [(problem, end.response) for end in ends])
        tree.found = choose(tree, how, {end.id: verdict.answer for end, verdict in zip(ends, told, strict=True)})


def credit(verdict: Verdict) -> float | None:
    """What a search is told of a response; None where it could not be judged."""
    if verdict.status in UNJUDGED:
        return None
    return float(verdict.status == "right") if verdict.value is None else verdict.value


def budget(search: Searching, longest: int) -> Budget:
    """Of a tree whose responses have ``longest`` tokens at most."""
    own = search.budget
    return Budget(
        tokens=own.tokens,
        proposals=own.proposals,
        depth=own.depth,
        step_tokens=min(own.step_tokens, longest),
        response_tokens=longest,
        enough=own.enough,
    )


def is_stepwise(search: Searching) -> bool:
    """Whether it needs steps; best-of-n does without them."""
    return not isinstance(instantiate("search", search.strategy), BestOfN)


def check_separated(where: str, search: Searching, steps: int, separated: int) -> None:
    """Raises RunError where steps were drawn and nothing ended as they should."""
    if is_stepwise(search) and steps >= FEW and not separated:
        raise RunError(
            f"{where}.separator: none of {steps} steps ended with {search.separator!r}, so trees have no "
            "steps; set it to what stands between the steps of this policy's responses, or raise budget.step_tokens"
        )
