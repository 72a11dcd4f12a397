"""What the trees of a search cost and what became of them, as counts that can be added up over parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from selftrain.files import read_json
from selftrain.search.tree import Tree

COUNTED = ("spent", "ended", "closed", "dropped", "warnings")
"""What is counted of the trees of a part."""


class Reading(NamedTuple):
    """What a value model did for the trees of a part, beside what their budgets count."""

    tokens: int = 0
    """That it read: prompts, and what it read again, too."""
    whole: str | None = None
    """Why it read every path from its beginning, where it had to."""


def cost(trees: Sequence[Tree], reading: Reading) -> dict[str, Any]:
    """Of the trees of a part."""
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


def counted(parts: Iterable[Path]) -> dict[str, Counter[str]]:
    """Of parts of trees on disk, each with its ``.json`` beside it."""
    found: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    for file in parts:
        part = read_json(file.with_suffix(".json"))
        for name, counts in found.items():
            counts.update(part[name])
    return found
