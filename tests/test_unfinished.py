"""Where a fit stands, on disk: it is gone on from by the same fit of the same model, and by no other."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fitting import EXAMPLES, OPTIM, STEPS, steps

from selftrain.models import checkpoint
from selftrain.models.small import random_model
from selftrain.objectives.nll import NLL
from selftrain.training import state
from selftrain.training.engine import TorchEngine
from selftrain.training.unfinished import Unfinished, identity


def test_the_state_of_another_model_is_refused(tokenizer: Any, tiny: Path, tmp_path: Path) -> None:
    architecture = {
        **{"model_type": "qwen3", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": True},
    }
    checkpoint.save(random_model(architecture, tokenizer, seed=0), tokenizer, tmp_path / "other")
    other = TorchEngine(tmp_path / "other", NLL(), OPTIM, steps=1, device="cpu")
    other.save_state(tmp_path / "state", state.WEIGHTS)
    told = r"the state of another model: model\.layers\.0\.mlp\.\w+\.weight is \[48, 32\] there and \[64, 32\] here"
    mine = TorchEngine(tiny, NLL(), OPTIM, steps=1, device="cpu")
    before = mine.weights()
    with pytest.raises(ValueError, match=told):
        mine.load_state(tmp_path / "state")
    assert all(tensor.equal(before[name]) for name, tensor in mine.weights().items())


def test_where_a_fit_stands_is_that_of_its_own(tiny: Path, tmp_path: Path) -> None:
    """Another fit, with other examples or another learning rate, is not gone on with."""
    engine = TorchEngine(tiny, NLL(), OPTIM, steps=STEPS, device="cpu")
    steps(engine, range(3))
    own = identity(EXAMPLES, OPTIM, NLL())
    (tmp_path / "log").write_text("three lines")
    Unfinished(tmp_path / "unfinished", lambda: own).save(engine, 3, tmp_path / "log")
    others = [
        identity(EXAMPLES[1:], OPTIM, NLL()),
        identity([replace(EXAMPLES[0], weight=7.0), *EXAMPLES[1:]], OPTIM, NLL()),
        identity(EXAMPLES, replace(OPTIM, lr=1.0), NLL()),
        identity(EXAMPLES, OPTIM, NLL("sequences")),
    ]
    for name in (own, *others):
        fresh = TorchEngine(tiny, NLL(), OPTIM, steps=STEPS, device="cpu")
        begun = Unfinished(tmp_path / "unfinished", partial(str, name)).resume(fresh, tmp_path / "new")
        assert begun == (3 if name == own else 0)
        assert (tmp_path / "new").read_text() == ("three lines" if name == own else "")
    assert identity(EXAMPLES, replace(OPTIM, micro_tokens=1), NLL()) == own
