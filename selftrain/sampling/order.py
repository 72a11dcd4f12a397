"""In which order an engine that takes requests one by one gets the responses of a work list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from selftrain.sampling.base import Answers, Request


def longest_first(work: Sequence[Request]) -> list[int]:
    """Places in the work list, longest expected response first: what is begun last should not take long.

    As long as earlier responses were, else as long as may be; among equals those with the longest prompts come first.
    """

    def expected(place: int) -> tuple[float, int]:
        request = work[place]
        longest = request.settings.max_tokens
        return min(longest, request.expected or longest), len(request.prompt_ids)

    return sorted(range(len(work)), key=expected, reverse=True)


def order(
    work: Sequence[Request], answers: Answers, block: int, among: Sequence[int] | None = None
) -> Iterator[tuple[int, int]]:
    """Places of the responses that are still wanted when their turn comes.

    Prompt by prompt, so that parts are finished early and an engine reads each prompt once. Where later samples of a
    prompt may become superfluous, all first samples of a block of prompts come before their second ones: by the time
    a later sample's turn comes, much is known of the earlier.

    Args:
        block: prompts that are taken together.
        among: places of requests, in the order to go through them; None for all as they stand.
    """
    size = block if answers.by_index else 1
    requests = range(len(work)) if among is None else among
    for start in range(0, len(requests), size):
        together = requests[start : start + size]
        for index in range(max(len(work[request].seeds) for request in together)):
            for request in together:
                if index < len(work[request].seeds) and answers.wanted(request, index):
                    yield request, index
