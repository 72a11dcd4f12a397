"""What lm-evaluation-harness and lighteval themselves ask and how they grade, on data handed over.

Runs in the environment of tests/harnesses.txt: ``python harness_driver.py REQUEST.json REPLY.json``.

Each of several requests holds, by ``gsm8k`` and ``math_500``, the rows of ``train`` and ``test``, the numbers of
few-shot examples per protocol, and responses as ``[row of test, text]``. Its reply holds prompts by protocol and
number, in order of test, and scores by protocol.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def lm_eval_task(test: Rows, folder: Path) -> Any:
    """The task as its YAML file states it, with local rows in place of those of the hub."""
    import lm_eval
    from lm_eval import utils
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    # It compiles the few templates anew for every field of every document, which takes a minute.
    utils.env.from_string = functools.cache(utils.env.from_string)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in test))
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k-cot.yaml")
    del config["tag"]
    local = {"data_files": {"test": str(folder / "test.jsonl")}, "cache_dir": str(folder)}
    return ConfigurableTask(config=config | {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": local})


def lm_eval_scores(task: Any, responses: list[tuple[int, str]]) -> list[dict[str, float]]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.utils import postprocess_generated_text

    docs, settings = list(task.test_docs()), task.config.generation_kwargs
    task._instances = [
        Instance(
            "generate_until",
            docs[row],
            ("", settings),
            0,
            resps=[postprocess_generated_text(text, settings["until"], None)],
        )
        for row, text in responses
    ]
    task.apply_filters()
    return [
        {
            f"{metric},{name}": float(value)
            for name, answer in instance.filtered_resps.items()
            for metric, value in task.process_results(instance.doc, [answer]).items()
        }
        for instance in task._instances
    ]


def lighteval_task(name: str, rows: dict[str, Rows], num_fewshots: int) -> Any:
    from lighteval.tasks.lighteval_task import LightevalTask
    from lighteval.tasks.tasks import gsm8k, math_500

    config = {"gsm8k": gsm8k.gsm8k, "math_500": math_500.math_500}[name]
    task = LightevalTask(dataclasses.replace(config, num_fewshots=num_fewshots))
    task.dataset = {split: [dict(row) for row in rows[split]] for split in ("train", "test") if split in rows}
    return task


def lighteval_prompts(task: Any) -> list[str]:
    from lighteval.tasks.prompt_manager import PromptManager

    manager = PromptManager()
    return [manager.prepare_prompt(doc) for doc in sorted(task.get_docs(), key=lambda doc: int(doc.id))]


def lighteval_scores(task: Any, responses: list[tuple[int, str]]) -> list[dict[str, float]]:
    from lighteval.metrics import apply_metric
    from lighteval.models.model_output import ModelResponse
    from lighteval.utils.utils import remove_reasoning_tags

    docs = {int(doc.id): doc for doc in task.get_docs()}
    scores = []
    for row, text in responses:
        for term in docs[row].stop_sequences:
            text = text.split(term)[0]
        response = ModelResponse(text=[text])
        response.text_post_processed = [remove_reasoning_tags(text=text, tag_pairs=[("<think>", "</think>")])]
        scores += apply_metric([response], [docs[row]], task.metrics)
    return [{name: float(value) for name, value in score.items()} for score in scores]


def main(request: Path, reply: Path) -> None:
    reply.write_text(json.dumps([answer(asked) for asked in json.loads(request.read_text())]))


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    prompts, scores = lm_eval_answer(asked["gsm8k"])
    for name, request in asked.items():
        protocol, task = f"lighteval_{name}", lighteval_task(name, request, 0)
        numbered = {n: lighteval_task(name, request, n) for n in request["shots"][protocol]}
        prompts[protocol] = {n: lighteval_prompts(one) for n, one in numbered.items()}
        scores[protocol] = lighteval_scores(task, request["responses"])
    versions = {name: version(name) for name in ("lm_eval", "lighteval", "latex2sympy2_extended")}
    return {"versions": versions, "prompts": prompts, "scores": scores}


def lm_eval_answer(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prompts and scores, by protocol."""
    with tempfile.TemporaryDirectory() as folder:
        task = lm_eval_task(request["test"], Path(folder))
        docs, name = list(task.test_docs()), "lm_eval_gsm8k_cot"
        prompts = {n: [task.fewshot_context(doc, n) for doc in docs] for n in request["shots"][name]}
        return {name: prompts}, {name: lm_eval_scores(task, request["responses"])}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
