"""An implicit process reward model on real text: solutions of two models teach it, those of two others test it.

GSM8K's `model_solutions.jsonl` holds solutions of four models to its test problems, each right or wrong. A small
language model from scratch learns GSM8K's training split; from there the implicit reward is trained on the outcomes of
the two "finetuning" models' solutions, against that language model as its reference, and ranks those of the two
"verification" models. Half of the problems are left out of the training, so that what is known of a problem's answer is
told apart from what is known of solutions. AUC with 95 % intervals (bootstrap over problems), beside length and
likelihood.

    SELFTRAIN_DATA=... python benchmarks/gsm8k_prm_study.py [--seeds 0,1,2] [--beta 0.05] [--steps 240]

Each seed is kept as it ends, beside those that were measured before with the same settings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESULTS, save
from numpy.typing import NDArray

from selftrain.models import checkpoint
from selftrain.monitors.scores import auc
from selftrain.objectives.labelled import ImplicitCE
from selftrain.objectives.nll import NLL
from selftrain.rewards.process import step_rewards, token_rewards
from selftrain.rewards.steps import pieces, step_ends
from selftrain.schema import Optim
from selftrain.training.fit import Fit, fit
from selftrain.training.scoring import Scorer
from selftrain.types import Example

NAME = "gsm8k_prm"
"""Of the result file."""
TAUGHT, TESTED = ("6b_finetuning", "175b_finetuning"), ("6b_verification", "175b_verification")
VOCABULARY = 2048
SIZES: dict[str, Any] = {
    "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 6, "head_dim": 32, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    "initializer_range": 0.05,
}  # fmt: skip


class Solution(NamedTuple):
    problem: int
    unseen: bool
    """Whether its problem is none of those that were trained on."""
    example: Example


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=lambda text: [int(one) for one in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--beta", type=float, default=0.05)
    parser.add_argument("--lm-steps", type=int, default=700)
    parser.add_argument("--steps", type=int, default=240)
    asked = parser.parse_args()
    if "SELFTRAIN_DATA" not in os.environ:
        print("not run: set SELFTRAIN_DATA to the folder of real data (CONTRIBUTING.md)")
        sys.exit(0)
    data = Path(os.environ["SELFTRAIN_DATA"]) / "gsm8k"
    settings = {"beta": asked.beta, "steps": asked.steps, "lm steps": asked.lm_steps}
    for seed in asked.seeds:
        with tempfile.TemporaryDirectory() as folder:
            row = study(Path(folder) / str(seed), data, seed, asked)
        save(NAME, {**settings, "seeds": sorted([row, *others(seed, settings)], key=itemgetter("seed"))})


def others(seed: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured with these settings and other seeds."""
    file = RESULTS / f"{NAME}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    same = all(known.get(name) == value for name, value in settings.items())
    return [row for row in known["seeds"] if row["seed"] != seed] if same else []


def study(folder: Path, data: Path, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    folder.mkdir()
    tokenizer = made_tokenizer(data)
    random_start(folder / "random", tokenizer, seed)
    texts = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    language = [encoded(tokenizer, str(i), row["question"], row["answer"]) for i, row in enumerate(texts)]
    optim = Optim(lr=3e-3, steps=asked.lm_steps, batch_size=32, weight_decay=0.01)
    done(language, Fit(folder / "random", folder / "lm", folder / "lm.jsonl", NLL(), optim, seed))
    taught, tested = solutions(data, tokenizer, TAUGHT), solutions(data, tokenizer, TESTED)
    with Scorer(folder / "lm") as scorer:
        known = [one.example for one in taught if not one.unseen]
        reference = scorer.logprobs(known)
        likelihood = scorer.logprobs([one.example for one in tested])
    examples = [replace(one, reference_logprobs=tuple(own.tolist())) for one, own in zip(known, reference, strict=True)]
    optim = Optim(lr=5e-4, steps=asked.steps, batch_size=64, weight_decay=0.01)
    done(examples, Fit(folder / "lm", folder / "prm", folder / "prm.jsonl", ImplicitCE(asked.beta), optim, seed))
    with Scorer(folder / "prm") as scorer:
        own = scorer.logprobs([one.example for one in tested])
    ratios = [mine - other for mine, other in zip(own, likelihood, strict=True)]
    return {"seed": seed, "parameters": parameters(folder / "prm"), **told(tested, ratios, likelihood, tokenizer)}


def told(
    tested: Sequence[Solution], ratios: Sequence[Any], likelihood: Sequence[Any], tokenizer: Any
) -> dict[str, Any]:
    """AUC by each measure, over the solutions of unseen problems and of those trained on."""
    ends = [step_ends(pieces(tokenizer, one.example.response_ids), "\n") for one in tested]
    steps = [step_rewards(token_rewards(own, 1.0), end) for own, end in zip(ratios, ends, strict=True)]
    measures = {
        "implicit reward": np.array([own.sum() for own in ratios]),
        "implicit reward per token": np.array([own.mean() for own in ratios]),
        "least step": np.array([own.min() for own in steps]),
        "shorter": -np.array([len(own) for own in ratios]),
        "likelihood": np.array([own.sum() for own in likelihood]),
        "likelihood per token": np.array([own.mean() for own in likelihood]),
    }
    right = np.array([bool(one.example.label) for one in tested])
    problems, unseen = np.array([one.problem for one in tested]), np.array([one.unseen for one in tested])
    found: dict[str, Any] = {}
    for name, chosen in (("unseen problems", unseen), ("problems trained on", ~unseen)):
        of = {key: interval(values[chosen], right[chosen], problems[chosen]) for key, values in measures.items()}
        found[name] = {"solutions": int(chosen.sum()), "right": round(float(right[chosen].mean()), 4), **of}
    return found


def interval(values: NDArray[Any], right: NDArray[Any], problems: NDArray[Any], draws: int = 1000) -> list[float]:
    """AUC with its 95 % interval: problems are drawn anew, with all of their solutions."""
    names = np.unique(problems)
    places = {name: np.flatnonzero(problems == name) for name in names}
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(draws):
        chosen = np.concatenate([places[name] for name in rng.choice(names, len(names))])
        drawn.append(ranked(values[chosen], right[chosen]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return [round(float(value), 4) for value in (ranked(values, right), low, high)]


def ranked(values: NDArray[Any], right: NDArray[Any]) -> float:
    return auc(values[right].tolist(), values[~right].tolist())


def solutions(data: Path, tokenizer: Any, models: Sequence[str]) -> list[Solution]:
    found = []
    for number, line in enumerate((data / "model_solutions.jsonl").read_text().splitlines()):
        row = json.loads(line)
        unseen = hashlib.sha256(row["question"].encode()).digest()[0] % 2 == 0
        for model in models:
            own = encoded(tokenizer, f"{number}/{model}", row["question"], row[model]["solution"])
            label = float(row[model]["is_correct"])
            found.append(Solution(number, unseen, replace(own, label=label)))
    return found


def encoded(tokenizer: Any, name: str, question: str, answer: str) -> Example:
    prompt = tokenizer.encode(f"Question: {question}\nAnswer: ")
    response = (*tokenizer.encode(answer.replace("\n#### ", "\nA: ")), tokenizer.eos_token_id)
    return Example(name, name, "gsm8k", tuple(prompt), response)


def made_tokenizer(data: Path) -> Any:
    """Byte-level BPE of the training split; every digit is a token of its own."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<eos>"], initial_alphabet=alphabet)
    made.train_from_iterator(texts_of(data), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<eos>")


def texts_of(data: Path) -> Iterator[str]:
    for line in (data / "train.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield f"Question: {row['question']}\nAnswer: {row['answer']}"


def random_start(folder: Path, tokenizer: Any, seed: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model("qwen3", **SIZES, vocab_size=len(tokenizer))
    checkpoint.save(AutoModelForCausalLM.from_config(config), tokenizer, folder)


def parameters(folder: Path) -> int:
    return sum(parameter.numel() for parameter in checkpoint.load_model(folder).parameters())


def done(examples: list[Example], asked: Fit, show: Callable[[str], None] = print) -> None:
    for state in fit(examples, asked):
        if state.step % 100 == 0 or state.step == state.steps:
            show(f"{asked.log.stem} {state.step}/{state.steps} loss {state.last.loss:.4f} {state.last.measures}")


if __name__ == "__main__":
    main()
