"""How a problem becomes what a model reads, and where the answer stands in what it writes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from qwen_like import IM_END, tokenizer

from selftrain.config import ConfigError, check_tree
from selftrain.planning.problems import ProblemSet, few_shot
from selftrain.prompts import Prompter, answer_part, make_prompter, unclosed
from selftrain.schema import Chat, FewShot, Prompt, Reasoning
from selftrain.types import Problem

THINK = Reasoning()


@pytest.fixture(scope="module")
def bpe() -> Any:
    return tokenizer()


def problem(name: str, **changes: Any) -> Problem:
    made = Problem(f"t/train/{name}", "t", "train", f"{name}?", f"a{name}", f"because a{name}")
    return replace(made, **changes)


FOUR = [problem(name) for name in "abcd"]


def shots(problems: list[Problem], n: int) -> list[Problem]:
    return few_shot(ProblemSet({"t": {"train": problems}}, {}, frozenset()), "t", FewShot(n), "tasks.t.prompt.few_shot")


def plain(prompt: Prompt, worked: list[Problem], bpe: Any) -> Prompter:
    return make_prompter(bpe, prompt, Chat("none"), worked)


def test_worked_examples_as_plain_text(bpe: Any) -> None:
    prompt = Prompt(
        "Q: {question}",
        instruction="A:",
        answer=" {demonstration} so {answer}",
        few_shot=FewShot(2, separator="\n--\n"),
    )
    made = plain(prompt, [FOUR[0], FOUR[1], FOUR[2]], bpe)
    a, b, c = (f"Q: {x}?\nA: because a{x} so a{x}" for x in "abc")
    assert made.text(FOUR[3]) == f"{a}\n--\n{b}\n--\nQ: d?\nA:"
    assert made.text(FOUR[0]) == f"{b}\n--\n{c}\n--\nQ: a?\nA:"
    assert bpe.decode(made.ids(FOUR[0])) == made.text(FOUR[0])
    assert bpe.decode(made.solution(FOUR[3])) == f" because ad so ad{IM_END}"


def test_worked_examples_as_turns_of_a_chat(bpe: Any) -> None:
    made = make_prompter(bpe, Prompt("Q: {question}", few_shot=FewShot(1)), Chat(), FOUR[:2])
    assert [(turn.role, turn.content) for turn in made.messages(FOUR[3])] == [
        ("user", "Q: a?"),
        ("assistant", "because aa"),
        ("user", "Q: d?"),
    ]
    turns = [
        ("system", "You are a helpful assistant."),
        ("user", "Q: b?"),
        ("assistant", "because ab"),
        ("user", "Q: a?"),
    ]
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    assert made.text(FOUR[0]) == f"{text}<|im_start|>assistant\n"
    ids = made.ids(FOUR[0])
    assert bpe.decode(ids) == made.text(FOUR[0])
    assert ids.count(bpe.eos_token_id) == 4


def test_examples_follow_from_ids_alone() -> None:
    many = [problem(f"{number}") for number in range(40)]
    chosen = shots(many, 4)
    assert len(chosen) == 5 and chosen == shots(many[::-1], 4)
    assert chosen != many[:5]
    # Further problems leave the others in their order, and come in where their own hash puts them.
    more = shots([*many, *(problem(f"x{number}") for number in range(400))], 4)
    assert [p for p in more if p in many] == [p for p in chosen if p in more]
    later = next(p for p in (problem(f"y{number}") for number in range(100)) if p not in shots([*many, p], 4))
    assert shots([*many, later], 4) == chosen
    without = [problem("z", demonstration=None)]
    assert shots([*many, *without], 4) == chosen
    with pytest.raises(ConfigError, match=r"tasks.t.prompt.few_shot: 4 examples need more than 4 problems of 'train'"):
        shots(many[:4], 4)


@pytest.mark.parametrize(
    ("template", "told"),
    [("{topic}", "'topic'"), ("{question.x}", "no attribute"), ("{question[x]}", "indices")],
)
def test_a_template_that_cannot_be_filled_is_told(template: str, told: str, bpe: Any) -> None:
    with pytest.raises(ConfigError, match=rf"tasks.t.prompt.template: cannot fill .*{told}.*known: level, question"):
        plain(Prompt(template), [], bpe).text(problem("a", metadata={"level": 3}))


def test_templates_know_the_metadata_and_never_the_answer(bpe: Any) -> None:
    asked = problem("a", metadata={"level": 3})
    assert plain(Prompt("{{{level}}} {question}", instruction="Say {x}."), [], bpe).text(asked) == "{3} a?\nSay {x}."
    with pytest.raises(ConfigError, match="cannot fill 'answer'"):
        plain(Prompt("{answer}"), [], bpe).text(asked)


@pytest.mark.parametrize(
    ("own", "general", "expected"),
    [(None, None, None), (None, "Be brief.", "Be brief."), ("Add.", "Be brief.", "Add."), ("", "Be brief.", None)],
)
def test_the_system_message_of_the_task_goes_before_the_model_s(
    own: str | None, general: str | None, expected: str | None, bpe: Any
) -> None:
    made = make_prompter(bpe, Prompt(system=own), Chat(system=general))
    found = [turn.content for turn in made.messages(FOUR[0]) if turn.role == "system"]
    assert found == ([] if expected is None else [expected])
    assert (expected or "You are a helpful assistant.") in made.text(FOUR[0])


def test_arguments_and_template_files_reach_the_prompt(bpe: Any, tmp_path: Path) -> None:
    assert make_prompter(bpe, Prompt(), Chat(arguments={"enable_thinking": True})).text(FOUR[0]).endswith("<think>\n")
    quiet = make_prompter(bpe, Prompt(), Chat(arguments={"enable_thinking": False}))
    assert quiet.text(FOUR[0]).endswith("assistant\n")
    (tmp_path / "own.jinja").write_text("{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ mood }}")
    own = Chat(str(tmp_path / "own.jinja"), system="S", arguments={"mood": "!"})
    assert make_prompter(bpe, Prompt(), own).text(FOUR[0]) == "<system>S<user>a?!"


def test_of_several_templates_the_default_is_taken() -> None:
    several = tokenizer(template=None)
    several.chat_template = {"tool_use": "tools", "default": "{{ messages[0].content }} it is"}
    assert make_prompter(several, Prompt(), Chat()).text(FOUR[0]) == "a? it is"
    several.chat_template = {"tool_use": "tools"}
    assert make_prompter(several, Prompt(), Chat()).text(FOUR[0]) == "a?"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("none", Chat("none")),
        ("some/file.jinja", Chat("some/file.jinja")),
        ({"template": "none", "stop": ["Q:"]}, Chat("none", stop=("Q:",))),
        ({"reasoning": {}}, Chat(reasoning=THINK)),
        ({"reasoning": {"close": "</t>"}}, Chat(reasoning=Reasoning(close="</t>"))),
        ({"arguments": {"enable_thinking": False}}, Chat(arguments={"enable_thinking": False})),
    ],
)
def test_chat_is_a_template_or_a_mapping(written: Any, expected: Chat) -> None:
    assert check_tree({"model": {"path": "x", "chat": written}}).model.chat == expected


@pytest.mark.parametrize(
    ("prompt", "text", "open_", "answer"),
    [
        ("Q", "<think>a</think> 5", False, " 5"),
        ("Q<think>\n", "a</think> 5", False, " 5"),
        ("Q", "<think>a</think> 4 <think>b</think> 5", False, " 5"),
        ("Q", "5", False, "5"),
        ("Q<think>\n\n</think>\n\n", "5", False, "5"),
        ("Q", "<think>a 5", True, ""),
        ("Q<think>\n", "a 5", True, ""),
        ("Q<think>", "", True, ""),
        ("Q", "<think>a</think> 4 <think> 5", True, ""),
    ],
)
def test_the_answer_follows_the_last_close(prompt: str, text: str, open_: bool, answer: str) -> None:
    assert unclosed(prompt, text, THINK) is open_
    assert answer_part(prompt, text, THINK) == answer
    assert not unclosed(prompt, text, None)
    assert answer_part(prompt, text, None) == text


def test_the_examples_of_the_manual_are_right() -> None:
    text = Path(__file__).parents[1].joinpath("docs", "prompts.md").read_text()
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 4
    configs = [check_tree(OmegaConf.to_container(OmegaConf.create(block))) for block in blocks]  # type: ignore[arg-type]
    assert configs[1].tasks["gsm8k"].prompt.few_shot.n == 4
    assert configs[1].model.chat.stop == ("\n\nQuestion:",)
    assert configs[3].model.chat == Chat(reasoning=THINK, arguments={"enable_thinking": True})
