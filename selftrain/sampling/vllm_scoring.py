"""Log-probabilities of given responses through a vLLM engine: it reads them as prompts.

vLLM holds the logits of all the tokens of a sequence at once, those of the prompt too, and reads them at temperature 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from selftrain.sampling.vllm_engine import Given, Turn
from selftrain.sampling.vllm_process import EngineProcess
from selftrain.types import Example

if TYPE_CHECKING:
    from numpy import float32
    from numpy.typing import NDArray


def logprobs(
    engine: EngineProcess, examples: Sequence[Example], *, context: int, together: int
) -> list[NDArray[float32]]:
    """See `selftrain.sampling.vllm.VLLMSampler.logprobs`.

    Args:
        context: tokens of prompt and response together.
        together: sequences the engine works on at once.
    """
    import numpy as np

    longest = max((len(_ids(one)) for one in examples), default=0)
    if longest > context:
        raise ValueError(f"a prompt and its response have {longest} tokens, and the engine reads {context}")
    found = [np.full(len(one.response_ids), np.nan, np.float32) for one in examples]
    for place, values in _read(engine, examples, 2 * together):
        own = np.asarray(values, np.float32)
        mask = examples[place].loss_mask
        found[place] = own if mask is None else np.where(mask, own, np.float32(0))
    if not all(np.isfinite(own).all() for own in found):
        raise ValueError("vLLM gives a response a log-probability that is not a number")
    return found


def _read(engine: EngineProcess, examples: Sequence[Example], held: int) -> Iterator[tuple[int, list[float]]]:
    """The place and the log-probabilities of each response that has tokens; one turn is always ahead."""
    todo = iter([place for place, one in enumerate(examples) if one.response_ids])
    under_way = 0

    def ask() -> bool:
        """Send the next turn, where there is anything to tell or to wait for."""
        nonlocal under_way
        given = [Given((place, 0), _ids(examples[place])) for place in islice(todo, held - under_way)]
        under_way += len(given)
        if under_way:
            engine.ask(Turn(read=given))
        return under_way > 0

    turns = ask() + ask()
    while turns:
        grown = engine.receive()
        under_way -= len(grown)
        turns += ask() - 1
        for (place, _), _, values, *_ in grown:
            yield place, values[len(examples[place].prompt_ids) - 1 :]


def _ids(example: Example) -> tuple[int, ...]:
    return (*example.prompt_ids, *example.response_ids)
