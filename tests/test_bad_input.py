"""What is wrong with a config, the data or a model is one clear line, exit status 2, and nothing is written.

What goes wrong while a run goes on costs one sample, or stops the run with what to do; the rerun loses nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kill_driver import Driver, Ended

from selftrain import records
from selftrain.checks.described import described_config
from selftrain.cli import main
from selftrain.models.checkpoint import load_model
from selftrain.schema import Model, RunConfig

CONFIG = f"""
include: {Path(__file__).with_name("tiny.yaml")}
tasks: {{arithmetic: {{lengths: [1, 1]}}}}
grow: {{draft: {{max_tokens: 12, sampler: {{batch_size: 8}}}}}}
loop: {{iterations: 1}}
"""


REPEATS = """
from selftrain.types import Problem


class Repeats:
    def splits(self): return ("train",)
    def problems(self, split): return [Problem("r/train/1", "r", split, f"1+{n}=", "1") for n in range(2)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Configs, data files, verifiers and models that are wrong in one way each."""
    made = tmp_path_factory.mktemp("bad")
    (made / "tiny.yaml").write_text(CONFIG)
    texts = {
        "broken.yaml": "run: {name: x",
        "list.yaml": "- run",
        "loop.yaml": "include: loop.yaml",
        "fields.jsonl": '{"q": "1+1=", "answer": "2"}\n',
        "twice.jsonl": '{"id": 7, "question": "1+1=", "answer": "2"}\n{"id": 7, "question": "1+2=", "answer": "3"}\n',
        "empty.jsonl": "",
        "torn.jsonl": '{"question": "1+1=", "answer": "2"}\n{"question": \n',
        "spelling.jsonl": '{"question": "1+1+1=", "answer": "3", "demonstration": "drei"}\n',
        "long.jsonl": json.dumps({"question": "1+1+1=", "answer": "3", "demonstration": "1+1=2 " * 5}),
        "leak.jsonl": '{"prompt": "5+5=", "response": "1"}\n{"prompt": " 1+1=\\n", "response": "2"}\n',
        "good.jsonl": '{"question": "1+1=", "answer": "2"}\n',
        "strange.jsonl": '{"question": "1 und 1?", "answer": "2"}\n',
        "no_module.py": "import no_such_module\n",
        "raises.py": "1 / 0\n",
        "syntax.py": "def (:\n",
        "repeats.py": REPEATS,
        "judges.py": "number = 3\ndef short(response): return 1.0\ndef judge(problem, response): return 1.0\n",
    }
    for name, text in texts.items():
        (made / name).write_text(text)
    (made / "nothing").mkdir()
    models: dict[str, Callable[[dict[str, Any]], object]] = {
        "no_pad": lambda settings: settings.pop("pad_token"),
        "no_end": lambda settings: settings.pop("eos_token"),
        "two_begins": lambda settings: settings.update(
            bos_token="#", chat_template="{{ bos_token }}{{ bos_token }}{{ messages[0]['content'] }}"
        ),
        "bad_template": lambda settings: settings.update(chat_template="{% for %}"),
    }
    for name, spoil in models.items():
        shutil.copytree(tiny, made / name)
        path = made / name / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        spoil(settings)
        path.write_text(json.dumps(settings))
    shutil.copytree(tiny, made / "no_weights", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(tiny, made / "cut_off")
    weights = made / "cut_off" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return made


JSONL = ("tasks.mine.kind=jsonl", "tasks.mine.verifier=exact_answer")
MODEL = ("model.architecture=null", "model.alphabet=null")
CHOOSING = {"verdict": "right", "reward_above": "0.5", "cap": "2", "dedupe": "text", "history": "all"}

BAD: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # Keys and values.
    "unknown key": (("grow.draft.temprature=1",), ("grow.draft.temprature", "did you mean 'temperature'?")),
    "unknown section": (("grw.draft.n=1",), ("grw", "did you mean 'grow'?")),
    "unknown option": (("tasks.arithmetic.size.val=1",), ("tasks.arithmetic.size", "did you mean 'sizes'?")),
    "wrong type": (("grow.draft.n=many",), ("grow.draft.n", "'many'", "Integer")),
    "number for a mapping": (("tasks=3",), ("tasks", "expected a mapping of names, got 3")),
    "unknown choice": (("learners.policy.optim.schedule=linear",), ("optim.schedule", "'cosine', 'constant'")),
    "out of range": (("grow.draft.n=0",), ("grow.draft.n", "must be from 1 to 65,536, got 0")),
    "far out of range": (("grow.draft.n=100000000000000000000",), ("grow.draft.n", "from 1 to 65,536, got 1e+20")),
    "far out of range, evaluated": (("evaluate.n=1000000000",), ("evaluate.n", "from 0 to 65,536, got 1e+09")),
    "more problems than there are": (
        ("tasks.arithmetic.sizes.train=100000", "tasks.arithmetic.lengths=[1,2]"),
        (
            "tasks.arithmetic",
            "too few different problems of 1-2 operations for 100000 in 'train'",
            "make sizes smaller",
        ),
    ),
    "more problems than memory holds": (
        ("tasks.arithmetic.sizes.train=1000000000", "tasks.arithmetic.lengths=[1,20]"),
        ("tasks.arithmetic", "sizes must be at most 16,777,216"),
    ),
    "not positive": (("learners.policy.optim.lr=0",), ("learners.policy.optim.lr", "more than 0")),
    "no share": (("reward.verify.max_errors=20",), ("reward.verify.max_errors", "from 0 to 1")),
    "override without =": (("run.seed",), ("'run.seed'", "write key=value")),
    "override that is no YAML": (("tasks.arithmetic.prompt.template={",), ("prompt.template", "quote a value")),
    **{
        f"run.name {name}": ((f"run.name={name}",), ("run.name", f"'{name}' is no name of a folder"))
        for name in (".", "..", ".samples", "a/b", "../x", "x" * 300)
    },
    "run in a file": (("run.folder={}/good.jsonl",), ("run.folder", "good.jsonl is a file")),
    # References.
    "unknown task": (("tasks.arithmetic.kind=arithmetics",), ("tasks.arithmetic", "did you mean 'arithmetic'?")),
    "unknown verifier": (("tasks.arithmetic.verifier=numeric",), ("arithmetic.verifier", "'numeric_answer'")),
    "unknown sampler": (("grow.draft.sampler.kind=transformer",), ("grow.draft.sampler", "'transformers'")),
    "unknown objective": (("learners.policy.objective=nnl",), ("learners.policy.objective", "'nll'")),
    "unknown reward": (("reward.sources.verdict=outcom",), ("reward.sources.verdict", "'outcome'")),
    "unknown step": (("learners.policy.examples.own.from=drft",), ("examples.own.from", "did you mean 'draft'?")),
    "unknown learner": (("warmup.polcy.optim.lr=1",), ("warmup.polcy", "did you mean 'policy'?")),
    "unknown stage to redo": (("--redo", "1/grwo"), ("--redo 1/grwo", "did you mean '1/grow'?")),
    "unknown stage to end at": (("--until", "grwo"), ("--until grwo", "did you mean 'grow'?")),
    "no tasks": (("tasks=null",), ("tasks", "configs/quickstart.yaml")),
    "no policy": (("learners.policy=null", "warmup=null"), ("learners", "'policy'")),
    "no examples": (("learners.policy.examples=null",), ("learners.policy.examples", "nothing to learn")),
    "unknown reward in the total": (("reward.total.verdct=1",), ("reward.total.verdct", "did you mean 'verdict'?")),
    "no reward in the total": (("reward.total={{ }}",), ("reward.total", "known: verdict")),
    **{
        f"{option} on gold": (
            (f"learners.policy.examples.gold.{option}={value}",),
            (f"learners.policy.examples.gold.{option}: has no effect on gold",),
        )
        for option, value in CHOOSING.items()
    },
    "cap on replay": (
        ("learners.policy.examples.old.from=replay:{}/leak.jsonl", "learners.policy.examples.old.cap=1"),
        ("learners.policy.examples.old.cap: has no effect on replay",),
    ),
    # Evaluation.
    "n < k": (("evaluate.k=[4]",), ("evaluate.k", "pass@4 needs at least 4 samples", "evaluate.n is 2")),
    "nothing evaluated": (("evaluate.n=0", "evaluate.greedy=false"), ("evaluate", "set evaluate.n")),
    "no val to stop by": (("loop.stop.patience=1", "tasks.arithmetic.sizes.val=0"), ("no split 'val'", "loop.stop")),
    "stop by test": (("loop.stop.split=test",), ("loop.stop.split", "use val")),
    "stop by nothing evaluated": (("loop.stop.metric=pass@7",), ("loop.stop.metric", "did you mean 'pass@2'?")),
    "stop by greedy where there is none": (
        ("loop.stop.patience=1", "evaluate.n=1", "evaluate.greedy=false"),
        ("loop.stop.metric: 'pass@1' is not evaluated", "known: avg@1"),
    ),
    "stop by pass@1 of samples": (
        ("loop.stop.metric=pass@1", "evaluate.k=[1]", "evaluate.greedy=false"),
        ("loop.stop.metric: 'pass@1' is not evaluated",),
    ),
    "stop by votes there may not be": (
        ("loop.stop.metric=maj@2",),
        ("loop.stop.metric: 'maj@2' cannot decide", "known: avg@2, pass@1, pass@2"),
    ),
    "unknown split": (("evaluate.splits=[tset]",), ("evaluate.splits", "tset", "there are demonstrations, test")),
    # Data.
    "no data": ((*JSONL, "tasks.mine.files.train={}/god.jsonl"), ("tasks.mine", "god.jsonl", "'good.jsonl'")),
    "no field": (
        (*JSONL, "tasks.mine.files.train={}/fields.jsonl"),
        ("tasks.mine", "fields.jsonl:1", "no field 'question'", "there are: q, answer; set fields.question"),
    ),
    "duplicate ids": (
        (*JSONL, "tasks.mine.files.train={}/twice.jsonl"),
        ("tasks.mine", "twice.jsonl:2", "problem id 'jsonl/train/7'", "twice.jsonl:1"),
    ),
    "duplicate ids from a task of the user's": (
        ("tasks.mine.kind={}/repeats.py:Repeats", "tasks.mine.verifier=exact_answer"),
        ("problem id 'mine/train/1' occurs more than once", "unique"),
    ),
    "empty task": ((*JSONL, "tasks.mine.files.train={}/empty.jsonl"), ("tasks.mine", "empty.jsonl holds no problems")),
    "torn data": ((*JSONL, "tasks.mine.files.train={}/torn.jsonl"), ("tasks.mine", "torn.jsonl:2", "invalid JSON")),
    "limit of no split": (("tasks.arithmetic.limit.vals=3",), ("tasks.arithmetic.limit", "no split 'vals'")),
    "too few problems": (("tasks.arithmetic.sizes.train=110",), ("tasks.arithmetic", "make sizes smaller")),
    "no demonstrations": (("tasks.arithmetic.sizes.demonstrations=0",), ("warmup.policy.from", "demonstration")),
    "no replay": (("learners.policy.examples.old.from=replay:none.jsonl",), ("examples.old.from", "none.jsonl")),
    "bad replay": (
        ("learners.policy.examples.old.from=replay:{}/good.jsonl",),
        ("examples.old.from", "good.jsonl:1", "'prompt' and 'response'"),
    ),
    "learning from test": (("warmup.policy.from=test",), ("warmup.policy.from: 'test'", "must not be learnt from")),
    "learning from what is not evaluated": (
        ("warmup.policy.from=val", "evaluate.splits=[test]"),
        ("warmup.policy.from: 'val'", "must not be learnt from"),
    ),
    "evaluating the warm-up": (
        ("evaluate.splits=[test,demonstrations]",),
        ("warmup.policy.from: 'demonstrations' is evaluated",),
    ),
    "evaluating gold": (
        ("evaluate.splits=[demonstrations]", "warmup=null"),
        ("splits: 'demonstrations' is evaluated",),
    ),
    "evaluating train": (("evaluate.splits=[train]",), ("evaluate.splits: 'train' is evaluated", "must not be learnt")),
    "replaying test": (
        (*JSONL, "tasks.mine.files.test={}/good.jsonl", "learners.policy.examples.old.from=replay:{}/leak.jsonl"),
        ("policy.examples.old.from: 1 row(s) of", "leak.jsonl hold evaluated problems", "remove", "leak.jsonl:2: 1+1="),
    ),
    "replaying test by its prompt": (
        (
            *(*JSONL, "tasks.mine.files.dev={}/strange.jsonl", "evaluate.splits=[dev]"),
            *("tasks.mine.prompt.template='5+5='", "learners.policy.examples.old.from=replay:{}/leak.jsonl"),
        ),
        ("policy.examples.old.from: 1 row(s) of", "leak.jsonl hold evaluated problems"),
    ),
    "demonstration of unknown characters": (
        (*JSONL, "tasks.mine.files.train={}/spelling.jsonl"),
        ("tasks.mine: the demonstration of mine/train/", "does not know", "model.alphabet"),
    ),
    "demonstration too long": (
        (*JSONL, "tasks.mine.files.train={}/long.jsonl"),
        ("the demonstration of mine/train/", "has 37 tokens with its prompt, the model's context is 32"),
    ),
    # Verifiers.
    "verifier without file": (("tasks.arithmetic.verifier={}/none.py:judge",), ("verifier", "none.py", "no such file")),
    "verifier without import": (("tasks.arithmetic.verifier={}/no_module.py:judge",), ("verifier", "'no_such_module'")),
    "verifier that raises": (("tasks.arithmetic.verifier={}/raises.py:judge",), ("verifier", "division by zero")),
    "verifier with bad syntax": (("tasks.arithmetic.verifier={}/syntax.py:judge",), ("verifier", "SyntaxError")),
    "verifier without attribute": (("tasks.arithmetic.verifier={}/judges.py:juge",), ("verifier", "mean 'judge'?")),
    "verifier not callable": (("tasks.arithmetic.verifier={}/judges.py:number",), ("verifier", "must be callable")),
    "verifier with one argument": (("tasks.arithmetic.verifier={}/judges.py:short",), ("(problem, response)",)),
    # Models and prompts.
    "no model": ((*MODEL,), ("model", "needs a path, or an architecture")),
    "two models": (("model.path={}/no_pad",), ("model: has a path and an architecture", "model.architecture=null")),
    "missing model": ((*MODEL, "model.path={}/none"), ("model.path", "no folder", "none")),
    "no checkpoint": ((*MODEL, "model.path={}/nothing"), ("model.path", "nothing' is no checkpoint")),
    "no weights": ((*MODEL, "model.path={}/no_weights"), ("model.path", "no checkpoint", "holds no weights")),
    "weights cut off": (
        (*MODEL, "model.path={}/cut_off"),
        ("model.path", "is no checkpoint", "model.safetensors is damaged or cut off", "download it again"),
    ),
    "no pad token": ((*MODEL, "model.path={}/no_pad"), ("no_pad has no pad token", "tokenizer_config.json")),
    "no end token": ((*MODEL, "model.path={}/no_end"), ("no_end has no end token", "tokenizer_config.json")),
    "two begins": ((*MODEL, "model.path={}/two_begins"), ("two beginning tokens", "chat template")),
    "bad template": ((*MODEL, "model.path={}/bad_template"), ("chat template", "model.chat=none")),
    "unknown architecture": (("model.architecture.model_type=qwen99",), ("model.architecture", "qwen99")),
    "unknown key of an architecture": (
        ("model.architecture.hiden_size=5",),
        ("model.architecture.hiden_size", "qwen3", "did you mean 'hidden_size'?"),
    ),
    "vocabulary of its own": (("model.architecture.vocab_size=50",), ("vocab_size", "follows from model.alphabet")),
    "width that is no number": (("model.architecture.hidden_size=abc",), ("model.architecture", "hidden_size", "abc")),
    "context that is no number": (("model.architecture.max_position_embeddings=abc",), ("max_position_embeddings",)),
    "negative width": (
        ("model.architecture.hidden_size=-5",),
        ("model.architecture.hidden_size", "must be at least 1, got -5"),
    ),
    "no attention": (("model.architecture.num_attention_heads=0",), ("num_attention_heads", "at least 1, got 0")),
    "no layers": (("model.architecture.num_hidden_layers=0",), ("num_hidden_layers", "at least 1, got 0")),
    "heads that do not divide": (
        ("model.architecture.num_attention_heads=3", "model.architecture.num_key_value_heads=2"),
        ("model.architecture.num_key_value_heads", "must divide num_attention_heads, got 2 for 3 heads"),
    ),
    "odd head": (("model.architecture.head_dim=15",), ("model.architecture", "even rotary dimension", "15")),
    "more experts asked than there are": (
        (
            "model.architecture.model_type=qwen3_moe",
            *(f"model.architecture.num_experts{n}" for n in ("=2", "_per_tok=3")),
        ),
        ("model.architecture", "no model can be made", "RuntimeError"),
    ),
    "unknown activation": (("model.architecture.hidden_act=foo",), ("model.architecture", "no model can be", "foo")),
    "unknown number format": (("model.architecture.dtype=foo",), ("model.architecture", "foo")),
    "unknown characters": (("model.alphabet=123",), ("tasks.arithmetic", "does not know", "model.alphabet")),
    "prompt too long": (
        ("model.architecture.max_position_embeddings=4",),
        ("tasks.arithmetic", "has 4 tokens, the model's context is 4"),
    ),
    "one length of two": (
        ("tasks.arithmetic.lengths=[0]",),
        ("tasks.arithmetic.lengths: expected a list of 2, got [0]",),
    ),
    "no split to evaluate": (("evaluate.splits=[]",), ("evaluate.splits: names no split; write at least one",)),
    "limit of nothing": (
        ("tasks.arithmetic.limit.train=0",),
        ("no task with a weight has a train split to grow on; tasks.arithmetic.limit.train is 0: write how many",),
    ),
    "torn template": (
        ("tasks.arithmetic.prompt.template='{{question'",),
        ("tasks.arithmetic.prompt.template: '{question' is no template", "write a field as {question}, and a brace"),
    ),
    "prompt without such a field": (
        ("tasks.arithmetic.prompt.template='{{topic}}'",),
        ("tasks.arithmetic.prompt.template", "'topic'", "known: question"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_config_is_one_line_and_writes_nothing(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, told = BAD[name]
    filled = [argument.replace("{}", str(folder)).replace("{{", "{").replace("}}", "}") for argument in arguments]
    check_refused(folder / "tiny.yaml", filled, told, tmp_path, capsys)


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("", ("is a folder", "name a config file in it")),
        ("tyni.yaml", ("no such config file", "tyni.yaml", "did you mean 'tiny.yaml'?")),
        ("broken.yaml", ("broken.yaml",)),
        ("list.yaml", ("list.yaml", "a config is a mapping of sections")),
        ("loop.yaml", ("loop.yaml", "includes itself")),
    ],
)
def test_bad_config_file_is_one_line_and_writes_nothing(
    file: str, told: tuple[str, ...], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_refused(folder / file, [], told, tmp_path, capsys)


def check_refused(
    config: Path, arguments: list[str], told: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["run", str(config), f"run.folder={tmp_path / 'runs'}", *arguments])
    output = capsys.readouterr()
    assert status == 2, output
    assert output.err.startswith("selftrain: ") and output.err.count("\n") == 1, output.err
    for text in told:
        assert text in output.err
    assert output.out == ""
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {
            "model_type": "qwen2",
            "head_dim": 8,
            "torch_dtype": "float32",
            "rope_theta": 1e6,
            "use_sliding_window": False,
        },
        {"model_type": "llama", "rope_scaling": {"rope_type": "linear", "factor": 2.0}, "_name_or_path": "somebody/it"},
        {"model_type": "qwen3", "rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "architectures": ["X"]},
        {
            "model_type": "gpt2",
            "n_embd": 8,
            "num_attention_heads": 2,
            "hidden_size": 8,
            "transformers_version": "4.40.0",
        },
        {"model_type": "phi3", "partial_rotary_factor": 0.5, "use_cache": True, "output_attentions": False},
    ],
)
def test_what_published_configs_hold_is_known(fields: dict[str, Any]) -> None:
    assert described_config(RunConfig(model=Model(architecture=fields))).model_type == fields["model_type"]


def test_weights_cut_off_that_no_check_saw_are_an_error_of_the_disk(folder: Path) -> None:
    with pytest.raises(OSError, match=r"cut_off: .*header"):
        load_model(folder / "cut_off", device="cpu")


def test_debug_shows_where(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="temprature"):
        main(["--debug", "run", str(folder / "tiny.yaml"), f"run.folder={tmp_path}", "grow.draft.temprature=1"])


def test_dry_run_says_the_plan_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert main(["run", str(folder / "tiny.yaml"), f"run.folder={runs}", "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "24 problems, 96 samples per iteration" in plan
    assert "40 demonstrations, 40 steps" in plan
    assert not runs.exists()


def test_demonstrations_that_nobody_learns_may_be_anything(folder: Path, tmp_path: Path) -> None:
    task = (*JSONL, f"tasks.mine.files.train={folder / 'spelling.jsonl'}")
    gold = "learners.policy.examples.gold=null"
    assert main(["run", str(folder / "tiny.yaml"), f"run.folder={tmp_path}", "--dry-run", *task, gold]) == 0


VERIFIER = '''
"""Accepts every second answer, and does what it must not once per part of its file."""
import os
import signal
import time

ACTS = {acts}


def judge(problem, response):
    number = sum(map(ord, problem.id + response))
    if ACTS and number % 7 == 0:
        act = ACTS[number // 7 % len(ACTS)]
        if act == "raise":
            raise RuntimeError("no such luck")
        if act == "hang":
            time.sleep(600)
        if act == "nan":
            return float("nan")
        os.kill(os.getpid(), signal.SIGKILL)
    return number % 2 == 0
'''

SAMPLER = '''
"""The real sampler, lost after its first batches while a file says so."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.sampling.transformers import Transformers


@dataclass(frozen=True)
class Fragile:
    switch: str = ""
    after: int = 2

    def open(self, checkpoint: Path) -> Any:
        return Lost(Transformers(batch_size=8).open(checkpoint), self)


class Lost:
    def __init__(self, real: Any, options: Fragile) -> None:
        self.real, self.options, self.given = real, options, 0

    def sample(self, work: Any, done: Any = ()) -> Any:
        for answers in self.real.sample(work, done):
            if Path(self.options.switch).exists() and self.given == self.options.after:
                raise {error}
            self.given += 1
            yield answers

    def close(self) -> None:
        self.real.close()
'''


class Runs:
    """Runs of the tiny config in forked processes."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self.driver, self.folder = driver, folder
        self.config = folder / "tiny.yaml"
        self.config.write_text(CONFIG)

    def run(self, name: str, *more: str) -> Ended:
        command = ["run", str(self.config), f"run.folder={self.folder}", f"run.name={name}", *more]
        return self.driver.run(command)

    def iteration(self, name: str) -> Path:
        return self.folder / name / "iteration_0001"

    def column(self, name: str, kind: str, column: str) -> list[object]:
        """Of all samples of Grow, or their verdicts, part by part."""
        parts = records.parts(self.iteration(name) / kind)
        return [value for part in parts for value in records.column(part, column)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, driver: Driver) -> Runs:
    return Runs(driver, tmp_path_factory.mktemp("running"))


@pytest.fixture(scope="module")
def whole(runs: Runs) -> bytes:
    """The metrics of a run that nothing disturbs."""
    assert runs.run("whole", judged_by_length(runs)).status == 0
    return metrics(runs, "whole")


def check_stopped(ended: Ended, *told: str) -> None:
    assert ended.status == 1, ended.err
    assert ended.err.startswith("selftrain: ") and ended.err.count("\n") == 1, ended.err
    for text in told:
        assert text in ended.err


def test_misbehaving_verifier_costs_the_samples_it_was_at(runs: Runs) -> None:
    verifier = runs.folder / "misbehaving.py"
    verifier.write_text(VERIFIER.replace("{acts}", repr(["raise", "hang", "nan", "kill"])))
    # Scripted responses are the same on every machine.
    settings = (f"tasks.arithmetic.verifier={verifier}:judge", "reward.verify.seconds=0.5", "evaluate.n=0")
    scripted = ("grow.draft.sampler.kind=scripted", "grow.draft.sampler.batch_size=null", "grow.draft.sampler.length=4")
    ended = runs.run("misbehaving", *settings, *scripted, "reward.verify.max_errors=1", "grow.draft.n=2")
    assert ended.status == 0, ended.err
    statuses = runs.column("misbehaving", "verdicts", "status")
    reasons = [str(reason) for reason in runs.column("misbehaving", "verdicts", "reason") if reason]
    for told in ("no such luck", "killed after", "nan", "SIGKILL"):
        assert any(told in reason for reason in reasons), told
    problems, texts = (runs.column("misbehaving", "samples", name) for name in ("problem_id", "text"))
    expected = []
    for problem, text in zip(problems, texts, strict=True):
        number = sum(map(ord, f"{problem}{text}"))
        act = ["error", "timeout", "error", "error"][number // 7 % 4]
        expected.append(act if number % 7 == 0 else "wrong" if number % 2 else "right")
    assert statuses == expected
    selection = json.loads((runs.iteration("misbehaving") / "selection-policy.json").read_text())["sampled"]
    assert selection["not judged (error)"] == expected.count("error")


def test_too_many_errors_stop_the_run_and_lose_no_answer(runs: Runs, whole: bytes) -> None:
    verifier = runs.folder / "failing.py"
    setting = f"tasks.arithmetic.verifier={verifier}:judge"
    verifier.write_text("def judge(problem, response): raise OSError('no server')\n")
    check_stopped(runs.run("failing", setting), "failing.py:judge@", "could not judge 24 of 24", "OSError: no server")
    answers = inodes(runs.folder / "failing" / "iteration_0000")
    assert len(answers) == 2
    verifier.write_text("def judge(problem, response): return 'right'\n")
    check_stopped(runs.run("failing", setting), "returned a str", "mend it", "no sample is lost")
    assert inodes(runs.folder / "failing" / "iteration_0000") == answers
    verifier.write_text(VERIFIER.replace("{acts}", "[]"))
    assert runs.run("failing", setting).status == 0
    assert metrics(runs, "failing") == whole


@pytest.mark.parametrize("part_size", [16, 4096])
def test_verifier_that_comes_back_judges_again_what_it_could_not(runs: Runs, whole: bytes, part_size: int) -> None:
    """What it needs is lost and found again; neither the config nor its file changes."""
    name = f"flaky{part_size}"
    verifier, switch = runs.folder / f"{name}.py", runs.folder / f"{name}.on"
    lost = f"    if problem.split == 'train' and os.path.exists({str(switch)!r}):\n        return 7\n    number ="
    verifier.write_text(VERIFIER.replace("{acts}", "[]").replace("    number =", lost))
    settings = (f"tasks.arithmetic.verifier={verifier}:judge", f"run.part_size={part_size}")
    switch.touch()
    check_stopped(runs.run(name, *settings), "could not judge", "the value 7", "mend it")
    samples = inodes(runs.iteration(name) / "samples")
    assert len(samples) >= 1
    switch.unlink()
    assert runs.run(name, *settings).status == 0
    assert samples.items() <= inodes(runs.iteration(name) / "samples").items()
    assert set(runs.column(name, "verdicts", "status")) == {"right", "wrong"}
    assert metrics(runs, name) == whole


def inodes(folder: Path) -> dict[Path, int]:
    """Of the parts below a folder; a part that is written again has another."""
    return {path: path.stat().st_ino for path in folder.rglob("*.parquet")}


def metrics(runs: Runs, name: str) -> bytes:
    return (runs.folder / name / "metrics.jsonl").read_bytes()


def judged_by_length(runs: Runs) -> str:
    """A verifier that accepts about half, whatever the model has learnt."""
    verifier = runs.folder / "length.py"
    verifier.write_text(VERIFIER.replace("{acts}", "[]"))
    return f"tasks.arithmetic.verifier={verifier}:judge"


def test_learner_without_samples_keeps_its_checkpoint_and_says_so(runs: Runs) -> None:
    other = ("learners.other.examples.none.from=draft", "learners.other.examples.none.reward_above=2")
    ended = runs.run("two", judged_by_length(runs), *other, "learners.other.optim.steps=1")
    assert ended.status == 0, ended.err
    assert "no sample for 'other' was accepted; it keeps its checkpoint" in ended.out
    start = runs.folder / "two" / "warmup" / "policy" / "checkpoint" / "model.safetensors"
    kept = runs.iteration("two") / "other" / "checkpoint" / "model.safetensors"
    trained = runs.iteration("two") / "policy" / "checkpoint" / "model.safetensors"
    assert kept.read_bytes() == start.read_bytes() != trained.read_bytes()


def test_no_sample_at_all_stops_with_what_to_do_and_the_samples_stay(runs: Runs) -> None:
    judge = judged_by_length(runs)
    ended = runs.run("none", judge, "learners.policy.examples.own.reward_above=2")
    check_stopped(ended, "iteration 1: no sample was accepted for any learner", "reward too low", "grow.*.n")
    assert not (runs.iteration("none") / "policy").exists()
    samples = {path: path.stat().st_ino for path in runs.iteration("none").glob("samples/*.parquet")}
    ended = runs.run("none", judge, "learners.policy.examples.own.reward_above=0.5")
    assert ended.status == 0, ended.err
    assert "iteration 1 grow was already done" in ended.out
    assert {path: path.stat().st_ino for path in samples} == samples


@pytest.mark.parametrize("error", ["RuntimeError('device lost')", "ConnectionError('connection refused')"])
def test_lost_sampler_stops_with_what_to_do_and_the_rerun_goes_on(runs: Runs, error: str) -> None:
    name = error.partition("(")[0].lower()
    plugin, switch = runs.folder / f"{name}.py", runs.folder / f"{name}.on"
    plugin.write_text(SAMPLER.replace("{error}", error))
    settings = (
        f"grow.draft.sampler.kind={plugin}:Fragile",
        "grow.draft.sampler.batch_size=null",
        f"grow.draft.sampler.switch={switch}",
        judged_by_length(runs),
    )
    assert runs.run(name, *settings, "--until", "0/evaluate").status == 0
    switch.touch()
    ended = runs.run(name, *settings, "grow.draft.sampler.after=4")
    assert ended.status == 2  # An option of the sampler is a setting of what it sampled.
    assert "sampler.after" in ended.err
    ended = runs.run(name, *settings)
    check_stopped(ended, "the sampler failed", error.partition("'")[2].strip("')"), "the same command goes on")
    samples = {path: path.stat().st_ino for path in runs.iteration(name).glob("samples/*.parquet")}
    assert len(samples) == 1
    switch.unlink()
    assert runs.run(name, *settings).status == 0
    assert {path: path.stat().st_ino for path in samples} == samples
    assert len(set(runs.column(name, "samples", "id"))) == 24 * 4


def test_fit_that_diverges_stops_with_what_to_do(runs: Runs) -> None:
    ended = runs.run("diverged", judged_by_length(runs), "learners.policy.optim.lr=1e38")
    check_stopped(ended, "stage 'improve-policy' failed", "the loss is not finite", "lower optim.lr")
    ended = runs.run("diverged", judged_by_length(runs), "learners.policy.optim.lr=1e-3")
    assert ended.status == 0, ended.err
