"""Rows written elsewhere: how they are taught and measured, and that they teach nothing that is evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qwen_like import IM_END, tokenizer, write_rows

from selftrain import records
from selftrain.artifacts import RunDir
from selftrain.checks.check import check
from selftrain.checks.preview import preview
from selftrain.config import ConfigError, check_tree
from selftrain.encoding import make_encoder, plain_ids
from selftrain.planning.phrases import HeldOut
from selftrain.report.export import Asked
from selftrain.schema import Chat
from selftrain.session import Session
from selftrain.stages.replay import read_rows, replayed
from selftrain.types import Problem

HELLO = {"prompt": "Say hello.", "response": "hello!"}
TALK = {
    "messages": [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "Say bye."},
        {"role": "assistant", "content": "bye!"},
    ]
}
HELLO_READ = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n"
)
TALK_READ = (
    "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n"
    "<|im_start|>user\nSay bye.<|im_end|>\n<|im_start|>assistant\n"
)


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


Opened = Callable[..., Session]


@pytest.fixture
def opened(tmp_path: Path, chat_model: Path) -> Opened:
    """A session that replays rows, and measures two of its own; ``test`` has a question in words."""
    write_rows(tmp_path / "train.jsonl", 12)
    questions = ("Five?", "What is 4 plus 4", "7+1=")
    lines(tmp_path / "test.jsonl", *({"question": question, "answer": "8"} for question in questions))

    def make(*rows: dict[str, Any], chat: Any = "auto", task: dict[str, Any] | None = None) -> Session:
        files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "test")}
        kept = lines(
            tmp_path / "kept.jsonl", {"prompt": "Kept?", "response": "yes"}, {"prompt": "No?", "response": "no"}
        )
        replay = lines(tmp_path / "chat.jsonl", *(rows or (HELLO,)))
        tree = {
            "run": {"folder": str(tmp_path / "runs")},
            "model": {"path": str(chat_model), "chat": chat},
            "tasks": {"sums": {"kind": "jsonl", "files": files, "verifier": "numeric_answer", **(task or {})}},
            "grow": {"draft": {"n": 2, "max_tokens": 6}},
            "learners": {"policy": {"examples": {"own": {"from": "draft"}, "chat": {"from": f"replay:{replay}"}}}},
            "evaluate": {"n": 0, "kept": {"kept": {"path": str(kept)}}},
            "loop": {"iterations": 1},
        }
        return Session(check_tree(tree), RunDir(tmp_path / "runs" / "run"))

    return make


def taught(session: Session) -> list[tuple[str, str]]:
    """What carries no loss, and what does, of every replayed row."""
    path = Path(session.config.learners["policy"].examples["chat"].source.removeprefix("replay:"))
    decode = session.tokenizer.decode
    found = [(decode(e.prompt_ids), decode(e.response_ids)) for e in replayed(session, path, "chat", 1.0)]
    assert all(example.loss_mask is None for example in replayed(session, path, "chat", 1.0))
    return found


def test_rows_are_taught_as_turns_of_the_chat_with_loss_on_the_last(opened: Opened) -> None:
    session = opened(HELLO, TALK)
    check(session)
    assert taught(session) == [(HELLO_READ, f"hello!{IM_END}"), (TALK_READ, f"bye!{IM_END}")]


def test_arguments_and_template_files_count_for_rows_too(opened: Opened, tmp_path: Path) -> None:
    session = opened(HELLO, chat={"arguments": {"enable_thinking": True}})
    assert taught(session) == [(f"{HELLO_READ}<think>\n", f"hello!{IM_END}")]
    (tmp_path / "own.jinja").write_text("{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}->")
    assert taught(opened(HELLO, chat=str(tmp_path / "own.jinja"))) == [("[user] Say hello. ->", f"hello!{IM_END}")]


def test_without_a_template_a_prompt_is_plain_text_and_turns_are_refused(opened: Opened) -> None:
    session = opened(HELLO, chat="none")
    check(session)
    assert taught(session) == [("Say hello.", f"hello!{IM_END}")]
    with pytest.raises(
        ConfigError, match=r"chat.jsonl:2: has messages, and prompts are plain text.*model.chat.template"
    ):
        check(opened(HELLO, TALK, chat="none"))


def test_an_end_token_the_tokenizer_puts_behind_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    made = tokenizer(template=None)
    ends = TemplateProcessing(single=f"$A {IM_END}", special_tokens=[(IM_END, made.eos_token_id)])
    made.backend_tokenizer.post_processor = ends
    assert made.encode("hi")[-1] == made.eos_token_id
    assert made.decode(plain_ids(made, "hi")) == "hi"
    (row,) = read_rows(lines(tmp_path / "chat.jsonl", HELLO), "here")
    prompt, response = row.ids(make_encoder(made, Chat()))
    assert (made.decode(prompt), made.decode(response)) == ("Say hello.", f"hello!{IM_END}")


def test_kept_rows_are_measured_as_the_model_reads_them(opened: Opened) -> None:
    from selftrain.stages.kept import _ids, kept_rows

    session = opened(HELLO)
    rows = kept_rows(session.config.evaluate.kept["kept"], "kept")
    (prompt, response), _ = _ids(session, rows)
    assert session.tokenizer.decode(prompt) == HELLO_READ.replace("Say hello.", "Kept?")
    assert session.tokenizer.decode(response) == f"yes{IM_END}"
    with pytest.raises(ConfigError, match=r"evaluate.kept.kept: 1 of its 2 prompts are also in"):
        check(opened(HELLO, {"messages": [{"role": "user", "content": "Kept?"}, {"role": "assistant", "content": ""}]}))


def test_a_dry_run_shows_a_replayed_row_with_what_carries_loss(opened: Opened) -> None:
    shown = "\n".join(preview(opened(TALK, HELLO)))
    text = "\n".join(f"  | {line}" for line in f"⟦{TALK_READ}⟧bye!{IM_END}".split("\n"))
    assert "replayed by learners.policy.examples.chat, the first row of " in shown and text in shown


def row(*turns: Any) -> dict[str, Any]:
    return {"messages": list(turns)}


USER, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi!"}
BAD: list[tuple[dict[str, Any], str]] = [
    (
        {"prompt": "Hi"},
        r"chat.jsonl:2: a row needs the texts 'prompt' and 'response', or a list 'messages'.*has prompt",
    ),
    ({"messages": "Hi"}, "chat.jsonl:2: 'messages' is no list of turns"),
    (row(USER), "must end with a turn of the assistant that follows another"),
    (row(REPLY), "must end with a turn of the assistant"),
    (row(USER, {"role": "tool", "content": "3"}, REPLY), "has the role 'tool'"),
    (row({"role": "user", "content": None}, REPLY), "a content that is NoneType"),
    (row(USER, {**REPLY, "tool_calls": [1]}), "a turn has 'tool_calls', which nothing here reads"),
]


@pytest.mark.parametrize(("bad", "told"), BAD)
def test_a_row_of_neither_kind_is_told(bad: dict[str, Any], told: str, opened: Opened) -> None:
    with pytest.raises(ConfigError, match=told):
        check(opened(HELLO, bad))


def test_a_template_that_fails_on_a_row_is_told_before_the_run(opened: Opened, tmp_path: Path) -> None:
    strict = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
    )
    (tmp_path / "strict.jinja").write_text(strict)
    with pytest.raises(ConfigError, match=r"strict.jinja .* fails on .*chat.jsonl:2: no system"):
        check(opened(HELLO, TALK, chat=str(tmp_path / "strict.jinja")))


def test_a_row_that_leaves_its_reasoning_open_is_refused(opened: Opened) -> None:
    chat = {"reasoning": {}, "arguments": {"enable_thinking": True}}
    with pytest.raises(ConfigError, match=r"chat.jsonl:1: the response leaves its reasoning open"):
        check(opened(HELLO, chat=chat))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is 4 plus 4", True),
        ("Question: What is 4 plus 4\nAnswer:", True),
        ("I was asked: what?  What is 4\nplus 4? That is 8.", True),
        ("<|im_start|>user\nWhat is 4 plus 4<|im_end|>\n<|im_start|>assistant\n", True),
        ("What is 4 plus 44", False),
        ("What is 4 plus 4.5", False),
        ("What is 4 plus four", False),
        ("7+1=", True),
        ("Add.\nQ: 7+1=\nA:", True),
        ("[INST] 7+1= [/INST]", True),
        ("17+1=18", False),
        ("It holds that 7+1=8, and 7+1= 8.", False),
        ("We know 1 + 2 + 3 = 6", False),
        ("1 + 2 + 3 =", True),
        ("Ask why. It helps", False),
        ("", False),
    ],
)
def test_evaluated_questions_are_found_in_texts(text: str, found: bool) -> None:
    held_out = HeldOut(["What is 4 plus 4", "7+1=", "1 + 2 + 3 =", "Why?", "How many  pens are\nleft?"])
    assert (held_out.find(text) is not None) == found


def test_looking_for_many_questions_in_many_texts_takes_seconds() -> None:
    """As many as GSM8K's test split, which share their words, in as many rows as are replayed."""
    import time

    questions = [f"Using the numbers [{n}, {n % 7}, 5], make an equation that equals {n % 90}." for n in range(1319)]
    held_out = HeldOut(questions)
    texts = [f"User: {q.replace('[', '[9')} Think.\n{'So it is so. ' * 20}" for q in questions] * 8
    started = time.process_time()
    assert not any(map(held_out.find, texts))
    assert held_out.find(f"Please: {questions[700]} Think.") == questions[700]
    assert time.process_time() - started < 10


SOMEWHERE: list[dict[str, Any]] = [
    {"prompt": "Question: What is 4 plus 4\nAnswer:", "response": "8"},
    {"prompt": "Make an exam.", "response": "1. Name? 2. What is 4 plus 4? 3. Sign."},
    row({"role": "system", "content": "First: 7+1="}, USER, REPLY),
    row(USER, REPLY, {"role": "user", "content": "What is 4 plus 4"}, REPLY),
    {"prompt": "Add:\n7+1=", "response": "8"},
]


@pytest.mark.parametrize("leak", SOMEWHERE)
@pytest.mark.parametrize("limit", [{}, {"test": 1}])
def test_a_row_that_holds_a_test_question_is_refused(
    leak: dict[str, Any], limit: dict[str, int], opened: Opened
) -> None:
    told = r"1 row\(s\) of .*chat.jsonl hold evaluated problems.*first: .*jsonl:2: (What|7)"
    with pytest.raises(ConfigError, match=told):
        check(opened(HELLO, leak, task={"limit": limit}))


def test_exported_rows_without_a_problem_are_compared_by_their_text(tmp_path: Path) -> None:
    import pyarrow as pa

    run = RunDir(tmp_path)
    asked = [Problem("t/test/1", "t", "test", "What is 4 plus 4", "8"), Problem("t/train/1", "t", "train", "7+1=", "8")]
    records.write(run.problems, Problem, asked)
    prompts = ["Say hi.", *(str(leak.get("prompt", "")) for leak in SOMEWHERE[:2]), "7+1=", "What is 4 plus 4"]
    table = pa.table(
        {
            "problem_id": [*(f"replay/chat.jsonl/{number}" for number in range(3)), "t/train/1", "t/test/1"],
            "prompt_ids": [[1], [2], [3], [4], [5]],
            "prompt": prompts,
            "response": ["hi", "8", SOMEWHERE[1]["response"], "8", "8"],
        }
    )
    assert [Asked(run, ("test",)).leaks(table.slice(place, 1)) for place in range(5)] == [0, 1, 1, 0, 1]
