"""What is wrong with a run on a Ray cluster: it does not answer, or has no room for what the config asks for."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from selftrain import machine
from selftrain.checks.here import Lacks, refuse
from selftrain.checks.writers import samplers
from selftrain.config import ConfigError, instantiate
from selftrain.placing.address import resolved
from selftrain.placing.cluster import cpus_each
from selftrain.placing.nodes import Node, in_words
from selftrain.planning.writers import remote
from selftrain.schema import Ray, RunConfig
from selftrain.session import Session


def check_place(session: Session, lacks: Lacks = refuse) -> None:
    """Raises ConfigError where a run on a cluster cannot begin; an existing cluster is joined."""
    launch = session.config.launch
    if launch.place != "ray":
        if launch.ray != Ray():
            raise ConfigError(f"launch.ray: has no effect with launch.place: {launch.place}; set launch.place to ray")
        return
    if find_spec("ray") is None:
        lacks("launch.place: Ray is not installed; install it with: pip install 'selftrain[ray]'")
        return
    if launch.keep == "run":
        raise ConfigError(
            "launch.keep: with launch.place: ray an engine gives back what it had of the cluster before a fit; set it "
            "to stage"
        )
    if resolved(launch.ray.address) is not None:
        assert session.cluster is not None


def check_room(session: Session, lacks: Lacks = refuse) -> None:
    """Whether the cluster, or this machine where one is started here, has enough for every part."""
    config = session.config
    if config.launch.place != "ray" or find_spec("ray") is None:
        return
    known = resolved(config.launch.ray.address) is not None and session.cluster is not None
    nodes = session.cluster.nodes if known and session.cluster is not None else [_here()]
    cpus, on_gpus = cpus_each(config.launch), any(node.gpus for node in nodes)
    for where, count, each in _asked(config):
        gpus = each if on_gpus else 0
        room = sum(node.room(cpus if known else 0, gpus) for node in nodes) if known or gpus else count
        if count > room:
            what = [f"{gpus} GPU(s)"] * bool(gpus) + [f"{cpus} CPU(s)"] * known
            lacks(
                f"{where}: {count} processes of {' and '.join(what)} each, and the Ray cluster has room for {room} "
                f"({in_words(nodes)}); lower it, or add nodes"
            )


def _here() -> Node:
    """What a cluster of this machine is given; its CPUs are as many as are asked for."""
    return Node("", "", 0.0, float(len(machine.gpus())))


def _asked(config: RunConfig) -> Iterator[tuple[str, int, int]]:
    """Place in the config, processes that are there together, GPUs of each where there are any."""
    launch = config.launch
    for where, component in samplers(config).items():
        options = instantiate("sampler", component)
        if remote(component) or not hasattr(options, "units"):
            continue
        each = getattr(options, "gpus", 0)
        yield f"{where}.tensor_parallel_size", 1, each
        yield "launch.sample.replicas", launch.sample.replicas or 1, each
    yield "launch.score_processes", launch.score_processes, 1
    trains = launch.train.processes if launch.train.engine == "deepspeed" else 1
    yield "launch.train.processes", trains, 1
