"""What tasks on published data share: where it lies, its licence, its rows, and splits held out by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from selftrain.tasks.jsonl import missing_field, read_records

Rows = dict[int, dict[str, Any]]
"""Records by their place upstream, counted from 0."""
Questions = dict[int, str]
"""What each row asks."""


@dataclass(frozen=True)
class PublishedTask:
    """The options all of these tasks have, and what they say of the data's licence and source."""

    hub: str = ""
    """Name on the Hugging Face hub, used where ``data_dir`` is not given."""
    config: str | None = None
    """Configuration of the data set on the hub; None: its only one."""
    data_dir: str | None = None
    """Folder of local files."""
    licence: str | None = None
    """What the data stands under, such as ``cc-by-4.0``, where it is not read from its usual place on the hub; goes
    into the cards of `selftrain push`."""
    origin: str | None = None
    """Where a folder's data comes from, such as its name on the hub; for the cards too."""

    described: ClassVar[tuple[str, ...]] = ("licence", "origin")
    """Options nothing that is sampled or learnt depends on."""
    published_under: ClassVar[str | None] = None
    """Its authors' licence, as the hub calls it; None where it is not known."""

    @property
    def known_licence(self) -> str | None:
        """That of the authors; what a folder or another copy holds nobody knows."""
        return self.published_under if self.data_dir is None and self.hub == type(self).hub else None

    @property
    def source(self) -> str | None:
        return self.origin or (self.hub if self.data_dir is None else None)

    def sources(self) -> tuple[Path, ...]:
        return (Path(self.data_dir),) if self.data_dir else ()


@dataclass(frozen=True)
class Published:
    """Where a data set lies, on the hub or in a folder, and what each of its records must hold."""

    task: str
    hub: str
    """Name on the Hugging Face hub, used where ``data_dir`` is not given."""
    config: str | None
    """Configuration of the data set on the hub; None: its only one."""
    data_dir: str | None
    files: str
    """What ``data_dir`` holds, in words, for messages."""
    fields: tuple[str, ...]

    def rows(self, split: str, file: str, ending: str | None = None) -> Rows:
        """The rows of ``split`` on the hub, or of ``file`` in the folder, read by ``ending`` if not by its own.

        Raises:
            ValueError: the data is not there, or a record lacks a field.
        """
        records = (
            self._from_hub(split) if self.data_dir is None else self._from_file(Path(self.data_dir) / file, ending)
        )
        return {row: self._checked(place, record) for row, (place, record) in enumerate(records)}

    @property
    def _remedy(self) -> str:
        return f"set data_dir to a folder of {self.files}"

    def _from_file(self, path: Path, ending: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
        if not path.is_file():
            raise ValueError(f"{self.task}: no such file: {path}; {self._remedy}")
        return read_records(path, ending)

    def _from_hub(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        try:
            from datasets import load_dataset

            # Much faster than reading the records one by one.
            records = load_dataset(self.hub, self.config, split=split).to_list()
        except (ImportError, OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"{self.task}: cannot load '{self.hub}' from the Hugging Face hub ({reason}); {self._remedy}"
            ) from error
        for row, record in enumerate(records):
            yield f"{self.hub}, {split}, row {row}", record

    def _checked(self, place: str, record: dict[str, Any]) -> dict[str, Any]:
        for field in self.fields:
            if field not in record:
                raise ValueError(missing_field(field, place, record))
            if record[field] is None:
                raise ValueError(f"{place}: the field '{field}' is null")
        return record


def distinct(questions: Questions) -> Questions:
    """The rows without those that ask again what an earlier one asked."""
    first: dict[str, int] = {}
    for row, asked in questions.items():
        first.setdefault(asked, row)
    return {row: asked for asked, row in first.items()}


def hold_out(questions: Questions, option: str, size: int, salt: str) -> tuple[Questions, Questions]:
    """``size`` problems to hold out, and the rest, both in upstream order; rows that ask the same stay together.

    Those whose salted question hashes lowest are held out, so no other row moves them and a larger size keeps them.
    ``option`` is what the user calls the size.
    """
    places = {asked: hashlib.sha256(f"{salt}/{asked}".encode()).digest() for asked in questions.values()}
    if size and size >= len(places):
        raise ValueError(f"{option} is {size}, but train has {len(places)} problems")
    lowest = set(sorted(places, key=places.__getitem__)[:size])
    held_out = {row: asked for row, asked in questions.items() if asked in lowest}
    return held_out, {row: asked for row, asked in questions.items() if asked not in lowest}


def split_of_one(questions: Questions, split: str, test_size: int, val_size: int, seed: int) -> Questions:
    """The rows of train, val or test, of data that was published as one.

    Test is held out first, the same for every seed, then validation.
    """
    test, rest = hold_out(questions, "test_size", test_size, "test")
    if split == "test":
        return test
    return carved(rest, split, val_size, seed)


def carved(questions: Questions, split: str, val_size: int, seed: int) -> Questions:
    """Of what was published as test, all rows; of what was published as train, those of train or of val."""
    if split == "test":
        return questions
    val, train = hold_out(questions, "val_size", val_size, str(seed))
    return val if split == "val" else train


def check_sizes(**sizes: int) -> None:
    """Raises ValueError for a number of problems below 0."""
    for option, size in sizes.items():
        if size < 0:
            raise ValueError(f"{option} must not be negative, got {size}")


def check_split(task: str, split: str, known: tuple[str, ...]) -> None:
    """Raises ValueError for a split the task does not have."""
    if split not in known:
        raise ValueError(f"{task} has no split '{split}'; known: {', '.join(known)}")
