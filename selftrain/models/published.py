"""Process reward models as others publish them: which format a folder holds, its weights as a value model, its text.

In all of them a mark stands behind every step and the value is read there, as the probability of two classes:

- ``chat`` (Qwen2.5-Math-PRM): a chat whose answer is the steps, ``<extra_0>`` behind each; two layers over the hidden
  state, two classes.
- ``trl`` (what TRL's PRMTrainer saves): prompt and steps encoded apart, a separator behind each step; a linear layer,
  two classes.
- ``tag`` (Math-Shepherd): a causal language model that says ``+`` or ``-`` at the tag behind a step.

Two classes with a softmax are one number with a sigmoid: the head here is the difference of their rows. None of the
repositories' own code is run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from selftrain.models import checkpoint
from selftrain.models.head_form import SETTINGS, HeadForm, has_value_head
from selftrain.models.heads import ValueModel, fresh_head
from selftrain.models.logprobs import check_head

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
SCORE = "score."
"""How the names of a published head's tensors begin."""
ANSWER = "@answer@"
"""Stands for the answer where a chat is written out without it."""


@dataclass(frozen=True)
class Published:
    """The format of a published model."""

    format: Literal["chat", "trl", "tag"]
    tag: str
    """What stands behind every step."""
    good: str = "+"
    bad: str = "-"
    """tag: what the model says of a right and of a wrong step."""
    system: str = QWEN_SYSTEM
    """chat: the system prompt."""


class Laid(NamedTuple):
    """A problem and steps as a value model reads them."""

    ids: tuple[int, ...]
    prompt: int
    """How many of them stand before the first step."""
    places: tuple[int, ...]
    """Where the value after each step is read."""


def read_published(path: Path | str) -> Published | None:
    """The format of a folder, by its ``value_head.json``, which users of the tag kind write, or by the architecture
    its config names; None where it says neither.

    Raises:
        ValueError: the file names no format.
    """
    if has_value_head(path):
        return None
    folder = Path(path)
    if (file := folder / SETTINGS).exists():
        try:
            return Published(**json.loads(file.read_text()))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f'{file}: this is no format of a value model ({error}); write {{"format": "tag", "tag": ..., "good": '
                '..., "bad": ...}'
            ) from error
    if not (folder / "config.json").exists():
        return None
    named = [*(json.loads((folder / "config.json").read_text()).get("architectures") or ()), ""][0]
    if named.endswith("ForProcessRewardModel"):
        return Published("chat", "<extra_0>")
    return Published("trl", "\n") if named.endswith("ForTokenClassification") else None


def load_published(path: Path | str, published: Published, *, dtype: str = "auto", device: str = "auto") -> ValueModel:
    """A published model as a value model whose values are the probabilities of a right step.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: its head is none of the formats above.
    """
    if published.format == "tag":
        return _of_tags(path, published, dtype, device)
    from transformers import AutoModel

    checkpoint.quiet()
    where = checkpoint.pick_device(device)
    with _unreported():  # That the head is none of AutoModel's is known.
        backbone, found = AutoModel.from_pretrained(
            str(path),
            dtype=checkpoint.pick_dtype(dtype, where),
            attn_implementation="sdpa",
            trust_remote_code=False,
            output_loading_info=True,
        )
    if found["missing_keys"]:
        raise ValueError(f"{path}: weights of its backbone are missing, such as {min(found['missing_keys'])}")
    form, head = _scored(Path(path))
    return ValueModel(backbone.to(where), head.to(where), form)


class Words:
    """From a problem's text and its steps' to what a published model reads.

    Args:
        tokenizer: the model's own.

    Raises:
        ValueError: the mark behind a step is no single token there.
    """

    def __init__(self, published: Published, tokenizer: PreTrainedTokenizerBase) -> None:
        self._format, self._tokenizer = published, tokenizer
        self._head = lru_cache(maxsize=1024)(self._chat)
        if published.format != "trl":
            self._mark = _single(tokenizer, published.tag)
            self("a", ["a", "b"])

    def __call__(self, question: str, steps: Sequence[str]) -> Laid:
        mark = self._format.tag
        if self._format.format == "trl":
            return self._apart(question, steps)
        bare = [step.replace(mark, "") for step in steps]
        if self._format.format == "chat":
            return self._marked(head := self._head(question), head + "".join(step + mark for step in bare), len(bare))
        head = f"{question} "
        return self._marked(head, head + "\n".join(f"{step} {mark}" for step in bare), len(bare))

    def _apart(self, question: str, steps: Sequence[str]) -> Laid:
        encode, bos = self._tokenizer.encode, self._tokenizer.bos_token_id
        ids = [*([bos] if bos is not None else []), *encode(question, add_special_tokens=False)]
        prompt, places = len(ids), []
        behind = encode(self._format.tag, add_special_tokens=False)
        for step in steps:
            ids += [*encode(step, add_special_tokens=False), *behind]
            places.append(len(ids) - 1)
        return Laid(tuple(ids), prompt, tuple(places))

    def _marked(self, head: str, text: str, steps: int) -> Laid:
        ids, alone = self._tokenizer.encode(text), self._tokenizer.encode(head)
        places = [place for place, token in enumerate(ids) if token == self._mark]
        if len(places) < steps:
            raise ValueError(
                f"'{self._format.tag}' behind a step is no token of its own to this tokenizer; name another tag in "
                f"{SETTINGS}"
            )
        own = places[len(places) - steps :]
        end = own[-1] + 1 if own else len(alone)
        same = next((i for i, (a, b) in enumerate(zip(ids, alone, strict=False)) if a != b), min(len(ids), len(alone)))
        return Laid(tuple(ids[:end]), same, tuple(own))

    def _chat(self, question: str) -> str:
        turns = [("system", self._format.system), ("user", question), ("assistant", ANSWER)]
        chat = [{"role": role, "content": content} for role, content in turns]
        return str(self._tokenizer.apply_chat_template(chat, tokenize=False)).rpartition(ANSWER)[0]


def _single(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The token a mark is read as: the last one, since some tokenizers put a space before it."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    if not ids:
        raise ValueError(f"the tokenizer knows no token for '{text}'")
    return ids[-1]


def _of_tags(path: Path | str, published: Published, dtype: str, device: str) -> ValueModel:
    """logit(good) - logit(bad) as a linear head: sigmoid of it is the softmax over the two."""
    model: Any = checkpoint.load_model(path, dtype=dtype, device=device)
    check_head(model)
    tokenizer = checkpoint.load_tokenizer(path)
    # Written side by side, as their model card does: some tokenizers put a space into the token of the first one.
    pair = tokenizer.encode(f"{published.good} {published.bad}", add_special_tokens=False)
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ValueError(f"{path}: '{published.good}' and '{published.bad}' are not a token each; see its {SETTINGS}")
    config, output = model.config.get_text_config(), model.get_output_embeddings()
    if getattr(config, "final_logit_softcapping", None):
        raise ValueError(f"{path}: it caps its logits, so that their difference is no linear head; choose another")
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    good, bad = output.weight.detach()[pair].float() * scale
    bias = getattr(output, "bias", None)
    head = fresh_head("linear", len(good)).to(good.device)
    _differ(head[-1], good, bad, 0.0 if bias is None else float(bias[pair[0]] - bias[pair[1]]) * scale)
    return ValueModel(model.base_model, head, HeadForm())


def _scored(folder: Path) -> tuple[HeadForm, nn.Module]:
    found = _tensors(folder)
    kind: Literal["linear", "mlp"] = "mlp" if "0.weight" in found else "linear"
    last = "2." if kind == "mlp" else ""
    rows = found.get(f"{last}weight")
    if rows is None or len(rows) != 2:
        told = "none" if rows is None else f"{len(rows)} classes"
        raise ValueError(f"{folder}: a published value model has a head {SCORE}* of two classes; this has {told}")
    head = fresh_head(kind, rows.shape[1])
    if kind == "mlp":
        head[0].load_state_dict({"weight": found["0.weight"], "bias": found["0.bias"]})
    shift = found.get(f"{last}bias", torch.zeros(2))
    _differ(head[-1], rows[1], rows[0], float(shift[1] - shift[0]))
    return HeadForm(kind), head


@torch.no_grad()
def _differ(layer: Any, right: Tensor, wrong: Tensor, shift: float) -> None:
    """The last layer says by how much the right class is ahead."""
    layer.weight.copy_(right - wrong)
    layer.bias.fill_(shift)


@contextmanager
def _unreported() -> Iterator[None]:
    """No table of weights that have no place."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _tensors(folder: Path) -> dict[str, Tensor]:
    """Those of the head, in fp32."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, "pt") as tensors:
            own = [name for name in tensors.keys() if name.startswith(SCORE)]  # noqa: SIM118
            found |= {name.removeprefix(SCORE): tensors.get_tensor(name).float() for name in own}
    return found
