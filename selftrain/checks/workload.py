"""What a run will do, stage by stage, in samples and tokens: the counts of the dry run, and what is assumed of lengths
and of how many samples are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from selftrain.checks.lengths import Lengths
from selftrain.drawing.accept import rounds
from selftrain.estimating.work import Work
from selftrain.intervals import mean
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.references import source_models
from selftrain.planning.settings import POLICY, evaluated, objective_needs, sampling_of
from selftrain.schema import Grow, Learner, Optim, Sampling, SearchBudget, Selection, Warmup
from selftrain.session import Session
from selftrain.stages.evaluate import evaluated_splits
from selftrain.stages.examples import demonstrated
from selftrain.stages.protocol import protocol_splits
from selftrain.types import Problem


@dataclass(frozen=True)
class Assumed:
    """What nobody knows before a run."""

    response: float | None = None
    """Mean tokens of a response, as far as ``max_tokens`` allows; None: as many as it allows."""
    accepted: float = 0.5
    """Share of samples that are right."""
    prompt: float | None = None
    """Tokens of a prompt; None: as they are."""


@dataclass(frozen=True)
class Fitted:
    """What a fit reads: sequences, and their tokens in all."""

    sequences: float = 0
    tokens: float = 0

    def __add__(self, other: Fitted) -> Fitted:
        return Fitted(self.sequences + other.sequences, self.tokens + other.tokens)

    def __mul__(self, factor: float) -> Fitted:
        return Fitted(self.sequences * factor, self.tokens * factor)


class Workload:
    """The work of a session's run.

    Args:
        limit: samples per problem at most, whatever the config says.
    """

    def __init__(
        self, session: Session, assumed: Assumed, lengths: Lengths | None = None, limit: int | None = None
    ) -> None:
        self._session, self._assumed, self._limit = session, assumed, limit
        self._lengths = Lengths.of(session) if lengths is None else lengths
        self._config = session.config

    @property
    def read(self) -> bool:
        """Whether prompts were counted in the policy's own tokens."""
        return self._lengths.read or self._assumed.prompt is not None

    def works(self) -> list[Work]:
        """Of the whole run, in the order of its stages."""
        iterations = self._config.loop.iterations
        looks = sum(evaluated(self._config, number) for number in range(iterations + 1))
        first = [self.warmup(name) for name in self._config.warmup]
        each = [self.grow(), self.score(), *map(self.improve, self._config.learners)] if iterations else []
        return [*first, *each, self.evaluate(looks)]

    def warmup(self, learner: str) -> Work:
        warmup = self._config.warmup[learner]
        problems = demonstrated(self._session, warmup.source)
        return self._fit(f"warmup-{learner}", 1, warmup, self._worked(problems))

    def grow(self) -> Work:
        drawn = samples = prompts = 0.0
        for name, step in self._config.grow.items():
            asked = self.asked(name)
            prompts += sum(count * self.prompt(task) for task, count in asked.items())
            if step.kind == "search":
                samples += asked.total() * self._per_tree(step)
                drawn += asked.total() * self._tree_tokens(step)
                continue
            for task, count in asked.items():
                samples += (found := count * self.per_problem(step, task))
                drawn += found * self.response(step.sampling(), task, step.model)
        return Work("grow", self._config.loop.iterations, samples, drawn, prompts)

    def score(self) -> Work:
        """Every model that a source asks reads every sample once."""
        asked = sum(len(source_models(one, "")) for one in self._config.reward.sources.values())
        kl = 2 * self._config.monitor.kl
        return Work("score", self._config.loop.iterations, scored=(asked + kl) * self._sampled().tokens)

    def improve(self, learner: str) -> Work:
        chosen = self._config.learners[learner]
        every = sum((self._selected(learner, name) for name in chosen.examples), Fitted())
        return self._fit(f"improve-{learner}", self._config.loop.iterations, chosen, every)

    def evaluate(self, times: int) -> Work:
        config, session = self._config, self._session
        counts: Counter[str] = Counter()
        protocols: Counter[str] = Counter()
        splits = evaluated_splits(session)
        for task, split in splits:
            counts[task] += len(session.problems.of(task, split)) * (config.evaluate.n + config.evaluate.greedy)
        for task, split in protocol_splits(session, splits):
            protocols[task] += len(session.problems.of(task, split))
        answers = counts + protocols
        sampling = sampling_of(config)
        answered = drawn = sum(count * self.response(sampling, task) for task, count in answers.items())
        for search in config.evaluate.search.values():
            drawn += sum(
                len(session.problems.of(task, split)) * most_tokens(search.budget, self.response(sampling, task))
                for task, split in splits
            )
        per_problem = config.evaluate.n + config.evaluate.greedy
        prompts = sum(count / per_problem * self.prompt(task) for task, count in counts.items())
        scored = 0.0
        for source in config.evaluate.best_of.values():
            scored += len(source_models(source, "")) * (answered + per_problem * prompts)
        return Work("evaluate", times, answers.total(), drawn, prompts, scored=scored)

    def longest(self, learner: str) -> int:
        """Tokens of the longest sequence a fit of a learner may read."""
        chosen = self._config.learners.get(learner)
        names = [one.source for one in chosen.examples.values()] if chosen else []
        steps = [self._config.grow[name] for name in names if name in self._config.grow]
        limits = [
            self.prompt(task, "train_prompt") + self._settings(step.sampling(), task, step.model).max_tokens
            for step in steps
            for task in self.asked_tasks()
        ]
        return round(max(limits, default=0))

    def longest_worked(self, learner: str) -> int:
        """Tokens of a demonstration that a warm-up reads, of the task whose are longest."""
        tasks = {one.task for one in demonstrated(self._session, self._config.warmup[learner].source)}
        lengths = (self.prompt(task, "train_prompt") + self._lengths.solution(task) for task in tasks)
        return round(max(lengths, default=0))

    def longest_sampled(self) -> int:
        """Of prompt and response together."""
        every = [(step.sampling(), step.model) for step in self._config.grow.values()]
        every.append((sampling_of(self._config), POLICY))
        tasks = self._config.tasks
        return round(
            max(
                self.prompt(task) + self._settings(one, task, model).max_tokens
                for one, model in every
                for task in tasks
            )
        )

    def asked(self, step: str) -> Counter[str]:
        """Problems of each task that an iteration may ask."""
        every = (one for problems in rounds(self._session, 1, self._config.grow[step]) for one in problems)
        return Counter(problem.task for problem in every)

    def asked_tasks(self) -> list[str]:
        return [task for task in self._config.tasks if task not in self._session.problems.watched]

    def per_problem(self, step: Grow, task: str) -> float:
        """Samples that are drawn of a problem; where it ends early, so many as its right ones take."""
        n = self._session.samples_per_problem(step.n, task, self._limit)
        return n if step.enough is None else min(n, step.enough / max(self._assumed.accepted, 1e-9))

    def prompt(self, task: str, kind: str = "prompt") -> float:
        return self._lengths.prompt(task, kind) if self._assumed.prompt is None else self._assumed.prompt

    def response(self, sampling: Sampling, task: str, model: str = POLICY) -> float:
        longest = self._settings(sampling, task, model).max_tokens
        return longest if self._assumed.response is None else min(longest, self._assumed.response)

    def _settings(self, sampling: Sampling, task: str, model: str) -> Sampling:
        return self._session.settings(sampling, task, model)

    def _per_tree(self, step: Grow) -> float:
        """Complete responses of a tree: its tokens, were they all spent on such."""
        return self._tree_tokens(step) / self._mean_response(step)

    def _tree_tokens(self, step: Grow) -> float:
        return most_tokens(step.budget, self._mean_response(step))

    def _mean_response(self, step: Grow) -> float:
        return mean([self.response(step.sampling(), task, step.model) for task in self.asked_tasks()])

    def _sampled(self) -> Fitted:
        """All samples of an iteration, behind their prompts."""
        return sum((self._kept(name, float) for name in self._config.grow), Fitted())

    def _selected(self, learner: str, name: str) -> Fitted:
        selection = self._config.learners[learner].examples[name]
        if selection.source == "gold":
            return self._worked(self._session.problems.gold())
        if selection.source.startswith(REPLAY):
            where = f"learners.{learner}.examples.{name}.from"
            rows, tokens = self._lengths.replayed(Path(selection.source.removeprefix(REPLAY)), where)
            return Fitted(rows, rows * tokens)
        over = (self._config.loop.iterations + 1) / 2 if selection.history == "all" else 1.0
        return self._kept(selection.source, lambda samples: self._of_problem(selection, samples)) * over

    def _kept(self, step: str, kept: Callable[[float], float]) -> Fitted:
        chosen, found = self._config.grow[step], Fitted()
        asked: Mapping[str, int] = self.asked(step)
        if chosen.accept is not None and chosen.prompts is not None:
            asked = {task: min(count, chosen.prompts) for task, count in asked.items()}
        for task, count in asked.items():
            samples = self._per_tree(chosen) if chosen.kind == "search" else self.per_problem(chosen, task)
            sequences = count * kept(samples)
            length = self.prompt(task, "train_prompt") + self.response(chosen.sampling(), task, chosen.model)
            found += Fitted(sequences, sequences * length)
        return found

    def _of_problem(self, selection: Selection, samples: float) -> float:
        """Sequences that a selection keeps of the samples of a problem."""
        right = samples * self._assumed.accepted
        wrong = samples - right
        if selection.kind in ("pairs", "step_pairs"):
            pairs = right * wrong if selection.pairing == "cartesian" else min(right, wrong)
            return 2 * min(pairs, selection.max_per_problem or pairs)
        kept = {"right": right, "wrong": wrong}.get(selection.verdict, samples)
        if selection.verdict == "any" and selection.reward_above is not None:
            kept = right
        return min(kept, selection.cap or kept)

    def _worked(self, problems: list[Problem]) -> Fitted:
        counts = Counter(problem.task for problem in problems)
        tokens = sum(
            count * (self.prompt(task, "train_prompt") + self._lengths.solution(task)) for task, count in counts.items()
        )
        return Fitted(counts.total(), tokens)

    def _fit(self, stage: str, times: int, fitted: Learner | Warmup, every: Fitted) -> Work:
        if not every.sequences:
            return Work(stage, times)
        steps = steps_of(fitted.optim, every.sequences)
        read = steps * min(fitted.optim.batch_size, every.sequences) * every.tokens / every.sequences
        needs = objective_needs(fitted.objective) if isinstance(fitted, Learner) else frozenset()
        # The trainer's own log-probabilities, and those of the reference, are had by a forward pass over the examples.
        scored = every.tokens * sum(one in needs for one in ("old", "reference"))
        return Work(stage, times, read=read, scored=scored, steps=steps)


def most_tokens(budget: SearchBudget, response: float) -> float:
    """That a tree may draw; a proposal is a whole response at most."""
    return budget.tokens or (budget.proposals or 0) * response


def steps_of(optim: Optim, sequences: float) -> float:
    """As `selftrain.training.schedule.epochs_to_steps`, of a number that is expected."""
    kept = sequences * (1 - optim.validation.fraction)
    return optim.steps or max(1.0, kept * optim.epochs / min(optim.batch_size, max(kept, 1.0)))
