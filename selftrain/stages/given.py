"""What `selftrain train` fits a learner to: rows of a file, encoded as the model reads them, or a run's examples."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from selftrain import records
from selftrain.config import ConfigError
from selftrain.encoding import Encoder
from selftrain.models.head_form import HeadForm
from selftrain.objectives.labelled import LABELS
from selftrain.objectives.paired import PAIRS
from selftrain.objectives.values import VALUES
from selftrain.rewards.steps import step_targets
from selftrain.session import Session
from selftrain.stages.replay import check_closed
from selftrain.stages.rows import Entry
from selftrain.types import Example

NEEDED = sorted({field.name for field in fields(Example)} - records.ADDED)


@dataclass(frozen=True)
class Given:
    """Examples, checked."""

    training: tuple[Example, ...]
    held_out: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, and why."""


def counted(examples: Sequence[Example]) -> str:
    """``25 pairs``, or ``50 responses``."""
    pairs = sum(one.pair_id is not None for one in examples) // 2
    return f"{pairs:,} pairs" if pairs else f"{len(examples):,} responses"


def holds_examples(path: Path) -> bool:
    """Whether a path is a folder, or a part, of the examples of a run."""
    parts = records.parts(path) if path.is_dir() else [path] if path.suffix == ".parquet" and path.is_file() else []
    return any(records.has(part, "response_ids") for part in parts)


def read_examples(path: Path, where: str) -> list[Example]:
    """The examples that a run wrote, in the order in which it fits them.

    Raises:
        ConfigError: they are of something else.
    """
    found: list[Example] = []
    for part in records.parts(path) if path.is_dir() else [path]:
        if lacking := [name for name in NEEDED if not records.has(part, name)]:
            raise ConfigError(f"{where}: {part} holds no examples of a run: it has no column '{lacking[0]}'")
        found += records.rows(part, Example)
    return sorted(found, key=lambda example: (example.source, example.problem_id, example.id))


def encoded(
    session: Session, encoder: Encoder, entries: Sequence[Entry], where: str, form: HeadForm | None = None
) -> Iterator[Example]:
    """The rows of a file as examples, of pairs the chosen one first.

    Rows with the same prompt are of one problem, so that a share which is held out has prompts of its own.

    Args:
        form: of the head, for objectives of values.

    Raises:
        ConfigError: a prompt cannot be written, or a response that is taught as it is leaves its reasoning open, or its
            tokens do not keep its steps apart.
    """
    for number, entry in enumerate(entries):
        prompt = entry.rows[0].prompt(encoder)
        if entry.label is None and form is None:
            check_closed(entry.rows[0], prompt, session.config, where)
        problem = hashlib.sha256(prompt.encode("utf-8", "replace")).hexdigest()[:20]
        ids = encoder.ids(prompt)
        one, *other = (
            Example(str(number), problem, "data", ids, encoder.response(row.response), label=entry.label)
            for row in entry.rows
        )
        if form is not None:
            yield _with_targets(session, one, entry, form, where)
        elif other:
            yield replace(one, id=f"{number}/chosen", pair_id=str(number), role="chosen")
            yield replace(other[0], id=f"{number}/rejected", pair_id=str(number), role="rejected")
        else:
            yield one


def _with_targets(session: Session, one: Example, entry: Entry, form: HeadForm, where: str) -> Example:
    """With what the row says of steps, or of the whole at its last token."""
    texts, place = session.pieces.of(one.response_ids), entry.rows[0].place
    if not entry.steps and form.read == "step":
        raise ConfigError(
            f"{where}: {place}: a row needs 'steps' and 'labels' for a head that is read at steps; or set "
            "learner.model.read to last"
        )
    if not entry.steps or form.read == "last":
        label = entry.labels[-1] if entry.steps else entry.label
        return replace(one, targets=(*(math.nan for _ in texts[1:]), math.nan if label is None else label))
    try:
        return replace(one, targets=step_targets(texts, form.separator, entry.steps, entry.labels))
    except ValueError as error:
        raise ConfigError(f"{where}: {place}: {error} (learner.model.separator)") from error


def without_ties(examples: Sequence[Example]) -> tuple[list[Example], int]:
    """Pairs whose sides are the same tokens taken out, as they say nothing of a preference; and how many they were."""
    sides: dict[tuple[str, str], set[tuple[int, ...]]] = {}
    for one in examples:
        if one.pair_id is not None:
            sides.setdefault((one.source, one.pair_id), set()).add(one.response_ids)
    ties = {pair for pair, responses in sides.items() if len(responses) == 1}
    return [one for one in examples if (one.source, one.pair_id) not in ties], len(ties)


def check_kind(examples: Sequence[Example], kind: str, needs: frozenset[str], where: str) -> None:
    """Raises ConfigError where the examples of a run are not what the objective learns from."""
    pairs = sum(one.pair_id is not None for one in examples)
    if PAIRS in needs and pairs < len(examples):
        raise ConfigError(f"{where}: {kind} learns from pairs, and {len(examples) - pairs} examples are in none")
    if PAIRS not in needs and pairs:
        raise ConfigError(f"{where}: {kind} learns from single responses, and {pairs} examples are sides of pairs")
    told = sum(one.targets is not None for one in examples)
    if VALUES in needs and told < len(examples):
        raise ConfigError(f"{where}: {kind} fits a value head, and {len(examples) - told} examples have no targets")
    if VALUES not in needs and told:
        raise ConfigError(f"{where}: {told} examples have targets of a value head, which {kind} does not read")
    labels = [one.label for one in examples]
    if LABELS in needs and None in labels:
        raise ConfigError(f"{where}: {kind} learns from labelled responses, and {labels.count(None)} have no label")
    if LABELS in needs and (beyond := [label for label in labels if label is not None and not 0.0 <= label <= 1.0]):
        raise ConfigError(
            f"{where}: {len(beyond)} labels are not within 0 and 1, such as {beyond[0]:g}; label them by the verdict"
        )


def check_readable(
    examples: Sequence[Example], tokenizer: Any, context: int | None, place: Callable[[Example], str], where: str
) -> None:
    """Raises ConfigError for examples that the model cannot read whole, with their number and the first of them.

    Args:
        context: positions of the model; None where it does not say.
        place: what an example is called.
    """
    found = [(one, reason) for one in examples if (reason := _unreadable(one, tokenizer, context)) is not None]
    if found:
        first, reason = found[0]
        same = sum(reason == other for _, other in found)
        raise ConfigError(
            f"{where}: {same} of {len(examples)} examples {reason} (first: {place(first)}, "
            f"{len(first.prompt_ids)} tokens of prompt and {len(first.response_ids)} of response)"
        )


def _unreadable(one: Example, tokenizer: Any, context: int | None) -> str | None:
    ids, begin, unknown = (*one.prompt_ids, *one.response_ids), tokenizer.bos_token_id, tokenizer.unk_token_id
    if not one.prompt_ids or not one.response_ids:
        return "have a prompt or a response without a single token; remove them"
    if context is not None and len(ids) > context:
        return f"are longer than the model's context of {context} tokens; shorten or remove them"
    if max(ids) >= len(tokenizer):
        return "have tokens that the model does not know; name the model whose tokenizer made them"
    if unknown is not None and unknown in ids[:-1]:  # Some tokenizers use the end token for both.
        return "have characters the tokenizer does not know; remove them, or choose another model"
    if begin is not None and one.prompt_ids[:2] == (begin, begin):
        return "begin with two beginning tokens; the chat template adds one too many"
    return None
