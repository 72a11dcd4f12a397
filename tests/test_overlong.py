"""The penalty for length."""

from __future__ import annotations

import pytest

from selftrain.rewards.overlong import Overlong


def test_it_grows_over_the_last_tokens_before_the_limit() -> None:
    rule = Overlong(longest=20480, cache=4096)
    lengths = (1, 16384, 16385, 18432, 20480, 30000)
    assert [rule.penalty(length) for length in lengths] == pytest.approx([0, 0, -1 / 4096, -0.5, -1, -1])


def test_a_cache_as_long_as_all_is_refused() -> None:
    with pytest.raises(ValueError, match="cache must be less than longest"):
        Overlong(longest=100, cache=100)
