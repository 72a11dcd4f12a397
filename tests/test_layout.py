"""The shape of the package: layers, light imports, tables and configs that hold what they name."""

from __future__ import annotations

import ast
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from selftrain import registry
from selftrain.config import check_tree, load_config, read_tree, to_tree
from selftrain.train_config import is_fit

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "selftrain"

LAYERS = [
    {
        "types",
        "events",
        "seeds",
        "intervals",
        "ranges",
        "machine",
        "digests",
        "errors",
        "files",
        "columnar",
        "nested",
        "board",
        "awaiting",
        "deadline",
        "marked",
        "__init__",
    },
    {"registry"},
    {"schema", "compose"},
    {"config"},
    {"encoding", "train_config"},
    {"artifacts", "workers", "prompts", "models", "budget", "sandbox"},
    {"records", "judging", "hub", "rollouts", "mathematics", "mirror", "places"},
    {"asking", "golds"},
    {"tasks", "verifiers", "sampling", "search", "rewards", "advantages", "objectives", "protocols", "serving"},
    {
        "verification",
        "selection",
        "evaluation",
        "best_of",
        "training",
        "regrading",
        "auditing",
        "monitors",
        "labelling",
        "estimating",
        "spending",
    },
    {"planning", "pairing", "prm_evaluation", "placing"},
    {"session"},
    {"drawing"},
    {"stages"},
    {"checks"},
    {"adoption", "rationing"},
    {"report", "loop", "jobs"},
    {"push"},
    {"commands"},
    {"cli"},
]
"""From the bottom up; what stands in one layer does not import what stands beside it."""
LEVEL = {name: level for level, layer in enumerate(LAYERS) for name in layer}

HEAVY = {
    "torch",
    "transformers",
    "vllm",
    "deepspeed",
    "datasets",
    "scipy",
    "pyarrow",
    "peft",
    "openai",
    "fsspec",
    "s3fs",
    "ray",
}
CONFIGS = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if not is_fit(read_tree(path))]


def modules() -> list[tuple[str, Path]]:
    """Top part of the name and file of every module; ``tasks`` and ``verifiers`` are links."""
    files = [path for folder in (PACKAGE, PACKAGE / "tasks", PACKAGE / "verifiers") for path in folder.rglob("*.py")]
    return sorted({(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in files})


def imported(path: Path) -> list[tuple[int, str]]:
    """Line and top part of everything of ours a file imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            inside = [f"selftrain.{alias.name}" for alias in node.names]
            names = inside if node.module == "selftrain" else [node.module or ""]
        else:
            continue
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("selftrain.")]
    return found


def test_every_module_has_its_layer() -> None:
    assert {name for name, _ in modules()} == set(LEVEL)


def test_imports_only_point_down() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name} imports {other}"
        for name, path in modules()
        for line, other in imported(path)
        if other in LEVEL and other != name and LEVEL[other] >= LEVEL[name]
    ]
    assert wrong == []
    assert sum(len(imported(path)) for _, path in modules()) > 100  # The walk sees imports at all.


@pytest.mark.parametrize(
    "code",
    [
        "import selftrain.cli",
        "import selftrain.cli; selftrain.cli.main(['config', 'configs/quickstart.yaml'])",
        "import selftrain.cli; selftrain.cli.main(['run', 'configs/quickstart.yaml', 'grow.draft.nn=1'])",
        "import selftrain.cli; selftrain.cli.main(['train', 'configs/train_dpo.yaml', 'learner.optim.lrr=1'])",
    ],
)
def test_light_commands_load_nothing_heavy(code: str) -> None:
    script = f"{code}\nimport sys; print(sorted(set(sys.modules) & {HEAVY!r}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_deepspeed_is_imported_only_where_it_is_used() -> None:
    """Never with a module, nor by accelerate as it saves a model."""
    for _, path in modules():
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            source = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
            assert not any(name.startswith("deepspeed") for name in [source, *names]), path
    from accelerate.utils import other

    from selftrain.models.checkpoint import plain

    plain()
    assert not other.is_deepspeed_available()


def test_help_answers_at_once() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-m", "selftrain.cli", "--help"], capture_output=True, text=True, cwd=ROOT, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: what stands in the way on a busy machine is not ours.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert "selftrain run configs/quickstart.yaml" in done.stdout
    assert min(seconds) < 0.3, seconds


@pytest.mark.parametrize("table", registry.TABLES)
def test_every_entry_of_a_table_resolves_to_a_dataclass(table: str) -> None:
    for name in registry.TABLES[table]:
        assert registry.options_class(table, name) is not None


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_loads_and_comes_back_from_its_own_tree(path: Path) -> None:
    config = load_config(path)
    assert config.tasks and config.grow and config.learners
    assert check_tree(to_tree(config)) == config


def test_the_last_word_of_a_test_run_is_what_it_did_not_check() -> None:
    command = [sys.executable, "-m", "pytest", "tests/test_mixed_run.py", "-q", "-p", "no:cacheprovider"]
    without = {name: value for name, value in os.environ.items() if name != "SELFTRAIN_DATA"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=without, check=True)
    assert done.stdout.splitlines()[-2:] == [
        "NOT CHECKED, because SELFTRAIN_DATA is not set (CONTRIBUTING.md says what it names):",
        "  tests/test_mixed_run.py, 2 skipped: Three tasks with a verifier each, and replayed data, in one iteration "
        "through the real vLLM.",
    ]


def test_tasks_and_verifiers_are_links_without_init() -> None:
    for name in ("tasks", "verifiers"):
        assert (PACKAGE / name).is_symlink() and (PACKAGE / name).readlink() == Path("..") / name
        assert not (ROOT / name / "__init__.py").exists()
