"""Whether what an objective reads is there: pairs, labels, advantages, a reference."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from selftrain.config import ConfigError, instantiate
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.references import best_of_references, read_reference, score_references, search_references
from selftrain.planning.searches import every_search
from selftrain.planning.settings import POLICY, objective_needs
from selftrain.registry import TABLES, nearest
from selftrain.schema import Learner, RunConfig, Selection

PAIRS, VALUES = frozenset({"pairs"}), frozenset({"values"})
GIVES: dict[str, tuple[frozenset[str], ...]] = {
    "samples": (frozenset(),),
    "pairs": (PAIRS,),
    "outcome": (VALUES,),
    "step_labels": (VALUES,),
    "leaves": (frozenset(),),
    "tree_values": (VALUES,),
    "step_pairs": (PAIRS, PAIRS | VALUES),
}
"""By kind of selection: what it can give of what objectives read, of pairs and values."""
PAIRS_ONLY = ("pairing", "max_per_problem")
SAMPLES_ONLY = ("verdict", "balance", "cap", "weigh")
TREES_ONLY = ("value_above", "values", "rank", "margin")
OTHERS = (*TREES_ONLY, "labels")
CHOOSING = ("verdict", "reward_above", "cap", "dedupe", "truncated", "label", "balance", "pairing", "weigh")
"""What chooses among samples, and weighs them."""
USELESS = {
    "samples": (*PAIRS_ONLY, *OTHERS),
    "pairs": (*SAMPLES_ONLY, *OTHERS),
    "outcome": (*PAIRS_ONLY, *OTHERS),
    "step_labels": (*PAIRS_ONLY, *TREES_ONLY, "label", "balance", "weigh"),
    "leaves": (*PAIRS_ONLY, "values", "rank", "margin", "labels"),
    "tree_values": (*CHOOSING, "max_per_problem", "value_above", "rank", "margin"),
    "step_pairs": (*CHOOSING, "value_above", "values", "labels"),
}
"""Options that have no effect, by kind of selection."""
JUDGED = frozenset({"labels", "pairs", "advantages", "values"})
"""What only judged samples have, of what objectives read."""
PROCESS = ("prime_rloo", "pure")
"""Advantages that are made of process rewards, the first also without any."""
ALONE = ("reinforce_pp", "remax")
"""Advantages that a response has without others to its problem."""


def check_learning(config: RunConfig) -> None:
    """Raises ConfigError where a learner's sections do not go together, or name a model that is not there."""
    searched = search_references(config, every_search(config))
    for place, text in (score_references(config) | best_of_references(config) | searched).items():
        read_reference(text, config, place)
    for name, learner in config.learners.items():
        where, needs = f"learners.{name}", objective_needs(learner.objective)
        read_reference(learner.reference, config, f"{where}.reference")
        for key, selection in learner.examples.items():
            _check_selection(f"{where}.examples.{key}", selection, learner, needs)
        _check_advantage(config, where, learner, needs)


def _check_selection(where: str, selection: Selection, learner: Learner, needs: frozenset[str]) -> None:
    kind = learner.objective.kind
    unsampled = selection.source == "gold" or selection.source.startswith(REPLAY)
    if unsampled and needs & JUDGED:
        raise ConfigError(f"{where}.from: {kind} learns from judged samples; name a step of grow")
    wanted = needs & {"pairs", "values"}
    if wanted not in GIVES[selection.kind]:
        right = " or ".join(name for name, gives in GIVES.items() if wanted in gives)
        raise ConfigError(f"{where}.kind: {kind} learns from {right}; set it to {right}, or choose another objective")
    if selection.truncated == "in" and not needs & JUDGED:
        raise ConfigError(
            f"{where}.truncated: {kind} would teach a response that was cut short as it is; set it to out"
        )
    for option in fields(Selection):
        if option.name in USELESS[selection.kind] and getattr(selection, option.name) != option.default:
            raise ConfigError(f"{where}.{option.name}: has no effect on {selection.kind}; remove it")
    weighs = selection.weigh != "none"
    if weighs and unsampled:
        raise ConfigError(
            f"{where}.weigh: {selection.source} has no rewards; remove it, or name a step of grow in from"
        )
    scored = weighs or selection.reward_above is not None or selection.label == "reward" or selection.labels is not None
    if learner.when == "before_score" and scored:
        raise ConfigError(
            f"{where}: reads rewards, but learners that train before_score are trained before there are any"
        )


def _check_advantage(config: RunConfig, where: str, learner: Learner, needs: frozenset[str]) -> None:
    if ("advantages" in needs) != (learner.advantage is not None):
        told = "reads advantages; name how they are made" if "advantages" in needs else "reads none; remove it"
        raise ConfigError(f"{where}.advantage: {learner.objective.kind} {told} ({nearest('', ['rloo', 'grpo'])})")
    if learner.advantage is None:
        return
    if learner.when == "before_score":
        raise ConfigError(f"{where}.when: advantages are made of scores; set it to after_score")
    if any(selection.history == "all" for selection in learner.examples.values()):
        raise ConfigError(f"{where}.examples: history: all has no advantages of earlier iterations; set it to this")
    _check_process(config, where, learner.advantage.kind)
    greedy = getattr(instantiate("advantage", learner.advantage), "greedy", None)
    if greedy is not None:
        _check_greedy(config, where, learner, greedy)
    for selection in learner.examples.values():
        if config.grow[selection.source].kind == "search":
            raise ConfigError(
                f"{where}.advantage: {learner.advantage.kind} compares independent responses of the policy, and those "
                f"of a search are not; let {selection.source} be a step of kind sample"
            )
        for place, n in drawn(config, selection.source, "n").items():
            if n < 2 and learner.advantage.kind not in ALONE:
                raise ConfigError(
                    f"{place}: {learner.advantage.kind} compares the responses to a problem with each other; draw 2 at "
                    "least"
                )


def drawn(config: RunConfig, step: str, name: str) -> dict[str, Any]:
    """A setting of a step of Grow as every task that is learnt from has it, by the place that says so."""
    found: dict[str, Any] = {}
    for task, own in config.tasks.items():
        if own.weight:
            value, place = getattr(own.sampling, name), f"tasks.{task}.sampling.{name}"
            found |= {f"grow.{step}.{name}": getattr(config.grow[step], name)} if value is None else {place: value}
    return found


def _check_process(config: RunConfig, where: str, kind: str) -> None:
    """Advantages made of process rewards read those of tokens; what has another granularity would count as outcome."""
    if kind not in PROCESS:
        return
    weighed = config.reward.total or config.reward.sources
    found = {name: config.reward.sources[name] for name in weighed if name in config.reward.sources}
    cut = {name: getattr(instantiate("reward", source), "granularity", None) for name, source in found.items()}
    for name, granularity in cut.items():
        if granularity not in (None, "token"):
            raise ConfigError(f"reward.sources.{name}.granularity: {kind} reads rewards of tokens; set it to token")
    gives = any(cut[name] or source.kind not in TABLES["reward"] for name, source in found.items())
    if kind == "pure" and not gives:
        raise ConfigError(
            f"{where}.advantage: pure reads process rewards, and no source that counts gives any; add one of kind "
            "implicit_prm, or choose rloo"
        )


def _check_greedy(config: RunConfig, where: str, learner: Learner, greedy: str) -> None:
    """The step that draws what the others are compared with: one greedy response to each of their problems."""
    if greedy not in config.grow:
        raise ConfigError(
            f"{where}.advantage.greedy: no step of grow is called '{greedy}' ({nearest(greedy, config.grow)})"
        )
    own = config.grow[greedy]
    for name, wanted in (("kind", "sample"), ("model", POLICY)):
        if getattr(own, name) != wanted:
            raise ConfigError(f"grow.{greedy}.{name}: is the policy's greedy response; set it to {wanted}")
    for name, value in (("n", 1), ("temperature", 0.0)):
        if place := next((place for place, is_ in drawn(config, greedy, name).items() if is_ != value), None):
            raise ConfigError(f"{place}: {where}.advantage compares with one greedy response; set it to {value:g}")
    for source in dict.fromkeys(selection.source for selection in learner.examples.values()):
        step = config.grow[source]
        if step.accept or own.accept:
            raise ConfigError(
                f"grow.{source if step.accept else greedy}.accept: asks problems by its own verdicts, so that no "
                f"greedy response need be there to compare with; remove it, or choose another {where}.advantage"
            )
        if step.prompts != own.prompts:
            raise ConfigError(f"grow.{greedy}.prompts: must be that of grow.{source}, whose problems it answers")
