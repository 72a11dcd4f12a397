"""The config of a run: dataclasses are the schema, YAML files are sparse, ``key=value`` overrides win.

Loading has two passes. The generic schema is checked first; then the options of every component
(``{kind: NAME, ...options}`` or just ``NAME``) against the dataclass its kind names in the registry. What has a name
is a mapping, never a list; ``NAME: null`` removes an entry. Mistakes become one-line `ConfigError`s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from selftrain import registry


class ConfigError(ValueError):
    """What is wrong with a config, where, and what to do: one line for the user."""


@dataclass(frozen=True)
class Component:
    """A component by name, its options checked and complete."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    name: str = "run"
    folder: str = "runs"
    """Where runs lie; this one is ``folder/name``."""
    seed: int = 0
    part_size: int = 1024
    """Samples per file of Grow, about; a killed run samples at most the unfinished parts again."""


@dataclass(frozen=True)
class Model:
    """Where the run starts: a checkpoint, or a small architecture with random weights."""

    path: str | None = None
    """Folder or hub name of a causal language model."""
    architecture: dict[str, Any] | None = None
    """``model_type`` and fields of a transformers config, instead of ``path``."""
    alphabet: str | None = None
    """With ``architecture``: the characters its tokenizer knows, one token each."""
    chat: Literal["auto", "none"] = "auto"
    """auto: prompts go through the tokenizer's chat template where it has one."""


@dataclass(frozen=True)
class Prompt:
    template: str = "{question}"
    system: str | None = None
    """System message, for chat templates."""


@dataclass(frozen=True)
class Task:
    """A task of the run; fields the schema does not know are options of its kind."""

    kind: str = MISSING
    """Defaults to the task's name."""
    prompt: Prompt = field(default_factory=Prompt)
    verifier: Any = None
    """A component; the task's own verifier where none is given."""
    limit: dict[str, int] = field(default_factory=dict)
    """Problems used at most, per split; the first ones."""
    options: Any = None


@dataclass(frozen=True)
class Validation:
    """Early stopping inside a fit, by loss on held-out problems."""

    fraction: float = 0.0
    """Share of the problems held out; 0 switches validation off."""
    every: int = 50
    """Steps between two looks."""
    patience: int = 3
    """Looks without a better loss before the fit stops; the best weights are kept."""


@dataclass(frozen=True)
class Optim:
    """How a learner is fitted: AdamW on fp32 parameters."""

    lr: float = 1e-5
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup: float = 0.05
    """Share of the steps over which the learning rate rises."""
    min_lr: float = 0.1
    """Where the cosine ends, as a share of ``lr``."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    clip: float = 1.0
    """Largest gradient norm; 0 switches clipping off."""
    batch_size: int = 64
    """Examples per optimizer step."""
    steps: int | None = None
    epochs: float = 1.0
    """Used where ``steps`` is not given."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the computation; parameters are fp32 always."""
    batching: Literal["bucketed", "packed"] = "bucketed"
    micro_tokens: int = 16384
    """Tokens of one forward pass at most; changes memory and speed only."""
    gradient_checkpointing: bool = False
    validation: Validation = field(default_factory=Validation)


@dataclass(frozen=True)
class Warmup:
    """A fit to demonstrations before the first iteration; its result is what ``base`` means."""

    source: str = "demonstrations"
    """Written ``from``: the split whose demonstrations are learnt, or ``gold``: those of the train split."""
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True)
class Selection:
    """Which scored samples become examples."""

    source: str = MISSING
    """Written ``from``: a step of Grow, ``gold`` (demonstrations), or ``replay:FILE.jsonl``."""
    verdict: Literal["any", "right", "wrong"] = "any"
    reward_above: float | None = None
    cap: int | None = None
    """Examples kept per problem at most, by index."""
    dedupe: Literal["none", "text", "answer"] = "none"
    weight: float = 1.0
    """Multiplies the loss of every example."""
    history: Literal["this", "all"] = "this"
    """all: samples of earlier iterations too, newest first."""


@dataclass(frozen=True)
class Learner:
    init: str = "base"
    """``base``: the model the run starts from, after warm-up; ``previous``: the last iteration's."""
    objective: Any = "nll"
    examples: dict[str, Selection] = field(default_factory=dict)
    optim: Optim = field(default_factory=Optim)


@dataclass(frozen=True)
class Verify:
    """Bounds of one judgement."""

    seconds: float = 10.0
    memory_mb: int = 2048
    max_errors: float = 0.2
    """Share of judgements that end in error or timeout above which the run stops."""


@dataclass(frozen=True)
class Reward:
    sources: dict[str, Any] = field(default_factory=lambda: {"verdict": "outcome"})
    total: dict[str, float] | None = None
    """Weight of each source in the total; 1 each where none are given."""
    verify: Verify = field(default_factory=Verify)


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grow:
    """A step of Grow."""

    kind: Literal["sample"] = "sample"
    n: int = 8
    """Samples per problem."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    sampler: Any = "transformers"

    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_k, self.top_p, self.max_tokens, self.stop)


@dataclass(frozen=True)
class Evaluate:
    splits: tuple[str, ...] = ("val", "test", "transfer")
    """Splits evaluated where a task has them. Validation decides, test is only reported."""
    n: int = 8
    """Samples per problem for avg@n, pass@k and maj@k; 0 leaves greedy pass@1 alone."""
    k: tuple[int, ...] = ()
    """Further k of pass@k and maj@k; n itself is always among them."""
    greedy: bool = True
    sampling: Sampling | None = None
    """Settings of the sampled metrics; those of the first step of Grow where none are given."""


@dataclass(frozen=True)
class Stop:
    """Stops the loop when validation no longer improves."""

    metric: str = "pass@1"
    split: str = "val"
    patience: int = 1
    """Iterations without a better value before the loop stops."""


@dataclass(frozen=True)
class Loop:
    iterations: int = 3
    stop: Stop | None = None


@dataclass(frozen=True)
class Launch:
    place: Literal["inline", "processes"] = "inline"
    """inline: stages run in this process; processes: each heavy stage in a child that exits and frees its memory."""
    verify_workers: int = 2


@dataclass(frozen=True)
class Track:
    live: Literal["auto", "plain", "none"] = "auto"


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on."""

    run: Run = field(default_factory=Run)
    model: Model = field(default_factory=Model)
    tasks: dict[str, Task] = field(default_factory=dict)
    warmup: dict[str, Warmup] = field(default_factory=dict)
    grow: dict[str, Grow] = field(default_factory=dict)
    reward: Reward = field(default_factory=Reward)
    learners: dict[str, Learner] = field(default_factory=dict)
    evaluate: Evaluate = field(default_factory=Evaluate)
    loop: Loop = field(default_factory=Loop)
    launch: Launch = field(default_factory=Launch)
    track: Track = field(default_factory=Track)


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
