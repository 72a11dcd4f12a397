"""An estimate as text: tables of stages and memory, disk, cost, and what was assumed; and beside it what a run took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from selftrain.checks.estimate import Estimate, Need
from selftrain.checks.workload import Assumed
from selftrain.estimating.memory import USABLE
from selftrain.estimating.work import Work, gpu_hours, total_seconds
from selftrain.report.live import duration
from selftrain.report.tables import align

PARTS = ("weights", "gradients", "optimizer", "activations", "loss", "buffers", "cache")


def lines(found: Estimate, assumed: Assumed, price: float | None) -> Iterator[str]:
    """All of an estimate."""
    shape = found.shape
    told = f"{shape.layers} layers of {shape.hidden}, {shape.vocabulary:,} tokens"
    yield f"model: {shape.parameters:,} parameters, {told}"
    yield ""
    yield from stage_lines(found)
    yield ""
    yield from memory_lines(found)
    yield ""
    sizes = ", ".join(f"{what} {size(own)}" for what, own in found.disk.items())
    yield f"disk: {size(sum(found.disk.values()))} ({sizes})"
    yield from cost_lines(found, price)
    yield from assumption_lines(found, assumed)


def stage_lines(found: Estimate) -> Iterator[str]:
    """Tokens and time by stage, over the whole run."""
    head = ["stage", "times", "samples", "tokens drawn", "read by fits", "scored", "time"]
    body = [
        [
            work.stage,
            str(work.times),
            *(f"{work.times * own:,.0f}" for own in (work.samples, work.drawn, work.read, work.scored)),
            clock(work.seconds(found.speeds)),
        ]
        for work in found.works
    ]
    totals = [sum(work.times * getattr(work, name) for work in found.works) for name in COUNTED]
    whole = clock(total_seconds(found.works, found.speeds))
    yield align([head, *body, ["all", "", *(f"{own:,.0f}" for own in totals), whole]])
    known = {"drawn": found.speeds.sample, "read by fits": found.speeds.train, "scored": found.speeds.scoring}
    told = [f"{speed:,.0f} {what}" for what, speed in known.items() if speed]
    yield f"  tokens per second: {', '.join(told)}" if told else f"  {NO_SPEED}"


COUNTED = ("samples", "drawn", "read", "scored")
NO_SPEED = "time: give --probe, --hardware, or --sample-tokens-per-s and --train-tokens-per-s"


def memory_lines(found: Estimate) -> Iterator[str]:
    """Of one GPU, or of a process where there is none."""
    used = [part for part in PARTS if any(need.parts.get(part) for need in found.memory)]
    body = [
        [need.what, *(size(need.parts[part]) if part in need.parts else "-" for part in used), size(need.total)]
        for need in found.memory
    ]
    yield align([["memory", *used, "all"], *body])
    yield from (f"  {need.what}: {need.told}" for need in found.memory if need.told)
    if found.host:
        yield f"  beside it, of the machine's own memory: {size(found.host)} for each process"
    if found.room is not None:
        yield from _verdicts(found, found.room)


def _verdicts(found: Estimate, room: float) -> Iterator[str]:
    beyond = [need for need in found.memory if need.total > room]
    short = [need for need in found.memory if not need.enough]
    if not beyond and not short:
        yield f"  it fits: {size(room)} of a GPU may be planned with ({100 * USABLE:.0f} % of it)"
    for need in beyond:
        yield f"  too large: {need.what} takes {size(need.total)}, and {size(room)} may be planned with; {_less(need)}"
    for need in short:
        yield f"  too large: {need.what} has no room for one response; shorten it, or use more GPUs for an engine"


def _less(need: Need) -> str:
    """What makes the largest part smaller."""
    largest = max(need.parts, key=lambda part: need.parts[part])
    return {
        "activations": "lower optim.micro_tokens, or set optim.gradient_checkpointing",
        "cache": "lower max_num_seqs or max_tokens of the sampler",
    }.get(largest, "divide it among more GPUs, offload, or fit an adapter (lora)")


def cost_lines(found: Estimate, price: float | None) -> Iterator[str]:
    seconds = total_seconds(found.works, found.speeds)
    if seconds is None:
        return
    hours = gpu_hours(seconds, found.gpus)
    cost = "" if price is None else f", {hours * price:,.2f} at {price:g} a GPU-hour"
    yield f"time: {clock(seconds)} on {found.gpus} GPU{'' if found.gpus == 1 else 's'}: {hours:,.2f} GPU-hours{cost}"


def assumption_lines(found: Estimate, assumed: Assumed) -> Iterator[str]:
    long = "as long as max_tokens allows" if assumed.response is None else f"of {assumed.response:,.0f} tokens"
    yield f"assumed: responses {long} (--response-tokens), {100 * assumed.accepted:.0f} % of them right (--accepted)"
    if not found.counted:
        yield "assumed: four characters a token, for the tokenizer could not be had (--prompt-tokens)"


def against(works: list[Work], found: Estimate, tokens: Mapping[str, int], took: Mapping[str, float]) -> Iterator[str]:
    """What was expected of the stages of a run, and what they took.

    Args:
        tokens: by stage, drawn or read.
        took: seconds by stage.
    """
    head = ["stage", "tokens expected", "taken", "ratio", "time expected", "taken", "ratio"]
    expected = {work.stage: (work.tokens, work.seconds(found.speeds)) for work in works}
    body = []
    for stage in dict.fromkeys([*expected, *tokens, *took]):
        own, seconds = expected.get(stage, (0.0, None))
        cells = [f"{own:,.0f}", f"{tokens.get(stage, 0):,}", ratio(tokens.get(stage, 0), own)]
        spent = took.get(stage)
        body.append([stage, *cells, clock(seconds), clock(spent), ratio(spent, seconds)])
    yield align([head, *body])


def ratio(taken: float | None, expected: float | None) -> str:
    return f"{taken / expected:.2f}" if taken and expected else "-"


def clock(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def size(value: float) -> str:
    """``17.0 GB``: a thousand bytes are a kB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= 0.9995 * scale:
            return f"{value / scale:,.3g} {unit}" if value < 100 * scale else f"{value / scale:,.0f} {unit}"
    return f"{value / 1e3:,.3g} kB"
