"""Rows written elsewhere: replayed ones, which are taught beside a run's own, and kept ones, which are measured.

A row has ``messages``, the last of them by the assistant, or ``prompt`` and ``response``. Where the run has a chat
template both are written with it (a prompt is then the user's one turn); where it has none, a prompt is plain text.
Only what the last turn says carries loss, with the end token behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.config import ConfigError
from selftrain.encoding import Encoder, make_encoder
from selftrain.planning.fingerprints import REPLAY
from selftrain.planning.phrases import HeldOut
from selftrain.planning.problems import question_key
from selftrain.prompts import Prompter, unclosed
from selftrain.schema import RunConfig
from selftrain.session import Session
from selftrain.tasks.jsonl import read_records
from selftrain.types import Example, Message

SHOWN = 60
"""Characters of a question in a message."""


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and its response."""

    place: str
    """File and line, for messages."""
    asked: str | tuple[Message, ...]
    """A prompt, or the turns before the last."""
    response: str

    def texts(self) -> tuple[str, ...]:
        """All that it says, one turn at a time."""
        turns = (self.asked,) if isinstance(self.asked, str) else (turn.content for turn in self.asked)
        return (*turns, self.response)

    def prompt(self, encoder: Encoder) -> str:
        """What the model reads.

        Raises:
            ConfigError: the template cannot write the turns, or there is none.
        """
        if encoder.template is not None:
            turns = (Message("user", self.asked),) if isinstance(self.asked, str) else self.asked
            return encoder.turns(turns, self.place)
        if isinstance(self.asked, str):
            return self.asked
        raise ConfigError(
            f"{self.place}: has messages, and prompts are plain text here (no chat template); give 'prompt' and "
            "'response', or a template (model.chat.template)"
        )

    def ids(self, encoder: Encoder) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Token ids of the prompt, and of the response with the end token behind it."""
        return encoder.ids(self.prompt(encoder)), encoder.response(self.response)


def read_rows(path: Path, where: str) -> Iterator[Row]:
    """The rows of a file.

    Raises:
        ConfigError: it cannot be read, or a row is not of either kind.
    """
    try:
        for place, row in read_records(path):
            yield _row(row, place)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _row(row: Mapping[str, Any], place: str) -> Row:
    if row.get("messages") is not None:
        turns = turns_of(row["messages"], place)
        if len(turns) < 2 or turns[-1].role != "assistant":
            raise ValueError(f"{place}: 'messages' must end with a turn of the assistant that follows another")
        return Row(place, turns[:-1], turns[-1].content)
    prompt, response = row.get("prompt"), row.get("response")
    if not isinstance(prompt, str) or not isinstance(response, str):
        raise ValueError(
            f"{place}: a row needs the texts 'prompt' and 'response', or a list 'messages'; this one has "
            f"{', '.join(row)}"
        )
    return Row(place, prompt, response)


def turns_of(value: Any, place: str, name: str = "messages") -> tuple[Message, ...]:
    """A list of turns, checked.

    Args:
        name: of the field it stands in, for the message.

    Raises:
        ValueError: it is none, or has turns that nothing here reads.
    """
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise ValueError(f"{place}: '{name}' is no list of turns with role and content")
    for turn in value:
        if turn.get("role") not in ("system", "user", "assistant") or not isinstance(turn.get("content"), str):
            raise ValueError(
                f"{place}: a turn needs a role (system, user or assistant) and a content that is text; one has the "
                f"role {turn.get('role')!r} and a content that is {type(turn.get('content')).__name__}"
            )
        if more := [name for name in turn if turn[name] and name not in ("role", "content")]:
            raise ValueError(f"{place}: a turn has '{more[0]}', which nothing here reads; role and content are all")
    return tuple(Message(turn["role"], turn["content"]) for turn in value)


def encoder_of(session: Session) -> Encoder:
    return make_encoder(session.tokenizer, session.config.model.chat)


def replayed_files(config: RunConfig) -> dict[str, Path]:
    """The files that selections of learners replay, by the selection's place in the config."""
    return {
        f"learners.{name}.examples.{key}": Path(selection.source.removeprefix(REPLAY))
        for name, learner in config.learners.items()
        for key, selection in learner.examples.items()
        if selection.source.startswith(REPLAY)
    }


def replayed(session: Session, path: Path, name: str, weight: float) -> Iterator[Example]:
    """The rows of a file as examples."""
    encoder = encoder_of(session)
    for number, row in enumerate(read_rows(path, name)):
        yield Example(f"{name}/{number}", f"replay/{path.name}/{number}", name, *row.ids(encoder), weight)


def check_replay(session: Session, prompters: Mapping[str, Prompter]) -> None:
    """Raises ConfigError for a row no prompt can be made of, one that leaves its reasoning open, and a file that holds
    evaluated problems, by their questions or as the model reads them."""
    if not (files := replayed_files(session.config)):
        return
    problems, encoder = session.problems.evaluated(), encoder_of(session)
    held_out = HeldOut(problem.question for problem in problems)
    rendered = {question_key(prompters[problem.task].text(problem)) for problem in problems}
    for place, path in files.items():
        found = []
        for row in read_rows(path, f"{place}.from"):
            prompt = row.prompt(encoder)
            check_closed(row, prompt, session.config, place)
            if {question_key(text) for text in (prompt, *row.texts())} & rendered:
                found.append((row, prompt))
            elif question := next(filter(None, map(held_out.find, row.texts())), None):
                found.append((row, question))
        if found:
            (row, text), dots = found[0], "..." if len(found[0][1]) > SHOWN else ""
            raise ConfigError(
                f"{place}.from: {len(found)} row(s) of {path} hold evaluated problems; remove them from the file "
                f"(first: {row.place}: {question_key(text)[:SHOWN]}{dots})"
            )


def check_closed(row: Row, prompt: str, config: RunConfig, where: str) -> None:
    """Raises ConfigError for a response that never comes to its answer: the prompt may have opened the reasoning."""
    if unclosed(prompt, row.response, config.model.chat.reasoning):
        raise ConfigError(
            f"{where}: {row.place}: the response leaves its reasoning open, as the prompt or it began one; close it "
            "there, or let the template begin none (model.chat.arguments)"
        )
