"""The trees of one problem of a run: as text, and as a picture beside it."""

from __future__ import annotations

from pathlib import Path

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.config import ConfigError
from selftrain.files import read_json, write_text
from selftrain.registry import nearest
from selftrain.report.trees import tree_svg, tree_text
from selftrain.search.choose import choose
from selftrain.search.tree import tree_of
from selftrain.stages.search_evaluation import evaluated_parts
from selftrain.stages.trees import Searched, TreePart, grown_parts, searched_in
from selftrain.types import TreeNode


def shown(run: RunDir, problem: str, iteration: int | None = None) -> str:
    """The trees of a problem as text, one for each step of Grow or search of an evaluation that has it; the pictures
    are written.

    Args:
        problem: its id, or the end of it.
        iteration: the newest one that has trees, where none is given.

    Raises:
        ConfigError: there is no such tree.
    """
    number = _iteration(run, iteration)
    parts = {part: set(records.column(part.path, "problem_id")) for part in _parts(run, number)}
    known = set().union(*parts.values())
    named = [id for id in sorted(known) if id == problem or id.endswith(f"/{problem}")]
    if len(named) != 1:
        found = f"{len(named)} problems are called so" if named else "no such problem was searched"
        raise ConfigError(f"--tree {problem}: {found} in iteration {number} ({nearest(problem, known)})")
    lines = []
    for part, held in parts.items():
        if named[0] in held:
            tree = next(one for one in searched_in(part) if one.nodes[0].problem_id == named[0])
            file = f"{part.where.removeprefix('grow.')}-{named[0].replace('/', '_')}.svg"
            picture = run.root / "pictures" / f"iteration_{number:04d}" / file
            lines += [f"{named[0]}, iteration {number}, {part.where}:", *_one(part, tree, picture)]
    return "\n".join(lines)


def _one(part: TreePart, tree: Searched, picture: Path) -> list[str]:
    """The text of a tree, what is marked in it, and where its picture lies."""
    chosen, what = _chosen(part.path, tree.nodes)
    write_text(picture, tree_svg(tree.nodes, right=tree.right, chosen=chosen))
    marked = [] if chosen is None else [f"* leads to {what}"]
    return [tree_text(tree.nodes, right=tree.right, chosen=chosen), *marked, f"picture: {picture}"]


def _chosen(part: Path, nodes: list[TreeNode]) -> tuple[int | None, str]:
    """The node to mark, and what it is: the answer that the search chose, where it did, else the largest value's."""
    settled = read_json(part.with_suffix(".json")).get("found", {}).get(nodes[0].tree_id)
    if settled is not None:
        return settled, "the answer the search chose"
    best = choose(tree_of(nodes))
    return (None if best is None else best.id), "the complete response of the largest value"


def _parts(run: RunDir, iteration: int) -> list[TreePart]:
    return [*grown_parts(run, iteration), *evaluated_parts(run, iteration)]


def _iteration(run: RunDir, wanted: int | None) -> int:
    """The one to look at."""
    there = [number for number in run.iterations() if _parts(run, number)]
    if not there:
        raise ConfigError(
            f"--tree: {run.root} has no trees: none of its steps of grow is a search (kind: search), and "
            "evaluate.search names none"
        )
    if wanted is not None and wanted not in there:
        listed = ", ".join(map(str, there))
        raise ConfigError(f"--iteration {wanted}: has no trees; iterations that have some: {listed}")
    return there[-1] if wanted is None else wanted
