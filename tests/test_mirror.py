"""What a mirror promises: no mark without its files, and nothing old comes back."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mirroring import Work, check_whole, elsewhere, worked

from selftrain.artifacts import REMOVED
from selftrain.errors import StaleStage
from selftrain.events import Notice
from selftrain.files import write_json
from selftrain.mirror.claim import Lock


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return worked(tmp_path)


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
