"""Where a fit stands, on disk: the fitted parameters and Adam's moments in fp32, by name, whatever engine wrote them.

A fit that began in one process can go on in several, and the other way round. Files are of bounded size: of a large
model no more than one is held in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from selftrain.files import read_json, write_json
from selftrain.models.checkpoint import disk_errors

WEIGHTS, MOMENTS = ("weight",), ("exp_avg", "exp_avg_sq")
"""Kinds of tensors."""
ALL = (*WEIGHTS, *MOMENTS)
FILE_BYTES = 1 << 31
INDEX = "state.json"


def write(folder: Path, tensors: Iterable[tuple[str, str, Tensor]], done: int) -> None:
    """Write a folder.

    Args:
        tensors: kind, name and value of each, on any device.
        done: steps of the schedule that lie behind.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    with disk_errors(folder):
        for number, part in enumerate(_parts(tensors)):
            file = f"part-{number:05d}.safetensors"
            save_file(part, folder / file)
            files |= dict.fromkeys(part, file)
    write_json(folder / INDEX, {"done": done, "files": files})


def _parts(tensors: Iterable[tuple[str, str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for kind, name, tensor in tensors:
        part[f"{kind}/{name}"] = tensor.detach().float().cpu().contiguous()
        size += tensor.numel() * 4
        if size >= FILE_BYTES:
            yield part
            part, size = {}, 0
    if part:
        yield part


class Saved:
    """A folder that `write` wrote; a context manager.

    Args:
        shapes: of the fitted parameters, by name, that it is to hold.

    Raises:
        ValueError: it is of another model.
        OSError: it is not there.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, torch.Size]) -> None:
        self._folder = folder
        index = read_json(folder / INDEX)
        self.done: int = index["done"]
        self._files: dict[str, str] = index["files"]
        self.kinds = tuple(kind for kind in ALL if any(key.startswith(f"{kind}/") for key in self._files))
        self._open: tuple[str, Any] = ("", None)
        self._check(shapes)

    def _check(self, shapes: Mapping[str, torch.Size]) -> None:
        for kind in self.kinds:
            wanted = {f"{kind}/{name}" for name in shapes}
            stored = {key for key in self._files if key.startswith(f"{kind}/")}
            if differing := sorted(wanted ^ stored):
                raise ValueError(
                    f"{self._folder} holds the state of another model: {len(differing)} parameters are in one alone, "
                    f"such as {differing[0]}"
                )
            for name, shape in shapes.items():
                if (found := torch.Size(self._file(kind, name).get_slice(f"{kind}/{name}").get_shape())) != shape:
                    raise ValueError(
                        f"{self._folder} holds the state of another model: {name} is {[*found]} there and {[*shape]} "
                        "here"
                    )

    def __enter__(self) -> Saved:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = ("", None)

    def get(self, kind: str, name: str) -> Tensor:
        """One tensor, fp32 on the CPU."""
        value: Tensor = self._file(kind, name).get_tensor(f"{kind}/{name}")
        return value

    def _file(self, kind: str, name: str) -> Any:
        file = self._files[f"{kind}/{name}"]
        if self._open[0] != file:
            self._open = (file, safe_open(self._folder / file, framework="pt"))
        return self._open[1]
