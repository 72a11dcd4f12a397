"""The config of a run: `selftrain.schema` says what there is, YAML files are sparse, ``key=value`` overrides win.

Checking has two passes: the options of every component (``{kind: NAME, ...options}`` or just ``NAME``) against the
dataclass its kind names in the registry, and the generic schema. What has a name is a mapping, never a list;
``NAME: null`` removes an entry. Mistakes become one-line `ConfigError`s.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf, flag_override
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from selftrain import ranges, registry
from selftrain.compose import ConfigError, apply_overrides, first_line, read_tree
from selftrain.nested import changed
from selftrain.schema import (
    Component,
    Evaluate,
    Grow,
    Learner,
    LearnerModel,
    Lora,
    Optim,
    Reward,
    RunConfig,
    Searching,
    Task,
    Warmup,
)

__all__ = [
    "ConfigError",
    "apply_overrides",
    "check_fit",
    "check_tree",
    "component",
    "instantiate",
    "load_config",
    "read_tree",
    "to_tree",
    "to_yaml",
]

RENAMED = {"from": "source"}
"""Keys of the YAML that Python keeps for itself."""

SAME_HEAD = {"scalar": "linear"}
"""Other names of heads."""

LORA_LR = 10.0
"""Learning rate of an adapter, as a multiple of that of a full fit."""

WRITTEN = {new: old for old, new in RENAMED.items()}


@dataclass(frozen=True)
class _FunctionOptions:
    """What a verifier that is a plain function may be given."""

    right_at: ranges.Share = 1.0
    """The number from which on it means ``right``."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, compose and check a config file.

    Raises:
        ConfigError: naming the key, what is wrong with it, and the nearest right name.
    """
    tree = read_tree(Path(path), overrides)
    return check_tree(tree)


def check_tree(tree: Mapping[str, Any]) -> RunConfig:
    """Both passes over a plain tree; components first: the generic schema takes complete ones."""
    given = {key: value for key, value in _renamed(tree).items() if value is not None}
    sections = (("grow", Grow, _grow_step), ("learners", Learner, _learner), ("warmup", Warmup, _fitted))
    for section, schema, complete in sections:
        for name, entry in (named := _named(given, section)).items():
            where = f"{section}.{name}"
            named[name] = complete(where, _section(schema, entry, where))
        given[section] = named
    given = _with_chat(given)
    given["reward"] = _reward(_section(Reward, given.get("reward", {}), "reward"))
    given["evaluate"] = _evaluate(_section(Evaluate, given.get("evaluate", {}), "evaluate"))
    tasks = {name: _task(name, entry) for name, entry in _named(given, "tasks").items()}
    config: RunConfig = dataclasses.replace(_fill(RunConfig, {**given, "tasks": {}}, ""), tasks=tasks)
    return config


def check_fit(schema: type, tree: Mapping[str, Any]) -> Any:
    """Both passes over the tree of a config with one ``learner`` and no loop; an instance of its schema."""
    given = {key: value for key, value in _renamed(tree).items() if value is not None}
    given["learner"] = _learner("learner", _section(Learner, given.get("learner", {}), "learner"))
    return _fill(schema, _with_chat(given), "")


def instantiate(table: str, component: Component) -> Any:
    """The component itself, from its checked options."""
    options_class = registry.options_class(table, component.kind)
    if options_class is None:
        return registry.build(table, component.kind, component.options)
    return _fill(options_class, component.options, f"{table} {component.kind}")


def to_tree(config: Any) -> Any:
    """The plain tree of a config, complete; `check_tree` reads it back."""
    if isinstance(config, Component):
        return {"kind": config.kind, **config.options}
    if isinstance(config, Task):
        tree = {f.name: to_tree(getattr(config, f.name)) for f in dataclasses.fields(config) if f.name != "options"}
        return {**tree, **config.options}
    if isinstance(config, Grow):
        names = [f.name for f in dataclasses.fields(config) if f.name not in config.idle()]
        return {name: to_tree(getattr(config, name)) for name in names}
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {WRITTEN.get(f.name, f.name): to_tree(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_tree(value) for key, value in config.items()}
    return [to_tree(value) for value in config] if isinstance(config, (list, tuple)) else config


def to_yaml(config: Any) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(to_tree(config)))


def _renamed(tree: Any) -> Any:
    """Rename keys Python keeps for itself, all the way down."""
    if isinstance(tree, Mapping):
        return {RENAMED.get(str(key), str(key)): _renamed(value) for key, value in tree.items()}
    return [_renamed(value) for value in tree] if isinstance(tree, list) else tree


def _with_chat(tree: dict[str, Any]) -> dict[str, Any]:
    """A plain string is the template of a chat."""
    model = _mapping(tree.get("model", {}), "model")
    chat = model.get("chat")
    return {**tree, "model": {**model, "chat": {"template": chat}}} if isinstance(chat, str) else tree


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping of names, got {value!r}")
    return dict(value)


def _named(tree: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The entries of a section of names without the removed ones."""
    return {name: entry for name, entry in _mapping(tree.get(section, {}), section).items() if entry is not None}


def _section(schema: type, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        first = dataclasses.fields(schema)[0].name
        raise ConfigError(
            f"{where}: expected a mapping of keys such as {where}.{WRITTEN.get(first, first)}, got {value!r}"
        )
    return dict(value)


def _fill(schema: type, values: Mapping[str, Any], where: str, also: Sequence[str] = ()) -> Any:
    """An instance of a dataclass from a plain mapping; ``also`` are keys known beside its own."""
    removed: list[tuple[str, ...]] = []
    given = _without_nulls(values, schema, (where,), removed)
    try:
        merged = OmegaConf.merge(_defaults(schema), given)
        for *above, name in removed:
            node: Any = functools.reduce(lambda node, key: node[key], above, merged)
            with flag_override(node, ["readonly", "struct"], False):
                node.pop(name, None)
        filled = OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise ConfigError(_unknown_key(schema, error, where, also)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_at(where, getattr(error, "full_key", None), first_line(error))) from error
    except (ValueError, TypeError) as error:
        raise ConfigError(_at(where, None, first_line(error))) from error
    for place, complaint in ranges.violations(filled):
        raise ConfigError(_at(where, place, complaint))
    return filled


@functools.cache
def _defaults(schema: type) -> Any:
    """Made once: it takes longer than all else that is done with it. A merge copies it."""
    return OmegaConf.structured(schema)


def _without_nulls(value: Any, hint: Any, path: tuple[str, ...], removed: list[tuple[str, ...]]) -> Any:
    """A value for a field of this type, without nulls.

    A null leaves a field at its default, but takes an entry out of a mapping of names, also one that is there by
    default: ``removed`` gets the path of each.

    Args:
        path: where the value stands: the place of the whole, then key by key.

    Raises:
        ConfigError: something else stands where a section, a mapping or a list is expected.
    """
    kind = _without_none(hint)
    place = ".".join(filter(None, path))
    hints: Mapping[str, Any] = {}
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        value, hints = _section(kind, value, place), get_type_hints(kind)
    elif get_origin(kind) is dict:
        value = _mapping(value, place)
        hints = dict.fromkeys(value, get_args(kind)[1])
        removed += [(*path[1:], key) for key, entry in value.items() if entry is None]
    elif get_origin(kind) in (list, tuple) and not isinstance(value, (list, tuple)):
        raise ConfigError(f"{place}: expected a list, got {value!r}")
    elif get_origin(kind) is tuple and Ellipsis not in get_args(kind) and len(value) != len(get_args(kind)):
        raise ConfigError(f"{place}: expected a list of {len(get_args(kind))}, got {value!r}")
    if not isinstance(value, Mapping):
        return value
    return {
        key: _without_nulls(entry, hints.get(key, Any), (*path, key), removed)
        for key, entry in value.items()
        if entry is not None
    }


def _without_none(hint: Any) -> Any:
    """``X`` for the type ``X | None``."""
    several = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    return next((one for one in several if one is not type(None)), hint)


def _unknown_key(schema: type, error: ConfigKeyError, where: str, also: Sequence[str]) -> str:
    key = str(error.full_key or error.key)
    parent = getattr(error, "object_type", None)
    owner = parent if isinstance(parent, type) and dataclasses.is_dataclass(parent) else schema
    names = [f.name for f in dataclasses.fields(owner)] + list(also)
    near = registry.nearest(key.rpartition(".")[2], [WRITTEN.get(name, name) for name in names if name != "options"])
    return _at(where, key, f"unknown key ({near})")


def _at(where: str, key: Any, message: str) -> str:
    place = ".".join(str(part) for part in (where, key) if part)
    return f"{place}: {message}" if place else message


def component(table: str, value: Any, where: str, default: str | None = None) -> Component:
    """Second pass over one component, and over those inside its options; ``default`` is its kind where none is given.

    Raises:
        ConfigError: there is no such component, or its options are not those it takes.
    """
    raw = {"kind": value} if isinstance(value, str) else _mapping(value if value is not None else {}, where)
    kind = raw.pop("kind", None) or default
    if not isinstance(kind, str):
        raise ConfigError(f"{where}: needs a kind ({registry.nearest('', registry.TABLES[table])})")
    return Component(kind, _options(table, kind, raw, where))


def _options(table: str, kind: str, raw: Mapping[str, Any], where: str, also: Sequence[str] = ()) -> dict[str, Any]:
    try:
        schema = registry.options_class(table, kind)
    except registry.UnknownComponent as error:
        raise ConfigError(f"{where}: {error}") from error
    if schema is None:
        if table == "verifier" and set(raw) == {"right_at"} and not isinstance(registry.resolve(table, kind), type):
            schema = _FunctionOptions
        elif raw:
            plain = "no dataclass" if isinstance(registry.resolve(table, kind), type) else "a plain function"
            raise ConfigError(f"{where}: '{kind}' is {plain} and takes no options: {', '.join(raw)}")
        else:
            return {}
    whole = changed(schema, raw, lambda table, part, place: to_tree(component(table, part, f"{where}.{place}")))
    options: dict[str, Any] = to_tree(_fill(schema, whole, where, also))
    return options


def _task(name: str, entry: Any) -> Task:
    where = f"tasks.{name}"
    raw = _section(Task, entry, where)
    known = [f.name for f in dataclasses.fields(Task) if f.name != "options"]
    given = {key: value for key in known if (value := raw.pop(key, None)) is not None}
    verifier = given.pop("verifier", None)
    generic = _fill(Task, {"kind": name, **given}, where)
    options = _options("task", generic.kind, raw, where, known)
    own = getattr(registry.resolve("task", generic.kind), "verifier", None)
    checked = component("verifier", verifier, f"{where}.verifier", own)
    task: Task = dataclasses.replace(generic, verifier=checked, options=options)
    return task


def _grow_step(where: str, raw: dict[str, Any]) -> dict[str, Any]:
    own = {"sampler": component("sampler", raw.get("sampler"), f"{where}.sampler", Grow.sampler)}
    return {**_searching(where, raw), **own}


def _searching(where: str, raw: dict[str, Any]) -> dict[str, Any]:
    if raw.get("strategy") is None:
        return raw
    return {**raw, "strategy": component("search", raw["strategy"], f"{where}.strategy")}


def _learner(where: str, raw: dict[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {
        "objective": component("objective", raw.get("objective"), f"{where}.objective", Learner.objective)
    }
    if raw.get("advantage") is not None:
        own["advantage"] = component("advantage", raw["advantage"], f"{where}.advantage")
    if raw.get("model") is not None:
        model = _section(LearnerModel, raw["model"], f"{where}.model")
        own["model"] = {**model, "head": SAME_HEAD.get(str(head := model.get("head")), head)}
    return _fitted(where, {**raw, **own})


def _fitted(where: str, raw: dict[str, Any]) -> dict[str, Any]:
    """A fit with its LoRA section complete, and the learning rate that goes with it where none is written."""
    if raw.get("lora") is None:
        return raw
    lora = _section(Lora, raw["lora"], f"{where}.lora")
    if isinstance(lora.get("targets"), str):
        lora["targets"] = [lora["targets"]]
    optim = _section(Optim, raw.get("optim") or {}, f"{where}.optim")
    if optim.get("lr") is None:
        optim["lr"] = LORA_LR * Optim.lr
    return {**raw, "lora": to_tree(_fill(Lora, lora, f"{where}.lora")), "optim": optim}


def _reward(raw: dict[str, Any]) -> dict[str, Any]:
    """A null among the sources stays: it takes its name out of the default ones."""
    default = Reward().sources
    sources = {**default, **_mapping(raw.get("sources") or {}, "reward.sources")}
    for name, value in sources.items():
        if value is not None:
            sources[name] = component("reward", value, f"reward.sources.{name}", default.get(name))
    return {**raw, "sources": sources}


def _evaluate(raw: dict[str, Any]) -> dict[str, Any]:
    given = _mapping(raw.get("protocol") or {}, where := "evaluate.protocol").items()
    protocols = {task: component("protocol", one, f"{where}.{task}") for task, one in given if one}
    chosen = _mapping(raw.get("best_of") or {}, where := "evaluate.best_of").items()
    best_of = {name: component("reward", one, f"{where}.{name}") for name, one in chosen if one is not None}
    searched = _mapping(raw.get("search") or {}, where := "evaluate.search").items()
    search = {
        name: _searching(f"{where}.{name}", _section(Searching, one, f"{where}.{name}"))
        for name, one in searched
        if one is not None
    }
    sampler = raw.get("sampler")
    own = {} if sampler is None else {"sampler": component("sampler", sampler, "evaluate.sampler")}
    return {**raw, **own, "protocol": protocols, "best_of": best_of, "search": search}
