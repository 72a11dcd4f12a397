"""Checkpoints laid out as Qwen2.5's are, small enough to train in seconds: tokenizer, templates, end tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHATML = """
{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or message.role == "assistant" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
{%- if add_generation_prompt and enable_thinking is defined and enable_thinking %}
    {{- '<think>\\n' }}
{%- endif %}"""
"""Qwen2.5's without tools, with Qwen3's way to open the reasoning behind it."""

ENDOFTEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
TEXTS = [f"{a}+{b}={a + b} The answer is {a + b}.\nQuestion: What? Answer:\n\n" for a in range(9) for b in range(9)]
RECOMMENDED = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.05}


def tokenizer(*, base: bool = False, template: str | None = CHATML) -> Any:
    """Byte-level BPE; ``<|endoftext|>`` is the pad token of both kinds, and the end token of a base model."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False))
    made = PreTrainedTokenizerFast(tokenizer_object=core, pad_token=ENDOFTEXT, eos_token=ENDOFTEXT if base else IM_END)
    made.add_special_tokens({"additional_special_tokens": [ENDOFTEXT, IM_START, IM_END]})
    made.add_tokens(["<think>", "</think>"])
    made.chat_template = template
    return made


def write(
    folder: Path,
    *,
    base: bool = False,
    generation: dict[str, Any] | None = None,
    context: int = 192,
    heads: int = 2,
    **options: Any,
) -> Any:
    """A checkpoint with random weights, as it would come from the hub; returns its tokenizer."""
    from selftrain.models.checkpoint import save
    from selftrain.models.small import random_model

    made = tokenizer(base=base, **options)
    architecture = {
        "model_type": "qwen2",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": 1,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
    }
    save(random_model(architecture, made, seed=0), made, folder)
    ends = made.convert_tokens_to_ids([ENDOFTEXT] if base else [IM_END, ENDOFTEXT])
    settings = {"eos_token_id": ends[0] if base else ends, "pad_token_id": made.pad_token_id}
    settings |= RECOMMENDED if generation is None else generation
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return made


def write_rows(path: Path, count: int, *, first: int = 0) -> None:
    """Sums as a jsonl task: question, answer and a worked solution."""
    rows = [
        {
            "id": str(i),
            "question": f"{i // 8}+{i % 8}=",
            "answer": str(i // 8 + i % 8),
            "demonstration": f"#{i // 8 + i % 8}",
        }
        for i in range(first, first + count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
