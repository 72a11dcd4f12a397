"""What evaluation is asked with where its section does not say."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

from selftrain.config import instantiate
from selftrain.schema import Component, Grow, RunConfig, Sampling

POLICY = "policy"
"""What a step of Grow calls the model that is trained, and the name of its learner."""

NUMBERS = ("temperature", "top_k", "top_p", "max_tokens")
"""Settings of sampling that a task may set for itself; a model may say the first three."""


def of_the_policy(config: RunConfig) -> list[Grow]:
    """The steps of Grow that sample the policy; the others ask teachers."""
    return [step for step in config.grow.values() if step.model == POLICY]


def sampling_of(config: RunConfig) -> Sampling:
    """The settings of the sampled metrics; greedy decoding shares all but the drawing."""
    if config.evaluate.sampling is not None:
        return config.evaluate.sampling
    if own := of_the_policy(config):
        return own[0].sampling()
    # A teacher's numbers are as good as any, its token ids are not the policy's.
    return next((replace(step.sampling(), stop_ids=()) for step in config.grow.values()), Sampling())


def most_samples(config: RunConfig) -> int:
    """The largest number of samples that any step draws of a problem; 0 where all steps are searches."""
    steps = [step for step in config.grow.values() if step.kind == "sample"]
    counts = [task.sampling.n or step.n for step in steps for task in config.tasks.values()]
    return max(counts, default=0)


def evaluated(config: RunConfig, iteration: int) -> bool:
    """Whether an iteration ends with an evaluation."""
    return iteration % config.loop.evaluate_every == 0 or iteration == config.loop.iterations


def evaluated_before(config: RunConfig, iteration: int) -> int:
    """The last iteration before this one, from 1 on, that is evaluated."""
    return (iteration - 1) // config.loop.evaluate_every * config.loop.evaluate_every


def objective_needs(objective: Component) -> frozenset[str]:
    """What an objective reads of examples beside their tokens."""
    return _needs(objective.kind, json.dumps(objective.options, sort_keys=True))


@cache
def _needs(kind: str, options: str) -> frozenset[str]:
    """Asked several times by every stage that fits, and checking the options takes 3 ms."""
    needs: frozenset[str] = instantiate("objective", Component(kind, json.loads(options))).needs
    return needs


def stop_ids(config: RunConfig, task: str) -> tuple[int, ...]:
    """Tokens of the policy's vocabulary that end a response to a task, whatever the step."""
    return tuple(dict.fromkeys((*config.model.chat.stop_ids, *config.tasks[task].sampling.stop_ids)))


def asked_with(config: RunConfig) -> dict[str, tuple[Sampling, str]]:
    """Settings of sampling by their place in the config, and whom they are for, as ``grow.STEP.model`` names it."""
    steps = {f"grow.{name}": (step.sampling(), step.model) for name, step in config.grow.items()}
    own = config.evaluate.sampling is not None or not of_the_policy(config)
    return steps | ({"evaluate.sampling": (sampling_of(config), POLICY)} if own else {})


def sampler_of(config: RunConfig) -> Component:
    """That of the evaluation, or of the first step of Grow that samples the policy."""
    own = [config.evaluate.sampler, *(step.sampler for step in of_the_policy(config))]
    return next((sampler for sampler in own if sampler is not None), Component("transformers"))


def counts_texts(config: RunConfig, step: str) -> bool:
    """Whether ``enough`` of a step means right samples of different texts: some learner would drop the others."""
    return any(
        chosen.source == step and chosen.dedupe == "text" and chosen.verdict != "wrong"
        for learner in config.learners.values()
        for chosen in learner.examples.values()
    )
