"""NLL training of the quickstart's model: real tokens per second against TRL's SFTTrainer at its best setting.

Same weights, data, batch size, fp32 and completion-only loss; optimizer step included, start-up and the first steps
excluded. Real tokens are prompt and response tokens without padding. Runs are interleaved, each in a process of its
own.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
from common import fresh, save

from selftrain.artifacts import RunDir
from selftrain.config import load_config
from selftrain.models.checkpoint import load_tokenizer, quiet
from selftrain.objectives.nll import NLL
from selftrain.session import Session
from selftrain.stages.examples import demonstration_examples
from selftrain.stages.start import start
from selftrain.training.fit import Fit, fit
from selftrain.types import Example

STEPS, SKIPPED, RUNS = 320, 20, 3
CONFIG = Path(__file__).parent.parent / "configs" / "quickstart.yaml"


def ours(folder: Path, examples: list[Example], optim: Any) -> float:
    tokens, began = 0, 0.0
    asked = Fit(folder / "start", folder / "ours", folder / "log.jsonl", NLL(), replace(optim, steps=STEPS), seed=0)
    for state in fit(examples, asked):
        if state.step == SKIPPED:
            began = time.perf_counter()
        elif state.step > SKIPPED:
            tokens += state.last.tokens
        if state.step == STEPS:
            return tokens / (time.perf_counter() - began)
    raise AssertionError("the fit ended early")


def trl(folder: Path, examples: list[Example], optim: Any, **setting: Any) -> float:
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
    clock = {"tokens": 0, "began": 0.0, "ended": 0.0}

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == SKIPPED:
                clock["tokens"], clock["began"] = 0, time.perf_counter()
            if state.global_step == STEPS:
                clock["ended"] = time.perf_counter()

    class Counted(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            pad = self.processing_class.pad_token_id
            clock["tokens"] += int((inputs["input_ids"] != pad).sum())
            return super().training_step(model, inputs, *args, **kwargs)

    packing = setting.get("packing", False)
    mean = statistics.mean(len(row["input_ids"]) for row in rows)
    config = SFTConfig(
        output_dir=str(folder / "trl"), max_steps=STEPS, use_cpu=True, bf16=False, report_to="none", save_strategy="no",
        logging_strategy="no", disable_tqdm=True, completion_only_loss=True, gradient_checkpointing=False,
        learning_rate=optim.lr, weight_decay=optim.weight_decay, max_grad_norm=optim.clip, lr_scheduler_type="cosine",
        dataloader_pin_memory=False, max_length=128,
        # Packed rows hold several examples, so that a step reads as many tokens as without packing.
        per_device_train_batch_size=max(1, round(optim.batch_size * mean / 128)) if packing else optim.batch_size,
        **setting,
    )  # fmt: skip
    trainer = Counted(
        model=AutoModelForCausalLM.from_pretrained(folder / "start", dtype="float32"), args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(folder / "start"), callbacks=[Clock()],
    )  # fmt: skip
    trainer.train()
    return clock["tokens"] / (clock["ended"] - clock["began"])


GROUPED = {"train_sampling_strategy": "group_by_length"}
SIDES: dict[str, dict[str, Any] | None] = {
    "selftrain": None,
    "trl": {},
    "trl, grouped by length": GROUPED,
    "trl, grouped, chunked loss": {**GROUPED, "loss_type": "chunked_nll"},
    "trl, packing": {"packing": True},
}
"""TRL's settings; None is ours."""


def measure(side: str) -> float:
    """Real tokens per second of one run."""
    quiet()
    config = load_config(CONFIG)
    optim = config.warmup["policy"].optim
    with tempfile.TemporaryDirectory() as name, Session(config, RunDir(Path(name))) as session:
        for _ in start(session):
            pass
        examples = demonstration_examples(session, session.problems.demonstrations("demonstrations"), "gold", 1.0)
        torch.manual_seed(0)
        setting = SIDES[side]
        if setting is None:
            return ours(Path(name), examples, optim)
        return trl(Path(name), examples, optim, **setting)


def main() -> None:
    speeds: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(RUNS):
        for side in SIDES:
            speeds[side].append(fresh(__file__, "--measure", side)["speed"])
    medians = {side: statistics.median(values) for side, values in speeds.items()}
    best = max((side for side in medians if side != "selftrain"), key=lambda side: medians[side])
    ratios = [a / b for a, b in zip(speeds["selftrain"], speeds[best], strict=True)]
    save(
        "training",
        {
            "tokens_per_second": {side: [round(v) for v in values] for side, values in speeds.items()},
            "best_trl_setting": best,
            "ratio_by_run": [round(ratio, 3) for ratio in ratios],
            "ratio": round(statistics.median(ratios), 3),
        },
    )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--measure":
        print(json.dumps({"speed": measure(sys.argv[2])}))
    else:
        main()
