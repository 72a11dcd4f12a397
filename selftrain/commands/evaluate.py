"""`selftrain evaluate`: one checkpoint on one task."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain.artifacts import RunDir
from selftrain.commands.following import TERMINATED, follow, stop_on_sigterm
from selftrain.commands.opening import begin, prepare_libraries, root_of
from selftrain.config import apply_overrides, check_tree, read_tree, to_tree
from selftrain.digests import value_digest
from selftrain.planning.settings import POLICY
from selftrain.schema import Component, Grow, RunConfig
from selftrain.train_config import is_fit

EXAMPLES = """examples:
  selftrain evaluate runs/quickstart/iteration_0004/policy/checkpoint --task arithmetic
  selftrain evaluate Qwen/Qwen2.5-Math-1.5B --task gsm8k evaluate.n=16 tasks.gsm8k.data_dir=data
  selftrain evaluate runs/mine/iteration_0001/policy/checkpoint --task my_task.py:MyTask --split val
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="folder or hub name")
    command.add_argument("--task", required=True, help="a task by name, or path/to/file.py:Name")
    command.add_argument("--split", default="test")
    command.add_argument("--output", type=Path, help="folder for samples and metrics (default: runs/evaluate-...)")
    command.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as evaluate.n=16 or tasks.gsm8k.data_dir=data"
    )


def main(options: argparse.Namespace) -> int:
    prepare_libraries()
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
    from selftrain.checks.check import check
    from selftrain.session import Session

    folder = RunDir(options.output or root_of(config.run))
    with Session(config, folder) as session:
        check(session)
        with folder.lock(), stop_on_sigterm(folder):
            begin(session)
            if not follow(session):
                return TERMINATED
    from selftrain.report.best_of import best_of_lines
    from selftrain.report.forgetting import forgetting_lines
    from selftrain.report.protocols import protocol_lines
    from selftrain.report.run import rows_of
    from selftrain.report.searches import search_lines
    from selftrain.report.tables import iterations_table

    rows = rows_of(folder)
    others = [*best_of_lines(rows), *search_lines(rows), *protocol_lines(rows), *forgetting_lines(rows)]
    tables = [iterations_table(rows, alone=True), "", *others]
    print("\n".join(tables))
    print(f"samples and metrics: {folder.root / 'iteration_0000'}")
    return 0


def _settings_of_run(model: Path, task: str) -> dict[str, Any]:
    """How the run a checkpoint lies in would evaluate it on one of its tasks, as far as it says; nothing for any other
    model."""
    for folder in model.absolute().parents:
        if (folder / "config.yaml").exists() and (folder / "environment.json").exists():
            if is_fit(tree := read_tree(folder / "config.yaml")):  # It knows no tasks, but how to write prompts.
                return {"model": {"chat": tree["model"]["chat"]}}
            from selftrain.checks.sources import with_numbers

            # The checkpoint itself says nothing of how to sample it: that was said of the model the run began with.
            whole = with_numbers(check_tree(_found(tree, _began_in(folder, tree["run"]))))
            config = to_tree(_with_paths(whole, folder, model))
            if task in config["tasks"]:
                protocols = config["evaluate"]["protocol"]
                config["evaluate"]["protocol"] = {name: protocols[name] for name in protocols if name == task}
                config["evaluate"]["kept"] = {}  # Not asked for: they are about no task.
                taken = {name: config[name] for name in ("grow", "reward", "evaluate")}
                return {**taken, "tasks": {task: config["tasks"][task]}, "model": {"chat": config["model"]["chat"]}}
    return {}


def _began_in(run: Path, settings: Mapping[str, Any]) -> Path | None:
    """The folder that relative paths of a run's config began in; None where its place does not tell."""
    own = (Path(settings["folder"]) / settings["name"]).parts
    return Path(*run.parts[: -len(own)]) if run.parts[-len(own) :] == own else None


def _found(value: Any, began: Path | None) -> Any:
    """A tree with what stands in a file of the user's, ``even.py:verify``, by its full path where the file lies in the
    folder that the run began in and not here."""
    if isinstance(value, Mapping):
        return {key: _found(own, began) for key, own in value.items()}
    if isinstance(value, list):
        return [_found(own, began) for own in value]
    file = value.rpartition(":")[0] if isinstance(value, str) else ""
    if began is None or not file.endswith(".py") or Path(file).expanduser().exists() or not (began / file).exists():
        return value
    return str(began / value)


def _with_paths(config: RunConfig, run: Path, model: Path) -> RunConfig:
    """The config with the models that were asked when the run evaluated a checkpoint, by path: learners are known only
    to the run. Of Grow there is how it samples, and of reward sources those that guide a search."""
    from selftrain.planning.plan import Stages
    from selftrain.planning.references import REWARD, with_models

    stages, found = Stages(config, RunDir(run)), re.search(r"iteration_(\d+)", str(model.absolute().relative_to(run)))
    iteration, evaluate = int(found[1]) if found else 0, config.evaluate

    def path(place: str, text: str) -> str:
        # The policy is what is evaluated here too.
        return text if text == POLICY else str(stages.model(text, iteration, "evaluate", place).checkpoint)

    def valued(name: str, value: str | None) -> str | None:
        plain = value is None or value.startswith(REWARD)
        return value if plain else path(f"evaluate.search.{name}.value", str(value))

    search = {name: replace(own, value=valued(name, own.value)) for name, own in evaluate.search.items()}
    best_of = {name: with_models(own, f"evaluate.best_of.{name}", path) for name, own in evaluate.best_of.items()}
    asked = {str(own.value).removeprefix(REWARD) for own in search.values()}
    sources = {
        name: with_models(own, f"reward.sources.{name}", path)
        for name, own in config.reward.sources.items()
        if name in asked
    }
    grow = {
        name: Grow(**vars(step.sampling()), n=step.n, model=step.model, sampler=step.sampler)
        for name, step in config.grow.items()
    }
    return replace(
        config,
        grow=grow,
        reward=replace(config.reward, sources=sources | {"verdict": Component("outcome")}, total=None),
        evaluate=replace(evaluate, best_of=best_of, search=search),
    )
