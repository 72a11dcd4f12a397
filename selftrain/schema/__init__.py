"""The schema of a config: one frozen dataclass per section, its defaults, and what each field means."""

from __future__ import annotations

from dataclasses import dataclass, field

from selftrain.schema.asking import Chat, FewShot, Model, Prompt, Reasoning, Task, TaskSampling
from selftrain.schema.component import Component
from selftrain.schema.growing import Accept, Grow, Reward, Sampling, Verify
from selftrain.schema.learning import Gap, Learner, LearnerModel, Lora, Optim, Selection, StepLabels, Validation, Warmup
from selftrain.schema.looking import Evaluate, Kept, Monitor, Threshold
from selftrain.schema.running import Budget, Kernels, Launch, Loop, Ray, Replicas, Run, Stop, Track, Trainer
from selftrain.schema.searching import SearchBudget, Searching

__all__ = [
    "Accept",
    "Budget",
    "Chat",
    "Component",
    "Evaluate",
    "FewShot",
    "Gap",
    "Grow",
    "Kept",
    "Kernels",
    "Launch",
    "Learner",
    "LearnerModel",
    "Loop",
    "Lora",
    "Model",
    "Monitor",
    "Optim",
    "Prompt",
    "Ray",
    "Reasoning",
    "Replicas",
    "Reward",
    "Run",
    "RunConfig",
    "Sampling",
    "SearchBudget",
    "Searching",
    "Selection",
    "StepLabels",
    "Stop",
    "Task",
    "TaskSampling",
    "Threshold",
    "Track",
    "Trainer",
    "Validation",
    "Verify",
    "Warmup",
]


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
    monitor: Monitor = field(default_factory=Monitor)
    launch: Launch = field(default_factory=Launch)
    track: Track = field(default_factory=Track)
