"""What the stages of one process share: the config, the run directory, problems, tokenizer, sampler, verifiers.

Nothing heavy is made before it is asked for, and one sampler lives as long as one checkpoint is used, so the
evaluation of a checkpoint and the Grow with it share an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selftrain import golds
from selftrain.artifacts import RunDir
from selftrain.digests import value_digest
from selftrain.judging import Request as Judgement
from selftrain.judging import VerifierSpec
from selftrain.nested import in_words
from selftrain.planning import fingerprints
from selftrain.planning.engine import Handover, OpenEngine
from selftrain.planning.plan import Stages
from selftrain.planning.problems import ProblemSet, few_shot, load_problems
from selftrain.planning.settings import NUMBERS, POLICY, stop_ids
from selftrain.planning.writers import Writer, reads_ids, remote, same_tokens
from selftrain.prompts import Prompter, answer_part, make_prompter
from selftrain.rewards.steps import Pieces
from selftrain.sampling.base import Sampler
from selftrain.schema import Component, Prompt, RunConfig, Sampling, Verify
from selftrain.types import Problem
from selftrain.verification import VerifierPool

if TYPE_CHECKING:
    from selftrain.placing.cluster import Cluster


class Interrupted(Exception):
    """The run was asked to stop, and the part it was at is finished; its message, where it has one, says what the same
    command does next."""


@dataclass
class Session:
    """A context manager; leaving it closes what was opened."""

    config: RunConfig
    run: RunDir
    _open: ExitStack = field(default_factory=ExitStack)
    trainers: dict[str, tuple[Path, Any]] = field(default_factory=dict)
    """By learner: the checkpoint its resident trainer stands at, and what holds it."""
    scorers: dict[tuple[str, str], tuple[Path, Any]] = field(default_factory=dict)
    """Models that score responses, by their kind and by where their checkpoints lie."""
    _teachers: dict[str, dict[str, Prompter]] = field(default_factory=dict)
    _values: dict[str, dict[str, float]] = field(default_factory=dict)
    """What generation configs say, by model."""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *failure: object) -> None:
        if "_engine" in vars(self):
            self._engine.close()
        self.close_scorers()
        for _, held in self.trainers.values():
            held.close()
        self._open.close()

    @cached_property
    def stages(self) -> Stages:
        return Stages(self.config, self.run)

    @cached_property
    def problems(self) -> ProblemSet:
        return load_problems(self.config)

    @cached_property
    def tokenizer(self) -> Any:
        from selftrain.models.checkpoint import load_tokenizer

        return load_tokenizer(self.start)

    @cached_property
    def pieces(self) -> Pieces:
        """Of the policy's tokens."""
        return Pieces(self.tokenizer)

    @property
    def start(self) -> Path:
        """Where the run starts from, before any warm-up."""
        return Path(self.config.model.path) if self.config.model.path else self.run.start

    def prompter(self, task: str) -> Prompter:
        """Prompts as the policy is asked with them."""
        return self.prompters["prompt"][task]

    @cached_property
    def prompters(self) -> dict[str, dict[str, Prompter]]:
        """By kind of prompt and task: ``prompt``, and ``train_prompt``, which is the same where a task has none."""
        tasks = self.config.tasks.items()
        asked = {name: self._prompter(name, task.prompt, "prompt", self.tokenizer) for name, task in tasks}
        taught = {
            name: self._prompter(name, task.train_prompt, "train_prompt", self.tokenizer)
            for name, task in tasks
            if task.train_prompt is not None
        }
        return {"prompt": asked, "train_prompt": asked | taught}

    def _prompter(self, task: str, prompt: Prompt, kind: str, tokenizer: Any) -> Prompter:
        shots = few_shot(self.problems, task, prompt.few_shot, f"tasks.{task}.{kind}.few_shot")
        return make_prompter(tokenizer, prompt, self.config.model.chat, shots)

    def asked(self, step: str) -> Mapping[str, Prompter]:
        """The prompts, by task, that a step of Grow asks with."""
        chosen = self.config.grow[step]
        local = chosen.model != POLICY and not remote(chosen.sampler)
        return self._foreign(chosen.model) if local else self.prompters["prompt"]

    def writer(self, step: str, iteration: int) -> Writer:
        """Who answers a step of Grow: the policy as it is after an iteration, or the step's teacher."""
        chosen = self.config.grow[step]
        if chosen.model == POLICY:
            return self.policy(chosen.sampler, iteration)
        return self._teacher(chosen.model, chosen.sampler)

    def policy(self, sampler: Component, iteration: int, prompt: str = "prompt") -> Writer:
        """The policy after an iteration; 0 is the model the run starts from."""
        checkpoint = self.stages.checkpoint(POLICY, iteration)
        name = self.stages.checkpoint_digest(POLICY, iteration)
        return Writer(name, POLICY, checkpoint, sampler, self.prompters[prompt], self.prompters[prompt])

    def _teacher(self, name: str, sampler: Component) -> Writer:
        ours = self.prompters["prompt"]
        theirs = ours if remote(sampler) else self._foreign(name)
        return Writer(name, "teacher", Path(name), sampler, theirs, ours)

    def _foreign(self, name: str) -> dict[str, Prompter]:
        if name not in self._teachers:
            from selftrain.models.checkpoint import load_tokenizer

            tokenizer = load_tokenizer(name)
            tasks = self.config.tasks.items()
            self._teachers[name] = {task: self._prompter(task, own.prompt, "prompt", tokenizer) for task, own in tasks}
        return self._teachers[name]

    def settings(self, sampling: Sampling, task: str, model: str = POLICY) -> Sampling:
        """How a task is sampled: as the step or evaluation says, but for what the model or the task says otherwise.

        What stops a response is all that any of them names: strings whoever writes, ids where they are the same tokens.

        Args:
            model: who writes, as ``grow.STEP.model`` names it.
        """
        chat, own = self.config.model.chat, self.config.tasks[task].sampling
        named = self.model_values(model) if sampling.values == "model" else {}
        numbers = {name: value for name in NUMBERS if (value := getattr(own, name)) is not None}
        return replace(
            sampling,
            **{**{name: value for name, value in named.items() if name in NUMBERS}, **numbers},
            stop=tuple(dict.fromkeys((*sampling.stop, *chat.stop, *own.stop))),
            stop_ids=tuple(dict.fromkeys((*sampling.stop_ids, *self.known(model, stop_ids(self.config, task))))),
            values="config",
        )

    def known(self, model: str, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Those token ids of the policy that are the same tokens to who writes."""
        if model == POLICY or not ids:
            return ids
        if model in self._served:
            asked = [step.sampler for step in self.config.grow.values() if step.model == model]
            return ids if all(map(reads_ids, asked)) else ()
        return same_tokens(ids, self.tokenizer, next(iter(self._foreign(model).values())).tokenizer)

    def samples_per_problem(self, n: int, task: str, limit: int | None = None) -> int:
        """Of a step that draws ``n``, as the task has it; no more than a budget leaves."""
        own = self.config.tasks[task].sampling.n or n
        return own if limit is None else min(own, limit)

    def model_values(self, model: str = POLICY) -> dict[str, float]:
        """Sampling settings of a model's generation config, as far as it says; of the policy, those of the model the
        run starts from."""
        from selftrain.models.checkpoint import generation_values

        if model not in self._values:
            name, served = self.model_name(model), model in self._served
            self._values[model] = {} if name is None or served else generation_values(name)
        return self._values[model]

    def model_name(self, model: str) -> str | None:
        """Folder or hub name of who writes; None for a policy that begins with random weights."""
        return self.config.model.path if model == POLICY else model

    @cached_property
    def _served(self) -> set[str]:
        """Names that only servers know."""
        return {step.model for step in self.config.grow.values() if remote(step.sampler)}

    def judgement(self, problem: Problem, text: str, asked: Mapping[str, Prompter]) -> Judgement:
        """What a verifier is asked of a response.

        Args:
            asked: the prompts it answers, by task.
        """
        reasoning = self.config.model.chat.reasoning
        # Writing a prompt takes longer than this look, and only one that is answered without a close matters.
        prompt = asked[problem.task].text(problem) if reasoning and reasoning.close not in text else ""
        return Judgement(problem.task, problem, answer_part(prompt, text, reasoning))

    def sampler(self, component: Component, checkpoint: Path) -> Sampler:
        """The engine with the weights of a checkpoint, the policy's or a teacher's."""
        who = str(checkpoint) if str(checkpoint) in self._teacher_names else POLICY
        return self._engine.loaded(component, who, checkpoint)

    @cached_property
    def _engine(self) -> OpenEngine:
        return OpenEngine(self.check_stop, self.config.launch, self.cluster)

    @cached_property
    def cluster(self) -> Cluster | None:
        """Where processes run that are not to run on this machine; raises ConfigError where it does not answer."""
        if self.config.launch.place != "ray":
            return None
        from selftrain.placing.cluster import Cluster

        return self._open.enter_context(Cluster(self.config.launch))

    @cached_property
    def _teacher_names(self) -> set[str]:
        return {step.model for step in self.config.grow.values()} - {POLICY}

    @cached_property
    def verifiers(self) -> VerifierPool:
        bounds = self.config.reward.verify
        specs = {name: verifier_spec(task.verifier, bounds) for name, task in self.config.tasks.items()}
        return self._open.enter_context(self.judging(specs))

    def judging(self, specs: Mapping[str, VerifierSpec]) -> VerifierPool:
        """A pool that is still to be entered."""
        bounds, cluster = self.config.reward.verify, self.cluster
        return VerifierPool(
            specs,
            workers=self.config.launch.verify_workers,
            seconds=bounds.seconds,
            memory_mb=bounds.memory_mb,
            put=None if cluster is None else cluster.judges,
        )

    @cached_property
    def unread_golds(self) -> list[str]:
        """A line for each task that has gold answers its verifier cannot read."""
        lines = []
        for name, task in self.config.tasks.items():
            asked = (problem for split in self.problems.splits[name].values() for problem in split)
            found = golds.unread(verifier_spec(task.verifier, self.config.reward.verify), asked)
            if found:
                first = "; ".join(f"{id} ({why[:80]})" for id, why in found[:3])
                judge = in_words({"kind": task.verifier.kind, **task.verifier.options})
                told = f"{len(found)} gold answers that {judge} does not read"
                lines.append(f"task {name}: {told}, and that are met only as they are written: {first}")
        return lines

    def free_for_training(self) -> None:
        """The sampler's memory is the trainer's now, unless it is to stay and cannot sleep."""
        self._engine.free()

    def handed_over(self) -> Handover:
        """What was done with samplers since this was last asked."""
        return self._engine.handed_over()

    def close_scorers(self) -> None:
        for _, scorer in self.scorers.values():
            scorer.close()
        self.scorers.clear()

    def stopping(self) -> bool:
        """Whether the run was asked to stop."""
        return self.run.stop.exists()

    def check_stop(self) -> None:
        """Raises Interrupted where the run was asked to stop."""
        if self.stopping():
            raise Interrupted

    @cached_property
    def judges(self) -> set[str]:
        """Labels of the verifiers, as verdicts record them."""
        return {verifier_spec(task.verifier, self.config.reward.verify).label for task in self.config.tasks.values()}


def verifier_spec(verifier: Component, bounds: Verify) -> VerifierSpec:
    """Its label stands for all a verdict depends on: options, files and bounds."""
    depends = [fingerprints.verifier(verifier), bounds.seconds, bounds.memory_mb]
    return VerifierSpec(verifier.kind, verifier.options, f"{Path(verifier.kind).name}@{value_digest(depends)[:8]}")
