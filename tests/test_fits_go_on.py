"""What a fit that was stopped goes on from: where it stood itself, and nothing that another fit left."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from scored import END

from selftrain.files import discard, replacing
from selftrain.models import checkpoint
from selftrain.objectives.nll import NLL
from selftrain.schema import Optim, Trainer
from selftrain.training.fit import Fit, Fitted, fit
from selftrain.types import Example

OPTIM = Optim(lr=1e-3, steps=6, batch_size=4, dtype="float32")


def examples() -> list[Example]:
    rng = random.Random(0)
    made = []
    for number in range(10):
        prompt, response = (tuple(rng.randrange(16) for _ in range(rng.randint(1, 12))) for _ in range(2))
        made.append(Example(f"e{number}", f"p{number}", "own", prompt, (*response, END)))
    return made


def asked(source: Path, folder: Path, **more: Any) -> Fit:
    (folder / "fit").mkdir(parents=True, exist_ok=True)
    own: dict[str, Any] = {"trainer": Trainer(save_every=2), "unfinished": folder / "fit" / "unfinished", **more}
    return Fit(source, folder / "fit" / "out", folder / "fit" / "log", NLL(), OPTIM, seed=0, **own)


def losses(asked: Fit) -> list[float]:
    return [json.loads(line)["loss"] for line in asked.log.read_text().splitlines()]


def stopped_after(steps: int, asked: Fit) -> None:
    states: Iterator[Fitted]
    with closing(fit(examples(), asked)) as states:  # type: ignore[type-var]
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
    assert len(list(fit(examples(), done))) == 6
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
    again = list(fit(examples(), replace(mine, source=tmp_path / "moved")))
    assert [state.step for state in again] == [5, 6]
    assert_ends_as(mine, whole)


def test_what_another_model_of_these_shapes_left_is_not_gone_on_from(
    whole: Fit, tiny: Path, other: Path, tmp_path: Path
) -> None:
    stopped_after(5, asked(other, tmp_path))
    mine = asked(tiny, tmp_path)
    assert [state.step for state in fit(examples(), mine)] == [1, 2, 3, 4, 5, 6]
    assert_ends_as(mine, whole)


def test_nor_is_what_was_compared_with_another_reference(tiny: Path, tmp_path: Path) -> None:
    stopped_after(5, asked(tiny, tmp_path, reference="base"))
    assert next(fit(examples(), asked(tiny, tmp_path, reference="previous"))).step == 1


def test_a_fit_that_is_asked_to_stop_writes_where_it_stands(whole: Fit, tiny: Path, tmp_path: Path) -> None:
    looks = iter([False, False, True])
    mine = asked(tiny, tmp_path, trainer=Trainer(save_every=1000), stopping=lambda: next(looks))
    with closing(fit(examples(), mine)) as states:  # type: ignore[type-var]
        found = list(islice(states, 3))
    assert [state.stopped for state in found] == [False, False, True]
    again = list(fit(examples(), replace(mine, stopping=lambda: False)))
    assert [state.step for state in again] == [4, 5, 6]
    assert_ends_as(mine, whole)


def test_a_fit_that_is_asked_to_stop_at_its_end_ends(whole: Fit, tiny: Path, tmp_path: Path) -> None:
    looks = iter([False] * 5)
    mine = asked(tiny, tmp_path, stopping=lambda: next(looks, True))
    assert not any(state.stopped for state in fit(examples(), mine))
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
