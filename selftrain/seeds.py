"""Seeds and ids that follow from names, so that a resumed run meets the same ones."""

from __future__ import annotations

import hashlib


def derive(*names: object) -> int:
    """A seed in [0, 2**63): the first 8 bytes of sha256 over the names."""
    return int.from_bytes(_hash(names)[:8], "big") >> 1


def sample_id(*names: object) -> str:
    """20 hex digits of sha256 over run seed, iteration, step, problem, parent and index."""
    return _hash(names).hex()[:20]


def _hash(names: tuple[object, ...]) -> bytes:
    return hashlib.sha256("\x1f".join(map(str, names)).encode()).digest()
