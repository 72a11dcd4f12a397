"""What a config will take: tokens, memory of a GPU, disk, time and cost, from its counts and a few assumptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from selftrain import machine
from selftrain.checks.check import load_tokenizer, model_config
from selftrain.checks.workload import Assumed, Workload
from selftrain.config import ConfigError
from selftrain.estimating import disk
from selftrain.estimating.hardware import Hardware
from selftrain.estimating.launch import Placed, placed
from selftrain.estimating.memory import BF16, USABLE, Parts, cached_tokens, host, sampling, together, training
from selftrain.estimating.shapes import Shape, adapter_parameters, given, known, shape_of
from selftrain.estimating.speed import Speeds, sampling_speed, scoring_speed, training_speed
from selftrain.estimating.work import Work
from selftrain.planning.settings import POLICY, sampler_of
from selftrain.planning.writers import remote
from selftrain.schema import Learner, Warmup
from selftrain.session import Session

HELD, PASSING = ("weights", "optimizer", "buffers"), ("gradients", "activations", "loss")
"""Parts of a fit that are there between its steps, and during one alone."""


@dataclass(frozen=True)
class Asked:
    """What is given beside the config."""

    assumed: Assumed = field(default_factory=Assumed)
    shape: str | None = None
    """In place of what ``model.path`` names."""
    speeds: Speeds = field(default_factory=Speeds)
    hardware: Hardware | None = None
    gpus: int | None = None
    """That are paid for, where they are more than ``launch`` uses."""
    placed: Placed | None = None
    """In place of what ``launch`` says."""


@dataclass(frozen=True)
class Need:
    """Memory of one GPU for one purpose."""

    what: str
    parts: Parts
    told: str = ""
    enough: bool = True
    """Whether it leaves room for what it is for."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())


@dataclass(frozen=True)
class Estimate:
    shape: Shape
    works: list[Work]
    speeds: Speeds
    memory: list[Need]
    room: float | None
    """Bytes of a GPU that may be planned with; None where nobody said which."""
    host: int
    """Bytes of each process outside its GPU."""
    disk: Mapping[str, int]
    gpus: int
    counted: bool
    """Whether prompts were counted in the policy's own tokens."""

    @property
    def fits(self) -> bool | None:
        return None if self.room is None else all(need.enough and need.total <= self.room for need in self.memory)


def estimate(session: Session, asked: Asked) -> Estimate:
    """Raises ConfigError where the model's shape cannot be had."""
    shape, config = policy_shape(session, asked.shape), session.config
    work = Workload(session, asked.assumed)
    where = asked.placed or placed(config, sampler_of(config))
    works = work.works()
    longest = work.longest_sampled()
    fits = {name: _fit_need(session, name, work, where, asked) for name in config.learners}
    warmups = [_warmup_need(session, name, work, where, asked) for name in config.warmup]
    room = None if asked.hardware is None else USABLE * asked.hardware.memory
    outside = max((beside for _, beside in (*warmups, *fits.values())), default=0)
    drawn = _sampling_need(session, shape, where, longest, asked)
    staying = [need for name, (need, _) in fits.items() if config.learners[name].init == "previous"]
    memory = [need for need, _ in (*warmups, *fits.values())] + drawn
    if where.keep == "run" and config.launch.place == "inline":
        memory += _together(staying, drawn)
    gpus = asked.gpus or where.gpus
    return Estimate(
        shape=shape,
        works=works,
        speeds=_speeds(session, shape, where, work, asked),
        memory=memory,
        room=room,
        host=outside,
        disk=_disk(session, shape, works, asked.shape),
        gpus=gpus,
        counted=work.read,
    )


def policy_shape(session: Session, chosen: str | None = None) -> Shape:
    """Of the model the run starts from.

    Args:
        chosen: a ``config.json``, its folder or a known name, in place of what the config says.
    """
    return shape_of(policy_config(session, chosen))


def policy_config(session: Session, chosen: str | None = None) -> Any:
    """Its transformers config."""
    if chosen is not None:
        return given(chosen)
    if session.config.model.path is None:
        found = model_config(session.config)
        found.vocab_size = len(load_tokenizer(session.config))
        return found
    return config_of(session, session.config.model.path)


def config_of(session: Session, name: str) -> Any:
    """The transformers config of a folder or a hub name; of a known one also where the hub cannot be reached."""
    try:
        return model_config(replace(session.config, model=replace(session.config.model, path=name)))
    except ConfigError as error:
        try:
            return known(name)
        except KeyError:
            raise ConfigError(f"{error}; give its config.json, or the name of a known shape, with --shape") from error


def _fit_need(session: Session, name: str, work: Workload, where: Placed, asked: Asked) -> tuple[Need, int]:
    """Memory of a fit on its GPU, and outside of it."""
    return _need(session, f"fit of {name}", session.config.learners[name], where, asked, work.longest(name), name)


def _warmup_need(session: Session, name: str, work: Workload, where: Placed, asked: Asked) -> tuple[Need, int]:
    warmup = session.config.warmup[name]
    return _need(session, f"warm-up of {name}", warmup, where, asked, work.longest_worked(name), name)


def _need(
    session: Session, what: str, fitted: Learner | Warmup, where: Placed, asked: Asked, longest: int, name: str
) -> tuple[Need, int]:
    shape = policy_shape(session, asked.shape)
    learner = session.config.learners.get(name)
    if learner is not None and learner.model.path is not None:
        shape = shape_of(config_of(session, learner.model.path))
    trained = None
    if fitted.lora is not None:
        model = policy_config(session, asked.shape)
        trained = adapter_parameters(model, fitted.lora.r, fitted.lora.targets)
    trainer = where.trainer(fitted.optim, longest, trained, on_gpu(asked))
    told = f"{trainer.tokens:,} tokens in a forward pass"
    told += "" if not trainer.checkpointing else ", activations computed again"
    return Need(what, training(shape, trainer), told), host(shape, trainer)


def _together(staying: list[Need], drawn: list[Need]) -> list[Need]:
    """Trainers that stay while others fit, and while the engine draws: what they hold from step to step."""
    held: Parts = {}
    for need in staying:
        for part in HELD:
            held[part] = held.get(part, 0) + need.parts.get(part, 0)
    if not staying:
        return []
    beside = [Need("fits beside trainers that stay", _sum(held, _passes(staying)))] if len(staying) > 1 else []
    return [*beside, *(Need("sampling beside trainers that stay", _sum(held, need.parts)) for need in drawn)]


def _passes(needs: list[Need]) -> Parts:
    """The most that is there during a step alone."""
    return {part: max(need.parts.get(part, 0) for need in needs) for part in PASSING}


def _sum(one: Parts, other: Parts) -> Parts:
    return {part: one.get(part, 0) + other.get(part, 0) for part in (*one, *other)}


def _sampling_need(session: Session, shape: Shape, where: Placed, longest: int, asked: Asked) -> list[Need]:
    component = sampler_of(session.config)
    if remote(component) or component.kind == "scripted":
        return []
    sampler = where.sampler(component, asked.hardware.memory if asked.hardware else 0.0, longest)
    per_token = BF16 * shape.kv_values
    if asked.hardware is None or component.kind != "vllm":
        parts = {"weights": BF16 * shape.parameters, "cache": per_token * longest * sampler.sequences}
        return [Need("sampling", parts, f"{sampler.sequences} responses of {longest:,} tokens together")]
    held = together(shape, sampler)
    told = f"{cached_tokens(shape, sampler):,} tokens of cache: {held} responses of {longest:,} tokens together"
    return [Need("sampling", sampling(shape, sampler), told if held else f"{told}; not one fits", held > 0)]


def on_gpu(asked: Asked) -> bool:
    """Whether ``auto`` means bfloat16."""
    return asked.hardware is not None or bool(machine.gpus())


def _speeds(session: Session, shape: Shape, where: Placed, work: Workload, asked: Asked) -> Speeds:
    """Those given; for the others what the hardware can do."""
    hardware, own = asked.hardware, asked.speeds
    if hardware is None:
        return own
    component, longest = sampler_of(session.config), work.longest_sampled()
    tasks = work.asked_tasks() or list(session.config.tasks)
    prompt = sum(map(work.prompt, tasks)) / len(tasks)
    drawn = max(1.0, min(asked.assumed.response or longest, longest))
    sampler = where.sampler(component, hardware.memory, longest)
    chosen = session.config.learners.get(POLICY) or session.config.warmup.get(POLICY)
    checkpointing = chosen is not None and chosen.optim.gradient_checkpointing
    train = training_speed(shape, hardware, where.processes, prompt + drawn, checkpointing)
    return Speeds(
        own.sample or sampling_speed(shape, hardware, sampler, where.replicas, prompt, drawn),
        own.train or train,
        own.score or scoring_speed(shape, hardware, where.scorers, prompt + drawn),
    )


def _disk(session: Session, shape: Shape, works: list[Work], chosen: str | None) -> dict[str, int]:
    config = session.config
    loop = config.loop
    sampled = sum(work.times * work.samples for work in works)
    drawn = sum(work.times * work.drawn for work in works)
    whole = largest = 0
    for name, learner in config.learners.items():
        state = learner.init == "previous" and learner.optim.state == "keep"
        size = shape.parameters
        if learner.lora is not None:
            size = adapter_parameters(policy_config(session, chosen), learner.lora.r, learner.lora.targets)
        largest = max(largest, size)
        whole += disk.checkpoints(size, disk.Kept(loop.iterations, loop.keep, state), name in config.warmup)
    if config.model.path is None:
        whole += disk.checkpoints(shape.parameters, disk.Kept(0), 1)
    steps = sum(work.times * work.steps for work in works)
    found = {"samples": disk.records(sampled, drawn), "checkpoints": whole, "logs": disk.logs(steps)}
    stood = disk.unfinished(largest) if config.launch.train.save_every else 0
    return {**found, "unfinished fits": stood} if stood else found
