"""Runs of the command line that are killed at an exact moment.

``python tests/kill_driver.py`` loads what is heavy once and then forks a process for every line on its standard input
that names a run, so that a run costs what it does and not what it imports. A run may carry a *trap*: the n-th time an
event happens to a path that contains a text, the process sends itself SIGKILL. Events:

    write      half of a Parquet part is written to its temporary name
    text       half of a text file (metrics, marks, reports) is written to its temporary name
    fsync      before a file or folder is synced
    replace    a file is complete under its temporary name, but not renamed
    replaced   a file has its name, and nothing later is done
    weights    a checkpoint has its weights, but no tokenizer yet
    batch      the sampler has given a batch
    step       an optimizer step is done

A trap with ``fail`` raises "no space left on device" there instead.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Trap:
    """Springs at the n-th event of a kind whose path contains a text."""

    event: str
    path: str = ""
    n: int = 1
    fail: bool = False
    """Raise OSError(ENOSPC) instead of ending the process."""

    def sees(self, event: str, path: object) -> bool:
        """Whether this is the moment; counts."""
        if event != self.event or self.path not in str(path):
            return False
        self.n -= 1
        return self.n == 0

    def spring(self, path: object) -> None:
        if self.fail:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    def after(self, event: str, function: Callable[..., Any], path: Callable[..., object]) -> Callable[..., Any]:
        """The function, and the trap behind it."""

        def trapped(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            if self.sees(event, path(*args)):
                self.spring(path(*args))
            return result

        return trapped

    def before(self, event: str, function: Callable[..., Any], path: Callable[..., object]) -> Callable[..., Any]:
        def trapped(*args: Any, **kwargs: Any) -> Any:
            if self.sees(event, path(*args)):
                self.spring(path(*args))
            return function(*args, **kwargs)

        return trapped


def lay(trap: Trap) -> None:
    """Put a trap behind the real functions of this process."""
    import pyarrow.parquet
    from transformers import PreTrainedModel

    from selftrain.sampling.transformers import TransformersSampler
    from selftrain.training.engine import TorchEngine
    from selftrain.training.zero.engine import DeepSpeedEngine

    replace = trap.before("replace", os.replace, lambda source, target: target)
    os.replace = trap.after("replaced", replace, lambda source, target: target)
    os.fsync = trap.before("fsync", os.fsync, lambda descriptor: os.readlink(f"/proc/self/fd/{descriptor}"))
    DeepSpeedEngine.step = trap.after("step", DeepSpeedEngine.step, lambda *_: "")  # type: ignore[method-assign]
    TorchEngine.step = trap.after("step", TorchEngine.step, lambda *_: "")  # type: ignore[method-assign]
    saved = trap.after("weights", PreTrainedModel.save_pretrained, lambda model, folder: folder)
    PreTrainedModel.save_pretrained = saved  # type: ignore[method-assign]
    write_table, write_text, sample = pyarrow.parquet.write_table, Path.write_text, TransformersSampler.sample

    def half_table(table: Any, where: Any, *args: Any, **kwargs: Any) -> None:
        write_table(table, where, *args, **kwargs)
        if trap.sees("write", where):
            os.truncate(where, os.path.getsize(where) // 2)
            trap.spring(where)

    def half_text(path: Path, text: str, *args: Any, **kwargs: Any) -> int:
        if trap.sees("text", path):
            write_text(path, text[: len(text) // 2], *args, **kwargs)
            trap.spring(path)
        return write_text(path, text, *args, **kwargs)

    def batches(sampler: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for answers in sample(sampler, *args, **kwargs):
            if trap.sees("batch", ""):
                trap.spring("")
            yield answers

    pyarrow.parquet.write_table = half_table
    Path.write_text = half_text  # type: ignore[method-assign,assignment]
    TransformersSampler.sample = batches  # type: ignore[method-assign,assignment]


def serve() -> None:
    """Load, then answer each line by the number of the process that runs it, or by how that process ended."""
    preload()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            reply = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            reply = os.fork()
            if reply == 0:
                os._exit(_run(request))
        print(reply, flush=True)


def preload() -> None:
    """Import what a run needs, and start no thread."""
    import torch

    import selftrain

    for name in ("pyarrow.parquet", "scipy.stats", "rich.live", "transformers.models.qwen3.modeling_qwen3", "peft"):
        importlib.import_module(name)
    for module in pkgutil.walk_packages(selftrain.__path__, "selftrain."):
        importlib.import_module(module.name)
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def _run(request: Mapping[str, Any]) -> int:
    os.setsid()
    for number, name in ((0, os.devnull), (1, request["stdout"]), (2, request["stderr"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    if request["file_bytes"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_bytes"], request["file_bytes"]))
    os.environ.update(request["environment"])
    if request["trap"] is not None:
        lay(Trap(**request["trap"]))
    from warm import WarmWorker

    from selftrain.cli import main
    from selftrain.training import group

    vars(group)["Worker"] = WarmWorker
    try:
        status = main(request["arguments"])
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return status


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    status: int
    """Exit status; minus the signal where one ended it."""
    out: str
    err: str


@dataclass(frozen=True)
class Running:
    """A run under way."""

    driver: Driver
    pid: int
    folder: Path

    def wait(self) -> Ended:
        status = self.driver.ask({"wait": self.pid})
        return Ended(status, (self.folder / "out").read_text(), (self.folder / "err").read_text())


class Driver:
    """The forking process, seen from outside."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._folder = folder
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                **{"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"},
            },
        )

    def ask(self, request: Mapping[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def start(
        self,
        arguments: Sequence[str],
        trap: Trap | None = None,
        file_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """Begin a run.

        Args:
            environment: of the process, beyond the driver's.
            file_bytes: no file may become larger than this, as on a full disk.
        """
        self._count += 1
        folder = self._folder / f"{self._count:03d}"
        folder.mkdir(parents=True)
        pid = self.ask(
            {
                "arguments": list(arguments),
                "trap": vars(trap) if trap else None,
                "file_bytes": file_bytes,
                "environment": dict(environment or {}),
                "stdout": str(folder / "out"),
                "stderr": str(folder / "err"),
            }
        )
        return Running(self, pid, folder)

    def run(
        self,
        arguments: Sequence[str],
        trap: Trap | None = None,
        file_bytes: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Ended:
        return self.start(arguments, trap, file_bytes, environment).wait()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def driving(folder: Path, threads: int = 1) -> Iterator[Driver]:
    driver = Driver(folder, threads)
    try:
        yield driver
    finally:
        driver.close()


if __name__ == "__main__":
    serve()
