"""The command line in a process of its own, with a count of the tokens vLLM's engine draws.

The count lies in a file, eight bytes that are written at every step of the engine, so a process that is killed leaves
all it drew, shown or not. Inside the engine's process `serve` takes the place of the real one and hands over to it.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from warm import Warm, WarmWorker, children

from selftrain.sampling import vllm_engine

FILE = "COUNTED_TOKENS"


def serve(
    weights: vllm_engine.Weights, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> Callable[[Any], Any]:
    from vllm.v1.engine.core_client import InprocClient

    file, real = os.open(os.environ[FILE], os.O_RDWR | os.O_CREAT), InprocClient.get_output

    def get_output(client: Any) -> Any:
        outputs = real(client)
        drawn = sum(len(output.new_token_ids) for output in outputs.outputs)
        os.pwrite(file, struct.pack("q", _read(file) + drawn), 0)
        return outputs

    InprocClient.get_output = get_output  # type: ignore[method-assign,assignment]
    return vllm_engine.serve(weights, arguments, environment)


def _read(file: int) -> int:
    return int(struct.unpack("q", os.pread(file, 8, 0) or bytes(8))[0])


def tokens(file: Path) -> int:
    """The count as it was left."""
    return int(struct.unpack("q", file.read_bytes())[0])


def start(file: Path, arguments: Sequence[str]) -> Warm:
    return Warm("counted:main", [str(file), *arguments])


def kill_at(file: Path, arguments: Sequence[str], moment: Callable[[], bool]) -> None:
    """Run until a moment, kill the process then, and see that all it started goes with it."""
    process = start(file, arguments)
    try:
        while not moment():
            assert process.poll() is None, "it ended before that moment"
            time.sleep(0.02)
        (keeper,) = children(process.pid)
        engine, verifiers = _descendants(keeper), _descendants(process.pid)
        assert engine and verifiers
        family = [keeper, *engine, *verifiers]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 20
    while alive := [pid for pid in family if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"{alive} outlive the run"
        time.sleep(0.1)


def _descendants(pid: int) -> list[int]:
    """Processes below one, whichever of its threads started them."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for children in lists for child in children.read_text().split()]
    return [*found, *(below for child in found for below in _descendants(child))]


def main(file: str, *arguments: str) -> int:
    from selftrain import cli
    from selftrain.sampling import vllm_process

    os.environ[FILE] = file
    begin = vllm_process.EngineProcess.__init__

    def counting(process: Any, *args: Any, **options: Any) -> None:
        begin(process, *args, **options | {"reference": "counted:serve"})

    vllm_process.EngineProcess.__init__ = counting  # type: ignore[method-assign,assignment]
    vllm_process.Worker = WarmWorker  # type: ignore[attr-defined]
    return cli.main(list(arguments))
