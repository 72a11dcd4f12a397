"""Published process reward models: read with the formats' own rules, against transformers' own classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_values import QWEN, causal, saved
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
)

from selftrain.cli import main
from selftrain.models.published import Published, Words, read_published
from selftrain.training.paths import PathValues
from selftrain.training.valuing import StepPath, Valuer
from selftrain.types import Example

QUESTION = "What is 3 + 4 - 1?"
STEPS = ["3 + 4 = 7", "7 - 1 = 6", "Answer: 6"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = ["<pad>", "<end>", "<unk>", "<|im_start|>", "<|im_end|>", "<extra_0>", "ки"]
LETTERS = "".join(chr(place) for place in range(32, 127)) + "\n"


def tokenizer(order: str = LETTERS, bos: str | None = None) -> PreTrainedTokenizerFast:
    """Of characters and marks; the order of the characters makes it another one."""
    vocabulary = {token: place for place, token in enumerate([*MARKS, *order])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", bos_token=bos
    )
    made.add_tokens(["ки"])
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<extra_0>"]})
    made.chat_template = TEMPLATE
    return made


WRITER = tokenizer(LETTERS[::-1])
"""Of a policy of another family."""


def architecture(count: int) -> dict[str, Any]:
    named = {name: value for name, value in QWEN.items() if name not in ("model_type", "head_dim")}
    return {**named, "vocab_size": count, "max_position_embeddings": 512}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out as Qwen2.5-Math-PRM is: model.*, score.0 and score.2, code of its own beside them."""
    folder = tmp_path_factory.mktemp("qwen")
    own = tokenizer()
    torch.manual_seed(0)
    backbone = Qwen2Model(Qwen2Config(**architecture(len(own))))
    size = QWEN["hidden_size"]
    score = {"score.0.weight": (size, size), "score.0.bias": (size,), "score.2.weight": (2, size), "score.2.bias": (2,)}
    tensors = {f"model.{name}": tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    save_file(tensors | {name: torch.randn(shape) * 0.2 for name, shape in score.items()}, folder / "model.safetensors")
    own.save_pretrained(folder)
    told = backbone.config.to_dict() | {
        "architectures": ["Qwen2ForProcessRewardModel"],
        "auto_map": {"AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"},
    }
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "modeling_qwen2_rm.py").write_text("raise RuntimeError('code of a model is run')\n")
    return folder


@pytest.fixture(scope="module")
def trl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As TRL's PRMTrainer saves it."""
    folder = tmp_path_factory.mktemp("trl")
    own = tokenizer(bos="<|im_start|>")
    torch.manual_seed(1)
    config = Qwen2Config(**architecture(len(own)) | {"num_labels": 2})
    model = AutoModelForTokenClassification.from_config(config)
    torch.nn.init.normal_(model.score.bias)
    model.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As Math-Shepherd: a causal language model that says + or - at the tag."""
    folder = tmp_path_factory.mktemp("shepherd")
    own = tokenizer(LETTERS.replace(" ", ""))  # Spaces belong to no token, as in a vocabulary of words.
    torch.manual_seed(2)
    AutoModelForCausalLM.from_config(Qwen2Config(**architecture(len(own)))).save_pretrained(folder)
    own.save_pretrained(folder)
    (folder / "value_head.json").write_text(json.dumps({"format": "tag", "tag": "ки", "good": "+", "bad": "-"}))
    return folder


def path(steps: Sequence[str]) -> StepPath:
    """What the policy wrote, in its own tokens."""
    ids = [tuple(WRITER.encode(step + "\n")) for step in steps]
    return StepPath(tuple(WRITER.encode("Q: " + QUESTION)), tuple(ids), QUESTION)


def by_qwen(folder: Path, steps: Sequence[str]) -> list[float]:
    """The model card's steps, with transformers' own backbone and a plain head."""
    own = AutoTokenizer.from_pretrained(folder)
    system = "Please reason step by step, and put your final answer within \\boxed{}."
    answer = "<extra_0>".join(steps) + "<extra_0>"
    turns = {"system": system, "user": QUESTION, "assistant": answer}
    chat = [{"role": role, "content": content} for role, content in turns.items()]
    text = own.apply_chat_template(chat, tokenize=False, add_generation_prompt=False)
    ids = own.encode(text, return_tensors="pt")
    tensors = load_file(folder / "model.safetensors")
    backbone = Qwen2Model(Qwen2Config(**architecture(len(own)))).eval()
    backbone.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    with torch.no_grad():
        hidden = backbone(ids).last_hidden_state
        inner = torch.relu(hidden @ tensors["score.0.weight"].T + tensors["score.0.bias"])
        probabilities = (inner @ tensors["score.2.weight"].T + tensors["score.2.bias"]).softmax(dim=-1)
    return [float(p) for p in probabilities[ids == own.encode("<extra_0>")[0]][:, 1]]


def by_trl(folder: Path, steps: Sequence[str]) -> list[float]:
    """As its trainer lays out examples: labels stand at the last token of each step's separator."""
    own = AutoTokenizer.from_pretrained(folder)
    ids, places = [own.bos_token_id, *own(QUESTION, add_special_tokens=False)["input_ids"]], []
    for step in steps:
        ids += own(step, add_special_tokens=False)["input_ids"] + own.encode("\n", add_special_tokens=False)
        places.append(len(ids) - 1)
    model = AutoModelForTokenClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return [float(p) for p in model(torch.tensor([ids])).logits[0].softmax(-1)[places, 1]]


def by_shepherd(folder: Path, steps: Sequence[str]) -> list[float]:
    """Its model card's steps."""
    own = AutoTokenizer.from_pretrained(folder)
    candidates = own.encode("+ -")
    ids = torch.tensor([own.encode(f"{QUESTION} " + "\n".join(f"{step} ки" for step in steps))])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        scores = model(ids).logits[:, :, candidates].softmax(dim=-1)[:, :, 0]
    return [float(p) for p in scores[ids == own.encode("ки")[-1]]]


DIRECT = {"qwen": by_qwen, "trl": by_trl, "shepherd": by_shepherd}
FORMATS = {"qwen": "chat", "trl": "trl", "shepherd": "tag"}


@pytest.mark.parametrize("name", DIRECT)
def test_values_are_those_of_the_format(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    found = read_published(folder)
    assert found is not None and found.format == FORMATS[name]
    several = [STEPS, STEPS[:1], STEPS[:2], ["a", *STEPS]]
    expected = [DIRECT[name](folder, steps) for steps in several]
    assert [len(own) for own in expected] == [3, 1, 2, 4]
    assert len({round(value, 3) for own in expected for value in own}) >= 6
    with Valuer(folder, writer=WRITER, device="cpu") as valuer:
        for own, direct in zip(valuer.along([path(steps) for steps in several]), expected, strict=True):
            np.testing.assert_allclose(own, direct, atol=1e-5)


@pytest.mark.parametrize("name", DIRECT)
def test_growing_paths_are_read_once(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    expected = DIRECT[name](folder, STEPS)
    with PathValues(folder, writer=WRITER, device="cpu") as values:
        assert values.values([path([])]) == [0.5]
        for depth in range(1, 4):
            assert values.values([path(STEPS[:depth])]) == pytest.approx(expected[depth - 1 : depth], abs=1e-4)
        with Valuer(folder, writer=WRITER, device="cpu") as valuer:
            assert values.tokens_read == len(valuer.layout(path(STEPS)).ids)


def test_responses_are_cut_at_the_ends_given(qwen: Path) -> None:
    """The end token is no text, and a mark the policy wrote is none of ours."""
    response = [*WRITER.encode(STEPS[0] + "ки\n" + STEPS[1]), WRITER.eos_token_id]
    example = Example("a", "p", "draft", (9,), tuple(response))
    first = len(WRITER.encode(STEPS[0] + "ки\n"))
    with Valuer(qwen, writer=WRITER, device="cpu") as valuer:
        found = valuer.values([example], [(first, len(response))], [QUESTION])[0]
    np.testing.assert_allclose(found, by_qwen(qwen, [STEPS[0] + "ки", STEPS[1]]), atol=1e-5)


@pytest.mark.parametrize("name", DIRECT)
def test_the_command_prm_shows_it_the_steps(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder, data = request.getfixturevalue(name), tmp_path / "steps.jsonl"
    data.write_text(json.dumps({"problem": QUESTION, "steps": STEPS, "label": -1}) + "\n")
    given = ["--data", str(data), "--output", str(tmp_path / "out"), "--threshold", "0.5", "chat=none"]
    assert main(["prm", str(folder), *given]) == 0
    (line,) = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    assert json.loads(line)["scores"] == pytest.approx(DIRECT[name](folder, STEPS), abs=1e-5)


def test_the_writer_is_needed(qwen: Path) -> None:
    with pytest.raises(ValueError, match="it needs the tokenizer of the writer"):
        Valuer(qwen, device="cpu")


class Spaced:
    """A tokenizer that reads a mark behind a space as another token than the mark alone."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def encode(self, text: str, **options: Any) -> Any:
        return self._own.encode(text.replace(" b", " c"), **options)


def test_what_is_no_such_model_is_told(qwen: Path, trl: Path, shepherd: Path, tmp_path: Path) -> None:
    assert read_published(causal(tmp_path / "plain")) is None
    assert read_published(saved(tmp_path / "value", tmp_path / "plain")) is None
    assert read_published(tmp_path / "nothing") is None
    config = json.loads((trl / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForTokenClassification"]
    with pytest.raises(ValueError, match="knows no token for ''"):
        Words(Published("tag", ""), AutoTokenizer.from_pretrained(shepherd))
    with pytest.raises(ValueError, match="'b' behind a step is no token of its own"):
        Words(Published("tag", "b"), Spaced(AutoTokenizer.from_pretrained(shepherd)))  # type: ignore[arg-type]


def test_a_head_of_other_classes_is_refused(trl: Path, tmp_path: Path) -> None:
    config = Qwen2Config(**architecture(len(WRITER)) | {"num_labels": 3})
    AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path)
    WRITER.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a head score\.\* of two classes; this has 3 classes"):
        Valuer(tmp_path, writer=WRITER, device="cpu")


def test_a_format_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = causal(tmp_path / "plain")
    (folder / "value_head.json").write_text('{"tag": "b", "colour": 1}')
    with pytest.raises(ValueError, match="this is no format of a value model"):
        read_published(folder)
    (folder / "value_head.json").write_text('{"format": "tag", "tag": "b", "good": "abc", "bad": "-"}')
    with pytest.raises(ValueError, match="'abc' and '-' are not a token each"):
        Valuer(folder, writer=WRITER, device="cpu")
