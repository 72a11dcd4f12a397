"""What the benchmarks share: one result file per script, runs in fresh processes, small models."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from selftrain.report.chart import picture

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parent.parent / "docs" / "pictures"
DIGITS = "0123456789+-*= #"
SMALLEST: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


def save(name: str, result: dict[str, Any]) -> None:
    """Write and print a result beside the script."""
    RESULTS.mkdir(exist_ok=True)
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "machine": platform.machine()}
    text = json.dumps({"benchmark": name, "on": machine, **result}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def draw(name: str, chart: str) -> None:
    """Keep a chart where the pages of the documentation show it."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / f"{name}.svg").write_text(picture(chart))


def fresh(script: str, *arguments: object) -> dict[str, Any]:
    """The JSON object a script prints last, run in a process of its own."""
    done = subprocess.run([sys.executable, script, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def random_checkpoint(folder: Path, alphabet: str = DIGITS, **architecture: Any) -> Any:
    """A small Qwen3 of random weights that reads characters.

    Args:
        architecture: fields of its config, in place of those of the smallest.

    Returns:
        Its tokenizer.
    """
    from selftrain.models.checkpoint import save as save_model
    from selftrain.models.small import character_tokenizer, random_model

    fields = SMALLEST | architecture
    tokenizer = character_tokenizer(alphabet, int(fields["max_position_embeddings"]))
    save_model(random_model(fields, tokenizer, seed=0), tokenizer, folder)
    return tokenizer
