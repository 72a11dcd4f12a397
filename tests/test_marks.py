"""Marks of stages: what one says is done is on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from selftrain import records
from selftrain.artifacts import REMOVED, Stage, removed
from selftrain.files import replacing, write_json
from selftrain.types import Verdict


def test_a_mark_comes_after_the_names_of_all_it_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    fsync, replace = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def checked(source: Path, target: Path) -> None:
        assert {source, *source.rglob("*")} <= set(synced)  # Whole before it has its name.
        if target.suffix == ".done":
            assert {folder, folder / "verdicts", folder / "policy", folder / "policy" / "checkpoint"} <= set(synced)
        replace(source, target)

    monkeypatch.setattr("os.fsync", noted)
    monkeypatch.setattr("os.replace", checked)
    folder = tmp_path / "iteration_0001"
    records.write(folder / "verdicts" / "draft-00000.parquet", Verdict, [Verdict("right")], sample_id=["a"])
    write_json(folder / "selection-policy.json", {}, later=True)
    with replacing(folder / "policy" / "checkpoint", later=True) as checkpoint:
        checkpoint.mkdir()
        for name in ("config.json", "model.safetensors"):
            (checkpoint / name).write_text(name)
    assert not {folder, folder / "verdicts", folder / "policy"} & set(synced)
    outputs = [folder / "verdicts", folder / "selection-policy.json", folder / "policy" / "checkpoint"]
    stage = Stage("improve-policy", 1, folder, {})
    stage.finish([*outputs, folder / "trees"])
    assert stage.done() and synced[-1] == folder


def test_what_is_done_again_is_no_longer_noted_as_removed(tmp_path: Path) -> None:
    """It was thinned out, and then the stage was redone: from now on it is missed, mirrored and thinned out as any."""
    folder = tmp_path / "iteration_0001"
    checkpoint = folder / "policy" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text("{}")
    write_json(folder / REMOVED, ["policy/checkpoint", "policy/optimizer"])
    stage = Stage("improve-policy", 1, folder, {})
    stage.finish([checkpoint])
    assert removed(folder) == ["policy/optimizer"] and stage.done()
    (checkpoint / "config.json").unlink()
    assert "config.json is missing" in str(stage.stale())
