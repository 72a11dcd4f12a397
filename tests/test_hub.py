"""A hub over the wire: a run that starts from a model by name, its push by the real client, what the hub refuses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import READER, TOKEN, Hub, serving
from huggingface_hub import ModelCard

TINY = Path(__file__).with_name("tiny.yaml")
NOWHERE = "http://127.0.0.1:9"
BASE_CARD = b"---\nlicense: apache-2.0\n---\n\n# base\n"


@pytest.fixture(scope="module")
def hub(tiny: Path) -> Iterator[Hub]:
    """Holds ``org/base``, under Apache-2.0."""
    with serving() as made:
        made.repositories["models/org/base"] = {path.name: path.read_bytes() for path in tiny.iterdir()}
        made.repositories["models/org/base"]["README.md"] = BASE_CARD
        made.private["models/org/base"] = False
        yield made


@pytest.fixture(scope="module")
def run(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One iteration from ``org/base``, which is fetched from the hub."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "lenient.py").write_text("def verify(problem, response):\n    return True\n")
    done = command(
        *("run", TINY, f"run.folder={folder}", "model.path=org/base", "model.architecture=null", "model.alphabet=null"),
        *(f"tasks.arithmetic.verifier={folder}/lenient.py:verify", "loop.iterations=1"),
        endpoint=hub.address,
        cache=folder / "cache",
    )
    assert done.returncode == 0, done
    return folder / "tiny"


def command(
    *arguments: object, endpoint: str, cache: Path, token: str | None = TOKEN
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own: the hub's client reads its environment when it is imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    variables = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}
    variables |= {"HF_TOKEN": token} if token else {}
    words = [sys.executable, "-m", "selftrain.cli", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env={**kept, **variables})


def test_the_hub_gets_the_same_bytes(run: Path, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["models/org/mine"] = {"model-00002-of-00002.safetensors": b"old", "notes.txt": b"kept"}
    hub.private["models/org/mine"] = True
    done = command(
        *("push", run, "--to", "org/mine", "--iteration", 1, "--data", "--private"),
        endpoint=hub.address,
        cache=tmp_path,
    )
    assert done.returncode == 0 and done.stderr == "", done
    model, data = hub.repositories["models/org/mine"], hub.repositories["datasets/org/mine-data"]
    card = ModelCard(model["README.md"].decode()).data
    found = [card.get(name) for name in ("base_model", "license", "datasets")]
    assert found == ["org/base", "apache-2.0", ["org/mine-data"]]
    written = {path.name: path.read_bytes() for path in (run / "iteration_0001/policy/checkpoint").iterdir()}
    # Weights of an earlier push are gone, files of others are not.
    assert {**model, **written} == model and sorted(model) == sorted(
        [*written, "README.md", "notes.txt", "selftrain.json"]
    )
    assert sorted(data) == ["README.md", "examples/iteration_0001.parquet", "samples/iteration_0001.parquet",
                            "selftrain.json"]  # fmt: skip
    for files in (model, data):
        for entry in json.loads(files["selftrain.json"])["files"]:
            assert hashlib.sha256(files[entry["name"]]).hexdigest() == entry["sha256"]
    assert hub.messages == ["Iteration 1 of 'tiny', by selftrain 0.1.0"] * 2
    assert hub.private["datasets/org/mine-data"] is True
    assert f"PUT lfs {len(model['model.safetensors'])}" in hub.requests
    assert f"{hub.address}/datasets/org/mine-data" in done.stdout


def test_a_pushed_model_loads_by_name(run: Path, hub: Hub, tmp_path: Path) -> None:
    """And is what a next run may start from."""
    done = command("push", run, "--to", "org/again", "--iteration", 1, endpoint=hub.address, cache=tmp_path / "a")
    assert done.returncode == 0, done
    done = command(
        *("evaluate", "org/again", "--task", "arithmetic", "--output", tmp_path / "out", "evaluate.n=0"),
        *("tasks.arithmetic.sizes={test: 12}", "tasks.arithmetic.lengths=[1, 2]", "grow.draft.max_tokens=18"),
        endpoint=hub.address,
        cache=tmp_path / "b",
    )
    assert done.returncode == 0 and "arithmetic / test, 12 problems" in done.stdout, done
    assert any("/org/again/resolve/" in request for request in hub.requests)


LOGITS = """
import sys
import peft, torch
from selftrain.models.checkpoint import load_model

def logits(model):
    with torch.no_grad():
        return model.eval()(torch.arange(3, 15)[None], use_cache=False).logits

base, ours, pushed = [load_model(name, dtype="float32", device="cpu") for name in ("org/base", *sys.argv[1:])]
theirs = peft.AutoPeftModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.float32)
print(*(float((logits(model) - logits(ours)).abs().max()) for model in (theirs, pushed, base)))
"""


def test_an_adapter_of_a_hub_model_is_pushed_as_one(run: Path, hub: Hub, tmp_path: Path) -> None:
    """It takes the place of a full checkpoint, and loads by the names it carries alone."""
    done = command(
        *("run", TINY, f"run.folder={tmp_path}", "model.path=org/base", "model.architecture=null"),
        *("model.alphabet=null", "warmup=null", "loop.iterations=1", "learners.policy.lora={r: 4, alpha: 8}"),
        endpoint=hub.address,
        cache=tmp_path / "cache",
    )
    assert done.returncode == 0, done
    hub.repositories["models/org/light"] = {"config.json": b"{}", "model.safetensors": b"old", "notes.txt": b"kept"}
    words = ("push", tmp_path / "tiny", "--to", "org/light", "--iteration", 1)
    done = command(*words, endpoint=hub.address, cache=tmp_path / "cache")
    assert done.returncode == 0 and done.stderr == "", done
    files = hub.repositories["models/org/light"]
    assert "adapter_model.safetensors" in files and "notes.txt" in files
    assert not {"config.json", "model.safetensors"} & files.keys()
    card = ModelCard(files["README.md"].decode())
    found = [card.data.get(name) for name in ("base_model", "library_name", "base_model_relation", "license")]
    assert found == ["org/base", "peft", "adapter", "apache-2.0"] and "lora" in card.data.get("tags")
    assert "This is a LoRA adapter: rank 4, alpha 8, dropout 0, on down_proj," in card.text
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    (pushed := tmp_path / "pushed").mkdir()
    for name, content in files.items():
        (pushed / name).write_bytes(content)
    variables = {**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "cache"), "HF_TOKEN": TOKEN}
    checkpoint = tmp_path / "tiny" / "iteration_0001" / "policy" / "checkpoint"
    script = [sys.executable, "-c", LOGITS, str(checkpoint), str(pushed)]
    loaded = subprocess.run(script, capture_output=True, text=True, env=variables)
    assert loaded.returncode == 0, loaded
    theirs, ours, base = map(float, loaded.stdout.split())
    assert max(theirs, ours) < 1e-5 and base > 1e-3


def test_a_licence_nobody_can_be_asked_for_is_unknown(run: Path, tmp_path: Path) -> None:
    """Into a folder, only what is on this machine counts."""
    done = command("push", run, "--to", tmp_path / "out", "--iteration", 1, endpoint=NOWHERE, cache=tmp_path / "cache")
    assert done.returncode == 0, done
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| base model org/base | unknown | no model card was found |" in card
    data = ModelCard(card).data
    assert (data.get("license"), data.get("base_model")) == ("unknown", "org/base")


def test_the_start_itself_is_not_pushed_as_if_it_were_made_here(run: Path, tmp_path: Path) -> None:
    (run.parent / "bare").mkdir()
    for name in ("config.yaml", "environment.json", "problems.parquet", "iteration_0000"):
        (run.parent / "bare" / name).symlink_to(run / name)
    done = command("push", run.parent / "bare", "--to", tmp_path / "out", endpoint=NOWHERE, cache=tmp_path)
    assert done.returncode == 2
    assert "has no checkpoint of 'policy': it is the model the run started from" in done.stderr


@pytest.mark.parametrize(
    ("token", "status", "told"),
    [
        (None, 2, "no token for the Hugging Face hub; set HF_TOKEN, or log in with: hf auth login"),
        ("hf_wrong", 1, "the hub does not know this token (401)"),
        (READER, 1, "this token may not write to org/other (403)"),
    ],
)
def test_a_token_that_does_not_do_is_one_line(
    token: str | None, status: int, told: str, run: Path, hub: Hub, tmp_path: Path
) -> None:
    done = command("push", run, "--to", "org/other", endpoint=hub.address, cache=tmp_path, token=token)
    assert done.returncode == status, done
    assert done.stderr.startswith(f"selftrain: {told}") and done.stderr.count("\n") == 1
    assert "models/org/other" not in hub.repositories


def test_a_hub_that_does_not_answer_is_one_line(run: Path, tmp_path: Path) -> None:
    done = command("push", run, "--to", "org/other", endpoint=NOWHERE, cache=tmp_path)
    assert done.returncode == 1, done
    assert done.stderr.startswith(f"selftrain: {NOWHERE} does not answer") and done.stderr.count("\n") == 1


def test_a_public_repository_gets_nothing_that_was_to_be_private(run: Path, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["models/org/public"], hub.private["models/org/public"] = {}, False
    done = command("push", run, "--to", "org/public", "--private", endpoint=hub.address, cache=tmp_path)
    assert done.returncode == 1 and "org/public is there already, and public; nothing was pushed" in done.stderr
    assert hub.repositories["models/org/public"] == {}
