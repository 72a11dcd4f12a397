"""Many trees at once: what all of them ask for goes out in few full calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from selftrain.search.asks import Budget, Functions, Strategy
from selftrain.search.tree import Tree


def advance(
    roots: Iterable[str], strategy: Strategy, functions: Functions, *, budget: Budget, lanes: int = 64, seed: int = 0
) -> Iterator[Tree]:
    """The trees of problems, each as soon as it is finished, so not in the order of ``roots``.

    ``lanes`` problems advance together. Their values, judgements and solved-or-not are asked for first, then all
    waiting proposals of all of them in one call; a finished tree gives its lane to the next problem. A tree follows
    from ``seed`` and its problem alone, whatever the lanes and the other problems.

    Args:
        roots: names of problems, each once; `State.problem` carries them.

    Raises:
        ValueError: the strategy needs a function that is not there, or an answer does not fit its ask.
    """
    raise NotImplementedError
