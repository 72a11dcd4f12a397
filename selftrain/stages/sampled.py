"""Requests to a sampler and the samples that come back: shared by Grow and by evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from selftrain.artifacts import failing_as_run_error, read_json, write_json
from selftrain.config import Sampling
from selftrain.sampling.base import Completion, Request, Sampler, Settings
from selftrain.seeds import derive, sample_id
from selftrain.types import Problem, Sample


def settings_of(sampling: Sampling) -> Settings:
    return Settings(sampling.temperature, sampling.top_k, sampling.top_p, sampling.max_tokens, tuple(sampling.stop))


def request(
    problem: Problem, prompt_ids: tuple[int, ...], settings: Settings, n: int, *, seed: int, iteration: int, step: str
) -> Request:
    """``n`` samples of one problem; every seed follows from run seed, iteration, step, problem and index."""
    seeds = tuple(derive(seed, iteration, step, problem.id, index) for index in range(n))
    return Request(problem, prompt_ids, seeds, settings, step)


def part_size(plan: Path, configured: int) -> int:
    """Samples per part: what the stage was begun with, also where the config has changed since."""
    if not plan.exists():
        write_json(plan, {"part_size": configured})
    return int(read_json(plan)["part_size"])


def cut(requests: Sequence[Request], size: int) -> list[list[int]]:
    """Groups of whole problems, of about ``size`` samples each; they follow from the whole work list."""
    groups: list[list[int]] = [[]]
    filled = 0
    for index, wanted in enumerate(requests):
        if filled and filled + len(wanted.seeds) > size:
            groups.append([])
            filled = 0
        groups[-1].append(index)
        filled += len(wanted.seeds)
    return groups


def collect(
    sampler: Sampler, work: Sequence[Request], groups: Sequence[Sequence[int]], done: set[int]
) -> Iterator[tuple[int | None, list[list[Completion]], int]]:
    """Run the work list and put responses together by group of requests.

    Args:
        groups: indices into the work list, each in one group.
        done: groups that are on disk already.

    Yields:
        After every answer of the sampler: a finished group or None, its completions by request in order of index,
        and the tokens the answer held.

    Raises:
        RunError: the sampler failed; the groups it finished have been yielded.
    """
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    keys = {work[index].key for number in done for index in groups[number]}
    missing = {n: sum(len(work[i].seeds) for i in group) for n, group in enumerate(groups) if n not in done}
    held: dict[int, dict[int, Completion]] = {}
    for completions in failing_as_run_error(sampler.sample(work, keys), "the sampler"):
        finished = []
        for completion in completions:
            number = group_of[completion.request]
            if number not in missing:
                continue
            held.setdefault(completion.request, {})[completion.index] = completion
            missing[number] -= 1
            if not missing[number]:
                finished.append(number)
                del missing[number]
        tokens = sum(len(completion.ids) for completion in completions)
        for number in finished:
            answers = [held.pop(index) for index in groups[number]]
            yield number, [[answer[i] for i in sorted(answer)] for answer in answers], 0
        yield None, [], tokens


def samples_of(
    request: Request, completions: Sequence[Completion], *, seed: int, iteration: int, policy: str, sampler: str
) -> list[Sample]:
    return [
        Sample(
            id=sample_id(seed, iteration, request.purpose, request.problem.id, None, completion.index),
            problem_id=request.problem.id,
            iteration=iteration,
            step=request.purpose,
            index=completion.index,
            prompt_ids=request.prompt_ids,
            response_ids=completion.ids,
            text=completion.text,
            finish_reason=completion.finish_reason,
            policy=policy,
            sampler=sampler,
            ids_from="retokenised" if completion.ids_from == "retokenised" else "engine",
            seed=request.seeds[completion.index],
            logprobs=completion.logprobs,
        )
        for completion in completions
    ]
