"""NLL training of the quickstart's model: real tokens per second against TRL's SFTTrainer at its best setting.

Same weights, data, batch size, fp32 and completion-only loss; optimizer step included, start-up and the first steps
excluded. Real tokens are prompt and response tokens without padding. In each run every side is a process of its own,
and they take turns of a second, so that all see the same of what else the machine does. Both are measured compiled
too, against the best of all of TRL's.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
from common import save

from selftrain.artifacts import RunDir
from selftrain.config import load_config
from selftrain.models.checkpoint import load_tokenizer, quiet
from selftrain.objectives.nll import NLL
from selftrain.schema import Kernels
from selftrain.session import Session
from selftrain.stages.examples import demonstration_examples
from selftrain.stages.start import start
from selftrain.training.fit import Fit, fit
from selftrain.types import Example

RUNS, TURNS, TURN = 3, 20, 16
"""A turn is so many steps."""
SKIPPED, COMPILING = 20, 120
"""First steps that are not counted: without compiling and with it, which goes on for as long as lengths are new."""
CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


class Clock:
    """Tells the parent process of the first steps, and then of each turn, which it waits for."""

    def __init__(self, skipped: int) -> None:
        self.skipped, self.tokens = skipped, 0
        self.steps = skipped + TURNS * TURN
        self.began = time.perf_counter()

    def stepped(self, step: int, tokens: int) -> None:
        self.tokens += tokens
        counted = step - self.skipped
        if counted >= 0 and counted % TURN == 0:
            print(json.dumps({"tokens": self.tokens, "seconds": time.perf_counter() - self.began}), flush=True)
            sys.stdin.readline()
            self.tokens, self.began = 0, time.perf_counter()


def ours(folder: Path, examples: list[Example], optim: Any, clock: Clock, compiled: bool) -> None:
    optim, kernels = replace(optim, steps=clock.steps), Kernels(compile=compiled)
    asked = Fit(folder / "start", folder / "ours", folder / "log.jsonl", NLL(), optim, seed=0, kernels=kernels)
    for state in fit(examples, asked):
        clock.stepped(state.step, state.last.tokens)


def trl(folder: Path, examples: list[Example], optim: Any, clock: Clock, **setting: Any) -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "input_ids": [*e.prompt_ids, *e.response_ids],
            "completion_mask": [0] * len(e.prompt_ids) + [1] * len(e.response_ids),
        }
        for e in examples
    ]
    tokens = 0

    class Stepped(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.stepped(state.global_step, tokens)

    class Counted(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal tokens
            tokens = int((inputs["input_ids"] != self.processing_class.pad_token_id).sum())
            return super().training_step(model, inputs, *args, **kwargs)

    packing = setting.get("packing", False)
    mean = statistics.mean(len(row["input_ids"]) for row in rows)
    config = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=clock.steps, use_cpu=True, bf16=False, report_to="none",
        save_strategy="no", logging_strategy="no", disable_tqdm=True, completion_only_loss=True,
        gradient_checkpointing=False, learning_rate=optim.lr, weight_decay=optim.weight_decay,
        max_grad_norm=optim.clip, lr_scheduler_type="cosine", dataloader_pin_memory=False, max_length=128,
        # Packed rows hold several examples, so that a step reads as many tokens as without packing.
        per_device_train_batch_size=max(1, round(optim.batch_size * mean / 128)) if packing else optim.batch_size,
        **setting,
    )  # fmt: skip
    trainer = Counted(
        model=AutoModelForCausalLM.from_pretrained(folder / "start", dtype="float32"), args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(folder / "start"), callbacks=[Stepped()],
    )  # fmt: skip
    trainer.train()


GROUPED = {"train_sampling_strategy": "group_by_length"}
OURS = "selftrain"
PLAIN: dict[str, dict[str, Any]] = {
    OURS: {},
    "trl": {},
    "trl, grouped by length": GROUPED,
    "trl, grouped, chunked loss": {**GROUPED, "loss_type": "chunked_nll"},
    "trl, packing": {"packing": True},
}
"""Sides by name, with TRL's settings; ours has none."""
COMPILED: dict[str, dict[str, Any]] = {
    f"{OURS}, compiled": {},
    "trl, grouped, compiled": {**GROUPED, "torch_compile": True},
}


def measure(side: str) -> None:
    """Fit, a turn at a time."""
    quiet()
    config = load_config(CONFIG)
    optim = config.warmup["policy"].optim
    with tempfile.TemporaryDirectory() as name, Session(config, RunDir(Path(name))) as session:
        for _ in start(session):
            pass
        examples = demonstration_examples(session, session.problems.demonstrations("demonstrations"), "gold", 1.0)
        torch.manual_seed(0)
        compiled, folder = side in COMPILED, Path(name)
        clock = Clock(COMPILING if compiled else SKIPPED)
        if side.startswith(OURS):
            ours(folder, examples, optim, clock, compiled)
        else:
            trl(folder, examples, optim, clock, **{**PLAIN, **COMPILED}[side])


class Side:
    """A process that fits, behind its first steps."""

    def __init__(self, name: str, cache: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--measure", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache},
        )
        self.first_steps = self._told()["seconds"]
        self.tokens, self.seconds = 0.0, 0.0

    def turn(self) -> None:
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        told = self._told()
        self.tokens, self.seconds = self.tokens + told["tokens"], self.seconds + told["seconds"]

    def close(self) -> float:
        """Tokens per second of all turns."""
        self._process.communicate()
        assert self._process.returncode == 0
        return self.tokens / self.seconds

    def _told(self) -> dict[str, float]:
        assert self._process.stdout is not None
        told: dict[str, float] = json.loads(next(line for line in self._process.stdout if line.startswith('{"tokens"')))
        return told


def run(cache: str) -> dict[str, tuple[float, float]]:
    """Tokens per second of every side, and the seconds of its first steps."""
    sides = {name: Side(name, cache) for name in (*PLAIN, *COMPILED)}
    for _ in range(TURNS):
        for side in sides.values():
            side.turn()
    return {name: (side.close(), side.first_steps) for name, side in sides.items()}


def ratios(speeds: dict[str, list[float]], side: str) -> dict[str, Any]:
    """Of one side to the best of TRL's, in each run and their median; compiled ones count where this one is."""
    others = [name for name in (speeds if side in COMPILED else PLAIN) if not name.startswith(OURS)]
    best = max(others, key=lambda name: statistics.median(speeds[name]))
    return {"best_trl_setting": best, **ratio(speeds[side], speeds[best])}


def ratio(speeds: list[float], others: list[float]) -> dict[str, Any]:
    by_run = [a / b for a, b in zip(speeds, others, strict=True)]
    return {"ratio_by_run": [round(one, 3) for one in by_run], "ratio": round(statistics.median(by_run), 3)}


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        runs = [run(cache) for _ in range(RUNS)]
    speeds = {side: [measured[side][0] for measured in runs] for side in runs[0]}
    first = {side: [round(measured[side][1], 1) for measured in runs] for side in COMPILED}
    save(
        "training",
        {
            "tokens_per_second": {side: [round(v) for v in values] for side, values in speeds.items()},
            **ratios(speeds, OURS),
            "to_padding": ratio(speeds[OURS], speeds["trl"]),
            # Only the first run compiles; the others find what it left on the disk.
            "compiled": {**ratios(speeds, f"{OURS}, compiled"), f"seconds_of_{COMPILING}_steps": first},
        },
    )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        measure(sys.argv[2])
    else:
        main()
