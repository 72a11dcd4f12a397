"""What a fit that was stopped goes on from: where it stood itself, and nothing that another fit left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from fitting import EXAMPLES
from safetensors.torch import load_file

from selftrain.artifacts import RunDir
from selftrain.files import discard, replacing
from selftrain.models import checkpoint
from selftrain.objectives.nll import NLL
from selftrain.schema import Optim, Trainer
from selftrain.training.fit import Fit, Fitted, fit

OPTIM = Optim(lr=1e-3, steps=6, batch_size=4, dtype="float32")
FEW = EXAMPLES[:10]


def asked(source: Path, folder: Path, **more: Any) -> Fit:
    (folder / "fit").mkdir(parents=True, exist_ok=True)
    own: dict[str, Any] = {"trainer": Trainer(save_every=2), "unfinished": folder / "fit" / "unfinished", **more}
    return Fit(source, folder / "fit" / "out", folder / "fit" / "log", NLL(), OPTIM, seed=0, **own)


def losses(asked: Fit) -> list[float]:
    return [json.loads(line)["loss"] for line in asked.log.read_text().splitlines()]


def stopped_after(steps: int, asked: Fit) -> None:
    states: Iterator[Fitted]
    with closing(fit(FEW, asked)) as states:  # type: ignore[type-var]
        assert len(list(islice(states, steps))) == steps


@pytest.fixture(scope="module")
def other(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same shapes."""
    folder = tmp_path_factory.mktemp("other")
    model = checkpoint.load_model(tiny, dtype="float32", device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.25)
    checkpoint.save(model, checkpoint.load_tokenizer(tiny), folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    done = asked(tiny, tmp_path_factory.mktemp("whole"))
    assert len(list(fit(FEW, done))) == 6
    return done


def weights(asked: Fit) -> dict[str, torch.Tensor]:
    return load_file(asked.target / "model.safetensors")


def assert_ends_as(mine: Fit, undisturbed: Fit) -> None:
    assert losses(mine) == losses(undisturbed)
    theirs = weights(undisturbed)
    assert all(tensor.equal(theirs[name]) for name, tensor in weights(mine).items())


def test_a_fit_goes_on_from_its_own_last_state(whole: Fit, tiny: Path, tmp_path: Path) -> None:
    mine = asked(tiny, tmp_path)
    stopped_after(5, mine)
    # The same model elsewhere is the same.
    shutil.copytree(tiny, tmp_path / "moved")
    again = list(fit(FEW, replace(mine, source=tmp_path / "moved")))
    assert [state.step for state in again] == [5, 6]
    assert_ends_as(mine, whole)


def test_what_another_model_of_these_shapes_left_is_not_gone_on_from(
    whole: Fit, tiny: Path, other: Path, tmp_path: Path
) -> None:
    stopped_after(5, asked(other, tmp_path))
    mine = asked(tiny, tmp_path)
    assert [state.step for state in fit(FEW, mine)] == [1, 2, 3, 4, 5, 6]
    assert_ends_as(mine, whole)


def test_nor_is_what_was_compared_with_another_reference(tiny: Path, tmp_path: Path) -> None:
    stopped_after(5, asked(tiny, tmp_path, reference="base"))
    assert next(fit(FEW, asked(tiny, tmp_path, reference="previous"))).step == 1


@pytest.mark.parametrize("every", [1000, None])
def test_a_fit_that_is_asked_to_stop_writes_where_it_stands(
    every: int | None, whole: Fit, tiny: Path, tmp_path: Path
) -> None:
    looks = iter([False, False, True])
    mine = asked(tiny, tmp_path, trainer=Trainer(save_every=every), stopping=lambda: next(looks))
    with closing(fit(FEW, mine)) as states:  # type: ignore[type-var]
        found = list(islice(states, 3))
    assert [(state.stopped, state.unwritten) for state in found] == [(False, ""), (False, ""), (True, "")]
    again = list(fit(FEW, replace(mine, stopping=lambda: False)))
    assert [state.step for state in again] == [4, 5, 6]
    assert_ends_as(mine, whole)


def test_without_save_every_nothing_is_written_unasked(whole: Fit, tiny: Path, tmp_path: Path) -> None:
    mine = asked(tiny, tmp_path, trainer=Trainer())
    stopped_after(5, mine)
    assert mine.unfinished is not None and not mine.unfinished.exists()
    assert [state.step for state in fit(FEW, mine)] == [1, 2, 3, 4, 5, 6]
    assert_ends_as(mine, whole)


def test_a_fit_that_is_asked_to_stop_at_its_end_ends(whole: Fit, tiny: Path, tmp_path: Path) -> None:
    looks = iter([False] * 5)
    mine = asked(tiny, tmp_path, stopping=lambda: next(looks, True))
    assert not any(state.stopped for state in fit(FEW, mine))
    assert_ends_as(mine, whole)


def half_removed(folder: Path, *_: object, **__: object) -> None:
    """As far as a process got that was killed meanwhile."""
    next(iter(sorted(folder.iterdir()))).unlink()
    raise KeyboardInterrupt


def test_a_folder_that_is_replaced_is_whole_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = tmp_path / "state"

    def write(text: str) -> None:
        with replacing(state) as folder:
            folder.mkdir()
            for name in ("a", "b", "c"):
                (folder / name).write_text(text)

    write("old")
    monkeypatch.setattr("shutil.rmtree", half_removed)
    with pytest.raises(KeyboardInterrupt):
        write("new")
    assert {path.name: path.read_text() for path in state.iterdir()} == dict.fromkeys("abc", "new")
    with pytest.raises(KeyboardInterrupt):
        discard(state)
    assert not state.exists()


def test_a_process_killed_between_the_names_leaves_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "fit" / "state"
    with replacing(state) as folder:
        folder.mkdir()
        (folder / "a").write_text("old")
    renamed: list[Path] = []

    def killed(source: Path, target: Path) -> None:
        if renamed:
            raise KeyboardInterrupt
        renamed.append(source.rename(target))

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt), replacing(state) as folder:
            folder.mkdir()
    assert not state.exists()
    RunDir(tmp_path).remove_temporaries()
    assert (state / "a").read_text() == "old" and [path.name for path in state.parent.iterdir()] == ["state"]
    (tmp_path / "fit" / ".state.7.old.tmp").mkdir()
    RunDir(tmp_path).remove_temporaries()
    assert (state / "a").read_text() == "old" and [path.name for path in state.parent.iterdir()] == ["state"]
