"""The one engine a run has open: it lives as long as the same writer is asked, and takes new weights where it can."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from selftrain.config import instantiate, to_tree
from selftrain.digests import value_digest
from selftrain.errors import NoRoom, RunError
from selftrain.places import Places
from selftrain.planning.replicas import seats, several, sleep_level
from selftrain.sampling.apart import Apart
from selftrain.sampling.base import Sampler
from selftrain.sampling.fleet import Fleet
from selftrain.sampling.replica import Account, Replica
from selftrain.sampling.seats import Seat
from selftrain.sampling.vllm_process import EngineFailed
from selftrain.schema import Component, Launch


class OpenEngine:
    """Engines are opened, given other weights, put to sleep, and closed here.

    Args:
        check_stop: raises where the run was asked to stop; engines that can wait long call it meanwhile.
        places: where they run; None: on this machine.
    """

    def __init__(self, check_stop: Callable[[], None], launch: Launch, places: Places | None = None) -> None:
        self._check_stop, self._launch, self._places = check_stop, launch, places
        self._key: tuple[str, str] | None = None
        """Digest of the component, and who writes."""
        self._checkpoint: Path | None = None
        self._sampler: Sampler | None = None
        self._level = 0
        """At which it sleeps while others need its memory; 0: it cannot."""
        self._asleep = False
        self._handover = Handover()

    def loaded(self, component: Component, who: str, checkpoint: Path) -> Sampler:
        """The engine with the weights of a checkpoint: the open one, with new weights where it can load them.

        Args:
            who: the policy or the name of a teacher, whose engine never answers for another.

        Raises:
            RunError: it does not start, or cannot take the weights.
        """
        key = (value_digest(to_tree(component)), who)
        engine = self._sampler
        if engine is not None and (self._key, self._checkpoint) == (key, checkpoint) and not self._asleep:
            return engine
        with _loading(component, checkpoint):
            if engine is None or self._key != key or not self._reloads(engine, checkpoint):
                self.close()
                engine = self._open(component, checkpoint)
        self._key, self._checkpoint, self._sampler, self._asleep = key, checkpoint, engine, False
        return engine

    def free(self) -> None:
        """Others need the memory: the engine ends, or sleeps where it is to stay and can."""
        engine: Any = self._sampler
        if self._launch.keep == "stage":
            self.close()
        elif engine is not None and self._level and not self._asleep:
            try:
                with self._handover.timed(engine, "sleep"):
                    engine.sleep(self._level)
                self._asleep = True
            except EngineFailed as error:  # Its memory is free all the same; the next to ask gets a new one.
                self._handover.failures.append(str(error))
                self.close()

    def close(self) -> None:
        if self._sampler is not None:
            self._handover.share(self._sampler)
            with self._handover.timed(self._sampler, "exit"):
                self._sampler.close()
        self._key = self._checkpoint = self._sampler = None
        self._asleep = False

    def handed_over(self) -> Handover:
        """What was done with engines since this was last asked."""
        if self._sampler is not None:
            self._handover.share(self._sampler)
        done, self._handover = self._handover, Handover()
        return done

    def _open(self, component: Component, checkpoint: Path) -> Sampler:
        began = time.monotonic()
        opened = open_sampler(component, checkpoint, self._launch, self._places)
        self._level = sleep_level(instantiate("sampler", component), self._launch)
        self._handover.took(opened, "open", time.monotonic() - began)
        if hasattr(opened, "while_waiting"):
            opened.while_waiting(self._check_stop)
        return opened

    def _reloads(self, engine: Sampler, checkpoint: Path) -> bool:
        if not hasattr(engine, "reload"):
            return False
        began = time.monotonic()
        if not engine.reload(checkpoint):
            return False
        parts = dict(getattr(engine, "spent", {}))
        others = sum(seconds for part, seconds in parts.items() if part != "reload")
        for part, seconds in {**parts, "reload": time.monotonic() - began - others}.items():
            self._handover.took(engine, part, seconds)
        return True


class Handover:
    """Seconds that engines in processes of their own took from others, and what their replicas shared."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.account: Account | None = None
        self.failures: list[str] = []
        """Why engines that had begun were replaced."""

    def took(self, engine: Sampler, part: str, seconds: float) -> None:
        if hasattr(engine, "spent"):
            self.seconds[part] = self.seconds.get(part, 0.0) + seconds

    @contextmanager
    def timed(self, engine: Sampler, part: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.took(engine, part, time.monotonic() - began)

    def share(self, engine: Sampler) -> None:
        """Take over what a fleet counted, and why it replaced replicas."""
        if isinstance(engine, Fleet):
            self.failures += engine.failures
            engine.failures = []
        if not isinstance(engine, Fleet) or not engine.account.seconds:
            return
        own, engine.account = engine.account, Account(engine.account.replicas)
        if self.account is None or self.account.replicas != own.replicas:
            self.account = own
        else:
            self.account.add(own)

    @property
    def shared(self) -> dict[str, float]:
        return {} if self.account is None else dataclasses.asdict(self.account)

    def in_words(self) -> str:
        """Empty where nothing was done."""
        parts = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in self.seconds.items())
        told = [f"engine: {parts}"] if parts else []
        return "; ".join([*told, *([] if self.account is None else [self.account.in_words()])])


def open_sampler(component: Component, checkpoint: Path, launch: Launch, places: Places | None = None) -> Sampler:
    """One engine, or as many replicas as there are to be.

    Raises:
        RuntimeError, ValueError, OSError, ImportError, MemoryError: one does not start.
    """
    options = instantiate("sampler", component)
    if several(component, launch, places):
        return Fleet(options, checkpoint, seats(options, launch, places), partial(_replica, component, options))
    (seat,) = seats(options, launch)
    opened: Sampler
    opened = options.replica(checkpoint, seat) if hasattr(options, "replica") else options.open(checkpoint)
    return opened


def _replica(component: Component, options: Any, seat: Seat, checkpoint: Path) -> Replica:
    if hasattr(options, "replica"):
        opened: Replica = options.replica(checkpoint, seat)
        return opened
    return Apart(component, checkpoint, seat)


@contextmanager
def _loading(component: Component, checkpoint: Path) -> Iterator[None]:
    """Raises RunError where an engine does not start: no such device, too little memory, a library that is missing."""
    try:
        yield
    except NoRoom:
        raise
    except (RuntimeError, ValueError, ImportError, MemoryError) as error:
        raise RunError(
            f"the sampler '{component.kind}' could not load {checkpoint}: {type(error).__name__}: {error}; "
            "free memory, or choose another device or sampler (grow.STEP.sampler), and run the same command again"
        ) from error
