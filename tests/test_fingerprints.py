"""What a stage depends on: contents of files, not their places; plug-ins by what they say; large files by samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from selftrain import artifacts
from selftrain.artifacts import contents_digest
from selftrain.config import check_tree
from selftrain.stages import fingerprints

TASK = """
from dataclasses import dataclass
from selftrain.types import Problem

@dataclass(frozen=True)
class Mine:
    verifier = "numeric_answer"
    def splits(self): return ("test",)
    def problems(self, split): return [Problem("mine/test/0", "mine", "test", "1+1=", "{answer}")]

@dataclass(frozen=True)
class Half:
    def score(self, sample_id, verdict, source): return None
"""


def config(**sections: Any) -> Any:
    return check_tree({"tasks": {"arithmetic": {}}, "grow": {"draft": {}}, **sections})


@pytest.mark.parametrize("section", ["task", "reward"])
def test_a_plug_in_counts_by_what_it_says_and_not_by_where_it_lies(tmp_path: Path, section: str) -> None:
    def depends(folder: str, answer: str) -> object:
        path = tmp_path / folder / "mine.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(TASK.replace("{answer}", answer))
        if section == "task":
            return fingerprints.data(config(tasks={"mine": {"kind": f"{path}:Mine"}}))
        return fingerprints.score(config(reward={"sources": {"half": f"{path}:Half"}}))

    assert depends("here", "2") == depends("there", "2")
    assert depends("here", "2") != depends("here", "3")


def test_a_model_folder_counts_by_its_contents(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before = fingerprints.model(config(model={"path": str(folder)}))
    moved = folder.rename(tmp_path / "moved")
    assert fingerprints.model(config(model={"path": str(moved)})) == before
    (moved / "config.json").write_text("[]")
    assert fingerprints.model(config(model={"path": str(moved)})) != before
    assert fingerprints.model(config(model={"path": "org/name"}))["model"]["path"] == "org/name"


def test_a_large_file_is_told_from_a_retrained_one_of_the_same_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "WHOLE_BYTES", 1 << 20)
    monkeypatch.setattr(artifacts, "SPOT_BYTES", 1 << 10)
    path = tmp_path / "weights"
    digests = set()
    for content in (os.urandom(3 << 20), os.urandom(3 << 20)):
        path.write_bytes(content)
        digests.add(contents_digest(path))
        assert contents_digest(path) == contents_digest(path)
    assert len(digests) == 2


def test_the_type_of_the_computation_counts_as_this_machine_resolves_it() -> None:
    assert fingerprints.dtype("bfloat16", "auto") == "bfloat16"
    assert fingerprints.dtype("auto", "cpu") != fingerprints.dtype("auto", "cuda:0")
