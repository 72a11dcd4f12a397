"""selftrain: train language models on their own verified solutions."""

__version__ = "0.1.0"
