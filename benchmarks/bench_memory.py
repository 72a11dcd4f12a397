"""Peak memory of a training step with a 150k-word vocabulary: the chunked log-probabilities against all logits at once.

Hidden 128, 4 layers, 8 x 512 tokens, AdamW included. Each side runs in a process of its own; both start from the same
weights and data, and their loss and gradients are compared.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

import torch
from common import fresh, save

VOCABULARY, ROWS, WIDTH = 150_000, 8, 512


def step(side: str, target: str) -> dict[str, float]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from selftrain.models.logprobs import Positions, batch_logprobs

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=384, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    ids = torch.randint(VOCABULARY, (ROWS, WIDTH))
    before = peak()
    if side == "chunked":
        index = torch.arange(ROWS * WIDTH).view(ROWS, WIDTH)[:, :-1].reshape(-1)
        loss = -batch_logprobs(model, ids, None, Positions(index, ids[:, 1:].reshape(-1))).mean()
    else:
        logits = model(ids, use_cache=False).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1))
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    result = {"loss": loss.item(), "peak_mb": peak(), "before_mb": before}
    torch.save(gradients, target)
    return result


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = {side: str(Path(folder) / side) for side in ("chunked", "full")}
        rows = {side: fresh(__file__, side, file) for side, file in files.items()}
        gradients = [torch.load(file) for file in files.values()]
    difference = max(float((gradients[0][name] - gradients[1][name]).abs().max()) for name in gradients[0])
    scale = max(float(gradient.abs().max()) for gradient in gradients[1].values())
    save(
        "memory",
        {
            "rows": rows,
            "memory_ratio": round(rows["chunked"]["peak_mb"] / rows["full"]["peak_mb"], 3),
            "loss_difference": abs(rows["chunked"]["loss"] - rows["full"]["loss"]),
            "largest_gradient_difference": difference,
            "largest_gradient": scale,
        },
    )


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(json.dumps(step(sys.argv[1], sys.argv[2])))
    else:
        main()
