"""A small architecture described in the config, with a tokenizer of single characters.

For runs that start from nothing: the model is one of transformers' own architectures with random weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"


def character_tokenizer(alphabet: str, context: int) -> PreTrainedTokenizerFast:
    """One token per character of ``alphabet``; distinct pad, end and unknown tokens, no beginning token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([PAD, END, UNKNOWN, *dict.fromkeys(alphabet)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, model_max_length=context
    )


def random_model(architecture: dict[str, Any], tokenizer: PreTrainedTokenizerFast, seed: int) -> PreTrainedModel:
    """A causal language model with seeded random weights in fp32.

    Args:
        architecture: ``model_type`` names a transformers architecture; the rest are fields of its config.

    Raises:
        ValueError: the architecture is unknown or its fields do not fit together.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = dict(architecture)
    config = AutoConfig.for_model(
        fields.pop("model_type"),
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        **fields,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        return model
