"""Countdown's numbers game: reach a target from three or four numbers by + - * / and parentheses.

Each number may be used **at most once**, the rule of the game. With ``use_all`` each must be used **exactly once**, the
rule of TinyZero's reward (Pan et al. 2025). A problem made from a solution with all numbers can be solved under both;
under the first it is trivial where its target is one of its numbers. The rule stands in the question and in the
answer, so that the verifier judges by what was asked. How a response marks its expression is for the prompt to say:
the worked solutions write it between ``<answer>`` and ``</answer>``.

From the Hugging Face hub, or from a local file ``countdown.jsonl`` with the fields ``nums``, ``target`` and, where
there are worked solutions, ``solution``. There is only one split upstream, so test and validation are held out of it;
a problem that comes again, be it with its numbers in another order, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from selftrain.tasks.published import Published, PublishedTask, check_sizes, check_split, distinct, split_of_one
from selftrain.types import Problem


@dataclass(frozen=True)
class Countdown(PublishedTask):
    """Options of the task."""

    hub: str = "Jiayi-Pan/Countdown-Tasks-3to4"
    data_dir: str | None = None
    """Folder of ``countdown.jsonl``."""
    test_size: int = 500
    """Problems taken for test."""
    val_size: int = 200
    """Problems taken for validation."""
    seed: int = 0
    """Chooses the validation problems; runs with different run seeds share them."""
    use_all: bool = False
    """Every number must be used."""
    demonstrations: bool = True
    """Give the solutions of train to the learner, where the data has them."""

    verifier = "countdown"

    def __post_init__(self) -> None:
        check_sizes(test_size=self.test_size, val_size=self.val_size)

    def splits(self) -> tuple[str, ...]:
        sizes = {"train": 1, "val": self.val_size, "test": self.test_size}
        return tuple(split for split, size in sizes.items() if size)

    def problems(self, split: str) -> list[Problem]:
        """The problems of a split, in upstream order; ids are upstream's, or count its rows.

        Raises:
            ValueError: the data is not there, or not Countdown's.
        """
        check_split("countdown", split, self.splits())
        files = "countdown.jsonl"
        source = Published("countdown", self.hub, self.config, self.data_dir, files, ("nums", "target"))
        rows = source.rows("train", "countdown.jsonl")
        games = distinct({row: _game(row, record["nums"], record["target"]) for row, record in rows.items()})
        kept = split_of_one(games, split, self.test_size, self.val_size, self.seed)
        return [self._problem(split, row, rows[row]) for row in kept]

    def _problem(self, split: str, row: int, record: dict[str, Any]) -> Problem:
        numbers, target, solution = record["nums"], record["target"], record.get("solution")
        taught = self.demonstrations and split == "train" and solution is not None
        return Problem(
            id=f"countdown/{split}/{record.get('id', row)}",
            task="countdown",
            split=split,
            question=ask(numbers, target, self.use_all),
            answer={"nums": numbers, "target": target, "use_all": self.use_all},
            demonstration=f"<answer>{solution}</answer>" if taught else None,
            difficulty=len(numbers),
            metadata={"nums": numbers, "target": target},
        )


def _game(row: int, numbers: Any, target: Any) -> str:
    """The same for problems that differ only in the order of their numbers."""
    if not isinstance(numbers, list) or not numbers or not all(type(number) is int for number in (*numbers, target)):
        raise ValueError(
            f"countdown: row {row} asks for {target!r} from {numbers!r}; "
            "nums must be a list of integers and target an integer"
        )
    if min(numbers) < 0:
        raise ValueError(f"countdown: row {row} gives a negative number in {numbers!r}; leave such problems out")
    return f"{sorted(numbers)} {target}"


def ask(numbers: list[int], target: int, use_all: bool) -> str:
    *most, last = map(str, numbers)
    listed = f"{', '.join(most)} and {last}" if most else last
    return (
        f"Use the numbers {listed}, each {'exactly' if use_all else 'at most'} once, with +, -, *, / and parentheses "
        f"to write an expression that equals {target}."
    )
