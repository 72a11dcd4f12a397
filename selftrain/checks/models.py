"""Models from outside the run that score its responses: a process reward model, a reference."""

from __future__ import annotations

from typing import Any

from selftrain.config import ConfigError
from selftrain.planning.references import read_reference, scoring_sources
from selftrain.planning.settings import objective_needs
from selftrain.registry import resolve
from selftrain.rewards.value_head import ValueHead
from selftrain.session import Session


def check_scored_by(session: Session) -> None:
    """Raises ConfigError where such a model cannot be had, or reads other tokens than the policy writes."""
    for place, name in outside(session).items():
        theirs, config = had(place, name)
        ours = session.tokenizer
        if theirs.get_vocab() != ours.get_vocab():
            raise ConfigError(
                f"{place}: {name} has another tokenizer than the policy ({len(theirs)} tokens against {len(ours)}); "
                "both must read the same tokens, so choose a model of the policy's family"
            )
        size = int(config.get_text_config().vocab_size)
        if size < len(ours):
            raise ConfigError(
                f"{place}: {name} knows {size} tokens, the tokenizer has {len(ours)}; choose another model"
            )


def outside(session: Session) -> dict[str, str]:
    """Folders and hub names of such models, by their place in the config."""
    config = session.config
    named = {
        **{
            f"{where}.{option}": str(source.options[option])
            for where, source in scoring_sources(config)
            if resolve("reward", source.kind) is not ValueHead  # Those are looked at by `checks.values`.
            for option in getattr(resolve("reward", source.kind), "models", ())
        },
        **{
            f"learners.{name}.reference": learner.reference
            for name, learner in config.learners.items()
            if "reference" in objective_needs(learner.objective)
        },
        **{
            f"learners.{name}.model.path": learner.model.path
            for name, learner in config.learners.items()
            if learner.model.path is not None
        },
    }
    found = {place: read_reference(text, config, place) for place, text in named.items()}
    return {place: reference.name for place, reference in found.items() if not reference.learner}


def had(place: str, name: str) -> tuple[Any, Any]:
    """Tokenizer and config of a model; raises ConfigError where there is none."""
    from transformers import AutoConfig

    from selftrain.models.adapters import adapter_base
    from selftrain.models.checkpoint import load_tokenizer

    try:
        return load_tokenizer(name), AutoConfig.from_pretrained(str(adapter_base(name) or name))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ConfigError(f"{place}: {name} cannot be had: {reason}") from error
