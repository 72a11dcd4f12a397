"""vLLM in a process of its own: what runs inside it.

The engine is asked turn by turn: a turn takes requests in and gives up others, works for a moment, and answers with
what has grown. The asker has sent the next turn by then, so the engine never waits.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from selftrain.sampling.base import Place

TURN_SECONDS = 0.025
GROWN_TOKENS = 16
"""A long response is shown this often, in tokens."""


class Ask(NamedTuple):
    """A response to draw."""

    place: Place
    ids: tuple[int, ...]
    """All the model reads: prompt, and what an earlier process had of the response."""
    params: Mapping[str, Any]
    """Fields of vLLM's SamplingParams."""


class Given(NamedTuple):
    """A text to read: how likely each of its tokens is after those before it."""

    place: Place
    ids: tuple[int, ...]
    """Two at least: nothing stands before the first."""


class Turn(NamedTuple):
    """What the engine is told: responses to draw, those nobody wants any more, and texts to read."""

    add: Sequence[Ask] = ()
    drop: Sequence[Place] = ()
    read: Sequence[Given] = ()


class Grown(NamedTuple):
    """Further tokens of one response; or all but the first of a text that was given."""

    place: Place
    ids: list[int]
    logprobs: list[float] | None
    finish: str | None = None
    """vLLM's reason, where the response is finished: stop, length."""
    stop: int | str | None = None
    """The stop string or id that ended it; None, or the id of a further end token of the model: an end token did."""


class Weights(NamedTuple):
    """What the engine is to answer with."""

    model: str
    """A full checkpoint."""
    adapter: str | None = None
    """Folder of an adapter of that checkpoint, which stays unmerged."""


class Sleep(NamedTuple):
    """Give up the memory of the GPU until weights come again."""

    level: int
    """Of vLLM: 1 keeps the weights in the memory of the machine, 2 forgets them."""


def serve(weights: Weights, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Callable[[Any], Any]:
    """Start-up of the process; it answers a `Turn` by a list of `Grown`, `Weights` by taking them over and the seconds
    each part of that took, and `Sleep` by None."""
    os.environ.update(environment)
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    engine = Engine(LLMEngine.from_engine_args(EngineArgs(model=weights.model, **arguments)), weights.model)
    engine.adapt(weights.adapter)
    return engine.answer


@dataclass
class Engine:
    """An engine and the responses it is drawing."""

    engine: Any
    model: str
    """The full checkpoint whose weights it holds."""
    _adapter: Any = None
    _adapters: int = 0
    _asleep: int = 0
    """The level it sleeps at; 0: it is awake."""
    _names: dict[str, Place] = field(default_factory=dict)
    _given: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of those names, the texts that are read."""

    def answer(self, told: Turn | Weights | Sleep) -> Iterator[list[Grown] | dict[str, float] | None]:
        if isinstance(told, Weights):
            yield self._take_over(told)
        elif isinstance(told, Sleep):
            self.engine.sleep(told.level)
            self._asleep = told.level
            yield None
        else:
            yield self._turn(told)

    def _take_over(self, told: Weights) -> dict[str, float]:
        """Wake up, load and forget what the old weights computed; the seconds of each.

        An engine that sleeps gets the memory of its weights, then the weights, then that of its cache: together they
        are never more than it has when it is awake.
        """
        seconds: dict[str, float] = {}
        asleep, self._asleep = self._asleep, 0
        if asleep:
            with _timed(seconds, "wake"):
                self.engine.wake_up(["weights"])
        if told.model != self.model or asleep > 1:
            with _timed(seconds, "reload"):
                self._reload(told.model)
        if asleep:
            with _timed(seconds, "wake"):
                self.engine.wake_up(["kv_cache"])
        if seconds:
            with _timed(seconds, "reset"):
                self._forget()
        self.adapt(told.adapter)
        return seconds

    def adapt(self, adapter: str | None) -> None:
        """Answer with an adapter from now on, or with none."""
        from vllm.lora.request import LoRARequest

        self._adapters += 1  # The number tells adapters apart, in the prefix cache too.
        self._adapter = LoRARequest(f"adapter-{self._adapters}", self._adapters, adapter) if adapter else None

    def _turn(self, told: Turn) -> list[Grown]:
        for place in told.drop:
            if (name := _name(place)) in self._names:
                self.engine.abort_request([name])
                del self._names[name]
        for ask in told.add:
            self._add(ask)
        for given in told.read:
            self._read(given)
        ends, grown = time.monotonic() + TURN_SECONDS, []
        while self._names and time.monotonic() < ends:
            for output in self.engine.step():
                if output.request_id in self._names:
                    grown.append(self._grown(output))
        return grown

    def _add(self, ask: Ask) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        name = _name(ask.place)
        self._names[name] = ask.place
        params = SamplingParams(output_kind=RequestOutputKind.DELTA, stream_interval=GROWN_TOKENS, **ask.params)
        self.engine.add_request(name, {"prompt_token_ids": list(ask.ids)}, params, lora_request=self._adapter)

    def _read(self, given: Given) -> None:
        """The last token is asked for as one that might be drawn: a text may then be as long as the context."""
        from vllm import SamplingParams

        name, (*before, last) = _name(given.place), given.ids
        self._names[name], self._given[name] = given.place, given.ids
        params = SamplingParams(
            max_tokens=1, prompt_logprobs=0, logprob_token_ids=[last], flat_logprobs=True, detokenize=False
        )
        self.engine.add_request(name, {"prompt_token_ids": before}, params, lora_request=self._adapter)

    def _grown(self, output: Any) -> Grown:
        drawn = output.outputs[0]
        if (given := self._given.pop(output.request_id, None)) is not None:
            asked = drawn.logprobs.token_ids.index(given[-1])
            found = [*output.prompt_logprobs.logprobs, drawn.logprobs.logprobs[asked]]
            return Grown(self._names.pop(output.request_id), list(given[1:]), found, drawn.finish_reason)
        ids = list(drawn.token_ids)
        logprobs = None
        if drawn.logprobs is not None:
            logprobs = [float(of[token].logprob) for token, of in zip(ids, drawn.logprobs, strict=True)]
        place = self._names[output.request_id]
        if output.finished:
            del self._names[output.request_id]
        return Grown(place, ids, logprobs, drawn.finish_reason, drawn.stop_reason)

    def _reload(self, path: str) -> None:
        self.engine.collective_rpc("reload_weights", kwargs={"weights_path": path})
        if self.engine.vllm_config.device_config.device_type == "cpu":
            self.engine.collective_rpc(_repack_tied_head)
        self.model = path

    def _forget(self) -> None:
        """The blocks of the cache were computed with the old weights."""
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM did not let go of its prefix cache, which holds what the old weights computed")


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[part] = seconds.get(part, 0.0) + time.monotonic() - began


def _repack_tied_head(worker: Any) -> None:
    """Without a GPU the output head multiplies by a packed copy of its weights, which a reload renews for all layers
    but a head that shares those of the embedding (vLLM 0.32): it would go on answering with the old ones."""
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm

    model = worker.model_runner.get_model()
    if getattr(model.config, "tie_word_embeddings", False):
        model.lm_head.weight = model.model.embed_tokens.weight
        dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)


def _name(place: Place) -> str:
    return f"{place[0]}-{place[1]}"
