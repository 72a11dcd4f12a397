"""A mirror belongs to one run, and to one process at a time."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import pytest
from mirroring import Work, check_whole, elsewhere, worked

from selftrain.artifacts import RunDir
from selftrain.config import ConfigError
from selftrain.errors import RunError
from selftrain.events import Notice
from selftrain.mirror.claim import LOCK, Lock, claim
from selftrain.mirror.store import Store


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return worked(tmp_path)


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


def test_lock_of_a_living_process_holds_and_of_one_that_is_gone_does_not(tmp_path: Path) -> None:
    store, told = Store(f"file://{tmp_path}/mirror"), list[str]()
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


def test_a_run_json_of_another_kind_is_told(work: Work) -> None:
    for content in (b"[]", b'{"run": "a"}', b"torn"):
        work.store.write("run.json", content)
        with pytest.raises(ConfigError, match=r"run\.json is none of a mirror's; remove it, or choose another"):
            claim(work.store, work.run, "r")


def test_a_lock_holds_also_where_storage_creates_what_is_there(tmp_path: Path) -> None:
    class Careless(Store):
        def create(self, name: str, content: bytes) -> bool:
            self.write(name, content)
            return True

    url = f"file://{tmp_path}/mirror"
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
