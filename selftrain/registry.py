"""Components by name.

A component is a frozen dataclass: its fields are its options, its methods do the work and import what is heavy.
Adding one is a file and a line in a table here. A component of your own needs no line: ``package.module:name``,
``path/to/file.py:name`` and the entry-point groups ``selftrain.verifiers`` and ``selftrain.tasks`` work wherever a
name does.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

TABLES: dict[str, dict[str, str]] = {
    "task": {
        "arithmetic": "selftrain.tasks.arithmetic:Arithmetic",
        "gsm8k": "selftrain.tasks.gsm8k:GSM8K",
        "svamp": "selftrain.tasks.svamp:SVAMP",
        "aqua": "selftrain.tasks.aqua:AQuA",
        "countdown": "selftrain.tasks.countdown:Countdown",
        "math": "selftrain.tasks.competition_math:MATH",
        "math500": "selftrain.tasks.math500:MATH500",
        "aime24": "selftrain.tasks.aime24:AIME24",
        "humaneval": "selftrain.tasks.humaneval:HumanEval",
        "mbpp": "selftrain.tasks.mbpp:MBPP",
        "jsonl": "selftrain.tasks.jsonl:JsonLines",
    },
    "verifier": {
        "math_answer": "selftrain.verifiers.math_answer:MathAnswer",
        "numeric_answer": "selftrain.verifiers.numeric_answer:NumericAnswer",
        "choice_answer": "selftrain.verifiers.choice_answer:ChoiceAnswer",
        "exact_answer": "selftrain.verifiers.exact_answer:ExactAnswer",
        "countdown": "selftrain.verifiers.countdown:Countdown",
        "all": "selftrain.verifiers.combined:AllOf",
        "any": "selftrain.verifiers.combined:AnyOf",
        "weighted": "selftrain.verifiers.combined:Weighted",
        "format_gate": "selftrain.verifiers.shaping:FormatGate",
        "length_penalty": "selftrain.verifiers.shaping:LengthPenalty",
        "trl_reward": "selftrain.verifiers.trl_reward:TRLReward",
        "http": "selftrain.verifiers.http_endpoint:HTTPEndpoint",
        "cascade": "selftrain.verifiers.cascade:Cascade",
        "unit_tests": "selftrain.verifiers.unit_tests:UnitTests",
    },
    "function": {},
    "sampler": {
        "transformers": "selftrain.sampling.transformers:Transformers",
        "vllm": "selftrain.sampling.vllm:VLLM",
        "openai": "selftrain.sampling.openai:OpenAI",
        "scripted": "selftrain.sampling.scripted:Scripted",
    },
    "search": {
        "best_of_n": "selftrain.search.whole:BestOfN",
        "weighted_best_of_n": "selftrain.search.whole:WeightedBestOfN",
        "beam": "selftrain.search.beam:Beam",
        "diverse_beam": "selftrain.search.beam:DiverseBeam",
        "lookahead": "selftrain.search.beam:Lookahead",
        "mcts_star": "selftrain.search.mcts_star:MCTSStar",
        "uct": "selftrain.search.uct:UCT",
        "monte_carlo": "selftrain.search.monte_carlo:MonteCarlo",
        "omega_prm": "selftrain.search.omega_prm:OmegaPRM",
    },
    "reward": {
        "outcome": "selftrain.rewards.outcome:Outcome",
        "implicit_prm": "selftrain.rewards.implicit_prm:ImplicitPRM",
        "value_head": "selftrain.rewards.value_head:ValueHead",
        "overlong": "selftrain.rewards.overlong:Overlong",
        "regularised": "selftrain.rewards.regularised:Regularised",
    },
    "objective": {
        "nll": "selftrain.objectives.nll:NLL",
        "dpo": "selftrain.objectives.paired:DPO",
        "robust_dpo": "selftrain.objectives.paired:RobustDPO",
        "ipo": "selftrain.objectives.paired:IPO",
        "slic": "selftrain.objectives.paired:SLiC",
        "nca": "selftrain.objectives.paired:NCA",
        "simpo": "selftrain.objectives.paired:SimPO",
        "orpo": "selftrain.objectives.paired:ORPO",
        "implicit_ce": "selftrain.objectives.labelled:ImplicitCE",
        "kto": "selftrain.objectives.labelled:KTO",
        "ppo_clip": "selftrain.objectives.policy_gradient:PPOClip",
        "reinforce": "selftrain.objectives.policy_gradient:Reinforce",
        "mse": "selftrain.objectives.values:MSE",
        "bce": "selftrain.objectives.values:BCE",
        "step_preference": "selftrain.objectives.values:StepPreference",
    },
    "advantage": {
        "rloo": "selftrain.advantages.group:RLOO",
        "grpo": "selftrain.advantages.group:GRPO",
        "dr_grpo": "selftrain.advantages.group:DrGRPO",
        "remax": "selftrain.advantages.group:ReMax",
        "reinforce_pp": "selftrain.advantages.reinforce_pp:ReinforcePP",
        "prime_rloo": "selftrain.advantages.prime:PrimeRLOO",
        "pure": "selftrain.advantages.min_form:PureMinForm",
    },
    "rollout": {
        # The first one that recognises a file reads it: the more particular stand first.
        "nemo-skills": "selftrain.rollouts.nemo_skills:NemoSkills",
        "verl": "selftrain.rollouts.verl:Verl",
        "prime-rl": "selftrain.rollouts.prime_rl:PrimeRL",
        "trl": "selftrain.rollouts.trl:TRL",
        "jsonl": "selftrain.rollouts.plain:Plain",
    },
    "protocol": {
        "lm_eval_gsm8k_cot": "selftrain.protocols.lm_eval_gsm8k_cot:LmEvalGSM8KCoT",
        "lighteval_gsm8k": "selftrain.protocols.lighteval_gsm8k:LightevalGSM8K",
        "lighteval_math_500": "selftrain.protocols.lighteval_math_500:LightevalMATH500",
    },
}


class UnknownComponent(ValueError):
    """A name or reference that leads to no component; the message says what is near."""


def nearest(name: str, names: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` where a name is close, else the list of names."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known: {', '.join(names) or 'none'}"


def resolve(kind: str, reference: str) -> Any:
    """The component a name of the table, an entry point, ``module:name`` or ``file.py:name`` stands for.

    Raises:
        UnknownComponent: nothing is found there, or importing it fails.
    """
    target = TABLES[kind].get(reference) or _entry_point(kind, reference)
    if target is not None:
        return _attribute(kind, target, importlib.import_module(target.partition(":")[0]))
    location, colon, _ = reference.rpartition(":")
    if not colon:
        raise UnknownComponent(
            f"unknown {kind} '{reference}' ({nearest(reference, TABLES[kind])}; "
            "or give package.module:name or path/to/file.py:name)"
        )
    try:
        module = _load_file(Path(location)) if location.endswith(".py") else importlib.import_module(location)
    except Exception as error:  # The user's module may raise anything when it is imported.
        raise UnknownComponent(f"cannot load {kind} '{reference}': {type(error).__name__}: {error}") from error
    return _attribute(kind, reference, module)


def build(kind: str, reference: str, options: Mapping[str, Any]) -> Any:
    """A component ready for use: a dataclass with its options filled in, or a plain function as it is."""
    component = resolve(kind, reference)
    if isinstance(component, type):
        return component(**options)
    if options:
        raise UnknownComponent(f"{kind} '{reference}' is a plain function and takes no options: {', '.join(options)}")
    return component


def options_class(kind: str, reference: str) -> type | None:
    """The dataclass that checks the options of a component; None where it takes none."""
    component = resolve(kind, reference)
    return component if isinstance(component, type) and dataclasses.is_dataclass(component) else None


def digest(kind: str, reference: str) -> str | None:
    """sha256 of the source file of a component from outside the tables; None for our own."""
    if reference in TABLES[kind]:
        return None
    resolve(kind, reference)
    location = (_entry_point(kind, reference) or reference).rpartition(":")[0]
    path = location if location.endswith(".py") else str(sys.modules[location].__file__)
    return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()[:16]


def _entry_point(kind: str, name: str) -> str | None:
    if ":" in name:  # A place in a module or file; looking through all installed packages takes its time.
        return None
    found = [point.value for point in entry_points(group=f"selftrain.{kind}s") if point.name == name]
    return found[0] if found else None


def _load_file(path: Path) -> ModuleType:
    """Import a file under a name made from its place, the same one in every process."""
    here = "" if path.expanduser().is_absolute() else "; a relative path begins in the folder the command is called in"
    path = path.expanduser().resolve()
    name = f"selftrain_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError(f"no such file: {path}{here}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(kind: str, reference: str, module: ModuleType) -> Any:
    name = reference.rpartition(":")[2]
    if not hasattr(module, name):
        public = [key for key in dir(module) if not key.startswith("_")]
        raise UnknownComponent(f"{kind} '{reference}': the module has no '{name}' ({nearest(name, public)})")
    return getattr(module, name)
