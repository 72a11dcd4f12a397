"""Model references: the one form in which a config names a model.

``base`` (the model the run starts from, after its warm-up), ``policy``, ``learner:NAME``, or a folder or hub name. A
learner means its newest finished checkpoint, or with the suffix ``@previous`` the one before that, with ``@start`` the
one it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from selftrain.config import ConfigError, to_tree
from selftrain.nested import changed
from selftrain.planning.searches import Placed
from selftrain.planning.settings import POLICY
from selftrain.registry import nearest, options_class, resolve
from selftrain.schema import Component, RunConfig, Searching

BASE, LEARNER, REWARD = "base", "learner:", "reward:"
SUFFIXES = ("previous", "start")


@dataclass(frozen=True)
class Reference:
    """A reference, read."""

    name: str
    """Of a learner, or where else the model lies."""
    learner: bool
    when: Literal["newest", "previous", "start"] = "newest"

    def at(self, config: RunConfig, iteration: int, stage: str) -> int:
        """The iteration whose checkpoint of the learner it means to a stage; 0 is before the first."""
        if self.when == "start":
            return 0
        newest = iteration if self.name in trained_before(config, stage) else iteration - 1
        return max(0, newest - (self.when == "previous"))


def read_reference(text: str, config: RunConfig, where: str) -> Reference:
    """Raises ConfigError where it names a learner that is not there."""
    name, at, suffix = text.rpartition("@")
    if not at or suffix not in SUFFIXES:
        name, suffix = text, "newest"
    learner = name == POLICY or name.startswith(LEARNER)
    if suffix != "newest" and not learner:
        raise ConfigError(f"{where}: '{text}': @{suffix} follows a learner, such as policy@{suffix}")
    if name == BASE:
        return Reference(POLICY, True, "start")
    if not learner:
        return Reference(name, False)
    wanted = name.removeprefix(LEARNER)
    if wanted not in {*config.learners, POLICY}:
        raise ConfigError(f"{where}: '{text}' names no learner ({nearest(wanted, config.learners)})")
    return Reference(wanted, True, suffix)  # type: ignore[arg-type]


def trained_before(config: RunConfig, stage: str) -> set[str]:
    """Learners that are trained before a stage of the same iteration: ``grow``, ``score``, ``evaluate`` or
    ``improve-NAME``."""
    order = training_order(config)
    if stage == "evaluate":
        return set(order)
    if stage == "score":
        return {name for name in order if config.learners[name].when == "before_score"}
    learner = stage.removeprefix("improve-")
    return set(order[: order.index(learner)]) if learner in order else set()


def training_order(config: RunConfig) -> list[str]:
    """Those that train before Score, then those after it, each as written."""
    return sorted(config.learners, key=lambda name: config.learners[name].when != "before_score")


def score_references(config: RunConfig) -> dict[str, str]:
    """Models that reward sources ask, by their place in the config."""
    return _asked("reward.sources", config.reward.sources)


def best_of_references(config: RunConfig) -> dict[str, str]:
    """Models that the sources ask which choose among the samples of an evaluation, likewise."""
    return _asked("evaluate.best_of", config.evaluate.best_of)


def search_references(config: RunConfig, searches: Iterable[Placed]) -> dict[str, str]:
    """Models that searches ask what a path is worth, likewise."""
    return {place: text for one in searches for place, text in guiding(config, one.where, one.search).items()}


def guiding(config: RunConfig, where: str, search: Searching) -> dict[str, str]:
    """Those of the search at a place of the config."""
    if (source := value_source(config, search)) is not None:
        return source_models(source, f"reward.sources.{str(search.value).removeprefix(REWARD)}")
    return {} if search.value is None else {f"{where}.value": search.value}


def value_source(config: RunConfig, search: Searching) -> Component | None:
    """The reward source that a search is guided by; None where it names a model itself, or nothing."""
    if search.value is None or not search.value.startswith(REWARD):
        return None
    return config.reward.sources.get(search.value.removeprefix(REWARD))


def _asked(section: str, sources: Mapping[str, Component]) -> dict[str, str]:
    every = (source_models(source, f"{section}.{name}") for name, source in sources.items())
    return {place: text for own in every for place, text in own.items()}


def scoring_sources(config: RunConfig) -> Iterator[tuple[str, Component]]:
    """Every reward source, those inside others too, with its place in the config."""
    sections = {"reward.sources": config.reward.sources, "evaluate.best_of": config.evaluate.best_of}
    for section, sources in sections.items():
        for name, source in sources.items():
            yield from _with_inner(source, f"{section}.{name}")


def _with_inner(source: Component, where: str) -> Iterator[tuple[str, Component]]:
    yield where, source
    inner: list[tuple[str, Component]] = []

    def inside(table: str, part: Mapping[str, Any], place: str) -> Any:
        if table == "reward":
            inner.append((f"{where}.{place}", _component(part)))
        return part

    changed(options_class("reward", source.kind), source.options, inside)
    for place, part in inner:
        yield from _with_inner(part, place)


def _component(part: Mapping[str, Any]) -> Component:
    return Component(part["kind"], {key: value for key, value in part.items() if key != "kind"})


def source_models(source: Component, where: str) -> dict[str, str]:
    """Models that a source and those inside it ask, by their place in the config."""
    found: dict[str, str] = {}
    with_models(source, where, lambda place, text: found.setdefault(place, text))
    return found


def with_models(source: Component, where: str, change: Callable[[str, str], str]) -> Component:
    """A reward source with ``change(place, reference)`` for every model it asks, those of sources inside it too."""

    def inside(table: str, part: Mapping[str, Any], place: str) -> Any:
        return to_tree(with_models(_component(part), f"{where}.{place}", change)) if table == "reward" else part

    models = getattr(resolve("reward", source.kind), "models", ())
    named = {option: change(f"{where}.{option}", str(source.options[option])) for option in models}
    return Component(source.kind, changed(options_class("reward", source.kind), {**source.options, **named}, inside))
