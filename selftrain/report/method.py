"""What was done to make a checkpoint, in sentences: from who wrote the answers, not from what a config plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain.nested import in_words
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.settings import POLICY
from selftrain.report.lineage import Adapter, Iteration, Lineage

REST_EM = "ReST-EM (Singh et al. 2023, arXiv:2312.06585)"


def method_name(facts: Lineage) -> str:
    """ReST-EM where the choices are: from the base model, likelihood of own answers that a verifier approved."""
    learner = facts.config["learners"][facts.learner]
    sampled = [s for s in learner["examples"].values() if s["from"] in facts.config["grow"]]
    outcome = all(source["kind"] == "outcome" for source in facts.config["reward"]["sources"].values())
    planned = all(step["model"] == POLICY for step in facts.config["grow"].values())
    own = planned and not any(iteration.writers for iteration in facts.iterations)
    if not (learner["init"] == "base" and learner["objective"]["kind"] == "nll" and sampled):
        return "Iterated self-training"
    return REST_EM if outcome and own and all(map(_approved, sampled)) else "Iterated self-training"


def _approved(selection: Mapping[str, Any]) -> bool:
    return selection["verdict"] == "right" or selection["reward_above"] is not None


def method(facts: Lineage) -> str:
    """Grow and Improve in a few sentences."""
    config = facts.config
    learner, number = config["learners"][facts.learner], config["loop"]["iterations"]
    judges = ", ".join(dict.fromkeys(in_words(task["verifier"]) for task in config["tasks"].values()))
    init = "the model the run started from" if learner["init"] == "base" else "the model of the iteration before"
    after = ", after its warm-up on worked solutions" if config["warmup"] and learner["init"] == "base" else ""
    fits = f"fits a LoRA adapter on {init}" if learner.get("lora") else f"fits {init}"
    return (
        f"{method_name(facts)}. Each iteration {_grown(facts)}, judges them ({judges}), selects examples, and {fits}"
        f"{after} to them ({learner['objective']['kind']}); {number} iterations were planned."
    )


def _grown(facts: Lineage) -> str:
    """Where the answers of an iteration come from; where some were adopted, which."""
    adopted = {one.number: files for one in facts.iterations if (files := one.adopted)}
    told = "; ".join(f"iteration {number}: {', '.join(files)}" for number, files in adopted.items())
    if adopted and len(adopted) == len(facts.iterations):
        return f"adopts answers that were written outside this run ({told})"
    steps = " and ".join(_sampled(name, step, facts) for name, step in facts.config["grow"].items())
    return f"samples {steps}{f' (or adopts what was written outside this run, {told})' if adopted else ''}"


def _sampled(name: str, step: Mapping[str, Any], facts: Lineage) -> str:
    if step.get("kind") == "search":
        return f"a tree of steps per problem ({name}, {step['strategy']['kind']}) with the current policy"
    counts = sorted({line.n for line in facts.sampling if line.place == name}) or [step["n"]]
    who = "the current policy" if step["model"] == POLICY else f"the teacher {step['model']}"
    enough = f", until {step['enough']} are right" if step["enough"] else ""
    return f"{' or '.join(map(str, counts))} answers per problem{enough} ({name}) with {who}"


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
    data = " and ".join(fitted_to(facts))
    return (
        f"The {facts.learner} of iteration {facts.iteration} ({facts.chosen}) of the run '{facts.run}': {model} by "
        f"selftrain {facts.selftrain}{f' on {data}' if data else '; no example was kept, so nothing was fitted'}."
    )


def fitted_to(facts: Lineage) -> list[str]:
    """Whose work the examples are that the checkpoint was fitted to, each kind once."""
    learner, found = facts.config["learners"][facts.learner], []
    for one in counting(facts):
        for name, selection in learner["examples"].items():
            if one.selections.get(name, {}).get("kept"):
                found += _of_selection(facts, selection, one)
    return list(dict.fromkeys(found))


def counting(facts: Lineage) -> list[Iteration]:
    """The iterations whose examples are in the checkpoint: the last one alone where each fit begins anew."""
    learner = facts.config["learners"][facts.learner]
    history = any(selection["history"] == "all" for selection in learner["examples"].values())
    return facts.iterations if learner["init"] == "previous" or history else facts.iterations[-1:]


def _of_selection(facts: Lineage, selection: Mapping[str, Any], one: Iteration) -> list[str]:
    source = selection["from"]
    if source == "gold":
        return ["worked solutions of its data"]
    if source.startswith(REPLAY):
        return [f"examples of {source.removeprefix(REPLAY)}"]
    what = "verified solutions" if _approved(selection) else "sampled answers"
    own = f"its own {what}" if facts.learner == POLICY else f"{what} of the policy"
    return [own if writer == POLICY else f"{what} {_by(writer)}" for writer in one.written.get(source, {POLICY: 0})]


def _by(writer: str) -> str:
    """``teacher, NAME`` and ``adopted:FILE, DIGEST`` in words."""
    origin, _, name = writer.partition(", ")
    return f"adopted from {origin.partition(':')[2]}" if origin.startswith("adopted:") else f"by the {origin} {name}"


def adapter_section(facts: Lineage) -> str:
    """What one must know to load an adapter, or that there is none any more; empty for a plain checkpoint."""
    adapter = facts.adapter
    if adapter is None:
        return ""
    if adapter.base is not None:
        return (
            f"This is a LoRA adapter: {lora(adapter)}. It holds the additions alone and belongs to "
            f"[{adapter.base}](https://huggingface.co/{adapter.base}); load it with "
            "`peft.AutoPeftModelForCausalLM.from_pretrained`, or give it to a server beside that model."
        )
    exact = adapter.difference is not None
    changed = f"; that changed no logit by more than {adapter.difference:.1g} of the largest one" if exact else ""
    return (
        f"What was fitted is a LoRA adapter: {lora(adapter)}. It is merged here into the model it was fitted on, "
        f"which is none of the hub{changed}. This is a full checkpoint and needs no other."
    )


def lora(adapter: Adapter) -> str:
    return f"rank {adapter.r}, alpha {adapter.alpha:g}, dropout {adapter.dropout:g}, on {', '.join(adapter.targets)}"
