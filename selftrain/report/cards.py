"""The cards (README.md) of a checkpoint and of the data it was fitted to, for the Hugging Face hub.

Text in, text out: everything told comes from a `Lineage`. What nobody wrote down is shown as unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from selftrain.planning.best import watched_tasks
from selftrain.report.export import Data
from selftrain.report.licences import FREE, UNKNOWN
from selftrain.report.lineage import Lineage
from selftrain.report.method import REST_EM, adapter_section, method, method_name, opening
from selftrain.report.sections import (
    choices,
    config_section,
    counted,
    examples_section,
    licences_section,
    lineage_section,
    metrics_section,
    replayed,
    sampling_section,
    table,
)
from selftrain.report.tables import by_split, metric_name

if TYPE_CHECKING:
    from huggingface_hub import CardData, EvalResult

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""What the hub takes for a licence."""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def model_card(facts: Lineage, name: str, data: str | None = None) -> str:
    """The card of a checkpoint.

    Args:
        name: what the checkpoint is called.
        data: name on the hub of the data set pushed beside it.
    """
    from huggingface_hub import ModelCard

    watched = watched_tasks(facts.config)
    tasks = [
        [name, f"{task['kind']}{', evaluated only' if name in watched else ''}", counted(task["problems"])]
        for name, task in facts.tasks.items()
    ]
    sections = [
        f"# {name.rpartition('/')[2]}",
        opening(facts),
        adapter_section(facts),
        "## Method",
        method(facts),
        table(["choice", "setting"], choices(facts)),
        "## Data",
        table(["task", "kind", "problems"], tasks),
        table(*examples_section(facts)),
        "## Results",
        *metrics_section(facts),
        "## Lineage",
        lineage_section(facts),
        "## Sampling",
        table(*sampling_section(facts)),
        "## Licences",
        licences_section(facts),
        "## Config",
        config_section(facts.config),
    ]
    return str(ModelCard(_card(_model_metadata(facts, name, data), sections)))


def _model_metadata(facts: Lineage, name: str, data: str | None) -> CardData:
    from huggingface_hub import ModelCardData

    base, adapter = facts.base, facts.adapter
    licence = _model_licence(facts)
    on = adapter.base if adapter else None
    watched = watched_tasks(facts.config)
    sources = [task["licence"]["where"] for task_name, task in facts.tasks.items() if task_name not in watched]
    datasets = [source for source in [*sources, data] if source and HUB_NAME.fullmatch(source)]
    results = _results(facts) if facts.learner == "policy" else []
    tags = {"lora": on is not None, "rest-em": method_name(facts) == REST_EM}
    return ModelCardData(
        base_model=on or (base["name"] if base["kind"] == "hub" else None),
        base_model_relation="adapter" if on else None,
        datasets=list(dict.fromkeys(datasets)) or None,
        eval_results=results or None,
        library_name="peft" if on else "transformers",
        license=licence.name,
        license_name=licence.title,
        license_link=licence.link,
        model_name=name.rpartition("/")[2],
        pipeline_tag="text-generation",
        tags=["selftrain", "self-training", *(tag for tag, carried in tags.items() if carried)],
    )


def _card(metadata: CardData, sections: Sequence[str]) -> str:
    return f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, sections)) + "\n"


def dataset_card(facts: Lineage, name: str, data: Data, model: str | None = None) -> str:
    """The card of the samples and examples behind a checkpoint.

    Args:
        model: name on the hub of the checkpoint.
    """
    from huggingface_hub import DatasetCard

    files = [[path, str(number), f"{count:,}"] for path, (number, count) in data.files.items()]
    fitted = f" [{model}](https://huggingface.co/{model})" if model else f" '{facts.run}'"
    sections = [
        f"# {name.rpartition('/')[2]}",
        f"What the checkpoint{fitted} of iteration {facts.iteration} was fitted to (`examples`), and all "
        "answers on the way with the verdict on each (`samples`), right or wrong. Written by selftrain "
        f"{facts.selftrain}. {method(facts)}",
        table(["file", "iteration", "rows"], files),
        "Worked solutions that the warm-up alone was fitted to are not in here." if facts.config["warmup"] else "",
        "## Test questions",
        _leak(data),
        "## Columns",
        "`prompt` and `response` of `examples` are decoded from `prompt_ids` and `response_ids`, which are what was "
        "trained on; `source` is the selection an example came through, `sample_id` the sample it was. In `samples`, "
        "`text` is the response, `policy` the digest of the checkpoint that wrote it, `status` the verdict on it "
        "(right, wrong, unparsed, timeout, error), `answer` what the verifier read, `gold` what it should have read.",
        "## Data",
        table(*examples_section(facts)),
        "## Licences",
        licences_section(facts),
        "## Config",
        config_section(facts.config),
    ]
    return str(DatasetCard(_card(_data_metadata(facts, data), sections)))


def _data_metadata(facts: Lineage, data: Data) -> CardData:
    from huggingface_hub import DatasetCardData

    configs = [
        {
            "config_name": kind,
            "data_files": [
                {"split": f"iteration_{number}", "path": path}
                for path, (number, _) in data.files.items()
                if path.startswith(f"{kind}/")
            ],
        }
        for kind in ("examples", "samples")
    ]
    return DatasetCardData(
        license=_data_licence(facts),
        size_categories=next((text for size, text in SIZES if data.rows < size), "10M<n<100M"),
        task_categories=["text-generation"],
        configs=[config for config in configs if config["data_files"]],
        tags=["selftrain", "synthetic"],
    )


def _results(facts: Lineage) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    results = []
    for (task, split), group in by_split(facts.metrics).items():
        row, source = group[-1], facts.tasks[task]["licence"]["where"]
        for name in [name for name in ("pass@1", metric_name([row], "avg")) if name in row]:
            low, high = (row[f"{name}_{end}"] for end in ("low", "high"))
            results.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=source if HUB_NAME.fullmatch(source) else facts.tasks[task]["kind"],
                    dataset_name=task,
                    dataset_split=split,
                    metric_type=name,
                    metric_value=row[name],
                    metric_name=f"{name}, 95 % interval {low:.3f} to {high:.3f}, {row['n_problems']} problems",
                )
            )
    return results


class Terms(NamedTuple):
    """A licence in the words of the hub's metadata."""

    name: str
    title: str | None = None
    link: str | None = None


def _model_licence(facts: Lineage) -> Terms:
    """That of the base model; unknown where the checkpoint also comes from what others wrote, on terms nobody told."""
    licence = facts.base["licence"]
    if _by_others(facts):
        return Terms(UNKNOWN)
    if licence["other"]:
        return Terms("other", licence["name"], licence["link"])
    return Terms(_identifier(licence["name"]), None, licence["link"])


def _by_others(facts: Lineage) -> bool:
    """Whether teachers, other tools or replayed files have a part in it."""
    return any(one.writers for one in facts.iterations) or bool(facts.iterations and replayed(facts))


def _data_licence(facts: Lineage) -> str | list[str]:
    """Of problems and of who wrote the answers; unknown where one of them is."""
    watched = watched_tasks(facts.config)
    named = {task["licence"]["name"] for name, task in facts.tasks.items() if name not in watched} - {FREE}
    if not named or _by_others(facts):
        return UNKNOWN
    found = sorted({_identifier(name) for name in named})
    return UNKNOWN if UNKNOWN in found else found if len(found) > 1 else found[0]


def _identifier(name: str) -> str:
    """What the hub's metadata take; anything it would not know is unknown to it."""
    return name if LICENCE_ID.fullmatch(name) else UNKNOWN


def _leak(data: Data) -> str:
    compared = f"{data.rows:,} rows were compared with {data.questions:,} questions of {', '.join(data.splits)}"
    if data.leaked:
        return f"Contains test questions: **yes**, {data.leaked:,} rows. All {compared}."
    return f"Contains test questions: **no**. All {compared}, by id, by text and by tokens of the prompt."
