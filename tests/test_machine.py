"""Whether there is a GPU: one answer for types, engines, kernels and estimates."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain import machine
from selftrain.checks.estimate import Asked, on_gpu
from selftrain.models.options import lacking
from selftrain.planning.fingerprints import AUTO_GPU, dtype
from selftrain.planning.replicas import replicas
from selftrain.sampling.vllm import VLLM
from selftrain.schema import Launch


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two GPUs."""
    for name in ("0000:17:00.0", "0000:65:00.0"):
        (tmp_path / "gpus" / name).mkdir(parents=True)
    monkeypatch.setattr(machine, "PROC", tmp_path / "gpus")
    monkeypatch.setattr(machine, "DEVICES", tmp_path / "dev")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("told", "usable"),
    [(None, ("0", "1")), ("1", ("1",)), ("GPU-a, GPU-b", ("GPU-a", "GPU-b")), ("0,-1,1", ("0",)), ("", ())],
)
def test_all_that_asks_for_a_gpu_has_the_same_answer(
    two: Path, told: str | None, usable: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert machine.gpus() == usable
    assert [dtype("auto", "auto") == AUTO_GPU, on_gpu(Asked()), lacking("nf4", lambda _: True) is None] == [
        bool(usable)
    ] * 3
    assert replicas(VLLM(), Launch()) == max(1, len(usable))


def test_devices_tell_where_the_drivers_folder_is_hidden(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PROC", two / "none")
    assert machine.gpus() == ()
    (two / "dev").mkdir()
    for name in ("nvidia0", "nvidiactl", "nvidia-uvm"):
        (two / "dev" / name).touch()
    assert machine.cards() == ["nvidia0"] and machine.gpus() == ("0",)
