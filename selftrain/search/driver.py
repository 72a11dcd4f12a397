"""Many trees at once: what all of them ask for goes out in few full calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from selftrain.search.asks import Ask, Budget, Functions, Judge, Propose, Solved, State, Strategy, Value
from selftrain.search.lane import Errand, Lane
from selftrain.search.tree import Tree

Function = Callable[[Sequence[State]], Sequence[Any]]
Answered = Callable[[Lane, Errand, Sequence[Any]], None]


def advance(
    roots: Iterable[str],
    strategy: Strategy,
    functions: Functions,
    *,
    budget: Budget | Callable[[str], Budget],
    lanes: int = 64,
    seed: int = 0,
) -> Iterator[Tree]:
    """The trees of problems, each as soon as it is finished, so not in the order of ``roots``.

    ``lanes`` problems advance together. Their values, judgements and solved-or-not are asked for first, then all
    waiting proposals of all of them in one call; a finished tree gives its lane to the next problem. A tree follows
    from ``seed`` and its problem alone, whatever the lanes and the other problems.

    Args:
        roots: names of problems, each once; `State.problem` carries them.
        budget: of each tree, or what gives that of a problem.

    Raises:
        ValueError: the strategy needs a function that is not there, or an answer does not fit its ask.
    """
    if lanes < 1:
        raise ValueError(f"lanes must be at least 1, got {lanes}")
    if missing := sorted(name for name in strategy.needs if getattr(functions, name) is None):
        raise ValueError(f"{type(strategy).__name__} needs a {missing[0]} function")
    waiting, running = iter(roots), list[Lane]()
    while True:
        for problem in islice(waiting, lanes - len(running)):
            own = budget if isinstance(budget, Budget) else budget(problem)
            running.append(Lane(problem, strategy, functions, own, seed))
        if not running:
            return
        _serve(running, functions)
        yield from [lane.tree for lane in running if lane.over]
        running = [lane for lane in running if not lane.over]


def _serve(running: Sequence[Lane], functions: Functions) -> None:
    """One round: what is quick for all lanes, or where nobody waits for that, all their proposals."""
    quick = [
        _ask(running, Judge, functions.judge, Lane.judged),
        _ask(running, Value, functions.value, Lane.values_answered),
        _ask(running, Solved, functions.solved, Lane.solved_answered),
    ]
    if not any(quick):
        _propose(running, functions)
    for lane in running:
        lane.go_on()


def _ask(running: Sequence[Lane], kind: type[Ask], function: Function | None, answered: Answered) -> bool:
    """All nodes that lanes ask of one kind about, in one call; whether there were any."""
    errands = [(lane, errand) for lane in running for errand in lane.out(kind)]
    if not errands:
        return False
    assert function is not None
    states = [lane.state(node) for lane, errand in errands for node in errand.nodes]
    answers = list(function(states))
    if len(answers) != len(states):
        raise ValueError(f"{kind.__name__.lower()} gave {len(answers)} answers about {len(states)} states")
    rest = iter(answers)
    for lane, errand in errands:
        answered(lane, errand, [*islice(rest, len(errand.nodes))])
    return True


def _propose(running: Sequence[Lane], functions: Functions) -> None:
    errands = [(lane, errand) for lane in running for errand in lane.out(Propose)]
    wanted = [errand.wanted for _, errand in errands if errand.wanted is not None]
    answers = functions.propose(wanted) if wanted else []
    if len(answers) != len(wanted):
        raise ValueError(f"propose gave {len(answers)} answers to {len(wanted)} that were wanted")
    for (lane, errand), proposals in zip(errands, answers, strict=True):
        lane.propose_answered(errand, proposals)
