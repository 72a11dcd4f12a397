"""What tests of mirrors share: a small run, and storage that does not always answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from selftrain.artifacts import RunDir, Stage
from selftrain.events import Event
from selftrain.mirror.claim import LOCK
from selftrain.mirror.pull import pull
from selftrain.mirror.store import Down, Store
from selftrain.mirror.upload import Mirror


@dataclass
class Trouble:
    """What goes wrong with a store."""

    left: int | None = None
    """Changes of files until they begin to fail, that one included."""
    away: bool = False
    """Whether nothing of it can be read."""


class Flaky(Store):
    """A store in a folder that does not always answer."""

    trouble: Trouble

    def __init__(self, url: str) -> None:
        super().__init__(url)
        object.__setattr__(self, "trouble", Trouble())

    def _change(self) -> None:
        if self.trouble.left is not None:
            self.trouble.left -= 1
            if self.trouble.left <= 0:
                raise Down("OSError: nobody there")

    def read(self, name: str) -> bytes | None:
        if self.trouble.away:
            raise Down("OSError: nobody there")
        return super().read(name)

    def put(self, file: Path, name: str) -> None:
        self._change()
        super().put(file, name)

    def write(self, name: str, content: bytes) -> None:
        self._change()
        super().write(name, content)

    def remove(self, name: str) -> None:
        self._change()
        super().remove(name)


class Work:
    """A run of two stages an iteration whose files hold a word."""

    def __init__(self, root: Path, url: str, name: str = "r") -> None:
        self.run, self.store, self.name = RunDir(root), Flaky(url), name
        root.mkdir(parents=True, exist_ok=True)

    def stages(self, word: str = "") -> Iterator[Stage]:
        before: dict[str, str] = {}
        for number in (1, 2):
            for name in ("grow", "improve-policy"):
                stage = Stage(name, number, self.run.iteration(number), {"word": word}, dict(before))
                yield stage
                before = {"before": stage.digest() if stage.mark.exists() else "not done"}

    def do(self, *labels: str, word: str = "") -> None:
        for stage in self.stages(word):
            if stage.label in labels:
                folder = stage.folder / stage.name.replace("improve-", "")
                for number in (1, 2):
                    (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
                    (folder / f"checkpoint/{number}").write_text(f"{stage.label} {word} {number}")
                (folder / "log.jsonl").write_text("{}")
                stage.finish([folder / "checkpoint"])

    def mirror(self, first: float = 0.01) -> Mirror:
        return Mirror(self.store, self.run, self.name, lambda: None, first=first)

    def upload(self) -> list[Event]:
        mirror = self.mirror()
        mirror.open(print)
        events = list(mirror.settle(5))
        mirror.close()
        return events

    def pull(self, word: str = "", redone: tuple[str, ...] = ()) -> list[Event]:
        mirror = self.mirror()
        mirror.open(print)
        assert mirror.held is not None
        try:
            return list(pull(mirror.held, self.run, self.stages(word), redone, lambda stage: [], lambda: None))
        finally:
            mirror.close()

    def done(self) -> list[str]:
        return [stage.label for stage in self.stages() if stage.mark.exists()]


def worked(folder: Path) -> Work:
    """Three stages of it, whose mirror is to lie beside."""
    made = Work(folder / "run", f"file://{folder}/mirror")
    made.do("1/grow", "1/improve-policy", "2/grow")
    return made


def check_whole(folder: Path) -> int:
    """Marks of a mirror in a folder, each with the files it lists as they were; how many there are."""
    marks = list(folder.rglob("*.done"))
    for mark in marks:
        for name, (size, _) in json.loads(mark.read_text())["outputs"].items():
            assert (mark.parent / name).stat().st_size == size
    return len(marks)


def elsewhere(store: Store, beat: int = 1) -> None:
    """The lock of a process of another machine."""
    own = {"token": "other", "beat": beat, "pid": 1, "host": "far", "machine": "another", "began": "1"}
    store.write(LOCK, json.dumps(own).encode())
