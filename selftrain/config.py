"""The config of a run: `selftrain.schema` says what there is, YAML files are sparse, ``key=value`` overrides win.

Loading has two passes. The generic schema is checked first; then the options of every component
(``{kind: NAME, ...options}`` or just ``NAME``) against the dataclass its kind names in the registry. What has a name
is a mapping, never a list; ``NAME: null`` removes an entry. Mistakes become one-line `ConfigError`s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from selftrain import registry
from selftrain.schema import Component, Grow, Learner, RunConfig, Task


class ConfigError(ValueError):
    """What is wrong with a config, where, and what to do: one line for the user."""


RENAMED = {"from": "source"}
"""Keys of the YAML that Python keeps for itself."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read, compose and check a config file.

    Raises:
        ConfigError: naming the key, what is wrong with it, and the nearest right name.
    """
    tree = read_tree(Path(path), overrides)
    return check_tree(tree)


def read_tree(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain tree of a file with its includes and the overrides applied, unchecked."""
    merged = _read_file(path, ())
    for override in overrides:
        if not override.partition("=")[0].strip() or "=" not in override:
            raise ConfigError(f"'{override}' is no override; write key=value, such as run.seed=1")
        try:
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([override]))
        except (OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"'{override}': {' '.join(str(error).split())}; quote a value with braces") from error
    try:
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def check_tree(tree: Mapping[str, Any]) -> RunConfig:
    """Both passes over a plain tree."""
    tree = dict(_without_nulls(tree))
    for section in {entry.name for entry in dataclasses.fields(RunConfig)} & tree.keys():
        below = _mapping(tree[section], section)
        for name, entry in below.items() if section in ("warmup", "grow", "learners") else ():
            _mapping(entry, f"{section}.{name}")
    tasks = {name: _task(name, entry) for name, entry in _mapping(tree.pop("tasks", {}), "tasks").items()}
    config = _fill(RunConfig, tree, "")
    complete: RunConfig = dataclasses.replace(
        config,
        tasks=tasks,
        grow={name: _grow_step(f"grow.{name}", step) for name, step in config.grow.items()},
        learners={name: _learner(f"learners.{name}", learner) for name, learner in config.learners.items()},
        reward=dataclasses.replace(
            config.reward,
            sources={
                name: _component("reward", value, f"reward.sources.{name}")
                for name, value in config.reward.sources.items()
            },
        ),
    )
    return complete


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
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        names = {new: old for old, new in RENAMED.items()}
        return {names.get(f.name, f.name): to_tree(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {key: to_tree(value) for key, value in config.items()}
    return [to_tree(value) for value in config] if isinstance(config, (list, tuple)) else config


def to_yaml(config: RunConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.create(to_tree(config)))


def _read_file(path: Path, above: tuple[Path, ...]) -> Any:
    if not path.is_file():
        near = registry.nearest(path.name, [p.name for p in path.parent.glob("*.yaml")])
        raise ConfigError(f"no such config file: {path} ({near})")
    if path.resolve() in above:
        raise ConfigError(f"{path} includes itself")
    try:
        tree = OmegaConf.load(path)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{path}: a config is a mapping of sections")
    includes = tree.pop("include", [])
    parts = [includes] if isinstance(includes, str) else list(includes)
    below = [_read_file(path.parent / part, (*above, path.resolve())) for part in parts]
    return OmegaConf.merge(*below, tree)


def _without_nulls(tree: Any) -> Any:
    """Drop ``NAME: null`` and rename keys Python keeps for itself, all the way down."""
    if isinstance(tree, Mapping):
        return {
            RENAMED.get(str(key), str(key)): _without_nulls(value) for key, value in tree.items() if value is not None
        }
    return [_without_nulls(value) for value in tree] if isinstance(tree, list) else tree


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping of names, got {value!r}")
    return dict(value)


def _fill(schema: type, values: Mapping[str, Any], where: str, also: Sequence[str] = ()) -> Any:
    """An instance of a dataclass from a plain mapping; ``also`` are keys known beside its own."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), dict(values))
        return OmegaConf.to_object(merged)
    except ConfigKeyError as error:
        raise ConfigError(_unknown_key(schema, error, where, also)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(_at(where, getattr(error, "full_key", None), _first_line(error))) from error
    except ValueError as error:
        raise ConfigError(_at(where, None, str(error))) from error


def _unknown_key(schema: type, error: ConfigKeyError, where: str, also: Sequence[str]) -> str:
    key = str(error.full_key or error.key)
    parent = getattr(error, "object_type", None)
    owner = parent if isinstance(parent, type) and dataclasses.is_dataclass(parent) else schema
    names = [f.name for f in dataclasses.fields(owner)] + list(also)
    back = {new: old for old, new in RENAMED.items()}
    near = registry.nearest(key.rpartition(".")[2], [back.get(name, name) for name in names if name != "options"])
    return _at(where, key, f"unknown key ({near})")


def _at(where: str, key: Any, message: str) -> str:
    place = ".".join(str(part) for part in (where, key) if part)
    return f"{place}: {message}" if place else message


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _component(table: str, value: Any, where: str) -> Component:
    """Second pass over one component."""
    if isinstance(value, Component):
        return value
    raw = {"kind": value} if isinstance(value, str) else _mapping(value, where)
    kind = raw.pop("kind", None)
    if not isinstance(kind, str):
        raise ConfigError(f"{where}: needs a kind ({registry.nearest('', registry.TABLES[table])})")
    return Component(kind, _options(table, kind, raw, where))


def _options(table: str, kind: str, raw: Mapping[str, Any], where: str, also: Sequence[str] = ()) -> dict[str, Any]:
    try:
        schema = registry.options_class(table, kind)
    except registry.UnknownComponent as error:
        raise ConfigError(f"{where}: {error}") from error
    if schema is None:
        if raw:
            raise ConfigError(f"{where}: '{kind}' is a plain function and takes no options: {', '.join(raw)}")
        return {}
    options: dict[str, Any] = to_tree(_fill(schema, raw, where, also))
    return options


def _task(name: str, entry: Any) -> Task:
    where = f"tasks.{name}"
    raw = _mapping(entry, where)
    known = [f.name for f in dataclasses.fields(Task) if f.name != "options"]
    generic = _fill(Task, {"kind": name, **{key: raw.pop(key) for key in known if key in raw}}, where)
    options = _options("task", generic.kind, raw, where, known)
    verifier = generic.verifier or getattr(registry.resolve("task", generic.kind), "verifier", None)
    if verifier is None:
        raise ConfigError(f"{where}: needs a verifier ({registry.nearest('', registry.TABLES['verifier'])})")
    checked = _component("verifier", verifier, f"{where}.verifier")
    task: Task = dataclasses.replace(generic, verifier=checked, options=options)
    return task


def _grow_step(where: str, step: Grow) -> Grow:
    return dataclasses.replace(step, sampler=_component("sampler", step.sampler, f"{where}.sampler"))


def _learner(where: str, learner: Learner) -> Learner:
    return dataclasses.replace(learner, objective=_component("objective", learner.objective, f"{where}.objective"))
