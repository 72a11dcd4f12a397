"""What the cards of a checkpoint and of its data tell, section by section, as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.evaluation import is_verdict
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.settings import NUMBERS, POLICY
from selftrain.report.forgetting import KEPT as KEPT_LEGEND
from selftrain.report.forgetting import forgetting_table
from selftrain.report.licences import UNKNOWN
from selftrain.report.lineage import ADOPTED, Iteration, Lineage
from selftrain.report.method import lora
from selftrain.report.sampling import EVALUATIONS, MODEL, Asked
from selftrain.report.tables import by_split, columns_of, estimate, p_value


def choices(facts: Lineage) -> list[list[str]]:
    config, learner = facts.config, facts.config["learners"][facts.learner]
    optim = learner["optim"]
    length = f"{optim['steps']} steps" if optim["steps"] else f"{optim['epochs']:g} epochs"
    lines = [
        ["base model", facts.base["name"] or "none: trained from random weights"],
        ["warm-up", "; ".join(_warmup(name, entry) for name, entry in config["warmup"].items()) or "none"],
        ["init of each fit", learner["init"]],
        ["adapter", f"LoRA, {lora(facts.adapter)}" if facts.adapter else "none"],
        ["objective", _options(learner["objective"])],
        ["reward", "; ".join(f"{name}: {_options(source)}" for name, source in config["reward"]["sources"].items())],
        *([f"selection '{name}'", _options(entry)] for name, entry in learner["examples"].items()),
        [
            "optimiser",
            f"AdamW, learning rate {optim['lr']:g}, {optim['schedule']}, batch {optim['batch_size']}, {length}",
        ],
        ["iterations", f"{facts.iteration} of {config['loop']['iterations']}"],
    ]
    return lines


def _warmup(name: str, entry: Mapping[str, Any]) -> str:
    lora = entry.get("lora")
    return f"{name}: {entry['from']}{', LoRA of rank ' + str(lora['r']) if lora else ''}"


def examples_section(facts: Lineage) -> tuple[list[str], list[list[str]]]:
    header = ["iteration", "samples", "right", "wrong", "not judged or read", "examples", "by selection"]
    body = []
    for one in facts.iterations:
        total, right, wrong = sum(one.verdicts.values()), one.verdicts.get("right", 0), one.verdicts.get("wrong", 0)
        kept = counted({name: counts.get("kept", 0) for name, counts in one.selections.items()})
        numbers = [total, right, wrong, total - right - wrong, one.examples]
        body.append([str(one.number), *(f"{n:,}" for n in numbers), kept])
    return header, body


def metrics_section(facts: Lineage) -> list[str]:
    whose = [] if facts.learner == "policy" else [f"These are numbers of the policy, not of '{facts.learner}'."]
    parts = [
        *whose,
        "Percentages, in brackets their 95 % interval over problems. Validation decides, test is only reported.",
    ]
    for (task, split), group in by_split(facts.metrics).items():
        columns = [column for column in columns_of(group) if any(column.cell(row) for row in group)]
        body = [[column.cell(row) or "-" for column in columns] for row in group]
        parts.append(f"### {task} / {split}, {group[-1]['n_problems']:,} problems")
        parts.append(table([column.name for column in columns], body))
    kept = forgetting_table([row for row in facts.metrics if not is_verdict(row)])
    if kept:
        parts += ["### Kept text", KEPT_LEGEND, table(kept[0], kept[1:])]
    tests = [line for group in by_split(facts.metrics).values() for line in _against_start(group)]
    if tests:
        parts.append("### Against the start")
        parts.append(
            "Paired by problem: exact McNemar test where each value is right or wrong, paired t-test for averages; p "
            "is the chance of a change as large if nothing had changed."
        )
        parts.append(table(["task / split", "metric", "start", f"iteration {facts.iteration}", "change", "p"], tests))
    return parts


def _against_start(group: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    start, last = group[0], group[-1]
    return [
        [
            f"{last['task']} / {last['split']}",
            name,
            estimate(start, name),
            estimate(last, name),
            f"{100 * test['difference']:+.1f} [{100 * test['low']:+.1f}, {100 * test['high']:+.1f}]",
            p_value(test["p"]),
        ]
        for name, test in (last.get("vs_start") or {}).items()
    ]


def lineage_section(facts: Lineage) -> str:
    header = ["iteration", "written by", "samples", "kept", "left out", "made"]
    own = any(POLICY in writers for one in facts.iterations for writers in one.written.values())
    told = (
        f"Digests stand for checkpoints{', and for the files of adopted answers' if _any_adopted(facts) else ''}"
        f"{': what an iteration made is what the next one samples with' if own else ''}. `selftrain.json` holds all of "
        "this for programs, with the sha256 of every file."
    )
    return f"{told}\n\n{table(header, [_step(one) for one in facts.iterations])}" if facts.iterations else told


def _any_adopted(facts: Lineage) -> bool:
    return any(one.adopted for one in facts.iterations)


def _step(one: Iteration) -> list[str]:
    kept = {name: counts.get("kept", 0) for name, counts in one.selections.items()}
    left: dict[str, int] = {}
    for counts in one.selections.values():
        for reason, count in counts.items():
            if reason != "kept":
                left[reason] = left.get(reason, 0) + count
    others = {writer.partition(", ")[2]: writer for writer in one.writers}
    by = ", ".join(f"`{others.get(name, name)}`" for name in one.sampled_by)
    return [str(one.number), by, f"{sum(one.sampled_by.values()):,}", counted(kept), counted(left), f"`{one.made}`"]


def sampling_section(facts: Lineage) -> tuple[list[str], list[list[str]]]:
    """A line for each place, or for each of its tasks where they differ; steps nobody sampled here have no numbers."""
    places: dict[str, dict[str, list[str]]] = {}
    for line in facts.sampling:
        cells = places.setdefault(line.place if line.place in EVALUATIONS else f"grow, {line.place}", {})
        cells[line.task] = _adopted(facts, line) or _asked(line)
    body = []
    for place, tasks in places.items():
        same = len({tuple(cells) for cells in tasks.values()}) == 1
        body += [
            [place if same else f"{place}: {task}", *cells]
            for task, cells in list(tasks.items())[: 1 if same else None]
        ]
    return ["", "n", *NUMBERS, "stop", "sampler"], body


def _asked(line: Asked) -> list[str]:
    values = [line.numbers[name] for name in NUMBERS]
    numbers = [UNKNOWN if value is None else f"{value:.12g}" for value in values]
    stop = ", ".join(f"`{json.dumps(term, ensure_ascii=False)}`" for term in line.stop)
    whose = ", numbers of the model's generation config" if line.values == MODEL else ""
    return [str(line.n), *numbers, stop or "none", f"{line.sampler}{whose}"]


def _adopted(facts: Lineage, line: Asked) -> list[str]:
    """Cells for a step whose answers were all written elsewhere; empty for others."""
    writers = {writer for one in facts.iterations for writer in one.written.get(line.place, {})}
    outside = bool(writers) and all(writer.startswith(ADOPTED) for writer in writers)
    return [*["-"] * (len(NUMBERS) + 2), "none: adopted"] if outside else []


def licences_section(facts: Lineage) -> str:
    base = facts.base
    lines = [[f"base model {base['name'] or ''}".strip(), base["licence"]["name"], base["licence"]["where"]]]
    lines += [[f"data of {name}", t["licence"]["name"], t["licence"]["where"]] for name, t in facts.tasks.items()]
    writers = dict.fromkeys(writer for one in facts.iterations for writer in one.writers)
    lines += [[f"answers written by {writer}", UNKNOWN, UNKNOWN] for writer in writers]
    lines += [[f"examples of {file}", UNKNOWN, UNKNOWN] for file in replayed(facts)]
    told = f"'{UNKNOWN}' means that nothing this was made from says it: find out before you rely on it."
    return f"{table(['what', 'licence', 'source'], lines)}\n\n{told}"


def replayed(facts: Lineage) -> list[str]:
    """Files whose rows the learner is taught."""
    sources = [selection["from"] for selection in facts.config["learners"][facts.learner]["examples"].values()]
    return [source.removeprefix(REPLAY) for source in sources if source.startswith(REPLAY)]


def config_section(config: Mapping[str, Any]) -> str:
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.create(dict(config)))
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", text))])
    return f"<details><summary>Every setting</summary>\n\n{fence}yaml\n{text}{fence}\n\n</details>"


def _options(entry: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in entry.items() if value not in (None, [], {})}
    return ", ".join(str(value) if key == "kind" else f"{key}: {value}" for key, value in shown.items())


def counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "none"


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Markdown; empty without lines."""
    if not body:
        return ""
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(
        "| " + " | ".join(" ".join(str(c).split()).replace("|", "\\|") for c in line) + " |" for line in lines
    )
