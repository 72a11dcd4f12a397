"""What a model thinks before it answers is no answer."""

from __future__ import annotations


def after_thinking(response: str) -> str:
    """The response without its ``<think>`` part; empty where that is never closed."""
    answer = response.rpartition("</think>")[2]
    return "" if "<think>" in answer else answer
