"""What this machine may compute with beside plain PyTorch: which of it is here, and what to do where it is not.

Told from what is installed, without loading any of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from selftrain import machine


class Option(NamedTuple):
    """One way to compute."""

    key: str
    """Where a config asks for it."""
    packages: tuple[str, ...] = ()
    """As pip knows them; each is needed."""
    gpu: bool = False


OPTIONS = {
    "flash_attention_2": Option("launch.kernels.attention", ("flash-attn",), gpu=True),
    "flash_attention_3": Option("launch.kernels.attention", ("flash-attn-3",), gpu=True),
    "cut_cross_entropy": Option("launch.kernels.loss", ("cut-cross-entropy",), gpu=True),
    "compile": Option("launch.kernels.compile"),
    "nf4": Option("lora.base", ("bitsandbytes", "accelerate"), gpu=True),
}


def lacking(name: str, has: Callable[[str], bool] | None = None, gpu: bool | None = None) -> str | None:
    """Why an option cannot be had, in words that say what to do; None where it can.

    Args:
        has: whether a package is installed.
        gpu: whether there is an NVIDIA GPU; None: as it is here.
    """
    option, has, gpu = OPTIONS[name], has or installed, bool(machine.gpus()) if gpu is None else gpu
    if option.gpu and not gpu:
        return "there is no NVIDIA GPU here"
    if missing := [package for package in option.packages if not has(package)]:
        return f"not installed: pip install {' '.join(missing)}"
    if name == "compile" and not gpu and not (shutil.which("g++") or shutil.which("clang++")):
        return "on a CPU it needs a C++ compiler: install g++"
    if name == "compile" and gpu and not has("triton"):
        return "on a GPU it needs Triton, which PyTorch's CUDA builds bring along: install one"
    return None


def installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
