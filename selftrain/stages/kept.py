"""Kept text: the likelihood each checkpoint gives to held-out responses, which shows what training makes it forget.

Rows are read as those of ``replay:FILE`` are, and must not be among them. The numbers stand in lines of metrics of
their own, with the split "kept", and decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.digests import value_digest
from selftrain.errors import RunError
from selftrain.files import read_json, write_json
from selftrain.intervals import ratio_test
from selftrain.planning.problems import question_key
from selftrain.planning.settings import POLICY, evaluated_before
from selftrain.schema import Kept
from selftrain.session import Session
from selftrain.stages.replay import Row, check_closed, encoder_of, read_rows, replayed_files
from selftrain.types import Example

SPLIT = "kept"


def kept_rows(kept: Kept, name: str) -> list[Row]:
    """The rows used.

    Raises:
        ConfigError: the file cannot be read, has fewer than two rows, or one of them lacks a text.
    """
    where = f"evaluate.kept.{name}.path"
    rows = list(islice(read_rows(Path(kept.path), where), kept.n))
    if len(rows) < 2:
        raise ConfigError(f"evaluate.kept.{name}: {len(rows)} rows of {kept.path}; an interval needs two at least")
    for number, row in enumerate(rows, 1):
        if not row.asked or not row.response:
            raise ConfigError(f"{where}: row {number} of {kept.path} has an empty prompt or response; remove it")
    return rows


def check_kept(session: Session, context: int | None) -> None:
    """Raises ConfigError for a file that cannot be read, that is trained on, or that the model cannot read.

    Args:
        context: positions the model has.
    """
    for name, kept in session.config.evaluate.kept.items():
        rows = kept_rows(kept, name)
        encoder = encoder_of(session)
        for row in rows:
            check_closed(row, row.prompt(encoder), session.config, f"evaluate.kept.{name}.path")
        _check_apart(session, name, rows)
        unknown = session.tokenizer.unk_token_id
        for number, (prompt, response) in enumerate(_ids(session, rows), 1):
            where, length = f"evaluate.kept.{name}: row {number} of {kept.path}", len(prompt) + len(response)
            if not prompt:
                raise ConfigError(f"{where} has a prompt without a single token; remove it")
            if context is not None and length > context:
                raise ConfigError(
                    f"{where} has {length} tokens, the model's context is {context}; shorten or remove it"
                )
            # Some tokenizers use the end token for both.
            if unknown is not None and unknown in (*prompt, *response[:-1]):
                raise ConfigError(f"{where} has characters the tokenizer does not know; remove it")


def _check_apart(session: Session, name: str, rows: list[Row]) -> None:
    """Raises ConfigError where a learner trains on a prompt of these rows."""
    encoder = encoder_of(session)
    prompts = {question_key(row.prompt(encoder)) for row in rows}
    for place, path in replayed_files(session.config).items():
        taught = {question_key(row.prompt(encoder)) for row in read_rows(path, f"{place}.from")}
        if shared := len(prompts & taught):
            raise ConfigError(
                f"evaluate.kept.{name}: {shared} of its {len(prompts)} prompts are also in {path}, which {place} "
                "teaches; keep them out of one of the two files"
            )


def measure_kept(session: Session, iteration: int) -> None:
    """Write ``evaluation/<name>-kept.json``: tokens and negative log-likelihood of every response.

    Raises:
        RunError: the model could not be loaded or run.
    """
    every = session.config.evaluate.kept
    missing = [name for name in every if not scores_file(session, iteration, name).exists()]
    if not missing:
        return
    session.free_for_training()
    examples = {
        name: [Example(f"{name}/{i}", "", name, *ids) for i, ids in enumerate(_ids(session, kept_rows(kept, name)))]
        for name, kept in every.items()
        if name in missing
    }
    checkpoint = session.stages.checkpoint(POLICY, iteration)
    try:
        for name, values in likelihoods(checkpoint, examples):
            tokens = [len(example.response_ids) for example in examples[name]]
            read = value_digest([[example.prompt_ids, example.response_ids] for example in examples[name]])
            path = scores_file(session, iteration, name)
            write_json(path, {"rows": read, "tokens": tokens, "nll": values})
            session.check_stop()
    except (RuntimeError, ValueError, MemoryError) as error:
        raise RunError(
            f"iteration {iteration}, stage 'evaluate': the likelihood of evaluate.kept could not be computed: "
            f"{type(error).__name__}: {error}; free memory, or shorten the rows, and run the same command again"
        ) from error


def likelihoods(checkpoint: Path, examples: dict[str, list[Example]]) -> Iterator[tuple[str, list[float]]]:
    """By name of a set of examples: the negative log-likelihood of each response, summed over its tokens, in nats.

    Raises:
        ValueError: the architecture is unknown, or a likelihood is not a number.
    """
    from selftrain.training.scoring import Scorer

    with Scorer(checkpoint) as scorer:
        for name, rows in examples.items():
            yield name, [-float(own.sum(dtype="float64")) for own in scorer.logprobs(rows)]


def kept_lines(session: Session, iteration: int) -> list[dict[str, Any]]:
    """Lines of metrics: nats per response token with their 95 % interval over rows, and paired tests."""
    return [_line(session, iteration, name) for name in session.config.evaluate.kept]


def _line(session: Session, iteration: int, name: str) -> dict[str, Any]:
    now = read_json(scores_file(session, iteration, name))
    level = ratio_test(now["nll"], now["tokens"])
    row: dict[str, Any] = {"iteration": iteration, "task": name, "split": SPLIT}
    row |= {f"nll{end}": round(value, 6) for end, value in zip(("", "_low", "_high"), level[:3], strict=True)}
    row |= {"n_problems": len(now["tokens"]), "n_tokens": sum(now["tokens"])}
    for against, before in (("vs_start", 0), ("vs_previous", evaluated_before(session.config, iteration))):
        if iteration > 0:
            row[against] = {"nll": _change(read_json(scores_file(session, before, name)), now, name, before)}
    return row


def _change(then: dict[str, Any], now: dict[str, Any], name: str, before: int) -> dict[str, float]:
    if then["rows"] != now["rows"]:
        raise RunError(
            f"evaluate.kept.{name}: the file was edited after iteration {before} was evaluated; put it back, or redo "
            f"that with --redo {before}/evaluate"
        )
    differences = [after - former for former, after in zip(then["nll"], now["nll"], strict=True)]
    test = ratio_test(differences, now["tokens"])
    return {name: round(value, 6) for name, value in test._asdict().items()} | {"p": float(f"{test.p:.4g}")}


def scores_file(session: Session, iteration: int, name: str) -> Path:
    return session.run.iteration(iteration) / "evaluation" / f"{name}-{SPLIT}.json"


def _ids(session: Session, rows: list[Row]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    encoder = encoder_of(session)
    return (row.ids(encoder) for row in rows)
