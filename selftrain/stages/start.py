"""The model a run starts from, where the config describes one instead of naming a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator

from selftrain.config import ConfigError
from selftrain.events import Event, StageFinished, StageStarted
from selftrain.files import replacing
from selftrain.schema import RunConfig
from selftrain.seeds import derive
from selftrain.session import Session

DEFAULT_CONTEXT = 2048


def start(session: Session) -> Iterator[Event]:
    """Save the described architecture with seeded random weights."""
    from selftrain.models import checkpoint, small

    started = time.monotonic()
    yield StageStarted(0, "start", None, "models")
    config = session.config
    tokenizer = described_tokenizer(config)
    try:
        model = small.random_model(
            dict(config.model.architecture or {}), tokenizer, derive(config.run.seed, "weights") % 2**32
        )
    except (KeyError, TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"model.architecture: {error}") from error
    with replacing(session.run.start) as folder:
        checkpoint.save(model, tokenizer, folder)
    session.stages.start().finish([session.run.start])
    count = sum(parameter.numel() for parameter in model.parameters())
    yield StageFinished(0, "start", time.monotonic() - started, f"{count:,} parameters", False)


def described_tokenizer(config: RunConfig):  # type: ignore[no-untyped-def]
    from selftrain.models import small

    fields = config.model.architecture or {}
    return small.character_tokenizer(
        config.model.alphabet or "", fields.get("max_position_embeddings", DEFAULT_CONTEXT)
    )
