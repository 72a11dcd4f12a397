"""Log-ratios of given responses at a 150k-word vocabulary: `selftrain.training.scoring` against two plain passes of
`model(...).logits.log_softmax`, one by the policy and one by the reference.

Hidden 128, 4 layers, 8 rows of 512 tokens, all of one length, so that neither side pads; loading is left out of the
time. Each side runs in processes of its own, interleaved with the other's; the plain side is transformers as it comes.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import fresh, save

from selftrain.types import Example

VOCABULARY, ROWS, WIDTH = 150_000, 8, 512
PROMPTS = {"half of the tokens in the prompt": WIDTH // 2, "none in the prompt": 1}
"""Tokens of the prompt; the first token of all has no log-probability."""
SIDES = ("selftrain", "plain")
RUNS = 3


def write_models(folder: Path) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    for seed, name in enumerate(("policy", "reference")):
        torch.manual_seed(seed)
        Qwen3ForCausalLM(config).save_pretrained(folder / name)


def rows() -> torch.Tensor:
    return torch.randint(VOCABULARY, (ROWS, WIDTH), generator=torch.Generator().manual_seed(0))


def ours(folder: Path, prompt: int) -> Callable[[], torch.Tensor]:
    from selftrain.training.scoring import Scorer

    models = [Scorer(folder / name, dtype="float32", device="cpu") for name in ("policy", "reference")]
    examples = [
        Example(str(place), "p", "bench", tuple(row[:prompt]), tuple(row[prompt:]))
        for place, row in enumerate(rows().tolist())
    ]

    def ratios() -> torch.Tensor:
        own, other = ([torch.from_numpy(one) for one in model.logprobs(examples)] for model in models)
        return torch.stack(own) - torch.stack(other)

    return ratios


def plain(folder: Path, prompt: int) -> Callable[[], torch.Tensor]:
    from transformers import AutoModelForCausalLM

    models = [
        AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32).eval()
        for name in ("policy", "reference")
    ]
    ids = rows()

    def one(model: Any) -> torch.Tensor:
        found: torch.Tensor = model(ids).logits.log_softmax(-1)
        return found[:, :-1].gather(2, ids[:, 1:, None])[:, prompt - 1 :, 0]

    @torch.inference_mode()
    def ratios() -> torch.Tensor:
        return one(models[0]) - one(models[1])

    return ratios


def measure(side: str, folder: Path, prompt: int, target: str) -> dict[str, Any]:
    ratios = (ours if side == "selftrain" else plain)(folder, prompt)
    began = time.perf_counter()
    found = ratios()
    seconds = time.perf_counter() - began
    torch.save(found, target)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak}


def compare(folder: Path, prompt: int) -> dict[str, Any]:
    files = {side: folder / f"{side}.pt" for side in SIDES}
    done: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(RUNS):
        for side in SIDES:
            done[side].append(fresh(__file__, side, folder, prompt, files[side]))
    values = [torch.load(file) for file in files.values()]
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(done["selftrain"], done["plain"], strict=True)]
    peaks = [a["peak_mb"] / b["peak_mb"] for a, b in zip(done["selftrain"], done["plain"], strict=True)]
    return {
        "seconds": {side: [round(run["seconds"], 2) for run in runs] for side, runs in done.items()},
        "peak_mb": {side: [round(run["peak_mb"]) for run in runs] for side, runs in done.items()},
        "times_faster_by_run": [round(ratio, 2) for ratio in ratios],
        "times_faster": round(statistics.median(ratios), 2),
        "memory_ratio": round(statistics.median(peaks), 3),
        "largest_difference": float((values[0] - values[1]).abs().max()),
        "spread_of_values": float(values[1].std()),
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        write_models(Path(name))
        found = {told: compare(Path(name), prompt) for told, prompt in PROMPTS.items()}
    save("scoring", {"threads": torch.get_num_threads(), **found})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
    else:
        main()
