"""The one engine a run has open: it lives as long as the same writer is asked, and takes new weights where it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from selftrain.config import instantiate, to_tree
from selftrain.digests import value_digest
from selftrain.errors import RunError
from selftrain.sampling.base import Sampler
from selftrain.schema import Component


class OpenEngine:
    """Engines are opened, given other weights, and closed here.

    Args:
        check_stop: raises where the run was asked to stop; engines that can wait long call it meanwhile.
    """

    def __init__(self, check_stop: Callable[[], None]) -> None:
        self._check_stop = check_stop
        self._key: tuple[str, str] | None = None
        """Digest of the component, and who writes."""
        self._checkpoint: Path | None = None
        self._sampler: Sampler | None = None

    def loaded(self, component: Component, who: str, checkpoint: Path) -> Sampler:
        """The engine with the weights of a checkpoint: the open one, with new weights where it can load them.

        Args:
            who: the policy or the name of a teacher, whose engine never answers for another.

        Raises:
            RunError: it does not start, or cannot take the weights.
        """
        key = (value_digest(to_tree(component)), who)
        engine = self._sampler
        if engine is not None and (self._key, self._checkpoint) == (key, checkpoint):
            return engine
        with _loading(component, checkpoint):
            if engine is None or self._key != key or not _reloads(engine, checkpoint):
                self.close()
                engine = self._open(component, checkpoint)
        self._key, self._checkpoint, self._sampler = key, checkpoint, engine
        return engine

    def _open(self, component: Component, checkpoint: Path) -> Sampler:
        opened: Sampler = instantiate("sampler", component).open(checkpoint)
        if hasattr(opened, "while_waiting"):
            opened.while_waiting(self._check_stop)
        return opened

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()
        self._key = self._checkpoint = self._sampler = None


def _reloads(engine: Sampler, checkpoint: Path) -> bool:
    return hasattr(engine, "reload") and bool(engine.reload(checkpoint))


@contextmanager
def _loading(component: Component, checkpoint: Path) -> Iterator[None]:
    """Raises RunError where an engine does not start: no such device, too little memory, a library that is missing."""
    try:
        yield
    except (RuntimeError, ValueError, ImportError, MemoryError) as error:
        raise RunError(
            f"the sampler '{component.kind}' could not load {checkpoint}: {type(error).__name__}: {error}; "
            "free memory, or choose another device or sampler (grow.STEP.sampler), and run the same command again"
        ) from error
