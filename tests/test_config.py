"""The grammar of configs: composition, overrides, components, and what a mistake says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import ConfigError, apply_overrides, check_tree, instantiate, load_config, to_tree, to_yaml
from selftrain.rewards.outcome import Outcome
from selftrain.sampling.scripted import Scripted
from selftrain.schema import Component, RunConfig


def load(folder: Path, text: str, *overrides: str) -> RunConfig:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, overrides)


def test_what_is_not_given_has_its_default(tmp_path: Path) -> None:
    config = load(tmp_path, "run: {name: mine}\ngrow: {draft: {n: 3}}")
    assert (config.run.name, config.run.seed, config.run.part_size) == ("mine", 0, 1024)
    assert config.grow["draft"].n == 3
    assert config.grow["draft"].sampler == Component("transformers", to_tree(instantiate_default("transformers")))
    assert config.loop.stop is None
    assert config == check_tree(to_tree(config))


def instantiate_default(name: str) -> object:
    return instantiate("sampler", Component(name))


def test_include_is_below_the_file_and_overrides_are_above(tmp_path: Path) -> None:
    (tmp_path / "pieces").mkdir()
    (tmp_path / "pieces" / "base.yaml").write_text("run: {seed: 1, name: base}\ngrow: {draft: {n: 1, top_k: 5}}")
    (tmp_path / "pieces" / "more.yaml").write_text("include: base.yaml\nrun: {seed: 2}\ngrow: {draft: {n: 2}}")
    text = "include: [pieces/more.yaml]\ngrow: {draft: {n: 3}, second: {n: 9}}"
    config = load(tmp_path, text, "grow.draft.n=4", "run.name=mine")
    assert (config.run.name, config.run.seed) == ("mine", 2)
    assert list(config.grow) == ["draft", "second"]
    assert (config.grow["draft"].n, config.grow["draft"].top_k, config.grow["second"].n) == (4, 5, 9)


def test_later_include_wins(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("run: {seed: 1, name: a}")
    (tmp_path / "b.yaml").write_text("run: {seed: 2}")
    config = load(tmp_path, "include: [a.yaml, b.yaml]")
    assert (config.run.name, config.run.seed) == ("a", 2)


@pytest.mark.parametrize(("text", "override"), [("draft: null", ""), ("other: {}", "grow.draft=null")])
def test_null_removes_an_entry(tmp_path: Path, text: str, override: str) -> None:
    (tmp_path / "base.yaml").write_text("grow: {draft: {n: 1}, again: {n: 2}}")
    config = load(tmp_path, f"include: base.yaml\ngrow: {{{text}}}", *filter(None, [override]))
    assert "draft" not in config.grow and config.grow["again"].n == 2


def test_null_removes_what_is_there_by_default(tmp_path: Path) -> None:
    text = "reward: {sources: {verdict: null, mine: outcome}}\ntasks: {arithmetic: {sizes: {transfer: null}}}"
    config = load(tmp_path, text, "tasks.arithmetic.sizes.val=null")
    assert list(config.reward.sources) == ["mine"]
    assert config.tasks["arithmetic"].options["sizes"] == {"demonstrations": 500, "train": 4000, "test": 500}
    assert load(tmp_path, "run: {}", "reward.sources.verdict=null").reward.sources == {}
    # A null for a field is its default, and the default mapping itself is not touched.
    assert list(load(tmp_path, "reward: null\ngrow: {draft: {n: null}}").reward.sources) == ["verdict"]
    assert load(tmp_path, "grow: {draft: {n: null}}").grow["draft"].n == 8


def test_override_reaches_into_what_no_file_names(tmp_path: Path) -> None:
    config = load(
        tmp_path, "run: {}", "learners.policy.examples.own.from=draft", "learners.policy.optim.betas=[0.8,0.9]"
    )
    policy = config.learners["policy"]
    assert policy.examples["own"].source == "draft"
    assert policy.optim.betas == (0.8, 0.9)


def test_from_is_written_from_wherever_it_is_told(tmp_path: Path) -> None:
    config = load(tmp_path, "learners: {policy: {examples: {own: {from: draft}}}}\nwarmup: {policy: {from: gold}}")
    assert config.learners["policy"].examples["own"].source == "draft"
    assert config.warmup["policy"].source == "gold"
    tree = to_tree(config)
    assert tree["learners"]["policy"]["examples"]["own"]["from"] == "draft"
    assert "source" not in tree["warmup"]["policy"]
    with pytest.raises(
        ConfigError, match=r"learners\.policy\.examples\.own\.fron: unknown key \(did you mean 'from'\?\)"
    ):
        load(tmp_path, "learners: {policy: {examples: {own: {fron: draft}}}}")


def test_component_is_a_name_or_a_mapping(tmp_path: Path) -> None:
    bare = load(tmp_path, "grow: {draft: {sampler: scripted}}")
    full = load(tmp_path, "grow: {draft: {sampler: {kind: scripted, accuracy: 0.25}}}")
    assert bare.grow["draft"].sampler.options == {"accuracy": 0.5, "unparsed": 0.0, "length": 8}
    assert instantiate("sampler", full.grow["draft"].sampler) == Scripted(accuracy=0.25)
    config = load(tmp_path, "reward: {sources: {a: outcome, b: {kind: outcome, wrong: -1}}}")
    assert instantiate("reward", config.reward.sources["b"]) == Outcome(wrong=-1.0)
    assert list(config.reward.sources) == ["verdict", "a", "b"]


@pytest.mark.parametrize("given", ["", "sampler: transformers", "sampler: {dtype: float32}", "sampler: null"])
def test_an_option_reaches_a_component_whose_kind_is_a_bare_name_or_the_default(tmp_path: Path, given: str) -> None:
    config = load(tmp_path, f"grow: {{draft: {{{given}}}}}", "grow.draft.sampler.batch_size=64")
    assert config.grow["draft"].sampler.kind == "transformers"
    assert config.grow["draft"].sampler.options["batch_size"] == 64
    assert config.grow["draft"].sampler.options["dtype"] == ("float32" if "dtype" in given else "auto")


def test_options_of_every_kind_of_component_lie_over_its_bare_name(tmp_path: Path) -> None:
    names = "reward: {sources: {mine: outcome}}\ntasks: {arithmetic: {verifier: exact_answer}}\n"
    (tmp_path / "names.yaml").write_text(
        f"{names}learners: {{policy: {{objective: nll}}}}\ngrow: {{a: {{sampler: scripted}}}}"
    )
    text = """
include: names.yaml
reward: {sources: {mine: {right: 2}, verdict: {wrong: -1}}}
tasks: {arithmetic: {verifier: {ignore_case: true}}, plain: {kind: arithmetic, verifier: {tolerance: 0.5}}}
learners: {policy: {objective: {normalise: sequences}}}
grow: {a: {sampler: {accuracy: 0.25}}}
"""
    config = load(tmp_path, text)
    assert {name: source.options["right"] for name, source in config.reward.sources.items()} == {
        "verdict": 1,
        "mine": 2,
    }
    assert config.reward.sources["verdict"].options["wrong"] == -1
    verifiers = [config.tasks[name].verifier for name in ("arithmetic", "plain")]
    assert [(v.kind, v.options.get("ignore_case"), v.options.get("tolerance")) for v in verifiers] == [
        ("exact_answer", True, None),
        ("numeric_answer", None, 0.5),
    ]
    assert config.learners["policy"].objective == Component("nll", {"normalise": "sequences"})
    assert config.grow["a"].sampler.options["accuracy"] == 0.25
    # A bare name on top is another component: it takes nothing over.
    assert load(tmp_path, text, "grow.a.sampler=transformers").grow["a"].sampler.kind == "transformers"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: scripted, accurcy: 1}", r"grow\.draft\.sampler\.accurcy: unknown key \(did you mean 'accuracy'\?\)"),
        ("{kind: scripted, accuracy: high}", r"grow\.draft\.sampler\.accuracy: .*'high'.*Float"),
        ("{kind: scripted, accuracy: 2}", r"grow\.draft\.sampler: accuracy 2\.0 and unparsed 0\.0 must be shares"),
        ("{bach_size: 1}", r"grow\.draft\.sampler\.bach_size: unknown key \(did you mean 'batch_size'\?\)"),
        ("{kind: 3}", r"grow\.draft\.sampler: needs a kind \(known: .*transformers.*\)"),
        ("[scripted]", r"grow\.draft\.sampler: expected a mapping of names, got \['scripted'\]"),
        ("scriptd", r"grow\.draft\.sampler: unknown sampler 'scriptd' \(did you mean 'scripted'\?"),
    ],
)
def test_second_pass_names_the_place_of_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, f"grow: {{draft: {{sampler: {text}}}}}")
    assert "\n" not in str(caught.value)


def test_task_is_named_by_its_kind_and_brings_its_verifier(tmp_path: Path) -> None:
    text = "tasks: {arithmetic: {modulus: 7}, mine: {kind: arithmetic, verifier: exact_answer, prompt: {template: x}}}"
    config = load(tmp_path, text)
    named, mine = config.tasks["arithmetic"], config.tasks["mine"]
    assert (named.kind, named.options["modulus"], named.verifier.kind) == ("arithmetic", 7, "numeric_answer")
    assert (mine.kind, mine.options["modulus"], mine.verifier.kind) == ("arithmetic", 100, "exact_answer")
    assert mine.prompt.template == "x"
    assert to_tree(config)["tasks"]["mine"]["modulus"] == 100  # Options stand beside the generic keys.


def test_unknown_key_of_a_task_may_mean_either_kind_of_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.arithmetic\.modulos: unknown key \(did you mean 'modulus'\?\)"):
        load(tmp_path, "tasks: {arithmetic: {modulos: 7}}")
    with pytest.raises(ConfigError, match=r"tasks\.arithmetic\.verifyer: unknown key \(did you mean 'verifier'\?\)"):
        load(tmp_path, "tasks: {arithmetic: {verifyer: exact_answer}}")


COMPONENT = '''
from dataclasses import dataclass


@dataclass(frozen=True)
class Near:
    """A verifier with an option."""

    within: float = 0.5

    def __call__(self, problem, response):
        return abs(float(response) - float(problem.answer)) <= self.within


def judge(problem, response):
    return response == problem.answer
'''


def test_component_of_your_own_by_file_has_its_options_checked(tmp_path: Path) -> None:
    file = tmp_path / "near.py"
    file.write_text(COMPONENT)
    config = load(tmp_path, "tasks: {arithmetic: {}}", f"tasks.arithmetic.verifier={{kind: '{file}:Near', within: 2}}")
    chosen = config.tasks["arithmetic"].verifier
    assert chosen == Component(f"{file}:Near", {"within": 2.0})
    assert instantiate("verifier", chosen).within == 2.0
    plain = load(tmp_path, f"tasks: {{arithmetic: {{verifier: '{file}:judge'}}}}")
    assert plain.tasks["arithmetic"].verifier == Component(f"{file}:judge")
    with pytest.raises(
        ConfigError, match=r"tasks\.arithmetic\.verifier\.wihtin: unknown key \(did you mean 'within'\?\)"
    ):
        load(tmp_path, f"tasks: {{arithmetic: {{verifier: {{kind: '{file}:Near', wihtin: 2}}}}}}")
    with pytest.raises(ConfigError, match=r"verifier: '.*:judge' is a plain function and takes no options: within"):
        load(tmp_path, f"tasks: {{arithmetic: {{verifier: {{kind: '{file}:judge', within: 2}}}}}}")
    file.with_name("bare.py").write_text("class Bare:\n    def __call__(self, problem, response): return True\n")
    with pytest.raises(ConfigError, match=r"verifier: '.*:Bare' is no dataclass and takes no options: within"):
        load(tmp_path, f"tasks: {{arithmetic: {{verifier: {{kind: '{tmp_path}/bare.py:Bare', within: 2}}}}}}")


def test_component_by_dotted_path(tmp_path: Path) -> None:
    config = load(tmp_path, "grow: {draft: {sampler: 'selftrain.sampling.scripted:Scripted'}}")
    assert isinstance(instantiate("sampler", config.grow["draft"].sampler), Scripted)


def test_resolved_yaml_reads_back_as_the_same_config(tmp_path: Path) -> None:
    text = """
tasks: {arithmetic: {sizes: {train: 5}, limit: {val: 3}}}
warmup: {policy: {from: gold, optim: {steps: 3}}}
grow: {draft: {stop: ["\\n\\n", "Q:"], sampler: scripted}}
learners: {policy: {init: previous, examples: {own: {from: draft, cap: 2}, gold: {from: gold, weight: 0.5}}}}
evaluate: {k: [1, 2], sampling: {temperature: 0.5}}
loop: {stop: {patience: 2}}
"""
    config = load(tmp_path, text)
    resolved = to_yaml(config)
    assert load(tmp_path, resolved) == config
    assert "from: gold" in resolved and config.grow["draft"].stop == ("\n\n", "Q:")


def test_interpolation_resolves(tmp_path: Path) -> None:
    config = load(tmp_path, "run: {seed: 5, name: 'seed-${run.seed}'}")
    assert config.run.name == "seed-5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runn: {}", r"^runn: unknown key \(did you mean 'run'\?\)$"),
        ("run: {seed: 1.5}", r"^run\.seed: .*1\.5.*Integer"),
        ("run: {seed: [1]}", r"^run\.seed: "),
        ("grow: {draft: {stop: 3}}", r"^grow\.draft\.stop: "),
        ("learners: [policy]", r"^learners: expected a mapping of names, got \['policy'\]$"),
        ("grow: {draft: 3}", r"^grow\.draft: expected a mapping of keys such as grow\.draft\.temperature, got 3$"),
        ("run: mine", r"^run: expected a mapping of keys such as run\.name, got 'mine'$"),
        ("run: {name: '${nothing}'}", r"nothing"),
        ("include: none.yaml", r"no such config file: .*none\.yaml"),
        ("include: 3", r"include: expected a file or a list of files, got 3$"),
        ("grow: {draft: {stop: {a: 1}}}", r"^grow\.draft\.stop: expected a list, got \{'a': 1\}$"),
        (
            "tasks: {arithmetic: {prompt: hello}}",
            r"^tasks\.arithmetic\.prompt: expected a mapping of keys such as tasks\.arithmetic\.prompt\.template, "
            r"got 'hello'$",
        ),
        ("tasks: {arithmetic: {sizes: [1]}}", r"^tasks\.arithmetic\.sizes: expected a mapping of names, got \[1\]$"),
        (
            "learners: {policy: {examples: {own: draft}}}",
            r"^learners\.policy\.examples\.own: expected a mapping of keys such as .*\.examples\.own\.from,",
        ),
        ("tasks: {arithmetic: {prompt: {templte: x}}}", r"prompt\.templte: unknown key \(did you mean 'template'\?\)$"),
        ("loop: {stop: {metrc: x}}", r"^loop\.stop\.metrc: unknown key \(did you mean 'metric'\?\)$"),
        ("launch: {place: elsewhere}", r"^launch\.place: .*'inline', 'processes'"),
    ],
)
def test_mistakes_are_one_line_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load(tmp_path, text)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Bounded:
    """A component whose options depend on each other."""

    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


def test_what_a_component_refuses_is_a_config_error(tmp_path: Path) -> None:
    reference = f"{__file__}:Bounded"
    with pytest.raises(ConfigError, match=r"^grow\.draft\.sampler: low 3 is above high 1$"):
        load(tmp_path, f"grow: {{draft: {{sampler: {{kind: '{reference}', low: 3}}}}}}")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("run.part_size=0", "at least 1, got 0"),
        ("grow.draft.sampler.batch_size=0", "at least 1, got 0"),
        ("grow.draft.sampler={kind: scripted, length: 0}", "at least 1, got 0"),
        ("grow.draft.sampler={kind: scripted, accuracy: .nan}", "accuracy nan"),
        ("grow.draft.top_p=0", "more than 0 and at most 1, got 0"),
        ("grow.draft.top_p=1.1", "at most 1, got 1.1"),
        ("grow.draft.top_k=-1", "at least 0, got -1"),
        ("grow.draft.temperature=.nan", "at least 0, got nan"),
        ("grow.draft.max_tokens=0", "at least 1"),
        ("evaluate.sampling.temperature=-1", "at least 0, got -1"),
        ("learners.policy.optim.lr=.inf", "more than 0, got inf"),
        ("learners.policy.optim.epochs=0", "more than 0"),
        ("learners.policy.optim.steps=0", "at least 1"),
        ("learners.policy.optim.betas=[0.9,1]", "less than 1, got 1"),
        ("learners.policy.optim.validation.fraction=1", "less than 1, got 1"),
        ("learners.policy.optim.validation.every=0", "at least 1"),
        ("warmup.policy.optim.warmup=1.5", "from 0 to 1, got 1.5"),
        ("learners.policy.examples.own.cap=0", "at least 1"),
        ("learners.policy.examples.own.weight=-1", "at least 0"),
        ("learners.policy.examples.own.weight=.inf", "got inf"),
        ("learners.policy.examples.own.reward_above=.nan", "finite"),
        ("reward.total.verdict=.nan", "finite"),
        ("reward.verify.seconds=0", "more than 0"),
        ("reward.verify.memory_mb=0", "at least 1"),
        ("reward.verify.max_errors=2", "from 0 to 1"),
        ("tasks.arithmetic.limit.val=-1", "at least 0, got -1"),
        ("loop.iterations=-1", "at least 0"),
        ("loop.stop.patience=0", "at least 1"),
        ("launch.verify_workers=0", "at least 1"),
    ],
)
def test_numbers_outside_their_range_are_refused(tmp_path: Path, override: str, told: str) -> None:
    place = override.partition("=")[0]
    text = "tasks: {arithmetic: {}}\nlearners: {policy: {examples: {own: {from: draft}}}}"
    with pytest.raises(ConfigError, match=rf"^{re.escape(place)}[.a-z]*: .*{re.escape(told)}") as caught:
        load(tmp_path, text, override)
    assert "\n" not in str(caught.value)


def test_a_component_of_your_own_states_ranges_beside_its_fields(tmp_path: Path) -> None:
    file = tmp_path / "ranged.py"
    file.write_text(RANGED)
    with pytest.raises(ConfigError, match=r"^grow\.draft\.sampler\.lanes\.b: must be at least 1, got 0$"):
        load(tmp_path, "run: {}", f"grow.draft.sampler={{kind: '{file}:Ranged', lanes: {{a: 1, b: 0}}}}")


RANGED = """
from __future__ import annotations
from dataclasses import dataclass, field
from selftrain.ranges import Count


@dataclass(frozen=True)
class Ranged:
    lanes: dict[str, Count] = field(default_factory=dict)
"""


@pytest.mark.parametrize("override", ["run.seed", "=3", "a..b=1", "[=1", "run.=1"])
def test_what_is_no_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="is no override; write key=value"):
        load(tmp_path, "run: {}", override)


def test_overrides_lie_over_a_plain_tree() -> None:
    base: dict[str, Any] = {"grow": {"draft": {"n": 2, "sampler": "scripted"}}, "run": {"name": "${grow.draft.n}"}}
    tree = apply_overrides(base, ["grow.draft.sampler.length=3", "grow.draft.n=5"])
    assert tree == {"grow": {"draft": {"n": 5, "sampler": {"kind": "scripted", "length": 3}}}, "run": {"name": 5}}
    assert base["grow"]["draft"] == {"n": 2, "sampler": "scripted"}
    with pytest.raises(ConfigError, match=r"'tasks\.arithmetic\.sizes=\{'.*quote a value with braces") as caught:
        apply_overrides(base, ["tasks.arithmetic.sizes={"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "value"), [("####", "####"), ("#1", "#1"), (" # ", " # "), ('"#"', "#"), ("a", "a")])
def test_an_override_may_begin_with_a_hash(text: str, value: str) -> None:
    assert apply_overrides({}, [f"a.b={text}"]) == {"a": {"b": value}}
