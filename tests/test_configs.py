"""Every config that is shipped, dry-run on small local data and tiny models laid out as those it names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from qwen_like import write
from small_data import aime_rows, aqua_rows, countdown_rows, gsm8k_rows, math500_rows, math_rows, write_lines

from selftrain.artifacts import RunDir
from selftrain.checks.estimate import Asked, estimate
from selftrain.cli import main
from selftrain.config import load_config, read_tree, to_yaml
from selftrain.estimating.hardware import PROFILES
from selftrain.estimating.launch import Placed, placed
from selftrain.jobs.job import machines
from selftrain.planning.settings import sampler_of
from selftrain.session import Session
from selftrain.train_config import is_fit

EVERY = sorted((Path(__file__).resolve().parent.parent / "configs").glob("*.yaml"))
FITS = [path for path in EVERY if is_fit(read_tree(path))]
CONFIGS = [path for path in EVERY if path not in FITS]

GSM8K = ("tasks.gsm8k.data_dir={}/gsm8k", "tasks.gsm8k.val_size=4")
MIXED = (
    "model.path={}/chat",
    *GSM8K,
    "tasks.aqua.data_dir={}/aqua",
    "tasks.countdown={data_dir: '{}/countdown', val_size: 4, test_size: 6}",
)
MATH = ("tasks.math.data_dir={}/math", "tasks.math.val_size=4")
LOCAL = {
    "rest_em_gsm8k": ("model.path={}/base", *GSM8K),
    "distill_gsm8k": ("model.path={}/chat", *GSM8K),
    "dapo_gsm8k": ("model.path={}/chat", *GSM8K, "grow.draft.prompts=4"),
    "iterative_dpo_gsm8k": ("model.path={}/chat", *GSM8K),
    "rest_em_math": ("model.path={}/base", *MATH),
    "rest_em_7b_8gpu": ("model.path={}/base", *MATH, "grow.draft.sampler.max_model_len=2048"),
    "rest_em_7b_4nodes": (
        "model.path={}/chat",
        *MATH,
        "tasks.math500.data_dir={}/math",
        "tasks.aime24.data_dir={}/math",
        "grow.draft.sampler.max_model_len=2048",
    ),
    "rest_mcts_math": (
        "model.path={}/base",
        *MATH,
        # The small solutions are of one line.
        "grow.tree.separator=', '",
        "learners.value.model.separator=', '",
    ),
    "distill_math": ("model.path={}/chat", *MATH, "tasks.math500.data_dir={}/math", "tasks.aime24.data_dir={}/math"),
    "mixed": (*MIXED, "learners.policy.examples.chat.from=replay:{}/general.jsonl"),
    "train_dpo": ("model.path={}/chat", "data.path={}/pairs.jsonl"),
    "train_prm": ("model.path={}/chat", "data.path={}/steps.jsonl"),
}
"""By config: what is put in place of what lies on the hub."""


LAID_OUT = {
    "rest_em_7b_8gpu": (Placed("deepspeed", 8, 3, replicas=8), (1, 8)),
    "rest_em_7b_4nodes": (Placed("deepspeed", 32, 3, sequence_parallel=4, replicas=32), (4, 8)),
}
"""What configs for many GPUs say of them, and the machines and GPUs of each that a job asks for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and models."""
    made = tmp_path_factory.mktemp("local")
    write_lines(made / "gsm8k" / "train.jsonl", gsm8k_rows(24)[4:])
    write_lines(made / "gsm8k" / "test.jsonl", gsm8k_rows(4))
    for split, rows in {"train": (8, 20), "dev": (3, 8), "test": (0, 3)}.items():
        write_lines(made / "aqua" / f"aqua_{split}.json", aqua_rows(20)[slice(*rows)])
    for split, problems in {"train": math_rows(24)[4:], "test": math_rows(4)}.items():
        write_lines(made / "math" / f"{split}.jsonl", problems)
    write_lines(made / "math" / "math500.jsonl", math500_rows(2))
    write_lines(made / "math" / "aime24.jsonl", aime_rows(3))
    write_lines(made / "countdown" / "countdown.jsonl", countdown_rows(24))
    write_lines(made / "general.jsonl", [{"prompt": "Say hello.", "response": "Hello!"}])
    write_lines(made / "pairs.jsonl", [{"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}])
    write_lines(made / "steps.jsonl", [{"prompt": "2+2+3?", "steps": ["2+2=5", "5+3=8"], "labels": [0, None]}])
    write(made / "base", base=True, context=2048)
    write(made / "chat", context=2048, heads=4)
    return made


def dry_run(config: Path, overrides: tuple[str, ...], folder: Path, runs: Path, command: str = "run") -> int:
    given = [override.replace("{}", str(folder)) for override in overrides]
    return main([command, str(config), f"run.folder={runs}", "--dry-run", *given])


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_dry_runs(config: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dry_run(config, LOCAL.get(config.stem, ()), folder, tmp_path / "runs") == 0
    said = capsys.readouterr()
    assert said.err == ""
    for name, task in load_config(config).tasks.items():
        split = "train" if task.weight else "test"
        assert f"task {name}: " in said.out and f"prompt of {name}/{split}/" in said.out
    assert (config.stem in LAID_OUT) == ("\nlaunch: " in said.out)
    assert "sampled at temperature " in said.out and "training example, with what carries no loss in ⟦ ⟧:" in said.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("config", FITS, ids=lambda path: path.stem)
def test_config_of_a_fit_dry_runs(
    config: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dry_run(config, LOCAL[config.stem], folder, tmp_path / "runs", "train") == 0
    said = capsys.readouterr()
    assert said.err == "" and "training example, with what carries no loss in ⟦ ⟧:" in said.out
    assert not (tmp_path / "runs").exists()


def test_the_base_model_is_asked_with_examples_and_taught_without(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "rest_em_gsm8k")
    assert dry_run(config, LOCAL["rest_em_gsm8k"], folder, tmp_path) == 0
    shown = capsys.readouterr().out.partition("prompt of gsm8k/train/")[2]
    asked, _, taught = shown.partition("training example")
    assert asked.count("\n  | Question: Ann") == 5 and asked.count("\n  | Answer: She has") == 4
    assert "\n  | Answer:\n" in asked and r"ended by '\n\nQuestion:', '<|endoftext|>'" in asked
    assert taught.count("Question: Ann") == 1 and "\n  | Answer:⟧ She has" in taught


def test_a_mixture_says_what_is_missing_and_goes_without(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config,) = (path for path in CONFIGS if path.stem == "mixed")
    assert dry_run(config, MIXED, folder, tmp_path) == 2
    assert "learners.policy.examples.chat.from: no such file: data/chat.jsonl" in capsys.readouterr().err
    assert "learners.policy.examples.chat=null" in config.read_text()
    assert dry_run(config, (*MIXED, "learners.policy.examples.chat=null"), folder, tmp_path) == 0


@pytest.mark.parametrize("name", LAID_OUT)
def test_configs_for_many_gpus_fit_them_by_the_estimate(name: str, folder: Path, tmp_path: Path) -> None:
    (path,) = (path for path in CONFIGS if path.stem == name)
    data = [given.replace("{}", str(folder)) for given in LOCAL[name] if not given.startswith(("model", "grow"))]
    config = load_config(path, data)
    where, job = LAID_OUT[name]
    text = to_yaml(config)
    assert "???" not in text and "${" not in text
    assert placed(config, sampler_of(config)) == where and machines(config, None, None) == job
    with Session(config, RunDir(tmp_path)) as session:
        found = estimate(session, Asked(hardware=PROFILES["H100"]))
        alone = estimate(session, Asked(hardware=PROFILES["H100"], placed=Placed()))
    assert found.shape.parameters == 7_615_616_512 and found.gpus == where.gpus == job[0] * job[1]
    assert found.fits and not alone.fits
    fit, sampling = found.memory
    assert fit.what == "fit of policy" and 12e9 < fit.total < 60e9
    # Room for two dozen of the longest responses at once.
    longest = config.grow["draft"].max_tokens
    assert sampling.parts["cache"] / 57_344 > 24 * longest
