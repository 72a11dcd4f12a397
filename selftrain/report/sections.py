"""What the cards of a checkpoint and of its data tell, section by section, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from selftrain.evaluation import is_verdict
from selftrain.report.forgetting import KEPT as KEPT_LEGEND
from selftrain.report.forgetting import forgetting_table
from selftrain.report.licences import UNKNOWN
from selftrain.report.lineage import Adapter, Iteration, Lineage
from selftrain.report.tables import by_split, columns_of, estimate, p_value

REST_EM = "ReST-EM (Singh et al. 2023, arXiv:2312.06585)"


def method_name(facts: Lineage) -> str:
    """ReST-EM where the choices are: from the base model, likelihood of own answers that a verifier approved."""
    learner = facts.config["learners"][facts.learner]
    sampled = [s for s in learner["examples"].values() if s["from"] in facts.config["grow"]]
    approved = all(s["verdict"] == "right" or s["reward_above"] is not None for s in sampled)
    outcome = all(source["kind"] == "outcome" for source in facts.config["reward"]["sources"].values())
    own = not any(iteration.writers for iteration in facts.iterations)
    if learner["init"] == "base" and learner["objective"]["kind"] == "nll" and sampled and approved and outcome and own:
        return REST_EM
    return "Iterated self-training"


def method(facts: Lineage) -> str:
    """Grow and Improve in a few sentences."""
    config = facts.config
    learner, number = config["learners"][facts.learner], config["loop"]["iterations"]
    steps = " and ".join(f"{step['n']} answers per problem ({name})" for name, step in config["grow"].items())
    judges = ", ".join(dict.fromkeys(task["verifier"]["kind"] for task in config["tasks"].values()))
    init = "the model the run started from" if learner["init"] == "base" else "the model of the iteration before"
    after = ", after its warm-up on worked solutions" if config["warmup"] and learner["init"] == "base" else ""
    return (
        f"{method_name(facts)}. Each iteration samples {steps} with the current policy, judges them ({judges}), "
        f"selects examples, and fits {init}{after} to them ({learner['objective']['kind']}); {number} iterations were "
        "planned."
    )


def opening(facts: Lineage) -> str:
    base = facts.base
    start = {
        "random": "trained from random weights",
        "hub": f"fitted from [{base['name']}](https://huggingface.co/{base['name']})",
        "local": f"fitted from a local checkpoint, `{base['name']}`",
    }[base["kind"]]
    model = f"a language model {start}"
    if not facts.iteration:
        return f"The start of the run '{facts.run}' ({facts.chosen}): {model}, before any iteration."
    return (
        f"The {facts.learner} of iteration {facts.iteration} ({facts.chosen}) of the run '{facts.run}': {model} by "
        f"selftrain {facts.selftrain} on its own verified solutions."
    )


def adapter_section(facts: Lineage) -> str:
    """What one must know to load an adapter, or that there is none any more; empty for a plain checkpoint."""
    adapter = facts.adapter
    if adapter is None:
        return ""
    if adapter.base is not None:
        return (
            f"This is a LoRA adapter: {_lora(adapter)}. It holds the additions alone and belongs to "
            f"[{adapter.base}](https://huggingface.co/{adapter.base}); load it with "
            "`peft.AutoPeftModelForCausalLM.from_pretrained`, or give it to a server beside that model."
        )
    exact = adapter.difference is not None
    changed = f"; that changed no logit by more than {adapter.difference:.1g} of the largest one" if exact else ""
    return (
        f"What was fitted is a LoRA adapter: {_lora(adapter)}. It is merged here into the model it was fitted on, "
        f"which is none of the hub{changed}. This is a full checkpoint and needs no other."
    )


def _lora(adapter: Adapter) -> str:
    return f"rank {adapter.r}, alpha {adapter.alpha:g}, dropout {adapter.dropout:g}, on {', '.join(adapter.targets)}"


def choices(facts: Lineage) -> list[list[str]]:
    config, learner = facts.config, facts.config["learners"][facts.learner]
    optim = learner["optim"]
    length = f"{optim['steps']} steps" if optim["steps"] else f"{optim['epochs']:g} epochs"
    lines = [
        ["base model", facts.base["name"] or "none: trained from random weights"],
        ["warm-up", "; ".join(_warmup(name, entry) for name, entry in config["warmup"].items()) or "none"],
        ["init of each fit", learner["init"]],
        ["adapter", f"LoRA, {_lora(facts.adapter)}" if facts.adapter else "none"],
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
    header = ["iteration", "sampled by", "samples", "kept", "left out", "made"]
    told = (
        "Digests stand for checkpoints: what an iteration made is what the next one samples with. `selftrain.json` "
        "holds all of this for programs, with the sha256 of every file."
    )
    return f"{told}\n\n{table(header, [_step(one) for one in facts.iterations])}" if facts.iterations else told


def _step(one: Iteration) -> list[str]:
    kept = {name: counts.get("kept", 0) for name, counts in one.selections.items()}
    left: dict[str, int] = {}
    for counts in one.selections.values():
        for reason, count in counts.items():
            if reason != "kept":
                left[reason] = left.get(reason, 0) + count
    by = ", ".join(f"`{digest}`" for digest in one.sampled_by)
    return [str(one.number), by, f"{sum(one.sampled_by.values()):,}", counted(kept), counted(left), f"`{one.made}`"]


def sampling_section(facts: Lineage) -> tuple[list[str], list[list[str]]]:
    names = ["n", "temperature", "top_k", "top_p", "max_tokens", "stop"]
    evaluate = facts.config["evaluate"]
    first = next(iter(facts.config["grow"].values()))
    steps = {f"grow, {name}": step for name, step in facts.config["grow"].items()}
    steps["evaluation"] = {**first, **(evaluate["sampling"] or {}), "n": evaluate["n"]}
    shown = {name: {**step, "stop": step["stop"] or "none"} for name, step in steps.items()}
    body = [[name, *(str(step.get(key)) for key in names), step["sampler"]["kind"]] for name, step in shown.items()]
    return ["", *names, "sampler"], body


def licences_section(facts: Lineage) -> str:
    base = facts.base
    lines = [[f"base model {base['name'] or ''}".strip(), base["licence"]["name"], base["licence"]["where"]]]
    lines += [[f"data of {name}", t["licence"]["name"], t["licence"]["where"]] for name, t in facts.tasks.items()]
    writers = dict.fromkeys(writer for one in facts.iterations for writer in one.writers)
    lines += [[f"answers written by {writer}", UNKNOWN, UNKNOWN] for writer in writers]
    told = f"'{UNKNOWN}' means that nothing this was made from says it: find out before you rely on it."
    return f"{table(['what', 'licence', 'source'], lines)}\n\n{told}"


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
