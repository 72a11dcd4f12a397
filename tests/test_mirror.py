"""What a mirror promises: no mark without its files, one run and one process, and nothing old comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from selftrain.artifacts import REMOVED, RunDir, Stage
from selftrain.config import ConfigError
from selftrain.errors import RunError, StaleStage
from selftrain.events import Event, Notice
from selftrain.files import write_json
from selftrain.mirror.claim import LOCK, Lock, claim
from selftrain.mirror.pull import pull
from selftrain.mirror.store import Down, Store, Unusable, check_url
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


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/mirror"


@pytest.fixture
def work(tmp_path: Path, url: str) -> Work:
    made = Work(tmp_path / "run", url)
    made.do("1/grow", "1/improve-policy", "2/grow")
    return made


def check_whole(folder: Path) -> int:
    """Marks of a mirror in a folder, each with the files it lists as they were; how many there are."""
    marks = list(folder.rglob("*.done"))
    for mark in marks:
        for name, (size, _) in json.loads(mark.read_text())["outputs"].items():
            assert (mark.parent / name).stat().st_size == size
    return len(marks)


@pytest.mark.parametrize("again", [False, True])
def test_wherever_an_upload_ends_no_mark_is_without_its_files(work: Work, tmp_path: Path, again: bool) -> None:
    """Also where stages are done a second time, and files of other sizes replace those of the first."""
    if again:
        work.upload()
        work.run.set_aside([work.run.iteration(1), work.run.iteration(2)])
        work.do("1/grow", "1/improve-policy", "2/grow", word="longer")
    ended = 0
    for n in range(1, 60):
        work.store.trouble.left = n
        mirror = work.mirror(first=60)
        mirror.open(print)
        events = list(mirror.settle(0))
        work.store.trouble.left = None
        mirror.close()
        (tmp_path / "mirror/lock.json").unlink(missing_ok=True)  # Its process is gone.
        check_whole(tmp_path / "mirror")
        ended += not any(isinstance(event, Notice) and event.level == "warning" for event in events)
        if ended:
            break
    assert n > 5 and ended == 1
    assert check_whole(tmp_path / "mirror") == 3
    fresh = Work(tmp_path / "fresh", work.store.url)
    fresh.pull(word="longer" if again else "")
    assert fresh.done() == ["1/grow", "1/improve-policy", "2/grow"]
    mine, theirs = (sorted(path.read_text() for path in run.root.glob("iter*/*/*/*")) for run in (work.run, fresh.run))
    assert mine == theirs and len(mine) == 6
    assert (fresh.run.root / "iteration_0001/policy/log.jsonl").exists()


def test_outage_is_told_once_and_made_up_for(work: Work, tmp_path: Path) -> None:
    work.store.trouble.left = 1
    mirror = work.mirror()
    mirror._say("before")
    mirror.open(print)
    mirror.wake()
    threading.Event().wait(0.2)
    work.do("2/improve-policy")
    work.store.trouble.left = None
    texts = [event.text for event in mirror.settle(5) if isinstance(event, Notice)]
    mirror.close()
    assert len(texts) == 3 and "does not answer (OSError: nobody there); the run goes on" in texts[1]
    assert texts[2] == "the mirror answers again, and has what was missing"
    assert check_whole(tmp_path / "mirror") == 4


def test_end_of_a_run_does_not_wait_for_ever(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work.store.trouble.left = 1
    mirror = work.mirror()
    mirror.open(print)
    told = list(mirror.settle(0.2))
    work.store.trouble.left = None
    mirror.close()
    assert "the same command uploads it" in str(told[-1])
    assert (tmp_path / "mirror/lock.json").exists()
    elsewhere(work.store)
    monkeypatch.setattr("selftrain.mirror.upload.Lock", partial(Lock, patience=0.1))
    work.upload()
    assert check_whole(tmp_path / "mirror") == 3


def test_what_was_removed_on_purpose_is_removed_there_and_not_pulled(work: Work, tmp_path: Path) -> None:
    work.upload()
    write_json(work.run.iteration(1) / REMOVED, ["policy/checkpoint"])
    work.upload()
    assert not list((tmp_path / "mirror/iteration_0001/policy/checkpoint").glob("*"))
    fresh = Work(tmp_path / "fresh", work.store.url)
    fresh.pull()
    assert fresh.done() == ["1/grow", "1/improve-policy", "2/grow"]
    assert not (fresh.run.iteration(1) / "policy/checkpoint").exists()
    assert next(fresh.stages()).done() and (fresh.run.iteration(1) / REMOVED).exists()


def test_what_was_set_aside_does_not_come_back(work: Work) -> None:
    work.upload()
    (stage,) = [stage for stage in work.stages() if stage.label == "1/improve-policy"]
    work.run.set_aside([stage.folder / "policy", stage.mark, work.run.iteration(2)])
    assert work.pull() == [] and work.done() == ["1/grow"]
    work.do("1/improve-policy", word="")
    work.do("2/grow", word="")
    work.upload()
    assert work.done() == ["1/grow", "1/improve-policy", "2/grow"]


def test_other_settings_are_named_and_nothing_is_pulled(work: Work, tmp_path: Path) -> None:
    work.upload()
    fresh = Work(tmp_path / "fresh", work.store.url)
    with pytest.raises(StaleStage, match=r"iteration 1, stage 'grow' was done with other settings: word; .*--redo"):
        fresh.pull(word="other")
    assert not list(fresh.run.root.rglob("*.done"))
    fresh.pull(word="other", redone=("1/grow", "1/improve-policy", "2/grow"))
    assert fresh.done() == ["1/grow", "1/improve-policy", "2/grow"]


def test_another_run_is_refused(work: Work, tmp_path: Path) -> None:
    work.upload()
    with pytest.raises(ConfigError, match="belongs to the run 'r'; give this one a mirror of its own"):
        claim(work.store, RunDir(tmp_path / "other"), "other")
    same = Work(tmp_path / "same", work.store.url)
    same.do("1/grow")
    with pytest.raises(ConfigError, match="holds another run of this name"):
        claim(work.store, same.run, "r")
    assert not (same.run.root / "mirror.json").exists()


def test_run_that_began_without_its_mirror_does_not_touch_what_it_holds(work: Work, tmp_path: Path) -> None:
    """Of the same name, in an empty folder, so that it would have been pulled."""
    work.upload()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "mirror").rglob("*") if path.is_file()}
    fresh = Work(tmp_path / "fresh", work.store.url)
    fresh.store.trouble.away = True
    mirror = fresh.mirror()
    mirror.open(print)
    fresh.store.trouble.away = False
    texts = [event.text for event in mirror.settle(5) if isinstance(event, Notice)]
    mirror.close()
    assert "holds another run of this name" in texts[-1]
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "mirror").rglob("*") if path.is_file()}


def test_a_run_with_nothing_else_to_go_on_from_asks_its_mirror_more_than_once(work: Work, tmp_path: Path) -> None:
    work.upload()
    fresh, said = Work(tmp_path / "fresh", work.store.url), list[str]()
    fresh.store.trouble.away = True

    def told(text: str) -> None:
        said.append(text)
        fresh.store.trouble.away = len(said) < 3

    mirror = fresh.mirror()
    mirror.open(told)
    mirror.close()
    assert mirror.held is not None and len(mirror.held.marks) == 3
    assert len(said) == 3 and "does not answer (OSError: nobody there); asked again in" in said[0]


def test_mirror_that_turns_out_to_be_another_runs_is_left_alone(work: Work, tmp_path: Path) -> None:
    """It did not answer when the run began."""
    work.upload()
    before = sorted((tmp_path / "mirror").rglob("*"))
    other = Work(tmp_path / "other", work.store.url, name="other")
    other.do("1/grow")
    mirror = other.mirror()
    other.store.trouble.away = True
    mirror.open(print)
    other.store.trouble.away = False
    texts = [event.text for event in mirror.settle(5) if isinstance(event, Notice)]
    mirror.close()
    assert "belongs to the run 'r'" in texts[-1] and texts[-1].endswith("nothing more is uploaded")
    assert sorted((tmp_path / "mirror").rglob("*")) == before


def test_lock_of_a_living_process_holds_and_of_one_that_is_gone_does_not(url: str) -> None:
    store, told = Store(url), list[str]()
    first = Lock(store, beat=0.02)
    first.take(told.append, lambda: None)
    with pytest.raises(RunError, match="is in use by process"):  # Of this machine: its process is there.
        Lock(store).take(told.append, lambda: None)
    elsewhere(store)
    with pytest.raises(RunError, match=r"is in use by process .* on far; wait for it"):
        beating = threading.Timer(0.1, elsewhere, (store, 2))
        beating.start()
        Lock(store, patience=5.0).take(told.append, lambda: None)
    beating.join()
    assert "waiting 5 s for a sign of life" in told[-1]
    last = Lock(store, patience=0.2)
    last.take(told.append, lambda: None)
    assert last._token in (store.read(LOCK) or b"").decode()
    threading.Event().wait(0.1)
    assert first.lost
    first.release()
    assert store.read(LOCK) is not None
    last.release()
    assert store.read(LOCK) is None


def elsewhere(store: Store, beat: int = 1) -> None:
    """The lock of a process of another machine."""
    own = {"token": "other", "beat": beat, "pid": 1, "host": "far", "machine": "another", "began": "1"}
    store.write(LOCK, json.dumps(own).encode())


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("runs/a", "is no address such as s3://bucket/prefix"),
        ("s3://", "is no address"),
        ("s4://runs", "unknown scheme 's4' ("),
        ("s3://runs/a[1]", "[ in an address are read as patterns"),
    ],
)
def test_address_that_cannot_be_one_is_told(address: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_url(address)
    assert told in str(error.value)


def test_a_password_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"a password in an address .*\(FSSPEC_SFTP_PASSWORD\)$") as error:
        check_url("sftp://me:hush@host/runs")
    assert "hush" not in str(error.value)


def test_storage_that_is_read_alone_is_told() -> None:
    with pytest.raises(Unusable, match="cannot be written to"):
        Store("data://text/plain").write("x", b"")


def test_any_storage_of_fsspec_serves() -> None:
    store = Store("memory://some/where")
    assert store.create("a/b", b"1") and not store.create("a/b", b"2")
    store.write("a/c", b"34")
    assert store.listing() == {"a/b": 1, "a/c": 2}
    assert store.read_all(["a/b", "a/c"]) == {"a/b": b"1", "a/c": b"34"}
    store.remove("a/b")
    store.remove("a/b")
    assert store.read("a/b") is None and store.read_json("a/c") == 34


def test_a_mark_that_cannot_be_read_is_not_taken_for_one_that_is_not_there(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stage would be done again, and its files replaced below the mark."""
    from fsspec.implementations.local import LocalFileSystem

    work.upload()
    read = LocalFileSystem.cat_file

    def unsteady(files: LocalFileSystem, path: str, **more: Any) -> Any:
        if path.endswith("grow.done"):
            raise TimeoutError("slow down")
        return read(files, path, **more)

    monkeypatch.setattr(LocalFileSystem, "cat_file", unsteady)
    with pytest.raises(Down, match="TimeoutError: slow down"):
        work.store.read_all([f"iteration_000{number}/grow.done" for number in (1, 2)])
    monkeypatch.setattr(LocalFileSystem, "cat_file", read)
    assert list(work.store.read_all(["iteration_0001/grow.done", "iteration_0003/grow.done"])) == [
        "iteration_0001/grow.done"
    ]


def test_a_run_json_of_another_kind_is_told(work: Work) -> None:
    for content in (b"[]", b'{"run": "a"}', b"torn"):
        work.store.write("run.json", content)
        with pytest.raises(ConfigError, match=r"run\.json is none of a mirror's; remove it, or choose another"):
            claim(work.store, work.run, "r")


def test_a_lock_holds_also_where_storage_creates_what_is_there(url: str) -> None:
    class Careless(Store):
        def create(self, name: str, content: bytes) -> bool:
            self.write(name, content)
            return True

    first = Lock(Careless(url))
    first.take(print, lambda: None)
    with pytest.raises(RunError, match="is in use by process"):
        Lock(Careless(url)).take(print, lambda: None)
    first.release()


def test_a_process_that_was_away_for_long_looks_whose_the_mirror_is(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another may have taken it over; what that one wrote is not replaced."""
    monkeypatch.setattr("selftrain.mirror.upload.Lock", partial(Lock, beat=1000, patience=0.05))
    mirror = work.mirror()
    mirror.open(print)
    elsewhere(work.store)
    threading.Event().wait(0.1)
    texts = [event.text for event in mirror.settle(5) if isinstance(event, Notice)]
    mirror.close()
    assert texts[-1] == f"{work.store.url} was taken over by another process; nothing more is uploaded"
    assert check_whole(tmp_path / "mirror") == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_of_the_mirror_does_not_keep_a_run_from_ending(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(work.store.__class__, "put", wrong)
    mirror = work.mirror()
    mirror.open(print)
    (told,) = mirror.settle(600)
    mirror.close()
    assert isinstance(told, Notice) and "the same command uploads it" in told.text


def test_what_a_run_has_spent_is_known_where_it_is_killed(work: Work, tmp_path: Path) -> None:
    """A budget in hours counts events; those of a machine that is gone lie in the mirror, all but the last tenth."""
    there = tmp_path / "mirror" / "events.jsonl"
    mirror = work.mirror()
    for lines, known in ((100, 100), (105, 100), (120, 120)):
        work.run.events.write_text("{}\n" * lines)
        if mirror.held is None:
            mirror.open(print)
        asked = mirror._done
        mirror.wake()
        while mirror._done == asked:
            threading.Event().wait(0.01)
        assert there.read_text().count("\n") == known
    mirror.close()
