"""What a stage depends on: contents of files, not their places; plug-ins by what they say; large files by samples."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from selftrain import digests
from selftrain.config import check_tree
from selftrain.planning import fingerprints

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


def test_one_byte_of_a_large_file_tells_it_from_another_and_it_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "LARGE_BYTES", 1 << 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, content = tmp_path / "weights", bytearray(os.urandom(3 << 20))
    found = []
    for place in (0, 1234567, len(content) - 1):
        content[place] ^= 1
        path.write_bytes(content)
        found.append(digests.remembered_digest(path))
        assert found[-1] == digests.file_digest(path)
    assert len(set(found)) == 3
    monkeypatch.setattr(digests, "file_digest", None)
    assert digests.remembered_digest(path) == found[-1]
    moved = path.rename(tmp_path / "moved")
    with pytest.raises(TypeError):  # Another path is another file until it was read.
        digests.remembered_digest(moved)


def test_the_type_of_the_computation_counts_as_this_machine_resolves_it() -> None:
    assert fingerprints.dtype("bfloat16", "auto") == "bfloat16"
    assert fingerprints.dtype("auto", "cpu") != fingerprints.dtype("auto", "cuda:0")


def test_who_chooses_among_samples_stands_apart_from_what_answers_depend_on(tmp_path: Path) -> None:
    def depends(folder: Path | None) -> dict[str, Any]:
        inner = {"kind": "implicit_prm", "model": str(folder), "reference": "base"}
        best_of = {"near": {"kind": "regularised", "reward": inner}} if folder else {}
        return fingerprints.evaluate(config(evaluate={"best_of": best_of}))

    folder = tmp_path / "prm"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    before, without = depends(folder), depends(None)
    assert {key: value for key, value in before.items() if key != "best_of"} == without
    moved = folder.rename(tmp_path / "moved")  # The model inside a source counts by its contents too.
    assert depends(moved) == before
    (moved / "config.json").write_text("[]")
    assert depends(moved) != before
