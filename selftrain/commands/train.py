"""`selftrain train`: one learner, fitted once to a file of examples or pairs."""

from __future__ import annotations

import argparse

from selftrain.artifacts import RunDir
from selftrain.checks.here import elsewhere, refuse
from selftrain.commands.following import TERMINATED, stop_on_sigterm, watch
from selftrain.commands.opening import check_sort, config_arguments, prepare_libraries, root_of
from selftrain.config import to_yaml
from selftrain.files import write_json, write_text
from selftrain.machine import environment
from selftrain.models.head_form import has_value_head
from selftrain.train_config import TrainConfig, as_run, load_train

EXAMPLES = """rows, by what the objective learns from:
  {"prompt": "2+2=", "response": "4"}    {"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}
  the same with "label": 0.8             implicit_ce, kto
  {"prompt": "2+2=", "chosen": "4", "rejected": "5"}    dpo, ipo, simpo ...; sides may be lists of turns
  {"prompt": "2+2+1=", "steps": ["2+2=4", "4+1=6"], "labels": [1, 0]}    mse, bce; rows of PRM800K and ProcessBench too

examples:
  selftrain train configs/train_dpo.yaml data.path=pairs.jsonl
  selftrain train my.yaml --dry-run                       check everything, show an example, write nothing
  selftrain train my.yaml data.fields.chosen=winner data.fields.rejected=loser
  selftrain train my.yaml data.path=runs/first/iteration_0001/examples/policy learner.optim.lr=5e-6 run.name=slower
"""


def arguments(command: argparse.ArgumentParser) -> None:
    command.description = "Fit one learner to a file of responses or pairs, or to the examples of a run."
    config_arguments(command)
    command.add_argument("--dry-run", action="store_true", help="check everything, print the plan, write nothing")


def main(options: argparse.Namespace) -> int:
    config = load_train(options.config, options.overrides)
    prepare_libraries()
    from selftrain.checks.fit import check_fit, plan
    from selftrain.session import Session
    from selftrain.stages.train import FitDir, check_mark, fit_stage, train

    folder = FitDir(root_of(config.run))
    check_sort(folder, fit=True)
    lacking: list[str] = []
    with Session(as_run(config), folder) as session:
        mark = fit_stage(session, config)
        done = check_mark(session, mark)
        if options.dry_run or not done:
            given = check_fit(session, config, lacking.append if options.dry_run else refuse)
        if options.dry_run:
            print("\n".join([*plan(session, config, given), *(["it is done"] if done else []), *elsewhere(lacking)]))
            return 0
        if not done:
            with folder.lock(), stop_on_sigterm(folder):
                if not check_mark(session, mark):  # Another process may have done it meanwhile.
                    _begin(folder, config)
                    if not watch(session, train(session, config, given, mark)):
                        return TERMINATED
    if config.track.live != "none":
        print("\n".join(([f"{folder.root} is done already"] if done else []) + _closing(folder)))
    return 0


def _begin(folder: RunDir, config: TrainConfig) -> None:
    folder.remove_temporaries()
    write_text(folder.config, to_yaml(config))
    write_json(folder.root / "environment.json", environment())


def _closing(folder: RunDir) -> list[str]:
    checkpoint = folder.root / "checkpoint"
    made = [f"checkpoint  {checkpoint}", f"log         {folder.root / 'log.jsonl'}", ""]
    if has_value_head(checkpoint):
        asked = f"reward.sources.value={{kind: value_head, model: {checkpoint}}}"
        return [
            *made,
            f"next: selftrain prm {checkpoint} --data FILE of labelled steps; a run asks it with",
            f"      {asked}",
        ]
    return [
        *made,
        f"next: selftrain evaluate {checkpoint} --task TASK; a run that starts from it with",
        f"      model.path={checkpoint}; other settings with key=value (learner.optim.lr=5e-6 run.name=second)",
    ]
