"""How long `selftrain --help` takes: the whole process, best and median of 10."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import save


def main() -> None:
    command = [str(Path(sys.executable).parent / "selftrain"), "--help"]
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    save("help", {"best_s": round(min(seconds), 3), "median_s": round(statistics.median(seconds), 3)})


if __name__ == "__main__":
    main()
