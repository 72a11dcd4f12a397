"""What is wrong with a config, the data or a verifier is one clear line, exit status 2, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from one_line import check_refused

from selftrain.cli import main

CONFIG = Path(__file__).with_name("smaller.yaml")
REPEATS = """
from selftrain.types import Problem


class Repeats:
    def splits(self): return ("train",)
    def problems(self, split): return [Problem("r/train/1", "r", split, f"1+{n}=", "1") for n in range(2)]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """Configs, data files and verifiers that are wrong in one way each."""
    made = tmp_path_factory.mktemp("bad")
    texts = {
        "tiny.yaml": f"include: {CONFIG}",
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
    return made


JSONL = ("tasks.mine.kind=jsonl", "tasks.mine.verifier=exact_answer")
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
    # Tasks and prompts.
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
    runs = tmp_path / "runs"
    check_refused(["run", str(CONFIG), f"run.folder={runs}", *filled], told, capsys, unwritten=runs)


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
    runs = tmp_path / "runs"
    check_refused(["run", str(folder / file), f"run.folder={runs}"], told, capsys, unwritten=runs)


def test_debug_shows_where(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="temprature"):
        main(["--debug", "run", str(CONFIG), f"run.folder={tmp_path}", "grow.draft.temprature=1"])


def test_dry_run_says_the_plan_and_writes_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert main(["run", str(CONFIG), f"run.folder={runs}", "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "24 problems, 96 samples per iteration" in plan
    assert "40 demonstrations, 40 steps" in plan
    assert not runs.exists()


def test_demonstrations_that_nobody_learns_may_be_anything(folder: Path, tmp_path: Path) -> None:
    task = (*JSONL, f"tasks.mine.files.train={folder / 'spelling.jsonl'}")
    gold = "learners.policy.examples.gold=null"
    assert main(["run", str(CONFIG), f"run.folder={tmp_path}", "--dry-run", *task, gold]) == 0
