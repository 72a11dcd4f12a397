"""Where steps end, on texts of tokens and on real tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import qwen_like

from selftrain.models.small import END, character_tokenizer
from selftrain.rewards.steps import pieces, step_ends

A, N = "a", "\n"


@pytest.mark.parametrize(
    "texts, separator, expected",
    [
        ([A, N, A], N, (2, 3)),
        ([A, A], N, (2,)),  # No separator: one step.
        ([A, N], N, (2,)),
        ([A, N, ""], N, (3,)),  # The end token belongs to the last step.
        ([A, N, A, ""], N, (2, 4)),
        ([A, N, " ", ""], N, (4,)),
        ([A, N, N, A], N, (2, 4)),  # Separators in a row end one step.
        ([A, N, N, N], N, (4,)),
        ([N, N, A, N, A], N, (4, 5)),
        ([N, N], N, (2,)),
        ([A, N, N, A], "\n\n", (3, 4)),  # Spread over two tokens.
        ([A, ".\n", "\nb", A], "\n\n", (3, 4)),
        ([A, N, A], "\n\n", (3,)),
        (["x\ny", "z"], N, (1, 2)),  # Inside a token, which belongs to the step it ends.
        (["x\ny\nz", "w\n", A], N, (1, 2, 3)),
        (["x\ny\n"], N, (1,)),
        (["Step 1: x ", "Step", " 2: y", A], "Step ", (3, 4)),
        ([], N, ()),
        ([""], N, (1,)),
    ],
)
def test_ends_of_steps(texts: list[str], separator: str, expected: tuple[int, ...]) -> None:
    assert step_ends(texts, separator) == expected


def spans(tokenizer: Any, ids: Sequence[int], separator: str) -> list[str]:
    """The text of each step."""
    ends = step_ends(pieces(tokenizer, ids), separator)
    return [tokenizer.decode(ids[begin:end]) for begin, end in zip((0, *ends), ends, strict=False)]


def test_steps_of_single_characters() -> None:
    tokenizer = character_tokenizer("0123456789+-*= #\n", 64)
    ids = [*tokenizer("1+2=3\n3*2=6\n\n#6\n").input_ids, tokenizer.eos_token_id]
    assert "".join(pieces(tokenizer, ids)) == "1+2=3\n3*2=6\n\n#6\n"
    assert spans(tokenizer, ids, "\n") == ["1+2=3\n", "3*2=6\n", f"\n#6\n{END}"]
    assert spans(tokenizer, ids, "\n\n") == ["1+2=3\n3*2=6\n\n", f"#6\n{END}"]


@pytest.fixture(scope="module")
def bpe() -> Any:
    return qwen_like.tokenizer()


def test_steps_of_byte_level_bpe(bpe: Any) -> None:
    text = "1+2=3 The answer is 3.\n\n4+4=8 The answer is 8.\nQuestion: What?\n\n"
    ids = bpe(text).input_ids
    assert len(ids) < len(text) / 2
    assert "".join(pieces(bpe, ids)) == text
    assert spans(bpe, ids, "\n\n") == [
        "1+2=3 The answer is 3.\n\n",
        "4+4=8 The answer is 8.\nQuestion: What?\n\n",
    ]
    assert spans(bpe, [*ids, bpe.eos_token_id], "\n\n")[-1].endswith(qwen_like.IM_END)


def test_characters_that_are_spread_over_tokens_move_no_step(bpe: Any) -> None:
    """Bytes that are no character yet are written as one that says so, also right before a separator."""
    text = "€ → √2\n\n𝔘 is ü\nand 漢字\n"
    ids = bpe(text).input_ids
    assert len(ids) > len(text)
    assert spans(bpe, ids, "\n") == ["€ → √2\n", "\n𝔘 is ü\n", "and 漢字\n"]
    torn = [*bpe("a€").input_ids[:-1], *bpe("\nb").input_ids]  # The last byte never comes.
    assert [step[-1] for step in spans(bpe, torn, "\n")] == ["\n", "b"]


@pytest.fixture(scope="module")
def sentencepiece_like() -> Any:
    """As Llama 2's: a space is the beginning of a word, the first one is dropped, unknown characters are bytes."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcnows.=+0123456789"]
    merges = [("▁", "a"), ("▁a", "n"), ("n", "o"), ("▁", "no"), ("▁no", "w"), ("s", "o"), ("▁", "so")]
    vocabulary = {word: i for i, word in enumerate([*words, *(a + b for a, b in merges)])}
    core = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")


def test_steps_of_pieces_whose_spaces_lead(sentencepiece_like: Any) -> None:
    text = "so a = 1\n now an = 2\n\n é so ∞ = 3"
    ids = sentencepiece_like(text).input_ids
    assert sentencepiece_like.decode(ids) == text
    found = pieces(sentencepiece_like, ids)
    assert found[:3] == ["so", " a", " "]
    assert spans(sentencepiece_like, [*ids, 1], "\n") == ["so a = 1\n", "now an = 2\n", "\n é so ∞ = 3</s>"]
    # A separator with a space in it is found although no piece says so by itself.
    assert step_ends(found, " now")[0] == found.index(" now") + 1


def test_spaces_that_a_tokenizer_would_tidy_away_are_kept() -> None:
    """`` .`` of two tokens is tidied to one character, so that the separator would be lost."""
    tokenizer = character_tokenizer("12 .\n", 64)
    tokenizer.clean_up_tokenization_spaces = True
    ids = tokenizer("1 .2").input_ids
    assert tokenizer.decode(ids) == "1.2"
    assert step_ends(pieces(tokenizer, ids), ".") == (3, 4)


def test_nothing_is_made_of_nothing(bpe: Any) -> None:
    assert pieces(bpe, ()) == []
